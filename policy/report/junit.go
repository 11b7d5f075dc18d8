package report

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/policy/decision"
)

// JUnit XML in the strict form of Ant's tasks, which the readers of Jenkins, GitLab and GitHub accept as well.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name       string          `xml:"name,attr"`
		Package    string          `xml:"package,attr"`
		ID         int             `xml:"id,attr"`
		Timestamp  string          `xml:"timestamp,attr"` // without a zone, as the schema demands: UTC
		Hostname   string          `xml:"hostname,attr"`
		Tests      int             `xml:"tests,attr"`
		Failures   int             `xml:"failures,attr"`
		Errors     int             `xml:"errors,attr"`
		Skipped    int             `xml:"skipped,attr"`
		Time       string          `xml:"time,attr"`
		Properties []junitProperty `xml:"properties>property"`
		Cases      []junitCase     `xml:"testcase"`
		Out        string          `xml:"system-out"`
		Err        string          `xml:"system-err"`
	}
	junitProperty struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		Time    string        `xml:"time,attr"`
		Skipped *junitSkipped `xml:"skipped,omitempty"`
		Error   *junitFailure `xml:"error,omitempty"`
		Failure *junitFailure `xml:"failure,omitempty"`
	}
	junitSkipped struct {
		Message string `xml:"message,attr"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Type    string `xml:"type,attr"`
		Text    string `xml:",chardata"`
	}
)

// junit has one case for each rule, named by id and title: passes too, so that nobody takes a rule that did not run for
// one that passed. Warnings pass, since they do not deny, and are told in the suite's output; exceptions are skipped
// cases with the reason. No time is claimed: the rules are evaluated together.
func (r *Report) junit() ([]byte, error) {
	s := junitSuite{Name: "waybill gate " + r.Decision.Environment, Package: "waybill.gate", Hostname: "localhost", Time: "0",
		Timestamp: r.Time.UTC().Format("2006-01-02T15:04:05")}
	for _, p := range [][2]string{{"subject", r.Digest}, {"ref", r.Ref}, {"environment", r.Decision.Environment}, {"profile", r.Profile},
		{"policy", r.Policy}, {"policyDigest", r.Decision.PolicyDigest}, {"inputDigest", r.Decision.InputDigest}, {"verdict", r.Verdict}, {"allow", fmt.Sprint(r.Decision.Allow)}} {
		s.Properties = append(s.Properties, junitProperty{Name: p[0], Value: clean(p[1])})
	}
	of := map[string][]finding{}
	var order []string
	for _, f := range r.findings() {
		if of[f.ID] == nil {
			order = append(order, f.ID)
		}
		of[f.ID] = append(of[f.ID], f)
	}
	rows := r.Decision.Rules
	for _, id := range order {
		if !hasRule(rows, id) {
			rows = append([]decision.Rule{{ID: id, Title: "the policy could be evaluated", Severity: "critical", Status: decision.Errored}}, rows...)
		}
	}
	var out strings.Builder
	for _, x := range rows {
		c := junitCase{Name: token(x.ID + " " + x.Title), Class: token("waybill.gate." + r.Decision.Environment + "." + orDefault(r.rule(x.ID).Category, "policy")), Time: "0"}
		fs := of[x.ID]
		switch x.Status {
		case decision.Pass:
		case decision.Skipped:
			c.Skipped = &junitSkipped{Message: orDefault(clean(x.Detail), "skipped")}
			s.Skipped++
		case decision.Excepted:
			c.Skipped = &junitSkipped{Message: "excepted: " + orDefault(messages(fs), clean(x.Detail))}
			s.Skipped++
		case decision.Fail:
			if len(fs) > 0 && fs[0].kind == warning {
				fmt.Fprintf(&out, "warning: %s: %s\n", x.ID, messages(fs))
				break
			}
			c.Failure = failure(x.Severity, fs)
			s.Failures++
		default:
			c.Error = failure("error", fs)
			s.Errors++
		}
		s.Cases = append(s.Cases, c)
	}
	s.Tests, s.Out = len(s.Cases), out.String()
	b, err := xml.MarshalIndent(junitSuites{Suites: []junitSuite{s}}, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(append([]byte(xml.Header), bytes.TrimRight(b, "\n")...), '\n'), nil
}

func hasRule(rows []decision.Rule, id string) bool {
	for _, x := range rows {
		if x.ID == id {
			return true
		}
	}
	return false
}

func failure(typ string, fs []finding) *junitFailure {
	f := &junitFailure{Message: messages(fs), Type: typ}
	var b strings.Builder
	for _, x := range fs {
		fmt.Fprintf(&b, "%s\n", clean(x.Message))
		for _, e := range x.Evidence {
			fmt.Fprintf(&b, "  evidence %s\n", clean(e))
		}
	}
	if len(fs) > 0 {
		fmt.Fprintf(&b, "fix: %s\n", clean(fs[0].Remediation))
		if s := fs[0].Standards; len(s) > 0 {
			fmt.Fprintf(&b, "standards: %s\n", clean(strings.Join(s, ", ")))
		}
	}
	f.Text = b.String()
	return f
}

func messages(fs []finding) string {
	var out []string
	for _, f := range fs {
		out = append(out, clean(f.Message))
	}
	return strings.Join(out, "; ")
}

// token is xs:token: no newline, no space at the ends, none twice.
func token(s string) string { return strings.Join(strings.Fields(clean(s)), " ") }

func orDefault(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
