package facts

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/provenance"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// What an author writes into waybill.yaml arrives in the facts, through the statements that pack makes and a publisher signs.
func TestWhatPackWritesDown(t *testing.T) {
	w := policytest.New(t, somePolicy)
	d := w.Add(t, policytest.Default())
	m, err := artifact.ParseModel(w.Manifests[d])
	if err != nil {
		t.Fatal(err)
	}
	p, err := project.Parse("waybill.yaml", []byte(`name: churn
version: 1.0.0
license: Apache-2.0
model: model.onnx
owner: risk team <risk@example.com>
risk: high
status: active
trained: 2026-10-01
base_models: [{name: base, version: 2, license: MIT, digest: "`+string(artifact.DigestOf([]byte("base")))+`", uri: "https://models.example/base"}]
considerations:
  users: [analysts]
  use_cases: [offers]
  limitations: [adults only]
  tradeoffs: [recall first]
  risks: [{name: bias, mitigation: slices}]
  fairness: [{group: new customers, harms: fewer offers, mitigation: floor}]
  energy: [{activity: training, kwh: 12.5}]
  oversight: a person reads each refusal
`))
	if err != nil {
		t.Fatal(err)
	}
	f := provenance.Facts{Name: p.Name, Version: p.Version, License: p.License, Owner: p.Owner, Risk: p.Risk, Status: p.Status, Trained: p.Trained,
		BaseModels: p.BaseModels, Considerations: p.Considerations, Manifest: d, Layers: m.Layers, Tool: "0.1.0", Compiled: true,
		Project: provenance.File{Path: "waybill.yaml", Digest: artifact.DigestOf([]byte("project"))},
		Inputs:  []provenance.File{{Path: "model.onnx", Digest: artifact.DigestOf([]byte("model"))}},
		Commit:  &lineage.Commit{ID: strings.Repeat("c", 40), URI: "git+https://git.example/team/churn"}}
	for typ, write := range map[string]func(provenance.Facts) ([]byte, error){evidence.TypeProvenance: provenance.SLSA, evidence.TypeCycloneDX: provenance.CycloneDX} {
		b, err := write(f)
		if err != nil {
			t.Fatal(err)
		}
		w.Attach(t, trust.RolePublisher, typ, d, json.RawMessage(b))
	}
	in := collected(t, w, d, seam{})
	if in.Model.Owner != p.Owner || in.Model.Risk != "high" || in.Model.Status != "active" || in.Model.Trained != p.Trained.Format(time.RFC3339) {
		t.Errorf("%+v", in.Model)
	}
	same(t, "base models", in.Model.BaseModels, []input.BaseModel{{Name: "base", Version: "2", License: "MIT", Digest: string(artifact.DigestOf([]byte("base"))), URI: "https://models.example/base"}})
	k := in.ModelCard
	same(t, "card", k, input.ModelCard{Present: k.Present, Path: k.Path, Digest: k.Digest, Bundle: in.Model.Declared, Users: []string{"analysts"}, UseCases: []string{"offers"},
		Limitations: []string{"adults only"}, Tradeoffs: []string{"recall first"}, Risks: []input.Risk{{Name: "bias", Mitigation: "slices"}},
		Fairness: []input.Fairness{{Group: "new customers", Harms: "fewer offers", Mitigation: "floor"}}, Energy: []input.Energy{{Activity: "training", KWh: 12.5}},
		Oversight: "a person reads each refusal"})
	if len(in.SBOM.Missing)+len(in.SBOM.Unlicensed) != 0 || in.SBOM.Components != len(m.Layers) {
		t.Errorf("%+v", in.SBOM)
	}
	if s := in.Provenance[0].Source; s.Commit != f.Commit.ID || s.URI != f.Commit.URI || s.Clean != "yes" {
		t.Errorf("%+v", s)
	}
	if in.Vulnerabilities.Scanned {
		t.Error("a bill without a scan is taken for one")
	}
}
