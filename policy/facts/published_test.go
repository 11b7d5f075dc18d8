package facts

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/evidence"
)

// CycloneDX's own valid documents are read, and give valid documents of facts; some show what must be found in them.
func TestPublishedCycloneDX(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published documents are not here")
	}
	files, err := filepath.Glob(filepath.Join(dir, "cyclonedx", "1.*", "valid-*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("%v, no files in %s", err, dir)
	}
	x := newInvariant(t)
	n := 0
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if evidence.ValidatePredicate(evidence.TypeCycloneDX, b) != nil || len(b) > 1<<16 {
			continue // signed documents with keys of other forms, or larger than a statement of the test
		}
		if !x.check(t, evidence.TypeCycloneDX, b) {
			t.Errorf("%s is not read", filepath.Base(f))
		}
		n++
		in, _ := believe(x.base, x.layers, x.base.Environment, believed(x.d, evidence.TypeCycloneDX, b))
		switch name := filepath.Base(f); {
		case strings.HasPrefix(name, "valid-vulnerability-"):
			v := in.Vulnerabilities
			if !v.Scanned || len(v.Findings) == 0 || v.Findings[0].Severity != "critical" || v.Findings[0].Package != "com.fasterxml.jackson.core/jackson-databind" {
				t.Errorf("%s: %+v", name, v)
			}
		case strings.HasPrefix(name, "valid-machine-learning-considerations-env-"):
			if k := in.ModelCard; len(k.Energy) == 0 || k.Energy[0].Activity != "training" || k.Energy[0].KWh != 0.4 {
				t.Errorf("%s: %+v", name, k)
			}
		}
	}
	t.Logf("%d documents", n)
	if n < 30 {
		t.Errorf("only %d", n)
	}
}
