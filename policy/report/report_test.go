package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/policy/decision"
)

var update = flag.Bool("update", false, "write the golden files")

func digestOf(c string) string { return "sha256:" + strings.Repeat(c, 64) }

func rules() []Rule {
	return []Rule{
		{ID: "APP-001", Title: "Required people have approved", Description: "Approvals.", Severity: "high", Remediation: "waybill approve REF --role ROLE", Category: "people", Standards: []string{"EU AI Act Annex IV 2(e)"}, Help: "https://example.com/rules.md#app-001"},
		{ID: "CARD-001", Title: "A model card is there", Severity: "low", Remediation: "add README.md", Category: "people", Standards: []string{"Model Cards"}},
		{ID: "GOLD-001", Title: "Golden vectors agree", Severity: "critical", Remediation: "waybill test", Category: "quality", Mandatory: true},
		{ID: "MET-004", Title: "Figures are certain enough", Severity: "medium", Remediation: "measure on more samples", Category: "quality"},
		{ID: "VULN-001", Title: "No critical or high vulnerability", Severity: "high", Remediation: "update the component", Category: "security"},
	}
}

func base() *Report {
	d := decision.New(digestOf("1"), digestOf("2"))
	d.Environment = "prod"
	for _, r := range rules() {
		d.Rules = append(d.Rules, decision.Rule{ID: r.ID, Title: r.Title, Severity: r.Severity, Status: decision.Pass, Level: "deny"})
	}
	return &Report{Tool: "0.1.0", Ref: "reg.example/ml/churn@" + digestOf("a"), Digest: digestOf("a"), Model: "churn", Version: "1.4.0", Policy: "governance 1.0",
		Profile: "strict", Time: time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC), NotAfter: time.Date(2027, 2, 21, 9, 0, 0, 0, time.UTC),
		Verdict: digestOf("b"), Record: digestOf("c"), Decision: d, Rules: rules()}
}

func (r *Report) set(id string, s decision.Status, detail string) {
	for i := range r.Decision.Rules {
		if r.Decision.Rules[i].ID == id {
			r.Decision.Rules[i].Status, r.Decision.Rules[i].Detail = s, detail
		}
	}
}

func finds(id, severity, msg, fix string, ev ...string) decision.Result {
	return decision.Result{ID: id, Severity: severity, Message: msg, Remediation: fix, Evidence: append([]string{}, ev...), Standards: []string{"NIST AI RMF MEASURE 2.5"}}
}

// cases are the reports of the golden files.
func cases() map[string]*Report {
	allowed := base()
	allowed.set("MET-004", decision.Skipped, "no threshold asks for an interval")
	allowed.Decision.Close()

	denied := base()
	denied.set("APP-001", decision.Fail, "")
	denied.set("CARD-001", decision.Fail, "")
	denied.set("MET-004", decision.Excepted, "until 2026-12-01 by ml lead: agreed with the board")
	denied.set("VULN-001", decision.Errored, "the rule could not be evaluated: div: divide by zero")
	d := &denied.Decision
	d.Rules[1].Level = "warn"
	d.Violations = []decision.Result{
		finds("APP-001", "high", "1 of 2 approvals", "waybill approve REF --role ROLE", digestOf("d")),
		finds("APP-001", "high", "no valid approval in role risk-officer", "waybill approve REF --role ROLE"),
		finds("VULN-001", "high", "the rule could not be evaluated: div: divide by zero", "update the component"),
	}
	d.Warnings = []decision.Result{finds("CARD-001", "low", "there is no model card", "add README.md")}
	d.Exceptions = []decision.Result{finds("MET-004", "medium", "80 samples, at least 100 (excepted until 2026-12-01 by ml lead: agreed with the board)", "measure on more samples", digestOf("e"))}
	d.Close()

	failed := base()
	failed.Verdict, failed.Record, failed.NotAfter = "", "", time.Time{}
	failed.Decision.Rules = []decision.Rule{}
	failed.Decision.Error = "the policy ran longer than 10s"
	failed.Decision.Close()
	return map[string]*Report{"allowed": allowed, "denied": denied, "error": failed}
}

func extension(f Format) string {
	return map[Format]string{SARIF: "sarif.json", JUnit: "junit.xml", Markdown: "md", GitHub: "github.txt", GitLab: "gitlab.json"}[f]
}

func write(t testing.TB, f Format, r *Report) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, f, r); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestGolden(t *testing.T) {
	for name, r := range cases() {
		for _, f := range Formats() {
			got := write(t, f, r)
			p := filepath.Join("testdata", name+"."+extension(f))
			if *update {
				if err := os.MkdirAll("testdata", 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(p, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, bytes.ReplaceAll(want, []byte("\r\n"), []byte("\n"))) {
				t.Errorf("%s differs (go test ./policy/report -update):\n%s", p, got)
			}
		}
	}
}

// A denial never looks like a success: whatever the decision holds, each form shows at least one error.
func TestADenialNeverLooksClean(t *testing.T) {
	empty := base()
	empty.Decision.Rules = []decision.Rule{}
	empty.Decision.Close()
	odd := base() // all rules pass and it denies all the same: a decision that Close did not make
	for name, r := range map[string]*Report{"empty": empty, "all pass": odd, "error": cases()["error"]} {
		if r.Decision.Allow {
			t.Fatal(name, "allows")
		}
		for f, mark := range map[Format]string{SARIF: `"level": "error"`, JUnit: "<error ", Markdown: "denied", GitHub: "::error ", GitLab: `"severity": "blocker"`} {
			got := string(write(t, f, r))
			if f == SARIF {
				_, got, _ = strings.Cut(got, `"results"`)
			}
			if !strings.Contains(got, mark) {
				t.Errorf("%s as %s does not hold %s:\n%s", name, f, mark, got)
			}
		}
	}
}

// Every rule is named in every form that can show passes, whatever became of it.
func TestEveryRuleIsNamed(t *testing.T) {
	r := cases()["denied"]
	for _, f := range []Format{SARIF, JUnit, Markdown} {
		got := string(write(t, f, r))
		for _, x := range r.Decision.Rules {
			if !strings.Contains(got, x.ID) {
				t.Errorf("%s does not name %s", f, x.ID)
			}
		}
	}
	var s junitSuites
	if err := xml.Unmarshal(write(t, JUnit, r), &s); err != nil {
		t.Fatal(err)
	}
	if got := s.Suites[0]; len(got.Cases) != len(r.Decision.Rules) || got.Failures != 1 || got.Errors != 1 || got.Skipped != 1 {
		t.Errorf("%d cases, %d failures, %d errors, %d skipped", len(got.Cases), got.Failures, got.Errors, got.Skipped)
	}
}

// hostile texts: what evidence and users' policies may hold, against each form's own syntax.
func hostile() []string {
	return []string{
		"a\n::error title=planted::x", "100%0A::set-output name=x::y", "| cell | end |", "</details><script>alert(1)</script>", "]]></failure><failure/>",
		"@everyone [x](javascript:1) `code` **bold**", "\x00\x1b[31mred\x1b[0m\x7f", "\xff\xfe broken", strings.Repeat("x", 10000), "\u0085next\u202Eover", "a,b:c%d\r\nx", "\ufffe\uffff",
	}
}

// No text can leave its place: one command per finding, well-formed XML and JSON, one table row per finding.
func TestHostileTextStaysText(t *testing.T) {
	for _, s := range hostile() {
		r := cases()["denied"]
		for i := range r.Decision.Violations {
			r.Decision.Violations[i].Message, r.Decision.Violations[i].Remediation = s, s
		}
		r.Decision.Rules[0].Detail, r.Model, r.Policy, r.File = s, s, s, s
		clean := cases()["denied"]
		lines := func(b []byte) int { return bytes.Count(b, []byte("\n")) }
		for _, f := range Formats() {
			got := write(t, f, r)
			if !utf8.Valid(got) || bytes.ContainsAny(got, "\x00\x1b\x7f\r\u202e") {
				t.Errorf("%s of %q holds bytes that are no text", f, s)
			}
			switch f {
			case GitHub:
				if lines(got) != lines(write(t, f, clean)) {
					t.Errorf("%q makes another command:\n%s", s, got)
				}
				for l := range strings.Lines(string(got)) {
					if !strings.HasPrefix(l, "::") {
						t.Errorf("%q leaves its command: %s", s, l)
					}
				}
			case Markdown:
				if lines(got) != lines(write(t, f, clean)) {
					t.Errorf("%q makes another row:\n%s", s, got)
				}
				if bytes.Contains(got, []byte("<script")) || bytes.Contains(got, []byte("@every")) {
					t.Errorf("%q is markup:\n%s", s, got)
				}
			case JUnit:
				var v junitSuites
				if err := xml.Unmarshal(got, &v); err != nil {
					t.Errorf("%q: %v", s, err)
				} else if len(v.Suites[0].Cases) != len(clean.Decision.Rules) {
					t.Errorf("%q changes the cases", s)
				}
			default:
				if !json.Valid(got) {
					t.Errorf("%s of %q is no JSON", f, s)
				}
			}
		}
	}
}

// Without the escaping the attack works: a message of evidence would write a command of its own.
func TestWithoutEscapingAMessageIsACommand(t *testing.T) {
	s := "a\n::error title=planted::x"
	if !strings.Contains("::error title=t::"+s, "\n::error title=planted") {
		t.Fatal("the text is harmless as it is")
	}
	if strings.Contains(data(s), "\n") {
		t.Error("escaped, it still starts a line")
	}
}

// A summary stays below what a job summary may have, and says that it was cut.
func TestMarkdownIsBounded(t *testing.T) {
	r := cases()["denied"]
	for range 2000 {
		r.Decision.Violations = append(r.Decision.Violations, finds("APP-001", "high", strings.Repeat("long ", 500), "x"))
	}
	got := write(t, Markdown, r)
	if len(got) > 1<<20 || !bytes.Contains(got, []byte("more findings")) {
		t.Errorf("%d bytes", len(got))
	}
}

func TestUnknownFormat(t *testing.T) {
	if err := Write(new(bytes.Buffer), "tap", base()); err == nil {
		t.Error("no error")
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

func TestWriteErrorsAreReported(t *testing.T) {
	for _, f := range Formats() {
		if err := Write(full{}, f, base()); err == nil {
			t.Errorf("%s: no error", f)
		}
	}
}

// schemas gives the folder of the published schemas.
func schemas(t *testing.T) string {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not here")
	}
	return dir
}

func validated(t *testing.T) map[string]*Report {
	out := cases()
	for i, s := range hostile() {
		r := cases()["denied"]
		r.Decision.Violations[0].Message, r.File, r.Model = s, s, s
		out["hostile"+string(rune('a'+i))] = r
	}
	return out
}

func TestJSONFormsMatchTheirSchemas(t *testing.T) {
	dir := schemas(t)
	for f, p := range map[Format]string{SARIF: "sarif-2.1.0/sarif-schema-2.1.0.json", GitLab: "gitlab/codeclimate.json"} {
		raw, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(p)))
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
		for name, r := range validated(t) {
			v, err := jsonschema.UnmarshalJSON(bytes.NewReader(write(t, f, r)))
			if err != nil {
				t.Fatal(err)
			}
			items := []any{v}
			if f == GitLab {
				items = v.([]any)
			}
			for _, x := range items {
				if err := s.Validate(x); err != nil {
					t.Errorf("%s as %s: %v", name, f, err)
				}
			}
		}
		// The schema would notice: a log without its version is refused.
		if err := s.Validate(map[string]any{"runs": []any{}}); err == nil {
			t.Errorf("%s: the schema accepts anything", f)
		}
	}
}

func TestJUnitMatchesTheSchemas(t *testing.T) {
	dir := schemas(t)
	tool, err := exec.LookPath("xmllint")
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal(err)
		}
		t.Skip("xmllint is not here (Debian: libxml2-utils)")
	}
	tmp := t.TempDir()
	var files []string
	for name, r := range validated(t) {
		p := filepath.Join(tmp, name+".xml")
		if err := os.WriteFile(p, write(t, JUnit, r), 0o600); err != nil {
			t.Fatal(err)
		}
		files = append(files, p)
	}
	files = append(files, writeTests(t, tmp)...)
	for _, x := range []string{"windyroad-JUnit.xsd", "jenkins-junit-10.xsd"} {
		p := filepath.Join(dir, "junit", x)
		if _, err := os.Stat(p); errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		if out, err := exec.Command(tool, append([]string{"--nonet", "--noout", "--schema", p}, files...)...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", x, err, out)
		}
		bad := filepath.Join(tmp, "bad")
		if err := os.WriteFile(bad, []byte("<testsuites><testsuite/></testsuites>"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(tool, "--nonet", "--noout", "--schema", p, bad).Run(); err == nil {
			t.Errorf("%s accepts anything", x)
		}
	}
}

func BenchmarkWrite(b *testing.B) {
	r := cases()["denied"]
	for _, f := range Formats() {
		b.Run(string(f), func(b *testing.B) {
			for b.Loop() {
				write(b, f, r)
			}
		})
	}
}
