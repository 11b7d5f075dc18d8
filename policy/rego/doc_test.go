package rego_test

import (
	"os"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/rego"
)

// The example of the page on policies is one, and does what the page says.
func TestExampleOfThePage(t *testing.T) {
	page, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(strings.ReplaceAll(string(page), "\r\n", "\n"), "```rego\n")
	src, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("no example")
	}
	p, err := compile(t, []string{"rules/size_001.rego", src, "data.json", `{"limits": {"size": 10}}`})
	if err != nil {
		t.Fatal(err)
	}
	for profile, level := range map[string]string{"baseline": "warn", "strict": "deny"} {
		d := evaluateIn(t, p, func(in *input.Input) { in.Environment.Profile, in.Artifact.Size = profile, 11 })
		if got := row(t, d, "SIZE-001"); got.Level != level || d.Allow != (level == "warn") {
			t.Errorf("%s: %+v", profile, d)
		}
		d = evaluateIn(t, p, func(in *input.Input) {
			in.Environment.Profile, in.Artifact.Size, in.Environment.Data = profile, 11, map[string]any{"limits": map[string]any{"size": 11}}
		})
		if !d.Allow || len(d.Warnings) > 0 {
			t.Errorf("%s: %+v", profile, d)
		}
	}
	for _, b := range []string{"http.send", "net.lookup_ip_addr", "time.now_ns", "rand.intn", "uuid.rfc4122", "opa.runtime", "io.jwt.decode_verify"} {
		if !strings.Contains(string(page), "`"+b+"`") {
			t.Errorf("the page does not name %s", b)
		}
		for _, have := range rego.Capabilities().Builtins {
			if have.Name == b {
				t.Errorf("%s is there", b)
			}
		}
	}
}
