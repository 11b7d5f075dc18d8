package project

import (
	"github.com/goccy/go-yaml/ast"

	"github.com/waybill-ml/waybill/internal/diag"
)

// FeatureMap turns records (a JSON object or a CSV row each) into the columns of one input of the model.
type FeatureMap struct {
	Input    string // empty: the only two-dimensional input with as many columns
	Features []Feature
	Loc      diag.Loc
}

// Feature is one field of a record.
type Feature struct {
	Name     string
	Category bool // text, one of Values; else a number
	Values   []string
	OneHot   bool   // a column for each value; else one column with the value's index
	Unknown  string // of a category: UnknownError, UnknownIgnore or UnknownDefault
	Required bool   // a missing value is an error
	Default  *float64
	// DefaultValue is the category that a missing value stands for; nil: a missing value is an unknown one.
	DefaultValue *string
	Loc          diag.Loc
}

// What a text outside Values does.
const (
	UnknownError   = "error"   // the call fails
	UnknownIgnore  = "ignore"  // zeros, or the index -1
	UnknownDefault = "default" // as the default category
)

// Columns returns how many columns of the input f fills.
func (f Feature) Columns() int {
	if f.OneHot {
		return len(f.Values)
	}
	return 1
}

// features reads the key features: a list of names gives the columns of an input their names; with a mapping among them,
// or in the form {input, columns}, records are mapped.
func (r *reader) features(n ast.Node, p *Project) {
	if r.err != nil {
		return
	}
	list, input := n, ""
	mapped := false
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		mapped, list = true, nil
		r.mapping(n, "features", []string{"input", "columns"}, func(key string, v ast.Node) {
			if key == "input" {
				input = r.text(v, "input", true)
			} else {
				list = v
			}
		})
		if r.err == nil && list == nil {
			r.fail(n, "features: key \"columns\" is missing")
		}
	}
	if r.err != nil {
		return
	}
	if s, ok := list.(*ast.SequenceNode); ok {
		for _, v := range s.Values {
			switch v.(type) {
			case *ast.MappingNode, *ast.MappingValueNode:
				mapped = true
			}
		}
	}
	if !mapped {
		p.Features = r.texts(list, "features")
		return
	}
	m := &FeatureMap{Input: input, Loc: r.loc(n)}
	seen := map[string]bool{}
	r.sequence(list, "features", func(_ int, v ast.Node) {
		f := r.feature(v)
		if r.err == nil && seen[f.Name] {
			r.fail(v, "features: %q is given twice", f.Name)
		}
		seen[f.Name] = true
		m.Features = append(m.Features, f)
	})
	if r.err == nil && len(m.Features) == 0 {
		r.fail(list, "features: no column is listed")
	}
	p.Mapping = m
}

func (r *reader) feature(n ast.Node) Feature {
	f := Feature{Unknown: UnknownError, Loc: r.loc(n)}
	switch n.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
	default:
		f.Name = r.text(n, "features entry", true)
		return f
	}
	at := map[string]ast.Node{}
	var def ast.Node
	r.mapping(n, "feature", []string{"name", "type", "values", "encode", "unknown", "default", "required"}, func(key string, v ast.Node) {
		at[key] = v
		switch key {
		case "name":
			f.Name, f.Loc = r.text(v, "name", true), r.loc(v)
		case "type":
			f.Category = r.choice(v, "type", "number", "category") == "category"
		case "values":
			f.Values = r.texts(v, "values")
			if r.err == nil && len(f.Values) == 0 {
				r.fail(v, "values is empty")
			}
		case "encode":
			f.OneHot = r.choice(v, "encode", "index", "onehot") == "onehot"
		case "unknown":
			f.Unknown = r.choice(v, "unknown", UnknownError, UnknownIgnore, UnknownDefault)
		case "default":
			def = v
		case "required":
			f.Required = r.boolean(v, "required")
		}
	})
	if r.err != nil {
		return f
	}
	if f.Name == "" {
		r.fail(n, "feature: key \"name\" is missing")
		return f
	}
	if f.Required && def != nil {
		r.fail(at["required"], "feature %q is required, so it can have no default", f.Name)
		return f
	}
	if !f.Category {
		for _, k := range []string{"values", "encode", "unknown"} {
			if at[k] != nil {
				r.fail(at[k], "feature %q is a number: %s goes with type: category", f.Name, k)
				return f
			}
		}
		if def != nil {
			v := r.signed(def, "default")
			f.Default = &v
		}
		return f
	}
	if len(f.Values) == 0 {
		r.fail(n, "feature %q is a category: key \"values\" is missing", f.Name)
		return f
	}
	if def != nil {
		v := r.text(def, "default", true)
		if r.err == nil && !contains(f.Values, v) {
			e := r.fail(def, "feature %q: the default %q is none of its values", f.Name, v)
			if near := diag.Nearest(v, f.Values); near != "" {
				e.Line("did you mean %q?", near)
			}
		}
		f.DefaultValue = &v
	}
	if f.Unknown == UnknownDefault && f.DefaultValue == nil {
		r.fail(at["unknown"], "feature %q: unknown: default needs a default", f.Name)
	}
	if f.Required && f.Unknown == UnknownIgnore {
		r.fail(at["required"], "feature %q: a missing value is an unknown one, which unknown: ignore allows", f.Name)
	}
	return f
}

func (r *reader) choice(n ast.Node, what string, allowed ...string) string {
	s := r.text(n, what, false)
	if r.err == nil && !contains(allowed, s) {
		e := r.fail(n, "%s is %q", what, s)
		e.Line("allowed: %v", allowed)
	}
	return s
}

// signed is number for values that may be negative.
func (r *reader) signed(n ast.Node, what string) float64 {
	if r.err != nil {
		return 0
	}
	v, ok := parseNumber(n)
	if !ok {
		r.fail(n, "%s must be a finite number, not %s", what, kind(n))
	}
	return v
}
