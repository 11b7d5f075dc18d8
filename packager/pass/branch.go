package pass

import (
	"context"

	"github.com/waybill-ml/waybill/packager/ir"
)

// branch replaces an If whose condition is a constant by the branch that it takes.
func branch(_ context.Context, g *ir.Graph) (bool, error) {
	ids := newIDs(g)
	changed := inline(g.Body, ids)
	if changed {
		ir.SetCaptures(g.Body)
	}
	return changed, nil
}

func inline(r *ir.Region, ids *nodeIDs) bool {
	changed := false
	var kept []*ir.Node
	for _, n := range r.Nodes {
		for _, sub := range n.Regions {
			if inline(sub, ids) {
				changed = true
			}
		}
		if n.Op != "If" || n.Ins[0].Const == nil || n.Ins[0].Const.Len() != 1 {
			kept = append(kept, n)
			continue
		}
		taken := n.Regions[1]
		if n.Ins[0].Const.Int(0) != 0 {
			taken = n.Regions[0]
		}
		kept = append(kept, taken.Nodes...)
		for i, o := range n.Outs {
			if o == nil {
				continue
			}
			kept = append(kept, &ir.Node{ID: ids.next(), Op: "Identity", Name: n.Name, Attrs: map[string]ir.Attr{},
				Ins: []*ir.Value{taken.Results[i]}, Outs: []*ir.Value{o}})
			// The type of an If covers both branches; now only one remains.
			o.Type = taken.Results[i].Type
		}
		changed = true
	}
	r.Nodes = kept
	return changed
}

// nodeIDs gives out ids that no node has.
type nodeIDs struct{ last int }

func newIDs(g *ir.Graph) *nodeIDs {
	ids := &nodeIDs{last: -1}
	_ = ir.Walk(g.Body, func(_ *ir.Region, n *ir.Node) error {
		ids.last = max(ids.last, n.ID)
		return nil
	})
	return ids
}

func (ids *nodeIDs) next() int {
	ids.last++
	return ids.last
}
