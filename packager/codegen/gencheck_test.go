package codegen_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// verdict is what a random graph showed.
type verdict struct {
	failed      bool                 // the run ends in an error, everywhere the same one
	unsupported *codegen.Unsupported // the compiler does not take it
	bad         string               // a disagreement: where, without what differs from graph to graph
	detail      string
}

// thrown ends a check from inside the machine.
type thrown string

// thrower is the machine's test while graphs are examined: what would end the test ends the examination.
type thrower struct {
	testing.TB
	last *[]func()
}

func (t thrower) Helper()                      {}
func (t thrower) Cleanup(f func())             { *t.last = append(*t.last, f) }
func (t thrower) Fatal(a ...any)               { panic(thrown(fmt.Sprint(a...))) }
func (t thrower) Fatalf(f string, args ...any) { panic(thrown(fmt.Sprintf(f, args...))) }

var innerNode = regexp.MustCompile(`node ("(?:[^"\\]|\\.)*") \(`)

func hasNode(g *ir.Graph, name string) bool {
	found := errors.New("found")
	return ir.Walk(g.Body, func(_ *ir.Region, n *ir.Node) error {
		if n.Name == name {
			return found
		}
		return nil
	}) != nil
}

// nodeOf is the node that an interpreter's error names: the innermost one.
func nodeOf(err error) string {
	all := innerNode.FindAllStringSubmatch(err.Error(), -1)
	if len(all) == 0 {
		return ""
	}
	return strings.Trim(all[len(all)-1][1], `"`)
}

// examine prints and parses g, and compares the interpreter with the module compiled from it, before and after the passes,
// with up to three threads, and with poisoned memory, small slices and parts in reverse order. g stays as it is.
func examine(g *ir.Graph, ins []*ir.Val, seed uint64) (v verdict) {
	var last []func()
	stage := "print and parse"
	defer func() {
		for _, f := range last {
			f()
		}
		if r := recover(); r != nil {
			v.bad, v.detail = stage+": panic", fmt.Sprintf("%v\n%s", r, debug.Stack())
			if s, ok := r.(thrown); ok {
				v.bad, v.detail = stage+": the machine stops", string(s)
			}
		}
	}()
	bad := func(format string, args ...any) verdict {
		v.bad, v.detail = stage, fmt.Sprintf(format, args...)
		return v
	}
	text := ir.Print(g)
	g, err := ir.Parse(text)
	if err != nil {
		return bad("%v", err)
	}
	if again := ir.Print(g); again != text {
		return bad("other text:\n%s", again)
	}
	if err := ir.Verify(g); err != nil {
		return bad("%v", err)
	}
	in := map[string]*ir.Val{}
	for i, p := range g.Body.Params {
		in[p.Name] = ins[i]
	}
	stage = "interpret"
	want, err := interp.Run(context.Background(), g, in)
	var un *interp.UnsupportedError
	if errors.As(err, &un) {
		return bad("%v", err)
	}
	v.failed = err != nil
	for _, passes := range []bool{false, true} {
		if passes {
			stage = "passes"
			var verr error
			perr := pass.RunWatched(context.Background(), g, func(round int, name string, _ bool, g *ir.Graph) {
				if e := ir.Verify(g); e != nil && verr == nil {
					verr = fmt.Errorf("after round %d of %s: %w", round, name, e)
				}
			})
			if verr != nil {
				// A branch that is always taken can bring an error of the run forward to the compilation (docs/numerics.md, 1).
				if err != nil {
					return v
				}
				return bad("%v", verr)
			}
			if perr != nil && err != nil {
				return v
			}
			if perr != nil {
				return bad("%v", perr)
			}
			before, failedAt := want, ""
			if err != nil {
				failedAt = nodeOf(err)
			}
			want, err = interp.Run(context.Background(), g, in)
			// What nobody uses goes, with its errors.
			if err != nil && before != nil || err == nil && before == nil && hasNode(g, failedAt) {
				return bad("the interpreter then says: %v", err)
			}
			for name, b := range before {
				// The passes know more dims: those of a body that never ran can change.
				if a := want[name]; a.Kind == ir.Tensor && a.Tensor.Len() == 0 && b.Tensor.Len() == 0 && a.Tensor.DType == b.Tensor.DType {
					continue
				}
				if serr := sameVals(want[name], b); serr != nil {
					return bad("interpreted after them: output %q: %v", name, serr)
				}
			}
		}
		stage = fmt.Sprintf("compile (passes: %v)", passes)
		opt := codegen.Options{WeightsAbove: int64(seed%3)*64 - 1, Parallel: seed%2 == 0, ParallelMin: []int64{50, 1, 400}[seed/2%3]}
		res, cerr := codegen.Compile(g, opt)
		if errors.As(cerr, &v.unsupported) {
			return v
		}
		if cerr != nil {
			return bad("%v", cerr)
		}
		m := load(thrower{last: &last}, g, res, runtimeConfig())
		for _, small := range []bool{false, true} {
			stage = fmt.Sprintf("run (passes: %v, small: %v)", passes, small)
			m.threads = 1 + int(seed/6%3) // where there are parts
			if small {
				m.threads, m.budget, m.arena, m.reverse, m.poison = 1, []uint32{3, 1, 37}[seed%3], 0, true, true
			}
			_, gerr := m.runVals(ins)
			if (err == nil) != (gerr == nil) {
				return bad("compiled: %v; interpreted: %v", gerr, err)
			}
			if err != nil {
				if serr := sameFault(gerr, err); serr != nil {
					stage += " faults"
					return bad("%v", serr)
				}
				continue
			}
			for i, r := range g.Body.Results {
				if serr := sameVals(m.vals[i], want[r.Name]); serr != nil {
					return bad("output %q: %v", r.Name, serr)
				}
			}
		}
	}
	return v
}

// reasonOf is the interpreter's reason that an error code stands for.
func reasonOf(c abi.Code) interp.Reason {
	switch c {
	case abi.ErrIndex:
		return interp.BadIndex
	case abi.ErrValue:
		return interp.BadValue
	case abi.ErrMemory, abi.ErrOverflow:
		return interp.TooMuch
	}
	return interp.Misfit
}

// sameFault compares the node and the reason of an error record with those of the interpreter's error.
func sameFault(got, want error) error {
	var ge *guestError
	if !errors.As(got, &ge) {
		return nil
	}
	why, code := interp.ReasonOf(want), reasonOf(ge.code)
	// Sizes that are too large for one form may only be found not to fit by the other.
	large := (why == interp.TooMuch || why == interp.Misfit) && (code == interp.TooMuch || code == interp.Misfit)
	if n := nodeOf(want); n != "" && n != ge.node || why != code && !large {
		return fmt.Errorf("compiled: %w; interpreted: %w", got, want)
	}
	return nil
}

func sameVals(got, want *ir.Val) error {
	if got == nil || want == nil || got.Kind != want.Kind {
		return fmt.Errorf("another kind of value")
	}
	if got.Kind == ir.Tensor {
		return sameBits(got.Tensor, want.Tensor)
	}
	if (got.Keys == nil) != (want.Keys == nil) || len(got.Elems) != len(want.Elems) {
		return fmt.Errorf("%d elements, the interpreter has %d", len(got.Elems), len(want.Elems))
	}
	if got.Keys != nil {
		if err := sameBits(got.Keys, want.Keys); err != nil {
			return fmt.Errorf("keys: %w", err)
		}
	}
	for i := range got.Elems {
		if err := sameVals(got.Elems[i], want.Elems[i]); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// val reads a value of any kind.
func (m *machine) val(at uint32) *ir.Val {
	le := binary.LittleEndian
	b, ok := m.mod.Memory().Read(at, abi.DescSize)
	if !ok {
		m.t.Fatalf("descriptor at %d is out of memory", at)
	}
	kind := ir.Kind(le.Uint32(b[abi.DescKind:]))
	if kind == ir.Tensor {
		return ir.TensorVal(m.value(at))
	}
	out := &ir.Val{Kind: kind}
	n, data := le.Uint64(b[abi.DescDims:]), le.Uint32(b[abi.DescData:])
	if kind != ir.Map {
		for i := uint64(0); i < n; i++ {
			out.Elems = append(out.Elems, m.val(data+uint32(i*abi.DescSize)))
		}
		return out
	}
	out.Keys = m.value(data)
	vals := m.val(data + abi.DescSize)
	if vals.Kind != ir.Tensor {
		out.Elems = vals.Elems
		return out
	}
	d := vals.Tensor
	if d.Dims[0] != int64(n) {
		m.t.Fatalf("a map of %d keys and %v values", n, d.Dims)
	}
	w := len(d.Bytes) / max(int(n), 1)
	for i := range int(n) {
		out.Elems = append(out.Elems, ir.TensorVal(&ir.Data{DType: d.DType, Dims: d.Dims[1:], Bytes: d.Bytes[i*w : (i+1)*w]}))
	}
	return out
}

// shrink drops results and nodes, also from bodies, for as long as the graph shows the same.
func shrink(g *ir.Graph, ins []*ir.Val, same func(*ir.Graph, []*ir.Val) bool) (*ir.Graph, []*ir.Val) {
	if _, err := ir.Parse(ir.Print(g)); err != nil {
		return g, ins
	}
	for range 4 {
		smaller := false
		try := func(h *ir.Graph, hins []*ir.Val) bool {
			h, hins = prune(h, hins)
			if ir.Verify(h) != nil || len(ir.Print(h)) >= len(ir.Print(g)) || !same(h, hins) {
				return false
			}
			g, ins, smaller = h, hins, true
			return true
		}
		for i := len(g.Body.Results) - 1; i >= 0 && len(g.Body.Results) > 1; i-- {
			h := clone(g)
			h.Body.Results = slices.Delete(h.Body.Results, i, i+1)
			try(h, ins)
		}
		// What comes behind a node goes when what that gives is the result.
		for i := 0; i < len(g.Body.Nodes); i++ {
			h := clone(g)
			h.Body.Results = slices.DeleteFunc(slices.Clone(h.Body.Nodes[i].Outs), func(v *ir.Value) bool { return v == nil })
			if len(h.Body.Results) > 0 && try(h, ins) {
				i = -1
			}
		}
		// A node goes when what it gives becomes an input.
		for i := 0; i < len(g.Body.Nodes); i++ {
			h, hins := inputInstead(g, ins, i)
			if h != nil && try(h, hins) {
				i--
			}
		}
		for k := 0; ; k++ {
			h := clone(g)
			if !dropInside(h, k) {
				break
			}
			if try(h, ins) {
				k--
			}
		}
		if !smaller {
			break
		}
	}
	return g, ins
}

// dropInside drops the k-th node of all bodies of which nobody uses a result; there may be none.
func dropInside(g *ir.Graph, k int) bool {
	uses, found := ir.Uses(g.Body), false
	var visit func(r *ir.Region)
	visit = func(r *ir.Region) {
		for i, n := range r.Nodes {
			unused := !slices.ContainsFunc(n.Outs, func(v *ir.Value) bool { return v != nil && uses[v] > 0 })
			if r != g.Body && unused && !found {
				if k == 0 {
					r.Nodes, found = slices.Delete(r.Nodes, i, i+1), true
					return
				}
				k--
			}
			for _, s := range n.Regions {
				visit(s)
			}
		}
	}
	visit(g.Body)
	ir.SetCaptures(g.Body)
	return found
}

func clone(g *ir.Graph) *ir.Graph {
	h, err := ir.Parse(ir.Print(g))
	if err != nil {
		panic(err)
	}
	return h
}

// inputInstead is g with the outputs of node i as parameters that hold what the interpreter finds; nil when they are maps.
func inputInstead(g *ir.Graph, ins []*ir.Val, i int) (*ir.Graph, []*ir.Val) {
	part := clone(g)
	part.Body.Nodes = part.Body.Nodes[:i+1]
	part.Body.Results = nil
	for _, o := range part.Body.Nodes[i].Outs {
		if o != nil {
			part.Body.Results = append(part.Body.Results, o)
		}
	}
	in := map[string]*ir.Val{}
	for k, p := range part.Body.Params {
		in[p.Name] = ins[k]
	}
	res, err := interp.Run(context.Background(), part, in)
	if err != nil {
		return nil, nil
	}
	h := clone(g)
	hins := slices.Clone(ins)
	for _, o := range h.Body.Nodes[i].Outs {
		if o == nil {
			continue
		}
		v := res[o.Name]
		if v.Kind == ir.Map || v.Kind == ir.Sequence && o.Type.Elem.Kind == ir.Map {
			return nil, nil
		}
		h.Body.Params, hins = append(h.Body.Params, o), append(hins, v)
	}
	h.Body.Nodes = slices.Delete(h.Body.Nodes, i, i+1)
	h.Body.Results = slices.DeleteFunc(h.Body.Results, func(r *ir.Value) bool { return slices.Contains(h.Body.Params, r) })
	if len(h.Body.Results) == 0 {
		return nil, nil
	}
	return h, hins
}

// prune drops nodes and parameters that no result needs.
func prune(g *ir.Graph, ins []*ir.Val) (*ir.Graph, []*ir.Val) {
	ir.SetCaptures(g.Body)
	used := map[*ir.Value]bool{}
	for _, r := range g.Body.Results {
		used[r] = true
	}
	var kept []*ir.Node
	for i := len(g.Body.Nodes) - 1; i >= 0; i-- {
		n := g.Body.Nodes[i]
		if !slices.ContainsFunc(n.Outs, func(v *ir.Value) bool { return used[v] && v != nil }) {
			continue
		}
		for _, v := range n.Ins {
			used[v] = true
		}
		for _, s := range n.Regions {
			for _, v := range s.Captures {
				used[v] = true
			}
		}
		kept = append(kept, n)
	}
	slices.Reverse(kept)
	g.Body.Nodes = kept
	var params []*ir.Value
	var left []*ir.Val
	for i, p := range g.Body.Params {
		if used[p] {
			params, left = append(params, p), append(left, ins[i])
		}
	}
	g.Body.Params = params
	return g, left
}

// show is a graph with its inputs, for readers.
func show(g *ir.Graph, ins []*ir.Val) string {
	b := ir.Print(g)
	for i, p := range g.Body.Params {
		b += "input " + p.Name + shown(ins[i]) + "\n"
	}
	return b
}

func shown(v *ir.Val) string {
	if d := v.Tensor; d != nil {
		if d.DType == ir.String {
			return fmt.Sprintf(" string%v %.300q", d.Dims, d.Strings)
		}
		return fmt.Sprintf(" %s%v %.300x", d.DType, d.Dims, d.Bytes)
	}
	s := " ("
	for _, e := range v.Elems {
		s += shown(e)
	}
	return s + ")"
}
