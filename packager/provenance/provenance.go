// Package provenance writes down how a bundle was made: SLSA provenance v1 and a CycloneDX 1.7 bill of materials for machine
// learning. Equal facts give equal bytes: no time unless one is given, no name of a machine or a user, nothing about the
// system that packed. It reads nothing itself.
package provenance

import (
	"bytes"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

// BuildType names what pack does with a project: the meaning of the provenance's parameters (docs/format.md).
const BuildType = "https://github.com/waybill-ml/waybill/buildtypes/pack/v1"

// BuilderID names pack, run by whoever signs the provenance: nothing about the platform that it ran on is claimed.
const BuilderID = "https://github.com/waybill-ml/waybill/pack/v1"

// File is an input, with its path in the project.
type File struct {
	Path   string
	Digest artifact.Digest
	Size   int64
}

// Facts are all that the two documents are made of.
type Facts struct {
	Name, Version string
	License       string // SPDX expression
	Owner         string
	Risk, Status  string
	Trained       *time.Time
	BaseModels    []project.BaseModel
	Manifest      artifact.Digest
	Layers        []artifact.Layer // sorted by path
	Model         artifact.ModelConfig

	Project       File // waybill.yaml; its path as Git has it when there is a commit
	WithoutSource bool
	Inputs        []File          // every file of the project that was read, sorted by path
	Commit        *lineage.Commit // nil when there is none that describes the project exactly

	Compiled        bool
	Kind            string // of the model as trained: "ONNX, opset 17"; for files their format
	Inports         []artifact.Port
	Outports        []artifact.Port
	Steps           []artifact.Step // without the model itself
	Metrics         *evidence.Evaluation
	Datasets        *evidence.Datasets
	Considerations  *project.Considerations
	Tool            string           // version of Waybill
	Build           *debug.BuildInfo // of this program; nil when it has none
	SourceDateEpoch *time.Time       // SOURCE_DATE_EPOCH
	Source          *lineage.Source  // that the model came from; nil when it is the project's own
}

type digestSet map[string]string

func sha(d artifact.Digest) digestSet { return digestSet{"sha256": d.Hex()} }

// resource is SLSA's and in-toto's ResourceDescriptor.
type resource struct {
	URI    string    `json:"uri,omitempty"`
	Digest digestSet `json:"digest,omitempty"`
	Name   string    `json:"name,omitempty"`

	Annotations map[string]any `json:"annotations,omitempty"`
}

// SLSA writes the predicate of https://slsa.dev/provenance/v1.
func SLSA(f Facts) ([]byte, error) {
	type options struct {
		Compile       bool `json:"compile"`
		WithoutSource bool `json:"withoutSource"`
	}
	type parameters struct {
		Project resource `json:"project"`
		Options options  `json:"options"`
		From    string   `json:"from,omitempty"` // the system that the model came from
	}
	type definition struct {
		BuildType            string     `json:"buildType"`
		ExternalParameters   parameters `json:"externalParameters"`
		ResolvedDependencies []resource `json:"resolvedDependencies"`
	}
	type builder struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version"`
	}
	type details struct {
		Builder builder `json:"builder"`
	}
	deps := []resource{}
	if f.Commit != nil {
		deps = append(deps, resource{URI: f.Commit.URI, Digest: digestSet{"gitCommit": f.Commit.ID}, Name: "repository"})
	}
	for _, i := range f.Inputs {
		deps = append(deps, resource{Digest: sha(i.Digest), Name: i.Path})
	}
	from := ""
	if f.Source != nil {
		from = f.Source.System
		deps = append(deps, origin(f.Source)...)
	}
	version := map[string]string{"waybill": f.Tool}
	if f.Build != nil {
		version["go"] = f.Build.GoVersion
	}
	return encode(struct {
		BuildDefinition definition `json:"buildDefinition"`
		RunDetails      details    `json:"runDetails"`
	}{
		definition{
			BuildType:            BuildType,
			ExternalParameters:   parameters{resource{Digest: sha(f.Project.Digest), Name: f.Project.Path}, options{f.Compiled, f.WithoutSource}, from},
			ResolvedDependencies: deps,
		},
		details{builder{BuilderID, version}},
	})
}

// origin writes where the model came from: what was said of it there, the files that were read, and what its run declares.
func origin(s *lineage.Source) []resource {
	table := func(list []lineage.Fact) map[string]any {
		m := map[string]any{}
		for _, x := range list {
			m[x.Name] = x.Value
		}
		return m
	}
	r := resource{URI: s.URI, Name: s.System, Annotations: table(s.Facts)}
	if s.Document.SHA256 != "" {
		r.Digest = digestSet{"sha256": s.Document.SHA256}
	}
	if len(s.Params) > 0 {
		r.Annotations["parameters"] = table(s.Params)
	}
	if len(s.Metrics) > 0 {
		m := map[string]any{}
		for _, x := range s.Metrics {
			m[x.Name] = x.Value
		}
		r.Annotations["metrics"] = m
	}
	out := []resource{r}
	for _, x := range s.Files {
		d := digestSet{"sha256": x.SHA256}
		if x.MD5 != "" {
			d["md5"] = x.MD5
		}
		out = append(out, resource{Digest: d, Name: s.System + ":" + x.Path})
	}
	for _, x := range s.Inputs {
		out = append(out, resource{Digest: digestSet{"md5": x.MD5}, Name: s.System + ":" + x.Name})
	}
	return out
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode provenance: %w", err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
