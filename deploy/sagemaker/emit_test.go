package sagemaker_test

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/sagemaker"
	"github.com/waybill-ml/waybill/deploy/targets"
)

func emitted(t *testing.T, more map[string]any, r deploy.Release) (map[string]any, error) {
	t.Helper()
	m := map[string]any{"name": "ep", "image": "123456789012.dkr.ecr.eu-central-1.amazonaws.com/churn", "endpoint": "churn", "region": "eu-central-1", "role": role}
	maps.Copy(m, more)
	es, err := targets.Parse([]map[string]any{m}, sagemaker.Kinds())
	if err != nil {
		t.Fatal(err)
	}
	ms, err := es[0].Settings.(targets.Emitter).Manifests(r)
	if err != nil {
		return nil, err
	}
	if len(ms) != 1 || ms[0].Tool != targets.CloudFormation || len(ms[0].Docs) != 1 {
		t.Fatalf("%+v", ms)
	}
	raw, err := json.Marshal(ms[0].Docs[0])
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	return doc, nil
}

var (
	withInstances = map[string]any{"kind": "sagemaker", "instance": "ml.c5.large", "count": 2, "traffic": "linear", "step": 20, "interval": "2m", "alarms": []any{"churn-5xx"}, "autoscaled": true, "env": map[string]any{"WAYBILL_LOG": "json"}}
	withoutAny    = map[string]any{"kind": "sagemaker-serverless", "memory": 3072, "concurrency": 5, "provisioned": 2}
)

// CloudFormation's properties are the members of the API's own calls: what the template says is sent as CloudFormation would send it, to
// the server that holds bodies against SageMaker's published model.
func TestManifests(t *testing.T) {
	for name, more := range map[string]map[string]any{"instances": withInstances, "serverless": withoutAny} {
		doc, err := emitted(t, more, release(1))
		if err != nil {
			t.Fatal(err)
		}
		s := newSite(t, model(t), name == "serverless", nil)
		c := s.client()
		// fill takes the properties of a resource; references are what the resources before are called.
		fill := func(of string, into any) {
			t.Helper()
			props := doc["Resources"].(map[string]any)[of].(map[string]any)["Properties"]
			raw, _ := json.Marshal(props)
			text := strings.NewReplacer(`{"Fn::GetAtt":["Model","ModelName"]}`, `"stack-model-1"`, `{"Fn::GetAtt":["EndpointConfig","EndpointConfigName"]}`, `"stack-config-1"`).Replace(string(raw))
			if of == "Endpoint" { // these are for updates, which SageMaker has in the same call only then
				var m map[string]any
				_ = json.Unmarshal([]byte(text), &m)
				delete(m, "RetainAllVariantProperties")
				delete(m, "ExcludeRetainedVariantProperties")
				raw, _ = json.Marshal(m)
				text = string(raw)
			}
			d := json.NewDecoder(strings.NewReader(text))
			d.DisallowUnknownFields()
			if err := d.Decode(into); err != nil {
				t.Fatalf("%s: %v", of, err)
			}
		}
		in, config, endpoint := &sdk.CreateModelInput{}, &sdk.CreateEndpointConfigInput{}, &sdk.CreateEndpointInput{}
		fill("Model", in)
		fill("EndpointConfig", config)
		fill("Endpoint", endpoint)
		in.ModelName, config.EndpointConfigName = aws.String("stack-model-1"), aws.String("stack-config-1")
		shift := endpoint.DeploymentConfig
		if endpoint.DeploymentConfig = nil; (shift == nil) != (name == "serverless") {
			t.Errorf("%s: shifting of traffic is %v", name, shift)
		}
		_, e1 := c.CreateModel(t.Context(), in)
		_, e2 := c.CreateEndpointConfig(t.Context(), config)
		_, e3 := c.CreateEndpoint(t.Context(), endpoint)
		if err := errors.Join(e1, e2, e3); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		s.Rest()
		st, err := s.target().Status(t.Context())
		if err != nil || st.Running() != release(1).Digest {
			t.Errorf("%s: what the template brought about is not recognised: %+v, %v", name, st, err)
		}
		if shift != nil {
			if _, err := c.UpdateEndpoint(t.Context(), &sdk.UpdateEndpointInput{EndpointName: endpoint.EndpointName, EndpointConfigName: config.EndpointConfigName, DeploymentConfig: shift}); err != nil && strings.Contains(err.Error(), "alidation") {
				t.Errorf("%s: the shifting of traffic: %v", name, err)
			}
		}
	}
}

func TestManifestsRefuse(t *testing.T) {
	for name, c := range map[string]struct {
		more map[string]any
		edit func(*deploy.Release)
		want error
		text string
	}{
		"weight": {withInstances, func(r *deploy.Release) { r.Weight = 10 }, deploy.ErrRelease, "10%"},
		"arch":   {withoutAny, func(r *deploy.Release) { r.Arches = []string{"arm64"} }, deploy.ErrPlatform, "arm64"},
		"no ECR": {withoutAny, func(r *deploy.Release) {
			r.Image = strings.Replace(r.Image, "123456789012.dkr.ecr.eu-central-1.amazonaws.com", "reg.example", 1)
		}, deploy.ErrRelease, "ECR"},
		"resolve": {map[string]any{"kind": "sagemaker-serverless", "env": map[string]any{"A": "{{resolve:ssm:x}}"}}, func(*deploy.Release) {}, nil, "resolve"},
	} {
		r := release(1)
		c.edit(&r)
		if _, err := emitted(t, c.more, r); err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
