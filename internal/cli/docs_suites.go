package cli

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
)

// suitesJSON holds the results of the test suites, written by TestSuiteTable (see there for the command).
//
//go:embed suites.json
var suitesJSON []byte

// suiteResult is one suite's counts and the cases that did not pass.
type suiteResult struct {
	Name        string     `json:"name"`
	What        string     `json:"what"`
	Passed      int        `json:"passed"`
	Failed      int        `json:"failed"`
	Unsupported int        `json:"unsupported"`
	Cases       []testCase `json:"cases"`
}

// suitesDoc renders the table of suites.
func suitesDoc() string {
	var all []suiteResult
	if err := json.Unmarshal(suitesJSON, &all); err != nil {
		panic(fmt.Sprintf("suites.json: %v", err)) // part of the binary: the tests see it
	}
	var b strings.Builder
	b.WriteString("\n## Test suites\n\nEach case is compiled and run; floats agree within 1e-3 relative and 1e-5 absolute, everything else exactly. Written by " +
		"`WAYBILL_CORPORA=DIR WAYBILL_UPDATE=1 go test ./internal/cli -run TestSuiteTable`, where DIR holds the suites, and kept true by the same test without WAYBILL_UPDATE.\n\n" +
		"| suite | cases | passed | failed | unsupported |\n|---|---|---|---|---|\n")
	for _, s := range all {
		fmt.Fprintf(&b, "| %s: %s | %d | %d | %d | %d |\n", s.Name, s.What, s.Passed+s.Failed+s.Unsupported, s.Passed, s.Failed, s.Unsupported)
	}
	b.WriteString("\nThe cases that do not pass:\n\n| suite | case | |\n|---|---|---|\n")
	for _, s := range all {
		for _, c := range s.Cases {
			fmt.Fprintf(&b, "| %s | %s | %s: %s |\n", s.Name, c.Name, c.Status, cell(c.Detail))
		}
	}
	return b.String()
}
