// Package report writes a decision of the gate in the forms that other tools read: SARIF 2.1.0, JUnit XML, Markdown,
// GitHub workflow commands and GitLab's Code Quality. Each form names every rule by its id; nothing is decided or looked
// up here. Equal reports give equal bytes.
//
// It imports policy/decision and the standard library only.
package report

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/policy/decision"
)

// Report is a decision and what is known about its rules and its subject. The writers do not change it.
type Report struct {
	Tool     string // version of this program
	Ref      string // as the user wrote it, by digest
	Digest   string // of the artifact
	Model    string
	Version  string
	Policy   string // name and version
	Profile  string
	Time     time.Time // of the decision
	NotAfter time.Time // end of the verdict
	Verdict  string    // digest of its bundle; "" when nothing was signed
	Record   string    // digest of the bundle with input and decision; "" likewise

	Decision decision.Decision
	Rules    []Rule // what the policy says of its rules; one for each of Decision.Rules

	File string // that findings are shown at: what a reviewer of the repository would open; "" means waybill.yaml
}

// Rule is what a policy says of one rule.
type Rule struct {
	ID, Title, Description, Severity, Remediation, Category string
	Standards                                               []string
	Mandatory                                               bool
	Help                                                    string // URL of the rule's page; "" for none
}

// Format is one of the forms.
type Format string

// Formats.
const (
	SARIF    Format = "sarif"
	JUnit    Format = "junit"
	Markdown Format = "markdown"
	GitHub   Format = "github"
	GitLab   Format = "gitlab"
)

// Formats lists them all.
func Formats() []Format { return []Format{GitHub, GitLab, JUnit, Markdown, SARIF} }

// Write writes r in one form. Errors are those of w, and of an unknown form.
func Write(w io.Writer, f Format, r *Report) error {
	var b []byte
	var err error
	switch f {
	case SARIF:
		b, err = r.sarif()
	case JUnit:
		b, err = r.junit()
	case Markdown:
		b = r.markdown()
	case GitHub:
		b = r.github()
	case GitLab:
		b, err = r.gitlab()
	default:
		return fmt.Errorf("unknown report format %q", f)
	}
	if err != nil {
		return fmt.Errorf("%s report: %w", f, err)
	}
	_, err = w.Write(b)
	return err
}

// file is where findings are shown.
func (r *Report) file() string {
	if r.File == "" {
		return "waybill.yaml"
	}
	return r.File
}

// rule finds what the policy says of a rule; a rule that it does not describe has only its row in the decision.
func (r *Report) rule(id string) Rule {
	if i := slices.IndexFunc(r.Rules, func(x Rule) bool { return x.ID == id }); i >= 0 {
		return r.Rules[i]
	}
	for _, x := range r.Decision.Rules {
		if x.ID == id {
			return Rule{ID: id, Title: x.Title, Severity: x.Severity}
		}
	}
	return Rule{ID: id, Title: id, Severity: "high"}
}

// kind is how a finding counts.
type kind int

const (
	violation kind = iota
	warning
	exception
)

// finding is one result with its kind.
type finding struct {
	decision.Result
	kind kind
	err  bool // the rule could not be evaluated
}

// findings lists violations, warnings and exceptions, in the decision's order. A decision that denies and names no
// finding (evaluation itself failed) has one that says so: a report never looks clean when the answer was no.
func (r *Report) findings() []finding {
	failed := map[string]bool{}
	for _, x := range r.Decision.Rules {
		failed[x.ID] = x.Status == decision.Errored
	}
	var out []finding
	for k, rs := range [][]decision.Result{r.Decision.Violations, r.Decision.Warnings, r.Decision.Exceptions} {
		for _, x := range rs {
			out = append(out, finding{Result: x, kind: kind(k), err: failed[x.ID]})
		}
	}
	if !r.Decision.Allow && len(r.Decision.Violations) == 0 {
		out = append([]finding{{err: true, Result: decision.Result{ID: evaluationRule, Severity: "critical", Message: r.failure(),
			Remediation: "look at the policy: waybill policy test"}}}, out...)
	}
	return out
}

// evaluationRule stands for the evaluation as a whole in forms that need a rule.
const evaluationRule = "GATE-000"

func (r *Report) failure() string {
	if r.Decision.Error != "" {
		return "the policy could not be evaluated: " + r.Decision.Error
	}
	return "the decision denies without a violation"
}

// subject is the artifact in words.
func (r *Report) subject() string {
	return strings.TrimSpace(r.Model+" "+r.Version) + " (" + r.Digest + ")"
}

// fingerprint is stable for one finding about one digest, whatever else the report holds.
func (r *Report) fingerprint(f finding) string {
	h := sha256.Sum256([]byte(strings.Join([]string{f.ID, r.Decision.Environment, r.Digest, f.Message}, "\x00")))
	return hex.EncodeToString(h[:])
}

// passed counts the rules by status.
func (r *Report) count() map[decision.Status]int {
	n := map[decision.Status]int{}
	for _, x := range r.Decision.Rules {
		n[x.Status]++
	}
	return n
}

// clean replaces what no text format can carry and what would make a reader see other text than there is: control
// characters but tab and newline, marks that turn the direction of writing, and what is not UTF-8. Messages quote foreign
// evidence.
func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c == '\t' || c == '\n' {
			return c
		}
		if c < 0x20 || c == 0x7f || c >= 0x80 && c < 0xa0 || c == 0xfffe || c == 0xffff ||
			c >= 0x202a && c <= 0x202e || c >= 0x2066 && c <= 0x2069 || c == 0x200e || c == 0x200f || c == 0x2028 || c == 0x2029 {
			return '\ufffd'
		}
		return c
	}, strings.ToValidUTF8(s, "\ufffd"))
}
