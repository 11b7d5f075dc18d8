package evidence

import (
	"strings"
	"testing"
)

// Statements as cosign writes them: v2's sign leaves out the empty predicate, attest writes version 0.1.
func TestStatementsOfCosign(t *testing.T) {
	const (
		head    = `{"_type":"https://in-toto.io/Statement/v1", "subject":[{"digest":{"sha256":"1678a013e1b1a0449bd46bc90877ad7286e0cc097b107ba72f829f441614adab"}}], `
		release = `"predicateType":"https://sigstore.dev/cosign/sign/v1"`
	)
	for _, c := range []struct {
		name, raw string
		ok        bool
	}{
		{"v2 sign", head + release + `}`, true},
		{"v3 sign", strings.Replace(head, `}}]`, `},"annotations":{}}]`, 1) + release + `,"predicate":{}}`, true},
		{"attest", strings.Replace(head, "Statement/v1", "Statement/v0.1", 1) + release + `,"predicate":{}}`, true},
		{"another version", strings.Replace(head, "Statement/v1", "Statement/v2", 1) + release + `,"predicate":{}}`, false},
		{"a release that says null", head + release + `,"predicate":null}`, false},
		{"no predicate in another type", head + `"predicateType":"https://slsa.dev/provenance/v1"}`, false},
	} {
		s, err := ParseStatement([]byte(c.raw))
		if (err == nil) != c.ok || c.ok && string(s.Predicate) != "{}" {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
