package evidence

import (
	"cmp"
	"slices"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Verdict is a verified VSA with the digest of its bundle.
type Verdict struct {
	Bundle artifact.Digest
	VSA    *VSA
}

// Chain is how the verdicts on one digest for one environment hang together. Each names the one that its gate found
// newest (Prev) and, when gates had decided at once, the others that nobody followed (Merges), by the digests of their
// bundles: a verdict that was taken away is missed by every later one. Only the newest can go without a trace here.
type Chain struct {
	// Verdicts are the verified ones, each after those that it follows; the last one decides.
	Verdicts []Verdict
	// Heads are the ones that no other follows, the deciding one first. Several mean that gates decided without seeing
	// each other: of these a denial decides, whatever its time, since no gate has set it aside. The next verdict joins them.
	Heads []artifact.Digest
	// Missing are the verdicts that others name and that are not attached, sorted by digest.
	Missing []Gap
	// Forks are the verdicts that several follow, sorted; After is "" for several that follow none.
	Forks []Fork
}

// Gap is a verdict that By names and that is not attached.
type Gap struct {
	Digest artifact.Digest `json:"digest"`
	By     artifact.Digest `json:"by"`
}

// Fork is a place where the chain splits.
type Fork struct {
	After    artifact.Digest   `json:"after"`
	Verdicts []artifact.Digest `json:"verdicts"`
}

// Complete tells whether every verdict that is named is there.
func (c *Chain) Complete() bool { return len(c.Missing) == 0 }

// Newest is the verdict that decides, nil when there is none.
func (c *Chain) Newest() *Verdict {
	if len(c.Verdicts) == 0 {
		return nil
	}
	return &c.Verdicts[len(c.Verdicts)-1]
}

// MissingDigests lists the digests of Missing, each once.
func (c *Chain) MissingDigests() []artifact.Digest {
	out := make([]artifact.Digest, 0, len(c.Missing))
	for _, g := range c.Missing {
		out = append(out, g.Digest)
	}
	return slices.Compact(out)
}

// before lists what a verdict follows.
func (x VSAExtension) before() []artifact.Digest {
	if x.Prev == "" {
		return nil
	}
	return append([]artifact.Digest{x.Prev}, x.Merges...)
}

// ChainOf follows the chain of the verified verdicts vs, which are on one digest for one environment. attached are all
// bundles on the digest: one that no longer verifies (its key was revoked) is no verdict, but it is not missing either, and
// since a verified verdict names its very bytes, the chain is followed through it. vs is not changed.
func ChainOf(vs []Verdict, attached [][]byte) *Chain {
	w := &walk{vsa: make(map[artifact.Digest]*VSA, len(vs)), attached: attached, followed: map[artifact.Digest]bool{},
		children: map[artifact.Digest][]artifact.Digest{}, past: map[artifact.Digest][]artifact.Digest{}, gaps: map[Gap]bool{}}
	for _, v := range vs {
		w.vsa[v.Bundle] = v.VSA
	}
	for _, v := range vs {
		w.follow(v)
	}
	c := &Chain{Verdicts: w.order(vs)}
	for _, v := range slices.Backward(c.Verdicts) {
		if !w.followed[v.Bundle] {
			c.Heads = append(c.Heads, v.Bundle)
		}
	}
	for g := range w.gaps {
		c.Missing = append(c.Missing, g)
	}
	slices.SortFunc(c.Missing, func(a, b Gap) int { return cmp.Or(cmp.Compare(a.Digest, b.Digest), cmp.Compare(a.By, b.By)) })
	for after, next := range w.children {
		if len(next) > 1 {
			slices.Sort(next)
			c.Forks = append(c.Forks, Fork{After: after, Verdicts: next})
		}
	}
	slices.SortFunc(c.Forks, func(a, b Fork) int { return cmp.Compare(a.After, b.After) })
	return c
}

type walk struct {
	vsa      map[artifact.Digest]*VSA
	attached [][]byte
	indexed  map[artifact.Digest][]byte // attached by digest, once it is needed

	followed map[artifact.Digest]bool              // verified, and another one follows it
	children map[artifact.Digest][]artifact.Digest // what follows a digest directly
	past     map[artifact.Digest][]artifact.Digest // the nearest verified verdicts before one
	gaps     map[Gap]bool
}

// follow walks from v to the nearest verified verdicts before it, through attached ones that do not verify any more.
func (w *walk) follow(v Verdict) {
	if w.past[v.Bundle] != nil {
		return // the same bundle twice
	}
	w.past[v.Bundle] = []artifact.Digest{}
	before := v.VSA.Waybill.before()
	if len(before) == 0 {
		w.children[""] = append(w.children[""], v.Bundle)
	}
	for _, d := range before {
		w.children[d] = append(w.children[d], v.Bundle)
	}
	type step struct{ d, by artifact.Digest }
	var todo []step
	for _, d := range before {
		todo = append(todo, step{d, v.Bundle})
	}
	seen := map[artifact.Digest]bool{v.Bundle: true}
	for len(todo) > 0 {
		s := todo[0]
		todo = todo[1:]
		if seen[s.d] {
			continue
		}
		seen[s.d] = true
		if w.vsa[s.d] != nil {
			w.followed[s.d] = true
			w.past[v.Bundle] = append(w.past[v.Bundle], s.d)
			continue
		}
		raw := w.find(s.d)
		if raw == nil {
			w.gaps[Gap{Digest: s.d, By: s.by}] = true
			continue
		}
		for _, d := range namedBy(raw) {
			todo = append(todo, step{d, s.d})
		}
	}
}

func (w *walk) find(d artifact.Digest) []byte {
	if w.indexed == nil {
		w.indexed = make(map[artifact.Digest][]byte, len(w.attached))
		for _, raw := range w.attached {
			w.indexed[artifact.DigestOf(raw)] = raw
		}
	}
	return w.indexed[d]
}

// namedBy reads which verdicts a bundle follows, without asking who signed it.
func namedBy(raw []byte) []artifact.Digest {
	b, err := OpenBundle(raw)
	if err != nil {
		return nil
	}
	s, err := ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil || s.PredicateType != TypeVSA {
		return nil
	}
	v, err := ParseVSA(s.Predicate)
	if err != nil {
		return nil
	}
	return v.Waybill.before()
}

// order puts every verdict after those that it follows: a clock that is wrong does not turn the chain around. What the
// chain leaves open goes by time, and what is left by digest, so that every reader agrees. A denial that nobody has
// followed comes last: it withdraws the passes.
func (w *walk) order(vs []Verdict) []Verdict {
	type node struct {
		Verdict
		open int // verdicts before it that are not placed yet
	}
	nodes := map[artifact.Digest]*node{}
	next := map[artifact.Digest][]*node{}
	var ready []*node
	for _, v := range vs {
		if nodes[v.Bundle] != nil {
			continue
		}
		n := &node{Verdict: v, open: len(w.past[v.Bundle])}
		nodes[v.Bundle] = n
		for _, d := range w.past[v.Bundle] {
			next[d] = append(next[d], n)
		}
		if n.open == 0 {
			ready = append(ready, n)
		}
	}
	rank := func(n *node) int {
		switch {
		case w.followed[n.Bundle]:
			return 0
		case n.VSA.VerificationResult == Passed:
			return 1
		}
		return 2
	}
	first := func(a, b *node) int {
		ra, rb := rank(a), rank(b)
		return cmp.Or(cmp.Compare(ra/2, rb/2), a.VSA.TimeVerified.Compare(b.VSA.TimeVerified), cmp.Compare(ra, rb), cmp.Compare(a.Bundle, b.Bundle))
	}
	out := make([]Verdict, 0, len(nodes))
	for len(ready) > 0 {
		n := slices.MinFunc(ready, first)
		ready = slices.DeleteFunc(ready, func(x *node) bool { return x == n })
		out = append(out, n.Verdict)
		for _, x := range next[n.Bundle] {
			if x.open--; x.open == 0 {
				ready = append(ready, x)
			}
		}
	}
	return out
}
