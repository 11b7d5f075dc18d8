package evidence_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// The example of the DSSE specification (protocol.md).
func TestPAE(t *testing.T) {
	got := evidence.PAE("http://example.com/HelloWorld", []byte("hello world"))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; string(got) != want {
		t.Errorf("got %q", got)
	}
}

func TestBundleRoundTrip(t *testing.T) {
	id := strings.Repeat("ab", 32)
	raw, err := evidence.EncodeBundle(id, []byte(`{"a":"<&>"}`), []byte("sig"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := b.KeyID(); err != nil || got != id || string(b.DSSEEnvelope.Payload) != `{"a":"<&>"}` || string(b.DSSEEnvelope.Signatures[0].Sig) != "sig" {
		t.Errorf("%+v %v", b, err)
	}
	if _, err := evidence.EncodeBundle("xy", nil, nil); err == nil {
		t.Error("a malformed key id was encoded")
	}
}

func TestNewStatementRefuses(t *testing.T) {
	d := artifact.DigestOf(nil)
	if _, err := evidence.NewStatement("nonsense", "m", d, struct{}{}); err == nil {
		t.Error("unknown predicate type")
	}
	if _, err := evidence.NewStatement(evidence.TypeRelease, "m", "sha256:1", struct{}{}); err == nil {
		t.Error("malformed digest")
	}
	if _, err := evidence.NewStatement(evidence.TypeApproval, "m", d, json.RawMessage(`{"role":"x"}`)); err == nil {
		t.Error("incomplete approval")
	}
	if _, err := evidence.NewStatement(evidence.TypeTestResult, "m", d, json.RawMessage(`{"result":"GOOD","configuration":[]}`)); err == nil {
		t.Error("test result GOOD")
	}
	s, err := evidence.NewStatement(evidence.TypeCycloneDX, "m", d, json.RawMessage(`{"bomFormat":"CycloneDX","specVersion":"1.7","x":"`+strings.Repeat("x", artifact.MaxBundle)+`"}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Encode(); err == nil {
		t.Error("a statement that fits no bundle was encoded")
	}
}

func TestNames(t *testing.T) {
	typ, ok := evidence.TypeByName("evaluation")
	if !ok || typ != evidence.TypeEvaluation || evidence.NameOf(typ) != "evaluation" {
		t.Errorf("%q %v", typ, ok)
	}
	if typ, ok := evidence.TypeByName(evidence.TypeVSA); !ok || typ != evidence.TypeVSA {
		t.Errorf("%q %v", typ, ok)
	}
	if _, ok := evidence.TypeByName("nothing"); ok {
		t.Error("unknown name found")
	}
}

func corpus(f *testing.F, folder string) {
	f.Helper()
	files, err := filepath.Glob(filepath.Join("testdata", folder, "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatalf("no fixtures: %v", err)
	}
	for _, p := range files {
		raw, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
}

func FuzzParseBundle(f *testing.F) {
	corpus(f, "bundles")
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := evidence.ParseBundle(raw)
		if err != nil {
			return
		}
		id, err := b.KeyID()
		if err != nil {
			t.Fatalf("parsed without a key: %v", err)
		}
		out, err := evidence.EncodeBundle(id, b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig)
		if err != nil {
			t.Fatal(err)
		}
		again, err := evidence.ParseBundle(out)
		if err != nil || !bytes.Equal(again.DSSEEnvelope.Payload, b.DSSEEnvelope.Payload) {
			t.Fatalf("does not survive a round trip: %v", err)
		}
	})
}

func FuzzParseStatement(f *testing.F) {
	corpus(f, "statements")
	f.Fuzz(func(t *testing.T, raw []byte) {
		s, err := evidence.ParseStatement(raw)
		if err != nil {
			return
		}
		if _, err := artifact.ParseDigest(string(s.SubjectDigest())); err != nil {
			t.Fatalf("parsed with a bad subject: %v", err)
		}
		_ = evidence.ValidatePredicate(s.PredicateType, s.Predicate) // must not panic
	})
}
