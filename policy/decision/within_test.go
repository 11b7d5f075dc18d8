package decision

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// filled is a decision of so many rules that all failed with so many findings whose texts have so many bytes.
func filled(rules, findings, text int, letter string) Decision {
	d := New("sha256:"+strings.Repeat("1", 64), "sha256:"+strings.Repeat("2", 64))
	d.Environment = "prod"
	for r := range rules {
		id, long := fmt.Sprintf("X-%04d", r), strings.Repeat(letter, text)
		d.Rules = append(d.Rules, Rule{ID: id, Title: long, Severity: "high", Status: Fail, Level: "deny", Detail: long})
		for f := range findings {
			d.Violations = append(d.Violations, Result{ID: id, Severity: "high", Message: fmt.Sprintf("%02d %s", f, long), Remediation: long,
				Evidence: []string{long, long}, Standards: []string{long}})
		}
	}
	d.Close()
	return d
}

// Whatever a policy reports, what is recorded fits, denies, says that it was cut, and names every rule that failed as long
// as there is room for names.
func TestWithin(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	try := func(rules, findings, text int, letter string) {
		t.Helper()
		d := filled(rules, findings, text, letter)
		o := d.Within(MaxBytes)
		b, err := o.Canonical()
		if err != nil || len(b) > MaxBytes {
			t.Errorf("%d rules, %d findings of %d %q: %d bytes, %v", rules, findings, text, letter, len(b), err)
		}
		cut := d.size() > MaxBytes
		if o.Allow || cut != strings.Contains(o.Error, "findings were cut") {
			t.Errorf("%d rules, %d findings of %d %q: allow %t, error %q", rules, findings, text, letter, o.Allow, o.Error)
		}
		if again := o.Within(MaxBytes); again.size() != o.size() || again.Error != o.Error {
			t.Errorf("cut twice: %q", again.Error)
		}
		if rules <= 98 && findings > 0 && len(IDs(o.Violations)) != rules {
			t.Errorf("%d of %d failed rules are named", len(IDs(o.Violations)), rules)
		}
	}
	try(98, 65, 600, "x") // the default policy, all rules with every finding that rego lets through
	try(98, 65, 100, "\x01")
	try(98, 1, 2500, "\u00e4")
	try(98, 1, 2500, "\x01")
	try(500, 20, 64, "<")
	try(1024, 0, 500, "\u2028")
	try(1024, 1, 100, "x")
	try(3, 2, 10, "x")
	for range 20 {
		try(rng.IntN(200), rng.IntN(10), rng.IntN(300), []string{"x", "\"", "\xff", "\U0001F600"}[rng.IntN(4)])
	}
}

// A permission that does not fit is none.
func TestWithinNeverAllows(t *testing.T) {
	d := New("p", "i")
	for i := range 200 {
		id := fmt.Sprint(i)
		d.Rules = append(d.Rules, Rule{ID: id, Status: Fail, Level: "warn"})
		d.Warnings = append(d.Warnings, Result{ID: id, Message: strings.Repeat("x", 2000), Evidence: []string{}, Standards: []string{}})
	}
	if d.Close(); !d.Allow {
		t.Fatal("warnings deny")
	}
	o := d.Within(MaxBytes)
	if o.Allow || len(o.Warnings) != 200 || !strings.Contains(o.Error, "findings were cut") {
		t.Errorf("allow %t, %d warnings, %q", o.Allow, len(o.Warnings), o.Error)
	}
	if got := d.Within(d.size()); !got.Allow || got.Error != "" {
		t.Error("what fits was changed")
	}
	// Rules alone that are too many: the outcome stays a denial.
	for i := range 3000 {
		d.Rules = append(d.Rules, Rule{ID: fmt.Sprintf("%0100d", i), Status: Pass})
	}
	if o := d.Within(MaxBytes); o.Allow || len(o.Rules) != 0 || o.size() > MaxBytes || !strings.Contains(o.Error, "outcomes of 3200 rules") {
		t.Errorf("%t, %d rules, %q", o.Allow, len(o.Rules), o.Error)
	}
}
