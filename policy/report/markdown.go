package report

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/waybill-ml/waybill/policy/decision"
)

// maxMarkdown keeps the summary below the 1 MiB that a GitHub job summary may have.
const maxMarkdown = 900 << 10

// markdown is a summary for people: the answer, what failed and how to fix it, then every rule.
func (r *Report) markdown() []byte {
	var b strings.Builder
	answer := "denied"
	if r.Decision.Allow {
		answer = "allowed"
	}
	n := r.count()
	fmt.Fprintf(&b, "## Gate %s: %s %s\n\n", md(r.Decision.Environment), md(strings.TrimSpace(r.Model+" "+r.Version)), answer)
	fmt.Fprintf(&b, "| | |\n|---|---|\n")
	row := func(k, v string) {
		if v != "" {
			fmt.Fprintf(&b, "| %s | %s |\n", k, v)
		}
	}
	row("artifact", code(r.Digest))
	row("policy", md(r.Policy)+", profile "+md(orDefault(r.Profile, "none"))+", "+code(r.Decision.PolicyDigest))
	row("rules", fmt.Sprintf("%d passed, %d failed, %d excepted, %d skipped, %d in error", n[decision.Pass], n[decision.Fail], n[decision.Excepted], n[decision.Skipped], n[decision.Errored]))
	if r.Verdict != "" {
		row("verdict", code(r.Verdict))
		if r.Decision.Allow && !r.NotAfter.IsZero() {
			row("valid until", r.NotAfter.UTC().Format(time.RFC3339))
		}
	} else {
		row("verdict", "not signed (dry run)")
	}
	titles := map[kind]string{violation: "Violations", warning: "Warnings", exception: "Exceptions"}
	fs := r.findings()
	for _, k := range []kind{violation, warning, exception} {
		head := false
		for i, f := range fs {
			if f.kind != k {
				continue
			}
			if !head {
				fmt.Fprintf(&b, "\n### %s\n\n| rule | severity | finding | fix |\n|---|---|---|---|\n", titles[k])
				head = true
			}
			fix := code(f.Remediation)
			if k == exception {
				fix = ""
			}
			line := fmt.Sprintf("| %s | %s | %s | %s |\n", r.link(f.ID), md(f.Severity), md(f.Message)+evidence(f.Evidence), fix)
			if b.Len()+len(line) > maxMarkdown {
				fmt.Fprintf(&b, "\n%d more findings: the full decision is attached to the artifact.\n", len(fs)-i)
				return []byte(b.String())
			}
			b.WriteString(line)
		}
	}
	fmt.Fprintf(&b, "\n<details><summary>All %d rules</summary>\n\n| rule | title | severity | level | status | |\n|---|---|---|---|---|---|\n", len(r.Decision.Rules))
	for _, x := range r.Decision.Rules {
		line := fmt.Sprintf("| %s | %s | %s | %s | %s | %s |\n", r.link(x.ID), md(x.Title), md(x.Severity), md(x.Level), md(string(x.Status)), md(x.Detail))
		if b.Len()+len(line) > maxMarkdown {
			break
		}
		b.WriteString(line)
	}
	b.WriteString("\n</details>\n")
	return []byte(b.String())
}

func (r *Report) link(id string) string {
	if h := r.rule(id).Help; h != "" {
		return "[" + md(id) + "](" + h + ")"
	}
	return md(id)
}

func evidence(ds []string) string {
	var b strings.Builder
	for _, d := range ds {
		b.WriteString("<br>" + code(d))
	}
	return b.String()
}

// md escapes text for a cell of a table: nothing in it can end the cell, open markup or mention anybody.
func md(s string) string {
	s = strings.ReplaceAll(clean(s), "\n", " ")
	var b strings.Builder
	word := false // the character before c belongs to a word, so that @ after it mentions nobody
	for _, c := range s {
		switch c {
		case '\\', '|', '*', '_', '`', '[', ']', '#', '~':
			b.WriteByte('\\')
			b.WriteRune(c)
		case '<':
			b.WriteString("&lt;")
		case '>':
			b.WriteString("&gt;")
		case '&':
			b.WriteString("&amp;")
		case '@':
			if word {
				b.WriteByte('@')
			} else {
				b.WriteString("&#64;")
			}
		default:
			b.WriteRune(c)
		}
		word = unicode.IsLetter(c) || unicode.IsDigit(c)
	}
	return b.String()
}

// code writes s as code in a cell. Code spans are only for what cannot end them; other text goes into an element, escaped.
func code(s string) string {
	if plain(s) {
		return "`" + s + "`"
	}
	return "<code>" + md(s) + "</code>"
}

// plain tells whether s is made of what digests, names and versions are made of.
func plain(s string) bool {
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(" :./-", c) {
			return false
		}
	}
	return s != "" && strings.TrimSpace(s) == s
}
