package pass

import (
	"context"

	"github.com/waybill-ml/waybill/packager/ir"
)

// dce removes nodes whose outputs nobody uses, marks single unused outputs, and drops the results of If branches that
// nobody uses. Operators have no effect but their outputs; a run-time error of a removed one goes with it.
func dce(_ context.Context, g *ir.Graph) (bool, error) {
	changed := false
	for sweep(g.Body, ir.Uses(g.Body)) {
		changed = true
	}
	if changed {
		ir.SetCaptures(g.Body)
	}
	return changed, nil
}

func sweep(r *ir.Region, uses map[*ir.Value]int) bool {
	changed := false
	var kept []*ir.Node
	for i := len(r.Nodes) - 1; i >= 0; i-- {
		n := r.Nodes[i]
		live := false
		for k, o := range n.Outs {
			switch {
			case o == nil:
			case uses[o] > 0:
				live = true
			case len(n.Outs) > 1:
				n.Outs[k], changed = nil, true
			}
		}
		if !live {
			changed = true
			release(n, uses)
			continue
		}
		if n.Op == "If" && dropResults(n, uses) {
			changed = true
		}
		for _, sub := range n.Regions {
			if sweep(sub, uses) {
				changed = true
			}
		}
		kept = append(kept, n)
	}
	for i, k := 0, len(kept)-1; i < k; i, k = i+1, k-1 {
		kept[i], kept[k] = kept[k], kept[i]
	}
	r.Nodes = kept
	return changed
}

// release gives back the uses of a removed node.
func release(n *ir.Node, uses map[*ir.Value]int) {
	for _, v := range n.Ins {
		uses[v]--
	}
	for _, sub := range n.Regions {
		for _, v := range sub.Results {
			uses[v]--
		}
		for _, k := range sub.Nodes {
			release(k, uses)
		}
	}
}

// dropResults removes outputs of an If that nobody uses, with the branches' results behind them.
func dropResults(n *ir.Node, uses map[*ir.Value]int) bool {
	changed := false
	for i := len(n.Outs) - 1; i >= 0; i-- {
		if n.Outs[i] != nil {
			continue
		}
		changed = true
		n.Outs = append(n.Outs[:i:i], n.Outs[i+1:]...)
		for _, sub := range n.Regions {
			uses[sub.Results[i]]--
			sub.Results = append(sub.Results[:i:i], sub.Results[i+1:]...)
		}
	}
	return changed
}
