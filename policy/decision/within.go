package decision

import (
	"fmt"
	"strings"
)

// MaxBytes is the largest canonical decision. The record of a decision is one statement that holds the facts and the decision,
// and a statement may have 512 KiB (artifact.MaxBundle/2, so that its bundle stays below artifact.MaxBundle in base64 and
// with a certificate and log entries beside it). Facts take at most 288 KiB of them (policy/facts.MaxDocument), this 192 KiB;
// 32 KiB are left for the statement's own members.
const MaxBytes = 192 << 10

// Within gives d, or when its canonical form has more than limit bytes a denial that fits: Error says so, each rule keeps
// its outcome, and of findings and texts as much stays as has room. Nothing that was cut is ever allowed. A limit below
// 4 KiB may be exceeded by what cannot be left out.
func (d Decision) Within(limit int) Decision {
	n := d.size()
	if n <= limit {
		return d
	}
	why := fmt.Sprintf("the policy reports more than %d KiB (%d bytes): findings were cut", limit>>10, n)
	if d.Error != "" {
		why = short(d.Error, 1024) + "; " + why
	}
	var o Decision
	for _, c := range []struct{ findings, text, evidence, standards int }{{8, 256, 4, 8}, {1, 128, 0, 0}, {1, 32, 0, 0}, {0, 32, 0, 0}} { // each leaves less
		o = New(d.PolicyDigest, d.InputDigest)
		o.Environment, o.Error = short(d.Environment, 256), why
		cut := func(rs []Result) []Result {
			out, seen := []Result{}, map[string]int{}
			for _, r := range rs {
				if seen[r.ID]++; seen[r.ID] > c.findings {
					continue
				}
				r.Severity, r.Message, r.Remediation = short(r.Severity, 32), short(r.Message, c.text), short(r.Remediation, c.text)
				r.Evidence = cutTexts(r.Evidence, c.evidence)
				r.Standards = cutTexts(r.Standards, c.standards)
				out = append(out, r)
			}
			for i, r := range out {
				if more := seen[r.ID] - c.findings; more > 0 && (i+1 == len(out) || out[i+1].ID != r.ID) {
					out[i].Message += fmt.Sprintf(" (and %d more findings)", more)
				}
			}
			return out
		}
		o.Violations, o.Warnings, o.Exceptions = cut(d.Violations), cut(d.Warnings), cut(d.Exceptions)
		for _, r := range d.Rules {
			r.Title, r.Detail = short(r.Title, c.text), short(r.Detail, c.text)
			o.Rules = append(o.Rules, r)
		}
		o.Close()
		if o.size() <= limit {
			return o
		}
	}
	o.Rules = []Rule{}
	o.Error += fmt.Sprintf(", and the outcomes of %d rules", len(d.Rules))
	o.Close()
	return o
}

// size is that of the canonical form.
func (d Decision) size() int {
	b, err := d.Canonical()
	if err != nil { // a decision is texts and booleans: it always encodes
		return int(^uint(0) >> 1)
	}
	return len(b)
}

func cutTexts(s []string, most int) []string {
	out := []string{}
	for _, x := range s[:min(most, len(s))] {
		out = append(out, short(x, 128))
	}
	return out
}

// short bounds a text to about limit bytes and says how long it was.
func short(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit], "") + fmt.Sprintf(" ... (%d bytes)", len(s))
}
