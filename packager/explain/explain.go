// Package explain describes a compiled graph to people: what each pass did, how long values live, what each node
// computes and moves. It measures nothing; all it says follows from the graph.
package explain

import (
	"fmt"
	"io"

	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/plan"
)

// Report is what there is to say about one compilation.
type Report struct {
	Passes []Pass  `json:"passes"`
	Nodes  []Node  `json:"nodes"`
	Values []Value `json:"values"`
	Memory Memory  `json:"memory"`
	// Plan is where the compiled program keeps its values; its steps are those of the program, of which a node may take several.
	Plan  *plan.Map `json:"plan"`
	FLOPs Count     `json:"flops"` // of the nodes whose count is known
	// Uncounted is the number of nodes whose FLOPs are not known, those in bodies of control flow included.
	Uncounted int `json:"uncounted_nodes"`
}

// Pass is one run of a pass, or the graph as imported (round 0, name "import").
type Pass struct {
	Round   int    `json:"round"`
	Name    string `json:"name"`
	Changed bool   `json:"changed"`
	Nodes   int    `json:"nodes"`           // afterwards, bodies included
	Graph   string `json:"graph,omitempty"` // ir.Outline afterwards, when it changed
}

// Node is one node of the final graph.
type Node struct {
	Step  int      `json:"step"`  // position in its body
	Depth int      `json:"depth"` // 0 outside of control flow; bodies may run any number of times
	Op    string   `json:"op"`
	Name  string   `json:"name"`
	Outs  []string `json:"outs"` // types; "_" for an output that is not computed
	// FLOPs counts floating or integer operations on elements, a multiply-add as two, a function like Exp as one.
	FLOPs Count `json:"flops"`
	// Bytes is the size of the inputs, constants included, and of the outputs: each is read or written at least once.
	Bytes Count `json:"bytes"`
}

// Value is a value outside of control flow, and the steps from which and up to which it is held. Inputs are made at step
// -1; results of the graph are held up to the step behind the last.
type Value struct {
	Name  string `json:"name"`
	Type  string `json:"type"`
	Bytes Count  `json:"bytes"`
	First int    `json:"first"`
	Last  int    `json:"last"`
}

// Memory sums up. Arena is the compiler's first size of the arena in bytes.
type Memory struct {
	Arena     int64 `json:"arena_bytes"`
	Constants Count `json:"constant_bytes"`
	// Peak is the most that values take at one time, scratch and alignment aside; unknown when a size is, or when no step is
	// the largest for all sizes of the symbols.
	Peak     Count `json:"peak_bytes"`
	PeakStep int   `json:"peak_step"` // first step of the peak; meaningless when Peak is unknown
}

// Recorder collects the passes of one compilation; its Watch is a pass.Watch. It is for one goroutine.
type Recorder struct{ passes []Pass }

// Watch records a pass. Round 0 is the import.
func (r *Recorder) Watch(round int, name string, changed bool, g *ir.Graph) {
	if round == 0 {
		name = "import"
	}
	p := Pass{Round: round, Name: name, Changed: changed}
	_ = ir.Walk(g.Body, func(*ir.Region, *ir.Node) error { p.Nodes++; return nil })
	if changed {
		p.Graph = ir.Outline(g)
	}
	r.passes = append(r.passes, p)
}

// Report describes the final graph g. arena is the size that the compiler chose, in bytes, and p where it laid the values.
func (r *Recorder) Report(g *ir.Graph, arena int64, p *plan.Map) *Report {
	rep := &Report{Plan: p, Passes: append([]Pass{}, r.passes...), Nodes: []Node{}, Values: []Value{}}
	rep.nodes(g.Body, 0)
	rep.lifetimes(g.Body)
	rep.Memory.Arena = arena
	for _, v := range ir.Consts(g.Body) {
		rep.Memory.Constants = rep.Memory.Constants.Plus(size(v))
	}
	return rep
}

func (rep *Report) nodes(r *ir.Region, depth int) {
	for i, n := range r.Nodes {
		x := Node{Step: i, Depth: depth, Op: n.Op, Name: n.Name, FLOPs: flops(n), Outs: []string{}}
		for _, v := range n.Ins {
			if n.Op != "Shape" && n.Op != "Size" { // these look at no element
				x.Bytes = x.Bytes.Plus(size(v))
			}
		}
		for _, o := range n.Outs {
			x.Bytes = x.Bytes.Plus(size(o))
			if o == nil {
				x.Outs = append(x.Outs, "_")
			} else {
				x.Outs = append(x.Outs, o.Type.String())
			}
		}
		rep.Nodes = append(rep.Nodes, x)
		if depth > 0 || !x.FLOPs.Known() {
			rep.Uncounted++
		} else if sum := rep.FLOPs.Plus(x.FLOPs); sum.Known() {
			rep.FLOPs = sum
		} else {
			rep.Uncounted++
		}
		for _, sub := range n.Regions {
			rep.nodes(sub, depth+1)
		}
	}
}

// lifetimes follows the compiler's rule: a value is released after its last use, a result never, an input never (it is the host's).
func (rep *Report) lifetimes(body *ir.Region) {
	at := map[*ir.Value]int{} // index in vals
	var vals []*ir.Value
	end := len(body.Nodes)
	add := func(v *ir.Value, first, last int) {
		if v == nil {
			return
		}
		if _, dup := at[v]; dup {
			return
		}
		at[v] = len(vals)
		vals = append(vals, v)
		rep.Values = append(rep.Values, Value{Name: v.Name, Type: v.Type.String(), Bytes: size(v), First: first, Last: last})
	}
	use := func(v *ir.Value, i int) {
		if k, ok := at[v]; ok && v != nil {
			rep.Values[k].Last = max(rep.Values[k].Last, i)
		}
	}
	for _, v := range body.Params {
		add(v, -1, end)
	}
	for i, n := range body.Nodes {
		for _, v := range n.Ins {
			use(v, i)
		}
		for _, s := range n.Regions {
			for _, v := range s.Captures {
				use(v, i)
			}
		}
		for _, o := range n.Outs {
			add(o, i, i)
		}
	}
	for _, v := range body.Results {
		use(v, end)
	}
	rep.peak(end)
}

// peak finds the step at which most is held.
func (rep *Report) peak(end int) {
	opens, closes := make([][]int, end+2), make([][]int, end+2)
	for k, v := range rep.Values {
		opens[v.First+1] = append(opens[v.First+1], k)
		closes[v.Last+1] = append(closes[v.Last+1], k)
	}
	live, best, step := Count{}, Count{}, -1
	var rivals []Count
	for i := range opens {
		for _, k := range opens[i] {
			live = live.Plus(rep.Values[k].Bytes)
		}
		if !live.Known() {
			rep.Memory.Peak = Unknown()
			return
		}
		switch {
		case best.covers(live):
		case live.covers(best):
			best, step = live, i-1
		default:
			rivals = append(rivals, live)
		}
		for _, k := range closes[i] {
			live = live.minus(rep.Values[k].Bytes)
		}
	}
	for _, c := range rivals {
		if !best.covers(c) {
			best = Unknown()
			break
		}
	}
	rep.Memory.Peak, rep.Memory.PeakStep = best, step
}

// minus takes away a part of c.
func (c Count) minus(d Count) Count {
	left := map[string]int64{}
	for k, n := range c.terms {
		if n -= d.terms[k]; n != 0 {
			left[k] = n
		}
	}
	return Count{unknown: c.unknown || d.unknown, terms: left}
}

// Text writes the report for people.
func (rep *Report) Text(w io.Writer) error {
	e := &writer{w: w}
	for _, p := range rep.Passes {
		switch {
		case p.Round == 0:
			e.print("== imported: %d nodes\n%s\n", p.Nodes, p.Graph)
		case p.Changed:
			e.print("== round %d, %s: changed the graph, %d nodes\n%s\n", p.Round, p.Name, p.Nodes, p.Graph)
		default:
			e.print("== round %d, %s: nothing to do\n", p.Round, p.Name)
		}
	}
	e.print("\n== nodes\n%5s  %-20s %20s %20s  %s\n", "step", "op", "FLOPs", "bytes", "outputs and name")
	for _, n := range rep.Nodes {
		in := ""
		for range n.Depth {
			in += "  "
		}
		e.print("%5d  %-20s %20s %20s  %s %q\n", n.Step, in+n.Op, n.FLOPs, n.Bytes, n.Outs, n.Name)
	}
	e.print("FLOPs in all: %s, and those of %d nodes that depend on the data or are not counted\n", rep.FLOPs, rep.Uncounted)
	e.print("\n== memory\narena %d bytes, constants %s bytes, values at most %s bytes at a time", rep.Memory.Arena, rep.Memory.Constants, rep.Memory.Peak)
	if rep.Memory.Peak.Known() {
		e.print(" (step %d)", rep.Memory.PeakStep)
	}
	e.print("\n%12s  %20s  %s\n", "held", "bytes", "value")
	for _, v := range rep.Values {
		e.print("%12s  %20s  %q %s\n", fmt.Sprintf("%d..%d", v.First, v.Last), v.Bytes, v.Name, v.Type)
	}
	if rep.Plan != nil {
		rep.plan(e)
	}
	return e.err
}

// writer keeps the first error.
type writer struct {
	w   io.Writer
	err error
}

func (e *writer) print(format string, args ...any) {
	if e.err == nil {
		_, e.err = fmt.Fprintf(e.w, format, args...)
	}
}
