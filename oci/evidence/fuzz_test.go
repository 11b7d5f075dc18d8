package evidence_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// No predicate makes a reader panic, whichever type it claims, and what one type's reader takes can be made into a
// statement that the strict reader takes back.
func FuzzPredicate(f *testing.F) {
	types := []string{
		evidence.TypeEvaluation, evidence.TypeDataset, evidence.TypeApproval, evidence.TypeException, evidence.TypeDecision, evidence.TypeDeployment,
		evidence.TypeStatus, evidence.TypeVSA, evidence.TypeTestResult, evidence.TypeCycloneDX, evidence.TypeProvenance, evidence.TypeOMS,
		evidence.TypeRelease, evidence.TypeChannel, "https://example.com/review/v1",
		evidence.TypeVulns, evidence.TypeSPDX, evidence.TypeSPDX23,
	}
	files, err := filepath.Glob(filepath.Join("testdata", "predicates", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, p := range files {
		raw, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for i := range types {
			if len(types) > i && (i%3 == len(raw)%3 || i < 8) {
				f.Add(uint8(i), raw)
			}
		}
	}
	f.Add(uint8(8), []byte(`{"result":"WARNED","configuration":[{"uri":"https://example.com/s"}],"warnedTests":["a"]}`))
	f.Add(uint8(10), []byte(`{"buildDefinition":{},"runDetails":{"metadata":{"finishedOn":"2026-01-01T00:00:00Z"}}}`))
	f.Add(uint8(9), []byte(`{"bomFormat":"CycloneDX","specVersion":"1.7","metadata":{"timestamp":"2026-01-01T00:00:00Z"}}`))
	f.Add(uint8(15), []byte(`{"scanner":{"uri":"s","db":{"lastUpdate":"2026-01-01T00:00:00Z"},"result":[{"id":"CVE-1","severity":[{"method":"nvd","score":"9.1"}]}]},"metadata":{"scanFinishedOn":"2026-01-01T00:00:00Z"}}`))
	f.Add(uint8(16), []byte(`{"@graph":[{"type":"CreationInfo","created":"2026-01-01T00:00:00Z"}]}`))
	f.Add(uint8(17), []byte(`{"spdxVersion":"SPDX-2.3","packages":[],"creationInfo":{"created":"2026-01-01T00:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, n uint8, raw []byte) {
		typ := types[int(n)%len(types)]
		if evidence.ValidatePredicate(typ, raw) != nil {
			return
		}
		s, err := evidence.NewStatement(typ, "m", artifact.DigestOf(raw), json.RawMessage(raw))
		if err != nil {
			t.Fatalf("%s is valid and no statement: %v", typ, err)
		}
		if at := evidence.ClaimedTime(s); at.IsZero() && typ == evidence.TypeApproval {
			t.Fatal("an approval without a time")
		}
		b, err := s.Encode()
		if err != nil {
			return // too large
		}
		if _, err := evidence.ParseStatement(b); err != nil {
			t.Fatalf("%s: %v", typ, err)
		}
	})
}

// No custom type is, or looks like, one that Waybill knows.
func FuzzCustomType(f *testing.F) {
	for _, s := range []string{"https://example.com/x/v1", "https://slsa.dev/provenance/v1/", "https://github.com/waybill-ml/waybill/predicate/x", "urn:x:y", "http://a", "https://ex%41mple.com/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if evidence.CustomType(s) != nil {
			return
		}
		if _, ok := evidence.TypeByName(s); ok {
			t.Fatalf("%q is known", s)
		}
		for _, c := range s {
			if c <= ' ' || c > '~' {
				t.Fatalf("%q holds %q", s, c)
			}
		}
	})
}

func TestCustomType(t *testing.T) {
	for _, s := range []string{"https://example.com/review/v1", "https://example.com:8443/x", "http://example.com/Reviews", "https://in-toto.io/attestation/scai/v0.3"} {
		if err := evidence.CustomType(s); err != nil {
			t.Errorf("%s: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "review", "urn:x", "https://", "https:///x", "HTTPS://example.com/x", "https://Example.com/x", "https://u@example.com/x", "https://example.com/x#y",
		"https://example.com/x?y", "https://example.com/сhurn", "https://example.com/a b", "https://slsa.dev/provenance/v1", "https://slsa.dev/Provenance/v1",
		"https://slsa.dev/provenance/v1/", "https://github.com/waybill-ml/waybill/predicate/evaluation/v9", "https://github.com/Waybill-ML/waybill/x",
	} {
		if evidence.CustomType(s) == nil {
			t.Errorf("%q is accepted", s)
		}
	}
}
