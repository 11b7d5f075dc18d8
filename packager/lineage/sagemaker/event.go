// Package sagemaker reads the event by which SageMaker's Model Registry tells that the state of a model package has changed, and
// fetches the model that was approved from S3.
package sagemaker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

// event is what is read of "SageMaker Model Package State Change".
type event struct {
	Source string `json:"source"`
	Type   string `json:"detail-type"`
	Region string `json:"region"`
	Time   string `json:"time"`
	Detail struct {
		Name      string `json:"ModelPackageName"`
		Group     string `json:"ModelPackageGroupName"`
		Version   int64  `json:"ModelPackageVersion"`
		ARN       string `json:"ModelPackageArn"`
		Status    string `json:"ModelPackageStatus"`
		Approval  string `json:"ModelApprovalStatus"`
		Inference *struct {
			Containers []struct {
				Data   string          `json:"ModelDataUrl"`
				Source json.RawMessage `json:"ModelDataSource"`
			} `json:"Containers"`
		} `json:"InferenceSpecification"`
		Metrics struct {
			Quality struct {
				Statistics struct {
					URI string `json:"S3Uri"`
				} `json:"Statistics"`
			} `json:"ModelQuality"`
		} `json:"ModelMetrics"`
		Customer map[string]string `json:"CustomerMetadataProperties"`
		Metadata struct {
			Commit      string `json:"CommitId"`
			Repository  string `json:"Repository"`
			GeneratedBy string `json:"GeneratedBy"`
		} `json:"MetadataProperties"`
	} `json:"detail"`
}

// approved is a model package that was approved.
type approved struct {
	lineage.Source
	name, version string
	region        string
	model         object
	metrics       *object
}

// object is where something lies in S3.
type object struct{ bucket, key string }

func (o object) String() string { return "s3://" + o.bucket + "/" + o.key }

var (
	arnRE    = regexp.MustCompile(`^arn:aws[a-z-]*:sagemaker:([a-z0-9-]+):([0-9]{12}):model-package/[A-Za-z0-9-]+(?:/[0-9]+)?$`)
	bucketRE = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
)

func bad(format string, args ...any) error {
	return diag.New(diag.Usage, "this is no event of a model package: %s", fmt.Sprintf(format, args...)).
		Hint("docs/lineage.md shows the rule for EventBridge: detail-type \"SageMaker Model Package State Change\"")
}

// parseEvent reads an event and demands that it tells of an approval.
func parseEvent(b []byte) (*approved, error) {
	var e event
	if err := json.Unmarshal(b, &e); err != nil {
		return nil, bad("%v", err)
	}
	d := e.Detail
	if e.Source != "aws.sagemaker" || e.Type != "SageMaker Model Package State Change" {
		return nil, bad("its source is %.80q and its detail-type %.80q", e.Source, e.Type)
	}
	arn := arnRE.FindStringSubmatch(d.ARN)
	if arn == nil {
		return nil, bad("ModelPackageArn is %.200q", d.ARN)
	}
	if d.Approval != "Approved" {
		return nil, diag.New(diag.Denied, "%s is not approved: its ModelApprovalStatus is %.80q", d.ARN, d.Approval).
			Hint("aws sagemaker update-model-package --model-package-arn %s --model-approval-status Approved   (whoever may approve it)", d.ARN)
	}
	if d.Status != "Completed" {
		return nil, diag.New(diag.Denied, "%s is not complete: its ModelPackageStatus is %.80q", d.ARN, d.Status).
			Hint("aws sagemaker describe-model-package --model-package-name %s", d.ARN)
	}
	if d.Inference == nil || len(d.Inference.Containers) != 1 {
		return nil, diag.New(diag.Unsupported, "%s does not have exactly one container, so not one model", d.ARN).
			Hint("aws sagemaker describe-model-package --model-package-name %s", d.ARN)
	}
	out := &approved{region: arn[1], name: d.Group}
	out.System, out.URI = "sagemaker", d.ARN
	c := d.Inference.Containers[0]
	if c.Data == "" {
		return nil, diag.New(diag.Unsupported, "%s has no ModelDataUrl: a model that is not one archive (ModelDataSource) is not read", d.ARN).
			Hint("aws s3 sync the model into a folder, then: waybill init FOLDER/model.onnx")
	}
	var err error
	if out.model, err = parseURI(c.Data); err != nil {
		return nil, bad("ModelDataUrl: %v", err)
	}
	if u := d.Metrics.Quality.Statistics.URI; u != "" {
		o, err := parseURI(u)
		if err != nil {
			return nil, bad("ModelMetrics: %v", err)
		}
		out.metrics = &o
	}
	if out.name == "" {
		out.name = d.Name
	}
	out.name = project.NameFor(path.Base(out.name) + ".x")
	if d.Version > 0 {
		out.version = strconv.FormatInt(d.Version, 10)
	}
	out.Add("model-package-arn", d.ARN)
	out.Add("model-package-group", d.Group)
	out.Add("model-package-version", out.version)
	out.Add("approval-status", d.Approval)
	out.Add("event-time", e.Time)
	out.Add("model-data-url", out.model.String())
	out.Add("git-commit", d.Metadata.Commit)
	out.Add("repository", d.Metadata.Repository)
	out.Add("generated-by", d.Metadata.GeneratedBy)
	for k, v := range d.Customer {
		out.Params = append(out.Params, lineage.Fact{Name: k, Value: v})
	}
	return out, nil
}

// parseURI reads s3://bucket/key.
func parseURI(s string) (object, error) {
	rest, ok := strings.CutPrefix(s, "s3://")
	bucket, key, cut := strings.Cut(rest, "/")
	if !ok || !cut || key == "" || len(key) > 1024 || !bucketRE.MatchString(bucket) || strings.ContainsAny(key, "\x00\r\n") {
		if u, err := url.Parse(s); err == nil {
			s = u.Redacted()
		}
		return object{}, fmt.Errorf("%.200q is no object in S3", s)
	}
	return object{bucket, key}, nil
}

// parseMetrics reads a document of SageMaker's model quality: groups of figures, each with its value. What is no figure is passed over.
func parseMetrics(b []byte) ([]lineage.Metric, error) {
	var groups map[string]json.RawMessage
	if err := json.Unmarshal(b, &groups); err != nil {
		return nil, err
	}
	if groups == nil {
		return nil, errors.New("it is null")
	}
	var out []lineage.Metric
	for g, raw := range groups {
		var figures map[string]json.RawMessage
		if json.Unmarshal(raw, &figures) != nil {
			continue
		}
		for name, raw := range figures {
			var f struct {
				Value *float64 `json:"value"`
			}
			if json.Unmarshal(raw, &f) == nil && f.Value != nil {
				out = append(out, lineage.Metric{Name: g + "." + name, Value: *f.Value})
			}
		}
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}
