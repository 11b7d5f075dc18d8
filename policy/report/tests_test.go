package report

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writeTests writes the JUnit files of policy test that the schemas must accept: one with every status, one without
// cases, and one for each text that a hostile policy could put into names and details.
func writeTests(t *testing.T, dir string) []string {
	t.Helper()
	suites := map[string][]TestCase{"builtin": {
		{Class: "main", Name: "test_a", Status: "passed", Took: 1500 * time.Microsecond},
		{Class: "main", Name: "test_b", Status: "failed", Detail: "main_test.rego:3: false"},
		{Class: "main", Name: "test_c", Status: "error", Detail: "ran longer than 300ms"},
		{Class: "main", Name: "test_d", Status: "skipped", Detail: "todo"},
		{Class: "main", Name: "test_e", Status: "skipped"},
		{Class: "MET-001", Name: "denied", Status: "failed"},
	}, "empty": nil}
	for i, s := range hostile() {
		var cases []TestCase
		for _, status := range []string{"passed", "failed", "error", "skipped"} {
			cases = append(cases, TestCase{Class: s, Name: s, Status: status, Detail: s, Took: time.Hour})
		}
		suites[fmt.Sprintf("hostile %d %s", i, s)] = cases
	}
	var files []string
	for name, cases := range suites {
		b, err := TestsJUnit(name, time.Date(2026, 11, 23, 9, 0, 0, 0, time.FixedZone("", 3600)), cases)
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, fmt.Sprintf("tests%d.xml", len(files)))
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, p)
	}
	return files
}
