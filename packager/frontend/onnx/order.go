package onnx

import (
	"container/heap"
)

// ordered gives the nodes so that each comes after those it reads from, itself or in its bodies. The specification asks for that order,
// but converters append nodes at the end (float16 conversion does) and ONNX Runtime sorts what it loads. Nodes in order stay
// as they are; else the earliest in the file that can be computed comes next. What cannot be computed keeps the file's order at the
// end, where the importer names what is missing. known tells the names that are there before the first node.
func ordered(nodes []nodeProto, known func(string) bool) []*nodeProto {
	out := make([]*nodeProto, len(nodes))
	maker := map[string]int{}
	for i := range nodes {
		out[i] = &nodes[i]
		for _, name := range nodes[i].outs {
			if _, twice := maker[name]; name != "" && !twice && !known(name) {
				maker[name] = i
			}
		}
	}
	waits := make([]int, len(nodes)) // makers that a node waits for
	next := make([][]int, len(nodes))
	late := false
	for i := range nodes {
		seen := map[int]bool{}
		reads(&nodes[i], func(name string) {
			m, ok := maker[name]
			if !ok || seen[m] {
				return
			}
			seen[m] = true
			late = late || m >= i
			waits[i]++
			next[m] = append(next[m], i)
		})
	}
	if !late {
		return out
	}
	var ready indexHeap
	for i, n := range waits {
		if n == 0 {
			ready = append(ready, i) // rising, hence a heap
		}
	}
	done := make([]bool, len(nodes))
	out = out[:0]
	for len(ready) > 0 {
		i := heap.Pop(&ready).(int)
		done[i] = true
		out = append(out, &nodes[i])
		for _, j := range next[i] {
			if waits[j]--; waits[j] == 0 {
				heap.Push(&ready, j)
			}
		}
	}
	for i := range nodes {
		if !done[i] {
			out = append(out, &nodes[i])
		}
	}
	return out
}

// reads calls f for each name of an outer value that n or a body within it uses.
func reads(n *nodeProto, f func(string)) {
	for _, name := range n.ins {
		if name != "" {
			f(name)
		}
	}
	for i := range n.attrs {
		g := n.attrs[i].g
		if g == nil {
			continue
		}
		own := map[string]bool{}
		for _, in := range g.inputs {
			own[in.name] = true
		}
		for j := range g.inits {
			own[g.inits[j].name] = true
		}
		for j := range g.nodes {
			for _, name := range g.nodes[j].outs {
				own[name] = true
			}
		}
		free := func(name string) {
			if name != "" && !own[name] {
				f(name)
			}
		}
		for j := range g.nodes {
			reads(&g.nodes[j], free)
		}
		for _, out := range g.outputs {
			free(out.name)
		}
	}
}

// indexHeap is a heap of indices, the least on top.
type indexHeap []int

func (h indexHeap) Len() int           { return len(h) }
func (h indexHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h indexHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *indexHeap) Push(x any)        { *h = append(*h, x.(int)) }
func (h *indexHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
