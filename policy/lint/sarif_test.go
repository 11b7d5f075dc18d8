package lint_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/policy/lint"
)

// TestSARIFMatchesTheSchema validates the log of every open policy of the tests, of suppressed findings, of findings
// without a place and of a policy without findings.
func TestSARIFMatchesTheSchema(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set")
	}
	raw, err := os.ReadFile(filepath.Join(dir, "sarif-2.1.0", "sarif-schema-2.1.0.json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("https://example.com/schema", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("https://example.com/schema")
	if err != nil {
		t.Fatal(err)
	}
	logs := map[string]lint.Files{
		"safe":       {"p.rego": []byte("package p\n")},
		"suppressed": {"p.rego": []byte("package p\n\n# waybill:ignore FO-002 x is checked elsewhere\ndeny if input.x != 1\n")},
		"no reason":  {"p.rego": []byte("package p\n\n# waybill:ignore FO-002\ndeny if input.x != 1\n")},
		"broken":     {"p.rego": []byte("package p\n\ndeny if {\n")},
		"device":     {"d/p.rego": []byte("package waybill.device\n\nallow if not input.device.battery.charging\n")},
		"odd name":   {"a b/\u00fc#?%.rego": []byte("package p\n\ndeny if input.x != 1\n")},
	}
	for _, o := range opens {
		logs["open: "+o.name] = files(o, o.rego)
	}
	n := 0
	for name, fs := range logs {
		found := run(t, fs)
		n += len(found)
		if (len(found) == 0) != (name == "safe") {
			t.Errorf("%s: %d findings", name, len(found))
		}
		b, err := lint.SARIF(found, "1.0.0")
		if err != nil {
			t.Fatal(err)
		}
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	t.Logf("%d logs with %d findings", len(logs), n)
	if err := s.Validate(map[string]any{"runs": []any{}}); err == nil {
		t.Error("the schema accepts anything")
	}
}
