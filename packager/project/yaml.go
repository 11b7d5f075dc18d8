package project

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"

	"github.com/waybill-ml/waybill/internal/diag"
)

// reader walks the syntax tree and keeps the first error; after one, its methods do nothing and return zero values.
type reader struct {
	file string
	err  error
}

func (r *reader) loc(n ast.Node) diag.Loc {
	l := diag.Loc{File: r.file}
	if t := n.GetToken(); t != nil && t.Position != nil {
		l.Line, l.Col = t.Position.Line, t.Position.Column
	}
	return l
}

func (r *reader) fail(n ast.Node, format string, args ...any) *diag.Error {
	e := diag.New(diag.Usage, format, args...).At(r.loc(n))
	if r.err == nil {
		r.err = e
	}
	return e
}

// document parses b and returns its root mapping.
func (r *reader) document(b []byte) *ast.MappingNode {
	if len(b) > MaxFile {
		r.err = diag.New(diag.Usage, "%s has %d bytes, more than %d", r.file, len(b), MaxFile)
		return nil
	}
	f, err := parser.ParseBytes(b, 0)
	if err != nil {
		e := diag.New(diag.Usage, "not valid YAML").At(diag.Loc{File: r.file})
		var ye yaml.Error
		if errors.As(err, &ye) {
			e.What = "not valid YAML: " + ye.GetMessage()
			if t := ye.GetToken(); t != nil && t.Position != nil {
				e.Loc.Line, e.Loc.Col = t.Position.Line, t.Position.Column
			}
		}
		r.err = e
		return nil
	}
	if len(f.Docs) > 1 && f.Docs[1].Body != nil {
		r.fail(f.Docs[1].Body, "only one YAML document is allowed")
		return nil
	}
	if len(f.Docs) == 0 || f.Docs[0].Body == nil {
		r.err = diag.New(diag.Usage, "the file is empty").At(diag.Loc{File: r.file, Line: 1, Col: 1})
		return nil
	}
	m, ok := f.Docs[0].Body.(*ast.MappingNode)
	if !ok {
		if one, single := f.Docs[0].Body.(*ast.MappingValueNode); single {
			return &ast.MappingNode{BaseNode: one.BaseNode, Start: one.Start, Values: []*ast.MappingValueNode{one}}
		}
		r.fail(f.Docs[0].Body, "must be a mapping of keys to values")
		return nil
	}
	return m
}

// mapping calls fn for each key of n, in order. Keys outside known, and keys given twice, are errors.
func (r *reader) mapping(n ast.Node, what string, known []string, fn func(key string, value ast.Node)) {
	r.pairs(n, what+" must be a mapping with "+strings.Join(known, ", "), func(k string) bool { return contains(known, k) }, known, fn)
}

// open is mapping with keys that the author chooses.
func (r *reader) open(n ast.Node, what string, fn func(key string, value ast.Node)) {
	r.pairs(n, what+" must be a mapping", func(k string) bool { return strings.TrimSpace(k) != "" }, nil, fn)
}

func (r *reader) pairs(n ast.Node, want string, allowed func(string) bool, known []string, fn func(key string, value ast.Node)) {
	if r.err != nil {
		return
	}
	var values []*ast.MappingValueNode
	switch n := n.(type) {
	case *ast.MappingNode:
		values = n.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{n}
	default:
		r.fail(n, "%s, not %s", want, kind(n))
		return
	}
	seen := map[string]bool{}
	for _, v := range values {
		k, ok := v.Key.(*ast.StringNode)
		if !ok {
			r.fail(v.Key, "keys must be plain words")
			return
		}
		if !allowed(k.Value) {
			e := r.fail(k, "unknown key %q", k.Value)
			if near := diag.Nearest(k.Value, known); near != "" {
				e.Line("did you mean %q?", near)
			} else {
				e.Line("known keys: %s", strings.Join(known, ", "))
			}
			return
		}
		if seen[k.Value] {
			r.fail(k, "key %q is given twice", k.Value)
			return
		}
		seen[k.Value] = true
		if bad := forbidden(v.Value); bad != "" {
			r.fail(v.Value, "%s: %s are not allowed here", k.Value, bad)
			return
		}
		fn(k.Value, v.Value)
		if r.err != nil {
			return
		}
	}
}

// sequence calls fn for each element.
func (r *reader) sequence(n ast.Node, what string, fn func(i int, value ast.Node)) {
	if r.err != nil {
		return
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		r.fail(n, "%s must be a list, not %s", what, kind(n))
		return
	}
	for i, v := range s.Values {
		if bad := forbidden(v); bad != "" {
			r.fail(v, "%s: %s are not allowed here", what, bad)
			return
		}
		fn(i, v)
		if r.err != nil {
			return
		}
	}
}

// text returns a string. Words that YAML reads as numbers are taken as written, so that version: 1.10 stays 1.10.
func (r *reader) text(n ast.Node, what string, numbers bool) string {
	if r.err != nil {
		return ""
	}
	s := ""
	switch n := n.(type) {
	case *ast.StringNode:
		s = n.Value
	case *ast.LiteralNode:
		s = n.Value.Value
	case *ast.IntegerNode, *ast.FloatNode:
		if numbers {
			return strings.TrimSpace(n.GetToken().Value)
		}
		r.fail(n, "%s must be text, not %s", what, kind(n))
		return ""
	default:
		r.fail(n, "%s must be text, not %s", what, kind(n))
		return ""
	}
	if strings.TrimSpace(s) == "" {
		r.fail(n, "%s is empty", what)
	}
	return s
}

func (r *reader) integer(n ast.Node, what string, low, high int64) int64 {
	if r.err != nil {
		return 0
	}
	i, ok := n.(*ast.IntegerNode)
	if !ok {
		r.fail(n, "%s must be a whole number, not %s", what, kind(n))
		return 0
	}
	var v int64
	switch x := i.Value.(type) {
	case int64:
		v = x
	case uint64:
		if x > math.MaxInt64 {
			r.fail(n, "%s is out of range", what)
			return 0
		}
		v = int64(x)
	}
	if v < low || v > high {
		r.fail(n, "%s is %d, allowed are %d to %d", what, v, low, high)
	}
	return v
}

func (r *reader) number(n ast.Node, what string) float64 {
	if r.err != nil {
		return 0
	}
	if v, ok := parseNumber(n); ok && v >= 0 {
		return v
	}
	r.fail(n, "%s must be a number that is not negative", what)
	return 0
}

func parseNumber(n ast.Node) (float64, bool) {
	switch n.(type) {
	case *ast.IntegerNode, *ast.FloatNode, *ast.StringNode: // YAML reads 1e-6, without a point, as text
		v, err := strconv.ParseFloat(strings.TrimSpace(n.GetToken().Value), 64)
		return v, err == nil && !math.IsNaN(v) && !math.IsInf(v, 0)
	}
	return 0, false
}

func (r *reader) duration(n ast.Node, what string, high time.Duration) time.Duration {
	s := r.text(n, what, true)
	if r.err != nil {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > high || d%time.Millisecond != 0 {
		r.fail(n, "%s must be a time like 500ms or 2s, in whole milliseconds, at most %s", what, high)
	}
	return d
}

// bytes reads a size: 64MiB, 1GiB, 500kB, or a number of bytes.
func (r *reader) bytes(n ast.Node, what string, high int64) int64 {
	s := strings.TrimSpace(r.text(n, what, true))
	if r.err != nil {
		return 0
	}
	number, unit := s, int64(1)
	for _, u := range []struct {
		suffix string
		size   int64
	}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}} {
		if t, ok := strings.CutSuffix(s, u.suffix); ok {
			number, unit = strings.TrimSpace(t), u.size
			break
		}
	}
	v, err := strconv.ParseInt(number, 10, 64)
	if err != nil || v < 1 || v > high/unit {
		r.fail(n, "%s must be a size like 64MiB, at most %d bytes", what, high)
		return 0
	}
	return v * unit
}

// forbidden names the YAML features that make a file read differently from how it looks.
func forbidden(n ast.Node) string {
	switch n.(type) {
	case *ast.AnchorNode:
		return "anchors"
	case *ast.AliasNode:
		return "aliases"
	case *ast.TagNode:
		return "tags"
	case *ast.MergeKeyNode:
		return "merge keys"
	case nil:
		return "missing values"
	}
	return ""
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.BoolNode:
		return "true or false"
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return "a number"
	case *ast.StringNode, *ast.LiteralNode:
		return "text"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	}
	return fmt.Sprintf("a %s", strings.ToLower(n.Type().String()))
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
