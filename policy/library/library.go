// Package library is the default policy: rules in Rego under rego/, and for each rule fixtures that it must deny and must
// pass. The fixtures are part of the binary, so that anyone can run them: waybill policy test.
package library

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
)

//go:embed rego
var regoFS embed.FS

//go:embed fixtures/*.json
var fixtureFS embed.FS

// FS is the policy directory: rules, helpers and policy.json.
func FS() fs.FS {
	sub, err := fs.Sub(regoFS, "rego")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return sub
}

// Default returns the default policy. It reads 30 small embedded files; compile it once per process.
func Default() (*bundle.Bundle, error) { return bundle.FromFS(FS()) }

// Case is one fixture: a facts document and what a rule must say about it.
type Case struct {
	Rule    string
	Name    string
	Want    decision.Status // Pass, Fail or Skipped: the rule's status
	Message string          // for Fail: a part of one of the rule's messages; for Skipped: of why
	Doc     []byte          // facts document, canonical where it can be
}

// op is one change to the base document (RFC 6902: add, replace, remove; see element for what is added to its paths).
type op struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

type fixture struct {
	Name    string `json:"name"`
	Message string `json:"message"`
	Profile string `json:"profile"` // default: the file's
	Patch   []op   `json:"patch"`
}

type fixtureFile struct {
	Profile string    `json:"profile"` // in which the rule denies; default strict
	Deny    []fixture `json:"deny"`
	Pass    []fixture `json:"pass"`
	Skip    []fixture `json:"skip"`
}

// Base is a document that passes every rule of the default policy, made for the policy with this digest.
func Base(policy artifact.Digest) ([]byte, error) {
	b, err := fixtureFS.ReadFile("fixtures/base.json")
	if err != nil {
		return nil, fmt.Errorf("fixtures: %w", err)
	}
	placeholder := "sha256:" + strings.Repeat("0", 64)
	return canonical([]byte(strings.ReplaceAll(string(b), placeholder, string(policy))))
}

// canonical brings a document into canonical form; a document that does not parse stays as it is, for the schema to refuse.
func canonical(b []byte) ([]byte, error) {
	in, err := input.Parse(b)
	if err != nil {
		return nil, err
	}
	in.Normalize()
	return in.Canonical()
}

// Cases returns every fixture, or those of the rules in only, for the policy with this digest, ordered by rule and name.
func Cases(policy artifact.Digest, only ...string) ([]Case, error) {
	base, err := Base(policy)
	if err != nil {
		return nil, err
	}
	names, err := fs.Glob(fixtureFS, "fixtures/*-*.json")
	if err != nil {
		return nil, fmt.Errorf("fixtures: %w", err)
	}
	return readCases(fixtureFS, names, "fixtures", base, "strict", only)
}

// Check compares a decision over c.Doc with what the fixture wants; nil when they agree.
func (c Case) Check(d decision.Decision) error {
	var row *decision.Rule
	for i := range d.Rules {
		if d.Rules[i].ID == c.Rule {
			row = &d.Rules[i]
		}
	}
	if row == nil {
		return fmt.Errorf("rule %s was not evaluated (error %q)", c.Rule, d.Error)
	}
	if row.Status != c.Want {
		return fmt.Errorf("rule %s: %s, want %s: %v", c.Rule, row.Status, c.Want, messages(d, c.Rule))
	}
	switch {
	case c.Want == decision.Fail:
	case !d.Allow:
		return fmt.Errorf("rule %s: %s, and the decision denies: %v", c.Rule, row.Status, d.Violations)
	case c.Want == decision.Skipped && (c.Message == "" || !strings.Contains(row.Detail, c.Message)):
		return fmt.Errorf("rule %s is skipped because %q, want %q", c.Rule, row.Detail, c.Message)
	default:
		return nil
	}
	got := messages(d, c.Rule)
	if len(got) == 0 {
		return fmt.Errorf("rule %s fails without a message", c.Rule)
	}
	if !slices.ContainsFunc(got, func(m string) bool { return strings.Contains(m, c.Message) }) {
		return fmt.Errorf("rule %s says %q, want %q", c.Rule, got, c.Message)
	}
	warned := slices.ContainsFunc(d.Warnings, func(r decision.Result) bool { return r.ID == c.Rule })
	if d.Allow && !warned {
		return fmt.Errorf("rule %s fails and the decision allows", c.Rule)
	}
	return nil
}

func messages(d decision.Decision, id string) []string {
	var out []string
	for _, rs := range [][]decision.Result{d.Violations, d.Warnings} {
		for _, r := range rs {
			if r.ID == id {
				out = append(out, r.Message)
			}
		}
	}
	return out
}

// patch applies ops to a copy of doc.
func patch(doc []byte, ops []op) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	for _, o := range ops {
		var err error
		if v, err = apply(v, strings.Split(strings.TrimPrefix(o.Path, "/"), "/"), o); err != nil {
			return nil, fmt.Errorf("%s %s: %w", o.Op, o.Path, err)
		}
	}
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	if c, err := canonical(b); err == nil {
		// Only where nothing got lost: a removed key must stay removed for the schema to see.
		if equalJSON(b, c) {
			return c, nil
		}
	}
	return b, nil
}

// equalJSON compares shapes: same keys everywhere, whatever the order of lists.
func equalJSON(a, b []byte) bool {
	return bytes.Equal(keys(a), keys(b))
}

func keys(b []byte) []byte {
	var v any
	if json.Unmarshal(b, &v) != nil {
		return nil
	}
	var out []string
	var walk func(p string, v any)
	walk = func(p string, v any) {
		out = append(out, p)
		switch t := v.(type) {
		case map[string]any:
			for k, x := range t {
				walk(p+"/"+k, x)
			}
		case []any:
			for _, x := range t {
				walk(p+"/#", x)
			}
		case nil:
			out = append(out, p+" null")
		}
	}
	walk("", v)
	slices.Sort(out)
	return []byte(strings.Join(out, "\n"))
}

func apply(v any, path []string, o op) (any, error) {
	last := len(path) == 1
	switch t := v.(type) {
	case map[string]any:
		k := strings.ReplaceAll(strings.ReplaceAll(path[0], "~1", "/"), "~0", "~")
		old, ok := t[k]
		if !ok && (!last || o.Op != "add") {
			return nil, fmt.Errorf("no key %q", k)
		}
		if !last {
			n, err := apply(old, path[1:], o)
			t[k] = n
			return t, err
		}
		if o.Op == "remove" {
			delete(t, k)
		} else {
			t[k] = o.Value
		}
		return t, nil
	case []any:
		if last && path[0] == "-" && o.Op == "add" {
			return append(t, o.Value), nil
		}
		i, err := element(t, path[0])
		if err != nil {
			return nil, err
		}
		if !last {
			n, err := apply(t[i], path[1:], o)
			t[i] = n
			return t, err
		}
		switch o.Op {
		case "remove":
			return slices.Delete(t, i, i+1), nil
		case "add":
			return slices.Insert(t, i, o.Value), nil
		default:
			t[i] = o.Value
			return t, nil
		}
	}
	return nil, fmt.Errorf("nothing below %q", path[0])
}

// element reads the segment of a path below a list: an index, or KEY=VALUE for the first object whose KEY is VALUE. Lists are
// sorted, so an index means something else as soon as the base document grows.
func element(list []any, seg string) (int, error) {
	seg = strings.ReplaceAll(strings.ReplaceAll(seg, "~1", "/"), "~0", "~")
	if key, value, ok := strings.Cut(seg, "="); ok {
		for i, x := range list {
			if o, ok := x.(map[string]any); ok && o[key] == value {
				return i, nil
			}
		}
		return 0, fmt.Errorf("no element with %s", seg)
	}
	i, err := strconv.Atoi(seg)
	if err != nil || i < 0 || i >= len(list) {
		return 0, fmt.Errorf("no element %q", seg)
	}
	return i, nil
}
