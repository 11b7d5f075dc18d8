package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
)

// github writes workflow commands, one line each, that GitHub Actions shows at File: errors for violations, warnings for
// warnings, notices for exceptions.
// https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
func (r *Report) github() []byte {
	var b strings.Builder
	for _, f := range r.findings() {
		cmd, title := "error", f.ID+" "+r.rule(f.ID).Title
		switch f.kind {
		case warning:
			cmd = "warning"
		case exception:
			cmd = "notice"
		}
		fmt.Fprintf(&b, "::%s file=%s,line=1,title=%s::%s\n", cmd, property(r.file()), property(title),
			data(f.Message+"\nfix: "+f.Remediation))
	}
	if r.Decision.Allow {
		fmt.Fprintf(&b, "::notice title=%s::%s\n", property("waybill gate "+r.Decision.Environment), data(r.subject()+" is allowed"))
	}
	return []byte(b.String())
}

// data escapes the text of a workflow command: without it a message could start a command of its own.
func data(s string) string {
	return strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A").Replace(clean(s))
}

// property escapes the value of a workflow command's property.
func property(s string) string {
	return strings.NewReplacer(":", "%3A", ",", "%2C").Replace(data(s))
}

// codeQuality is one entry of GitLab's report, a subset of Code Climate's.
// https://docs.gitlab.com/ci/testing/code_quality/#code-quality-report-format
type codeQuality struct {
	Description string `json:"description"`
	Check       string `json:"check_name"`
	Fingerprint string `json:"fingerprint"`
	Severity    string `json:"severity"` // info, minor, major, critical, blocker
	Location    struct {
		Path  string `json:"path"`
		Lines struct {
			Begin int `json:"begin"`
		} `json:"lines"`
	} `json:"location"`
}

func (r *Report) gitlab() ([]byte, error) {
	out := []codeQuality{}
	for _, f := range r.findings() {
		e := codeQuality{Description: token(f.ID + ": " + f.Message + " (fix: " + f.Remediation + ")"), Check: f.ID, Fingerprint: r.fingerprint(f), Severity: "info"}
		switch f.kind {
		case violation:
			e.Severity = map[string]string{"critical": "blocker", "high": "critical", "medium": "major"}[f.Severity]
			if e.Severity == "" {
				e.Severity = "minor"
			}
		case warning:
			e.Severity = "minor"
		}
		e.Location.Path = token(strings.ReplaceAll(r.file(), `\`, "/"))
		e.Location.Lines.Begin = 1
		out = append(out, e)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(out)
	return b.Bytes(), err
}
