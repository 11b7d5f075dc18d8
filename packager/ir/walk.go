package ir

// Walk calls f for every node of the region and of the regions inside its nodes: a node before its bodies,
// in execution order. It stops at the first error.
func Walk(r *Region, f func(*Region, *Node) error) error {
	for _, n := range r.Nodes {
		if err := f(r, n); err != nil {
			return err
		}
		for _, sub := range n.Regions {
			if err := Walk(sub, f); err != nil {
				return err
			}
		}
	}
	return nil
}

// Uses counts how often each value is an input of a node, a result or a capture, in the region and below.
func Uses(r *Region) map[*Value]int {
	u := map[*Value]int{}
	var visit func(*Region)
	visit = func(r *Region) {
		for _, n := range r.Nodes {
			for _, v := range n.Ins {
				if v != nil {
					u[v]++
				}
			}
			for _, sub := range n.Regions {
				visit(sub)
			}
		}
		for _, v := range r.Results {
			u[v]++
		}
	}
	visit(r)
	return u
}

// Consts lists the constants that the region and those below use, each once, in first-use order.
func Consts(r *Region) []*Value {
	seen := map[*Value]bool{}
	var out []*Value
	add := func(v *Value) {
		if v != nil && v.Const != nil && !seen[v] {
			seen[v] = true
			out = append(out, v)
		}
	}
	var visit func(*Region)
	visit = func(r *Region) {
		for _, n := range r.Nodes {
			for _, v := range n.Ins {
				add(v)
			}
			for _, sub := range n.Regions {
				visit(sub)
			}
		}
		for _, v := range r.Results {
			add(v)
		}
	}
	visit(r)
	return out
}

// Replace substitutes new for old as an input or result in the region and below. Captures are then stale:
// call SetCaptures.
func Replace(r *Region, old, new *Value) { ReplaceAll(r, map[*Value]*Value{old: new}) }

// ReplaceAll substitutes m[v] for each v as an input or result in the region and below, following chains.
// Captures are then stale: call SetCaptures.
func ReplaceAll(r *Region, m map[*Value]*Value) {
	if len(m) == 0 {
		return
	}
	sub := func(vs []*Value) {
		for i, v := range vs {
			for w, ok := m[v]; v != nil && ok; w, ok = m[v] {
				v = w
			}
			vs[i] = v
		}
	}
	for _, n := range r.Nodes {
		sub(n.Ins)
		for _, b := range n.Regions {
			ReplaceAll(b, m)
		}
	}
	sub(r.Results)
}

// SetCaptures computes the Captures of all regions inside r from the values that they use. Constants are
// never captured: they are visible everywhere.
func SetCaptures(r *Region) {
	for _, n := range r.Nodes {
		for _, sub := range n.Regions {
			SetCaptures(sub)
			sub.Captures = captures(sub)
		}
	}
}

func captures(r *Region) []*Value {
	own := map[*Value]bool{}
	for _, v := range r.Params {
		own[v] = true
	}
	var out []*Value
	use := func(v *Value) {
		if v != nil && v.Const == nil && !own[v] {
			own[v] = true
			out = append(out, v)
		}
	}
	for _, n := range r.Nodes {
		for _, v := range n.Ins {
			use(v)
		}
		for _, sub := range n.Regions {
			for _, v := range sub.Captures {
				use(v)
			}
		}
		for _, v := range n.Outs {
			own[v] = true
		}
	}
	for _, v := range r.Results {
		use(v)
	}
	return out
}
