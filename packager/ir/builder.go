package ir

import "fmt"

// Attrs are the attributes given to a Builder; values are what AttrOf takes.
type Attrs map[string]any

// Builder makes a region node by node: defaults are filled in and types inferred at once. The first error sticks
// and is returned by Graph; calls after it do nothing. Names and ids are numbered, unless set on the returned values.
type Builder struct {
	region *Region
	facts  *Facts
	ids    *int
	err    *error
}

// NewBuilder starts an empty graph body.
func NewBuilder() *Builder {
	return &Builder{region: &Region{}, facts: NewFacts(), ids: new(int), err: new(error)}
}

// Sub starts the body of a control flow node; it shares numbering and the first error with b.
func (b *Builder) Sub() *Builder {
	return &Builder{region: &Region{}, facts: b.facts, ids: b.ids, err: b.err}
}

// Param adds a parameter.
func (b *Builder) Param(name string, t Type) *Value {
	v := &Value{Name: name, Type: t}
	b.region.Params = append(b.region.Params, v)
	return v
}

// Const makes a constant.
func (b *Builder) Const(name string, d *Data) *Value {
	if err := d.Check(); err != nil && *b.err == nil {
		*b.err = fmt.Errorf("constant %q: %w", name, err)
	}
	return &Value{Name: name, Type: d.Type(), Const: d}
}

// Op adds a node with one output named out and returns that.
func (b *Builder) Op(out, op string, a Attrs, ins ...*Value) *Value {
	return b.Ops([]string{out}, op, a, ins...)[0]
}

// Ops adds a node with named outputs; an empty name is an output that nobody asked for.
func (b *Builder) Ops(outs []string, op string, a Attrs, ins ...*Value) []*Value {
	return b.Node(outs, op, a, nil, ins...)
}

// Node adds a node with regions (finished with Region) and named outputs.
func (b *Builder) Node(outs []string, op string, a Attrs, regions []*Region, ins ...*Value) []*Value {
	*b.ids++
	n := &Node{ID: *b.ids, Op: op, Attrs: map[string]Attr{}, Ins: ins, Regions: regions}
	n.Name = fmt.Sprintf("%s_%d", op, n.ID)
	for k, v := range a {
		n.Attrs[k] = AttrOf(v)
	}
	FillDefaults(n)
	for _, name := range outs {
		if name == "" {
			n.Outs = append(n.Outs, nil)
		} else {
			n.Outs = append(n.Outs, &Value{Name: name})
		}
	}
	for _, r := range regions {
		SetCaptures(r)
		r.Captures = captures(r)
	}
	if *b.err == nil {
		types, err := InferWith(n, b.facts)
		if err != nil {
			*b.err = NodeError(n, err)
		}
		for i, o := range n.Outs {
			if o != nil && err == nil {
				o.Type = types[i]
			}
		}
	}
	b.region.Nodes = append(b.region.Nodes, n)
	return n.Outs
}

// Region ends the body with its results.
func (b *Builder) Region(results ...*Value) *Region {
	b.region.Results = results
	return b.region
}

// Graph ends the graph with its results and verifies it.
func (b *Builder) Graph(name string, results ...*Value) (*Graph, error) {
	if *b.err != nil {
		return nil, *b.err
	}
	g := &Graph{Name: name, Body: b.Region(results...)}
	if err := Verify(g); err != nil {
		return nil, err
	}
	return g, nil
}
