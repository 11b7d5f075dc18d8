// Package decision is the outcome of a gate evaluation as data. It imports only the standard library.
package decision

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sort"
)

// Schema is the value of Decision.Schema.
const Schema = "https://github.com/waybill-ml/waybill/schema/decision/v1"

// Status of one rule.
type Status string

// Statuses.
const (
	Pass     Status = "pass"
	Fail     Status = "fail"
	Skipped  Status = "skipped"
	Excepted Status = "excepted"
	Errored  Status = "error"
)

// Decision is the whole outcome. Slices are sorted by rule id and never null; equal evaluations give equal bytes.
type Decision struct {
	Schema       string   `json:"schema"`
	Allow        bool     `json:"allow"`
	PolicyDigest string   `json:"policyDigest"`
	InputDigest  string   `json:"inputDigest"`
	Environment  string   `json:"environment"`
	Violations   []Result `json:"violations"`
	Warnings     []Result `json:"warnings"`
	Exceptions   []Result `json:"exceptions"`
	Rules        []Rule   `json:"rules"`           // every rule that was evaluated
	Error        string   `json:"error,omitempty"` // why evaluation itself failed; then Allow is false
}

// Result is one violation, warning or exception.
type Result struct {
	ID          string   `json:"id"`
	Severity    string   `json:"severity"`
	Message     string   `json:"message"`
	Remediation string   `json:"remediation"`
	Evidence    []string `json:"evidence"` // bundle digests
	Standards   []string `json:"standards"`
}

// Rule is the outcome of one rule.
type Rule struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Severity string `json:"severity"`
	Status   Status `json:"status"`
	Level    string `json:"level"`  // what was in force: deny, warn or off
	Detail   string `json:"detail"` // why it was skipped or excepted, or the error; else ""
}

// New returns a denial with the digests set and every list empty. Close turns it into a permission when nothing speaks
// against it; until then it denies, whatever path leads out.
func New(policyDigest, inputDigest string) Decision {
	return Decision{Schema: Schema, PolicyDigest: policyDigest, InputDigest: inputDigest,
		Violations: []Result{}, Warnings: []Result{}, Exceptions: []Result{}, Rules: []Rule{}}
}

// Close sorts the lists and sets Allow: no violation, no error, at least one rule, and none of them failed or errored
// except where a warning says so.
func (d *Decision) Close() {
	d.sort()
	warned := map[string]bool{}
	for _, w := range d.Warnings {
		warned[w.ID] = true
	}
	ok := d.Error == "" && len(d.Violations) == 0 && len(d.Rules) > 0
	for _, r := range d.Rules {
		switch r.Status {
		case Pass, Skipped, Excepted:
		case Fail:
			ok = ok && warned[r.ID]
		default:
			ok = false
		}
	}
	d.Allow = ok
}

func (d *Decision) sort() {
	byID := func(rs []Result) {
		sort.SliceStable(rs, func(i, j int) bool {
			return rs[i].ID < rs[j].ID || rs[i].ID == rs[j].ID && rs[i].Message < rs[j].Message
		})
	}
	byID(d.Violations)
	byID(d.Warnings)
	byID(d.Exceptions)
	sort.SliceStable(d.Rules, func(i, j int) bool { return d.Rules[i].ID < d.Rules[j].ID })
}

// Canonical returns the bytes whose sha256 is the decision digest: struct order, two-space indentation, a final newline,
// no HTML escaping.
func (d Decision) Canonical() ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(d); err != nil {
		return nil, fmt.Errorf("encode decision: %w", err)
	}
	return b.Bytes(), nil
}

// Digest is "sha256:" and the hex digest of Canonical.
func (d Decision) Digest() (string, error) {
	b, err := d.Canonical()
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:]), nil
}

// Parse reads a decision strictly.
func Parse(b []byte) (Decision, error) {
	var d Decision
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d); err != nil {
		return d, fmt.Errorf("decision: %w", err)
	}
	if d.Schema != Schema {
		return d, fmt.Errorf("decision: schema %q, want %q", d.Schema, Schema)
	}
	return d, nil
}

// IDs lists the distinct rule ids of rs, which must be sorted.
func IDs(rs []Result) []string {
	out := []string{}
	for _, r := range rs {
		if len(out) == 0 || out[len(out)-1] != r.ID {
			out = append(out, r.ID)
		}
	}
	return out
}
