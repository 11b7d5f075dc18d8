package trustfile_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/trust/trustfile"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

func TestRoundTrip(t *testing.T) {
	d := verifytest.New(t).Doc
	raw, err := trustfile.Encode(d)
	if err != nil {
		t.Fatal(err)
	}
	again, err := trustfile.Parse("trust.yaml", raw)
	if err != nil {
		t.Fatalf("%v\n%s", err, raw)
	}
	want, err := d.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := again.Digest(); err != nil || got != want {
		t.Errorf("digest %s (%v), want %s\n%s", got, err, want, raw)
	}
}

func TestParseRefuses(t *testing.T) {
	raw, err := trustfile.Encode(verifytest.New(t).Doc)
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	for _, c := range []struct{ name, text, says string }{
		{"empty", "", "empty"},
		{"unknown key", "colour: red\n" + good, "colour"},
		{"unknown key deep", strings.Replace(good, "    scope:", "    scopes:", 1), "scopes"},
		{"key twice", good + "threshold: 1\n", "threshold"},
		{"two documents", good + "---\nx: 1\n", "more than one"},
		{"rule broken", strings.Replace(good, "threshold: 1", "threshold: 9", 1), "threshold of 9"},
		{"no YAML", "a: [", "line"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := trustfile.Parse("trust.yaml", []byte(c.text))
			var d *diag.Error
			if !errors.As(err, &d) || d.Code != diag.Usage || !strings.Contains(err.Error(), c.says) || !strings.HasPrefix(err.Error(), "trust.yaml:") {
				t.Errorf("got %v", err)
			}
		})
	}
	_, err = trustfile.Parse("trust.yaml", []byte("schema: x\ncolour: red\n"))
	var d *diag.Error
	if !errors.As(err, &d) || d.Loc.Line != 2 {
		t.Errorf("no line: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	raw, err := trustfile.Encode(verifytest.New(f).Doc)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("a: &a [*a]"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := trustfile.Parse("x", raw)
		if err != nil {
			return
		}
		if err := d.Validate(); err != nil {
			t.Fatalf("parsed but invalid: %v", err)
		}
	})
}
