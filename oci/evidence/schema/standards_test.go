package schema_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	vsav1 "github.com/in-toto/attestation/go/predicates/vsa/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// in-toto's own types read and validate what we write.
func TestStatementsAreInToto(t *testing.T) {
	for _, f := range fixtures(t, verifytest.New(t)) {
		raw, err := os.ReadFile(filepath.Join(dir, "statements", f.name+".json"))
		if err != nil {
			t.Fatal(err)
		}
		var s intoto.Statement
		if err := protojson.Unmarshal(raw, &s); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if err := s.Validate(); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		if f.typ != evidence.TypeVSA {
			continue
		}
		p, err := s.Predicate.MarshalJSON()
		if err != nil {
			t.Fatal(err)
		}
		var v vsav1.VerificationSummary
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(p, &v); err != nil {
			t.Fatalf("%s: %v", f.name, err)
		}
		if v.GetVerificationResult() == "" || v.GetResourceUri() != "waybill:ml/churn" || v.GetPolicy().GetDigest()["sha256"] == "" {
			t.Errorf("%s: read as %v", f.name, &v)
		}
	}
}

func schemas(t *testing.T) string {
	t.Helper()
	d := os.Getenv("WAYBILL_SCHEMAS")
	if d == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not here")
	}
	return d
}

// Every field of SLSA's own example of a verification summary is in ours, with the same JSON kind.
func TestVSAHasSLSAsShape(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(schemas(t), "slsa", "examples", "verification-summary-3.json"))
	if err != nil {
		t.Fatal(err)
	}
	mine, err := os.ReadFile(filepath.Join(dir, "statements", "vsa-denied.json"))
	if err != nil {
		t.Fatal(err)
	}
	var theirs, ours map[string]any
	if err := json.Unmarshal(raw, &theirs); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(mine, &ours); err != nil {
		t.Fatal(err)
	}
	sameShape(t, "", theirs, ours)
}

func sameShape(t *testing.T, path string, theirs, ours map[string]any) {
	for k, v := range theirs {
		o, ok := ours[k]
		if !ok {
			if k != "dependencyLevels" { // optional, about dependencies that a model artifact doesn't have
				t.Errorf("%s.%s is missing", path, k)
			}
			continue
		}
		if a, b := fmt.Sprintf("%T", v), fmt.Sprintf("%T", o); a != b {
			t.Errorf("%s.%s is %s, SLSA has %s", path, k, b, a)
			continue
		}
		// names of tools and algorithms are free
		if m, ok := v.(map[string]any); ok && k != "version" && k != "digest" {
			sameShape(t, path+"."+k, m, o.(map[string]any))
		}
	}
}

// The bundles of sigstore's conformance suite are all keyless or over plain blobs: the light verifier must refuse every
// one of them, in its own words.
func TestConformanceBundlesAreRefused(t *testing.T) {
	root := filepath.Join(schemas(t), "sigstore-conformance")
	n := 0
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "bundle.sigstore.json" {
			return err
		}
		raw, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		n++
		if _, err := evidence.ParseBundle(raw); err == nil {
			t.Errorf("%s is accepted", p)
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("%d bundles, %v", n, err)
	}
}
