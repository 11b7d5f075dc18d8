package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"time"
)

// TestCase is one test of a policy.
type TestCase struct {
	Class, Name string
	Status      string // passed, failed, error, skipped
	Detail      string // why not passed
	Took        time.Duration
}

// TestsJUnit writes the tests of a policy as JUnit XML, one case for each, passes included.
func TestsJUnit(suite string, at time.Time, cases []TestCase) ([]byte, error) {
	s := junitSuite{Name: token("waybill policy test " + suite), Package: "waybill.policy", Hostname: "localhost", Tests: len(cases),
		Timestamp: at.UTC().Format("2006-01-02T15:04:05"), Properties: []junitProperty{{Name: "policy", Value: clean(suite)}}}
	total := time.Duration(0)
	for _, x := range cases {
		total += x.Took
		c := junitCase{Name: token(x.Name), Class: token(x.Class), Time: fmt.Sprintf("%.3f", x.Took.Seconds())}
		f := &junitFailure{Message: clean(x.Detail), Type: x.Status, Text: clean(x.Detail)}
		switch x.Status {
		case "passed":
		case "skipped":
			c.Skipped = &junitSkipped{Message: orDefault(clean(x.Detail), "skipped")}
			s.Skipped++
		case "failed":
			c.Failure = f
			s.Failures++
		default:
			c.Error = f
			s.Errors++
		}
		s.Cases = append(s.Cases, c)
	}
	s.Time = fmt.Sprintf("%.3f", total.Seconds())
	b, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{s}}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("junit: %w", err)
	}
	return append(append([]byte(xml.Header), bytes.TrimRight(b, "\n")...), '\n'), nil
}
