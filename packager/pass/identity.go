package pass

import (
	"context"

	"github.com/waybill-ml/waybill/packager/ir"
)

// identity removes nodes that give their first input unchanged. Outputs of the graph keep their names: the value
// behind one takes its name over, or the Identity stays where that cannot be (an input, a constant, a second output).
func identity(_ context.Context, g *ir.Graph) (bool, error) {
	m := &remover{g: g, replaced: map[*ir.Value]*ir.Value{}, results: map[*ir.Value]bool{}, own: map[*ir.Value]bool{}}
	for _, v := range g.Body.Results {
		m.results[v] = true
	}
	for _, n := range g.Body.Nodes {
		for _, o := range n.Outs {
			m.own[o] = true
		}
	}
	m.region(g.Body)
	if len(m.replaced) == 0 {
		return false, nil
	}
	ir.ReplaceAll(g.Body, m.replaced)
	ir.SetCaptures(g.Body)
	return true, nil
}

type remover struct {
	g        *ir.Graph
	replaced map[*ir.Value]*ir.Value
	results  map[*ir.Value]bool // of the graph
	own      map[*ir.Value]bool // computed by a node of the graph's body
}

func (m *remover) final(v *ir.Value) *ir.Value {
	for w, ok := m.replaced[v]; ok; w, ok = m.replaced[v] {
		v = w
	}
	return v
}

func (m *remover) region(r *ir.Region) {
	kept := r.Nodes[:0:0]
	for _, n := range r.Nodes {
		for _, sub := range n.Regions {
			m.region(sub)
		}
		if !noop(n) || !m.drop(n) {
			kept = append(kept, n)
		}
	}
	r.Nodes = kept
}

func (m *remover) drop(n *ir.Node) bool {
	o, v := n.Outs[0], m.final(n.Ins[0])
	if o == nil {
		return true
	}
	if m.results[o] {
		if !m.own[v] || m.results[v] || v.Const != nil {
			return false
		}
		v.Name, o.Name = o.Name, v.Name
		delete(m.results, o)
		m.results[v] = true
	}
	m.replaced[o] = v
	return true
}

// noop reports that the node's output is its first input.
func noop(n *ir.Node) bool {
	if len(n.Outs) != 1 || len(n.Ins) == 0 || n.Ins[0] == nil {
		return false
	}
	in := n.Ins[0].Type
	switch n.Op {
	case "Identity":
		return true
	case "Cast":
		return in.DType == n.DType("to")
	case "Concat":
		return len(n.Ins) == 1
	case "Transpose":
		perm := n.Ints("perm")
		for i, p := range perm {
			if p != int64(i) {
				return false
			}
		}
		return len(perm) > 0
	case "Reshape", "Flatten", "Expand", "Squeeze", "Unsqueeze":
		return n.Outs[0] != nil && sameShape(in.Shape, n.Outs[0].Type.Shape)
	case "Pad":
		if n.Ins[1].Const == nil {
			return false
		}
		for _, p := range n.Ins[1].Const.Ints() {
			if p != 0 {
				return false
			}
		}
		return true
	}
	return false
}

// sameShape reports that both shapes are certainly equal.
func sameShape(a, b ir.Shape) bool {
	if !a.Ranked || !b.Ranked || len(a.Dims) != len(b.Dims) {
		return false
	}
	for i := range a.Dims {
		if !a.Dims[i].Same(b.Dims[i]) {
			return false
		}
	}
	return true
}
