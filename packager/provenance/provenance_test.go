package provenance

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	slsav1 "github.com/in-toto/attestation/go/predicates/provenance/v1"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/packager/lineage"
	"github.com/waybill-ml/waybill/packager/project"
)

func digest(c byte) artifact.Digest {
	return artifact.Digest("sha256:" + strings.Repeat(string(c), 64))
}

// facts fills every field; minimal those without which there is no bundle.
func facts() Facts {
	now := time.Unix(1700000000, 0)
	return Facts{
		Name: "churn", Version: "1.0.0", License: "Apache-2.0 OR MIT", Owner: "risk team", Manifest: digest('a'),
		Layers: []artifact.Layer{
			{Role: artifact.RoleGolden, Path: "golden.json", Digest: digest('1'), Size: 10, Personal: "none"},
			{Role: artifact.RoleModule, Path: "module.wasm", Digest: digest('2'), Size: 20, Target: "any"},
			{Role: artifact.RoleStep, Path: "steps/resize.wasm", Digest: digest('3'), Size: 30},
		},
		Model:   artifact.ModelConfig{Format: "wasm", Architecture: "transformer"},
		Project: File{"models/churn/waybill.yaml", digest('4'), 40}, WithoutSource: true,
		Inputs:   []File{{"model.onnx", digest('5'), 50}, {"with space/ä.md", digest('6'), 60}},
		Commit:   &lineage.Commit{ID: strings.Repeat("c", 40), URI: "git+https://git.example/team/churn"},
		Compiled: true, Kind: "ONNX, opset 17",
		Inports:  []artifact.Port{{Name: "X", Kind: "tensor", DType: "f32", Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "N"}, {Size: 30}}}},
		Outports: []artifact.Port{{Name: "p", Kind: "map", DType: "f32"}, {Name: "any", Kind: "tensor", DType: "f32"}},
		Steps:    []artifact.Step{{Kind: "step", Name: "resize", File: artifact.FileRef{Path: "steps/resize.wasm"}}},
		Metrics: &evidence.Evaluation{Metrics: []evidence.Metric{
			{Name: "roc_auc", Value: 0.984048, Direction: "higher", Slice: "all", CI: []float64{0.97, 0.99}},
			{Name: "log_loss", Value: 1e-9, Direction: "lower", Slice: "region=north"},
		}},
		Datasets: &evidence.Datasets{Datasets: []evidence.Dataset{
			{Name: "rows", Role: "train", Digest: digest('7'), License: "CC-BY-4.0", Rows: 100, PersonalData: "yes", URI: "https://data.example/rows"},
			{Name: "rows", Role: "test", Digest: digest('8'), License: "our own terms", PersonalData: "none"},
		}},
		Considerations: &project.Considerations{Users: []string{"analysts"}, UseCases: []string{"ranking"}, Limitations: []string{"adults only"},
			Tradeoffs: []string{"slower is better"}, Risks: []project.Risk{{Name: "bias", Mitigation: "reviewed"}, {Name: "drift"}}},
		Tool: "0.1.0", SourceDateEpoch: &now,
		Build: &debug.BuildInfo{GoVersion: "go1.26.8 X:loopvar", Deps: []*debug.Module{
			{Path: "github.com/b/c", Version: "v1.2.3+incompatible"},
			{Path: "example.com/local", Version: "v1.0.0", Replace: &debug.Module{Path: "../local"}},
			{Path: "example.com/fork", Version: "v1.0.0", Replace: &debug.Module{Path: "example.com/ours", Version: "v1.0.1"}},
		}},
	}
}

// declared is facts with what an author can declare for policies.
func declared() Facts {
	f, trained := facts(), time.Date(2026, 10, 1, 12, 0, 0, 0, time.UTC)
	f.Risk, f.Status, f.Trained = "high", "active", &trained
	f.BaseModels = []project.BaseModel{
		{Name: "base", Version: "2", Digest: digest('9'), License: "Apache-2.0", URI: "https://models.example/base"}, {Name: "teacher"},
	}
	f.Considerations.Fairness = []project.Fairness{{Group: "new customers", Harms: "fewer offers", Mitigation: "floor"}, {Group: "others"}}
	f.Considerations.Energy = []project.Energy{{Activity: "training", KWh: 12.5}, {Activity: "inference", KWh: 0}}
	f.Considerations.Oversight = "a person reads each refusal"
	return f
}

func minimal() Facts {
	return Facts{Name: "m", Version: "1", License: "MIT", Manifest: digest('a'), Tool: "0.1.0", Project: File{Path: "waybill.yaml", Digest: digest('b')},
		Layers: []artifact.Layer{{Role: artifact.RoleSource, Path: "m.gguf", Digest: digest('c'), Size: 1}},
		Inputs: []File{{"m.gguf", digest('c'), 1}}, Model: artifact.ModelConfig{Format: "gguf", ParamSize: "7B", Precision: "float32", Quantization: "q4_k_m"}}
}

// in-toto's own types read and validate the provenance.
func TestSLSA(t *testing.T) {
	for _, f := range []Facts{facts(), minimal()} {
		b, err := SLSA(f)
		if err != nil {
			t.Fatal(err)
		}
		var p slsav1.Provenance
		if err := protojson.Unmarshal(b, &p); err != nil {
			t.Fatalf("%v\n%s", err, b)
		}
		if err := p.Validate(); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
		d := p.GetBuildDefinition()
		if d.GetBuildType() != BuildType || p.GetRunDetails().GetBuilder().GetId() != BuilderID {
			t.Errorf("%s", b)
		}
		if got := d.GetResolvedDependencies(); f.Commit != nil && (len(got) != 3 || got[0].GetDigest()["gitCommit"] != f.Commit.ID || got[2].GetName() != "with space/ä.md") {
			t.Errorf("dependencies %v", got)
		}
		again, err := SLSA(f)
		if err != nil || string(again) != string(b) {
			t.Errorf("written twice it differs: %v", err)
		}
	}
}

// The same facts give these bytes, always.
func TestGolden(t *testing.T) {
	slsa, err := SLSA(minimal())
	if err != nil {
		t.Fatal(err)
	}
	want := `{"buildDefinition":{"buildType":"https://github.com/waybill-ml/waybill/buildtypes/pack/v1","externalParameters":{"project":{"digest":{"sha256":"` +
		strings.Repeat("b", 64) + `"},"name":"waybill.yaml"},"options":{"compile":false,"withoutSource":false}},"resolvedDependencies":[{"digest":{"sha256":"` +
		strings.Repeat("c", 64) + `"},"name":"m.gguf"}]},"runDetails":{"builder":{"id":"https://github.com/waybill-ml/waybill/pack/v1","version":{"waybill":"0.1.0"}}}}`
	if string(slsa) != want {
		t.Errorf("provenance is\n%s\nwant\n%s", slsa, want)
	}
	var digests []artifact.Digest
	for _, f := range []Facts{minimal(), facts()} {
		b, err := CycloneDX(f)
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, artifact.DigestOf(b))
	}
	if digests[0] != "sha256:8da9a4fdc4c383ac157f069f2f5949345edc432b1b5ac68d0b2e0dd2dfd55969" || digests[1] != "sha256:c66470273c9eafaaeeb1ddf00880a0ca038d94ffa89cb898f73d7732ab58b7f1" {
		t.Errorf("bills of materials have the digests %v", digests)
	}
}

// What the author declares stands where CycloneDX has a place for it, and in properties of ours where it has none.
func TestDeclared(t *testing.T) {
	b, err := CycloneDX(declared())
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Metadata struct {
			Component component `json:"component"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	c := doc.Metadata.Component
	want := []property{{"waybill:risk", "high"}, {"waybill:status", "active"}, {"waybill:trained", "2026-10-01T12:00:00Z"}, {"waybill:oversight", "a person reads each refusal"}}
	if !slices.Equal(c.Properties, want) || c.Authors[0].Name != "risk team" {
		t.Errorf("%+v", c.Properties)
	}
	if a := c.Pedigree.Ancestors; len(a) != 2 || a[0].Hashes[0].Content != digest('9').Hex() || a[0].Licenses[0].Expression != "Apache-2.0" || a[0].References[0].URL != "https://models.example/base" || a[1].Name != "teacher" {
		t.Errorf("%+v", a)
	}
	k := c.ModelCard.Considerations
	if len(k.Fairness) != 2 || k.Environment.Energy[0].Cost != (energyMeasure{12.5, "kWh"}) || k.Environment.Energy[0].Providers == nil {
		t.Errorf("%+v", k)
	}
}

// The published schema, with formats asserted and nothing fetched, accepts what is written; the fixtures of CycloneDX prove
// that it would refuse.
func TestCycloneDX(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not here")
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, f := range []string{"bom-1.7.schema.json", "spdx.schema.json", "jsf-0.82.schema.json", "cryptography-defs.schema.json"} {
		raw, err := os.ReadFile(filepath.Join(dir, "cyclonedx", "schema", f))
		if err != nil {
			t.Fatal(err)
		}
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.AddResource("http://cyclonedx.org/schema/"+f, doc); err != nil {
			t.Fatal(err)
		}
	}
	s, err := c.Compile("http://cyclonedx.org/schema/bom-1.7.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(b []byte) error {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		return s.Validate(doc)
	}
	for _, f := range []Facts{facts(), minimal(), declared()} {
		b, err := CycloneDX(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(b); err != nil {
			t.Errorf("%v\n%s", err, b)
		}
		unique(t, b)
	}
	for name, ok := range map[string]bool{
		"valid-machine-learning-1.7.json": true, "valid-component-data-1.7.json": true,
		"invalid-hash-sha256-1.7.json": false, "invalid-metadata-timestamp-1.7.json": false, "invalid-serialnumber-1.7.json": false,
	} {
		b, err := os.ReadFile(filepath.Join(dir, "cyclonedx", "1.7", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := check(b); (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// unique checks that references inside the bill are unique and lead somewhere, which the schema cannot say.
func unique(t *testing.T, b []byte) {
	t.Helper()
	refs := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if r, ok := v["bom-ref"].(string); ok {
				if refs[r] {
					t.Errorf("bom-ref %q stands twice", r)
				}
				refs[r] = true
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	var doc map[string]any
	if err := json.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	walk(doc)
	for _, d := range doc["dependencies"].([]any) {
		d := d.(map[string]any)
		list, _ := d["dependsOn"].([]any)
		for _, r := range append(list, d["ref"]) {
			if !refs[r.(string)] {
				t.Errorf("dependency %v leads nowhere", r)
			}
		}
	}
}
