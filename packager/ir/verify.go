package ir

import (
	"fmt"
	"slices"
)

// Verify checks every invariant of a graph: names are unique and not empty, a value is defined before its use
// and once, captures are exact, node ids are unique, each node has the form that the table asks for, the declared
// types agree with inference, ranks and dims are in range, constants have the size of their type, and states pair an
// input with an output of a compatible type.
func Verify(g *Graph) error {
	if g.Body == nil {
		return fmt.Errorf("graph %q has no body", g.Name)
	}
	if len(g.Body.Captures) != 0 {
		return fmt.Errorf("graph %q captures values", g.Name)
	}
	v := &verifier{names: map[string]*Value{}, ids: map[int]string{}, facts: NewFacts()}
	if err := v.region(g.Body, map[*Value]bool{}); err != nil {
		return fmt.Errorf("graph %q: %w", g.Name, err)
	}
	return verifyState(g)
}

type verifier struct {
	names map[string]*Value
	ids   map[int]string
	facts *Facts
}

// value checks one value on its own; the same pointer may come again.
func (v *verifier) value(x *Value) error {
	if old, ok := v.names[x.Name]; ok {
		if old == x {
			return nil
		}
		return fmt.Errorf("two values are named %q", x.Name)
	}
	if x.Name == "" {
		return fmt.Errorf("a value of type %s has no name", x.Type)
	}
	v.names[x.Name] = x
	if err := checkType(x.Type, 0); err != nil {
		return fmt.Errorf("value %q: %w", x.Name, err)
	}
	if x.Const != nil {
		if err := x.Const.Check(); err != nil {
			return fmt.Errorf("constant %q: %w", x.Name, err)
		}
		if !x.Type.Equal(x.Const.Type()) {
			return fmt.Errorf("constant %q has type %s, its data %s", x.Name, x.Type, x.Const.Type())
		}
	}
	return nil
}

func checkType(t Type, depth int) error {
	if depth > 8 {
		return fmt.Errorf("type is nested too deeply")
	}
	if t.Kind != Tensor {
		if t.Kind > Map || t.Elem == nil {
			return fmt.Errorf("type %s is not complete", t)
		}
		if t.Kind == Map && t.Key != I64 && t.Key != String {
			return fmt.Errorf("map key is %s, want i64 or string", t.Key)
		}
		return checkType(*t.Elem, depth+1)
	}
	if !t.DType.Valid() {
		return fmt.Errorf("element type %d is not known", t.DType)
	}
	if !t.Shape.Ranked && len(t.Shape.Dims) > 0 {
		return fmt.Errorf("shape has dims but no rank")
	}
	if len(t.Shape.Dims) > MaxRank {
		return fmt.Errorf("rank %d is over %d", len(t.Shape.Dims), MaxRank)
	}
	for _, d := range t.Shape.Dims {
		if d.N < 0 || d.Max < 0 || (d.Any && (d.N != 0 || d.Sym != "" || d.Max != 0)) || (d.Sym != "" && d.N != 0) || (d.Max != 0 && d.Sym == "") {
			return fmt.Errorf("dim %+v is not one of the four forms", d)
		}
	}
	return nil
}

func (v *verifier) region(r *Region, outer map[*Value]bool) error {
	defined := make(map[*Value]bool, len(outer))
	for x := range outer {
		defined[x] = true
	}
	define := func(x *Value) error {
		if err := v.value(x); err != nil {
			return err
		}
		if x.Const != nil {
			return fmt.Errorf("constant %q is also defined by a node or as a parameter", x.Name)
		}
		if defined[x] {
			return fmt.Errorf("value %q is defined twice", x.Name)
		}
		defined[x] = true
		return nil
	}
	use := func(x *Value) error {
		if err := v.value(x); err != nil {
			return err
		}
		if x.Const == nil && !defined[x] {
			return fmt.Errorf("value %q is used before it is defined", x.Name)
		}
		return nil
	}
	for _, p := range r.Params {
		if p == nil {
			return fmt.Errorf("a parameter is nil")
		}
		if err := define(p); err != nil {
			return err
		}
	}
	for _, n := range r.Nodes {
		if err := v.node(n, defined, use, define); err != nil {
			return NodeError(n, err)
		}
	}
	for _, x := range r.Results {
		if x == nil {
			return fmt.Errorf("a result is nil")
		}
		if err := use(x); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) node(n *Node, defined map[*Value]bool, use, define func(*Value) error) error {
	if old, dup := v.ids[n.ID]; dup {
		return fmt.Errorf("id %d is also that of node %q", n.ID, old)
	}
	v.ids[n.ID] = n.Name
	for _, x := range n.Ins {
		if x != nil {
			if err := use(x); err != nil {
				return err
			}
		}
	}
	for i, sub := range n.Regions {
		if err := v.region(sub, defined); err != nil {
			return fmt.Errorf("region %d: %w", i, err)
		}
		if want := captures(sub); !slices.Equal(want, sub.Captures) {
			return fmt.Errorf("region %d captures %s, but uses %s", i, valueNames(sub.Captures), valueNames(want))
		}
	}
	types, err := InferWith(n, v.facts)
	if err != nil {
		return err
	}
	for i, o := range n.Outs {
		if o == nil {
			continue
		}
		if err := define(o); err != nil {
			return err
		}
		if !types[i].Compatible(o.Type) {
			return fmt.Errorf("output %q is declared %s, but the operator gives %s", o.Name, o.Type, types[i])
		}
	}
	return nil
}

func valueNames(vs []*Value) []string {
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = v.Name
	}
	return out
}

func verifyState(g *Graph) error {
	find := func(vs []*Value, name string) *Value {
		for _, v := range vs {
			if v.Name == name {
				return v
			}
		}
		return nil
	}
	seen := map[string]bool{}
	for _, s := range g.State {
		in, out := find(g.Body.Params, s.Input), find(g.Body.Results, s.Output)
		if in == nil || out == nil {
			return fmt.Errorf("state %q <- %q: no such input or output", s.Input, s.Output)
		}
		if seen[s.Input] {
			return fmt.Errorf("state %q is declared twice", s.Input)
		}
		seen[s.Input] = true
		if !in.Type.Compatible(out.Type) {
			return fmt.Errorf("state %q is %s, but output %q is %s", s.Input, in.Type, s.Output, out.Type)
		}
		if s.Init != nil {
			if err := s.Init.Check(); err != nil {
				return fmt.Errorf("state %q: %w", s.Input, err)
			}
			if !in.Type.Compatible(s.Init.Type()) {
				return fmt.Errorf("state %q is %s, its first value %s", s.Input, in.Type, s.Init.Type())
			}
		}
	}
	return nil
}
