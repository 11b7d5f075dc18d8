package pass

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/packager/ir"
)

// cse merges equal constants, and nodes that compute the same thing from the same values. A body sees what its
// surroundings have computed before it, never what a sibling computes.
func cse(_ context.Context, g *ir.Graph) (bool, error) {
	m := &merger{ids: map[*ir.Value]int{}, replaced: map[*ir.Value]*ir.Value{}, results: map[*ir.Value]bool{}}
	for _, v := range g.Body.Results {
		m.results[v] = true
	}
	m.constants(g.Body)
	ir.ReplaceAll(g.Body, m.replaced)
	changed := len(m.replaced) > 0
	m.replaced = map[*ir.Value]*ir.Value{}
	m.region(g.Body, nil)
	if len(m.replaced) == 0 && !changed {
		return false, nil
	}
	ir.ReplaceAll(g.Body, m.replaced)
	ir.SetCaptures(g.Body)
	return true, nil
}

type merger struct {
	ids      map[*ir.Value]int
	replaced map[*ir.Value]*ir.Value
	results  map[*ir.Value]bool // of the graph: they keep their names
}

func (m *merger) constants(r *ir.Region) {
	seen := map[string][]*ir.Value{}
	for _, v := range ir.Consts(r) {
		if m.results[v] {
			continue
		}
		k := sketch(v.Const)
		i := slices.IndexFunc(seen[k], func(w *ir.Value) bool {
			return bytes.Equal(v.Const.Bytes, w.Const.Bytes) && slices.Equal(v.Const.Strings, w.Const.Strings)
		})
		if i >= 0 {
			m.replaced[v] = seen[k][i]
		} else {
			seen[k] = append(seen[k], v)
		}
	}
}

// sketch is equal for equal data, and differs for nearly all others: weights are large, so only their head is read.
func sketch(d *ir.Data) string {
	return fmt.Sprintf("%d %v %x %.64q", d.DType, d.Dims, d.Bytes[:min(len(d.Bytes), 64)], d.Strings[:min(len(d.Strings), 4)])
}

func dataKey(d *ir.Data) string {
	h := sha256.New()
	fmt.Fprintf(h, "%d %v ", d.DType, d.Dims)
	h.Write(d.Bytes)
	for _, s := range d.Strings {
		fmt.Fprintf(h, "%d:%s", len(s), s)
	}
	return string(h.Sum(nil))
}

// known is a scope of computed nodes by key.
type known struct {
	outer *known
	nodes map[string]*ir.Node
}

func (k *known) find(key string) *ir.Node {
	for ; k != nil; k = k.outer {
		if n, ok := k.nodes[key]; ok {
			return n
		}
	}
	return nil
}

func (m *merger) region(r *ir.Region, outer *known) {
	scope := &known{outer: outer, nodes: map[string]*ir.Node{}}
	kept := r.Nodes[:0:0]
	for _, n := range r.Nodes {
		for _, sub := range n.Regions {
			m.region(sub, scope)
		}
		key, ok := m.key(n)
		if !ok {
			kept = append(kept, n)
			continue
		}
		if old := scope.find(key); old != nil && m.merge(old, n) {
			continue
		}
		scope.nodes[key] = n
		kept = append(kept, n)
	}
	r.Nodes = kept
}

// merge lets old's outputs stand for n's.
func (m *merger) merge(old, n *ir.Node) bool {
	if len(old.Outs) != len(n.Outs) {
		return false
	}
	for i, o := range n.Outs {
		if o != nil && (old.Outs[i] == nil || m.results[o]) {
			return false
		}
	}
	for i, o := range n.Outs {
		if o != nil {
			m.replaced[o] = old.Outs[i]
		}
	}
	return true
}

// maxListed bounds the attribute lists that are compared: longer ones belong to trees and vocabularies.
const maxListed = 256

// key spells out what a node computes. Control flow and nodes with large attributes are left alone.
func (m *merger) key(n *ir.Node) (string, bool) {
	if len(n.Regions) > 0 {
		return "", false
	}
	var b strings.Builder
	b.WriteString(n.Op)
	for _, v := range n.Ins {
		for w, ok := m.replaced[v]; v != nil && ok; w, ok = m.replaced[v] {
			v = w
		}
		id := -1
		if v != nil {
			var ok bool
			if id, ok = m.ids[v]; !ok {
				id = len(m.ids)
				m.ids[v] = id
			}
		}
		fmt.Fprintf(&b, " %d", id)
	}
	for _, name := range n.AttrNames() {
		a := n.Attrs[name]
		if a.Kind == ir.AttrData {
			fmt.Fprintf(&b, " %s=%x", name, dataKey(a.Data))
			continue
		}
		if len(a.Ints)+len(a.Floats)+len(a.Strs) > maxListed {
			return "", false
		}
		fmt.Fprintf(&b, " %s=%s", name, ir.FormatAttr(a))
	}
	return b.String(), true
}
