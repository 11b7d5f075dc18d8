package codegen_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// TestRandomGraphs makes random small graphs and compares, bit for bit, the interpreter on the graph as made with the
// module compiled from it, before and after the passes; both must fail or both succeed. The graphs of a seed are always
// the same. WAYBILL_GEN_SECONDS says how long to go on (else a fixed number of graphs), WAYBILL_GEN_SEED where to start: the
// seed that a failure names, with WAYBILL_GEN_SECONDS=0, makes that graph alone.
func TestRandomGraphs(t *testing.T) {
	count, seed := uint64(60), uint64(1)
	limit := time.Duration(-1)
	if s := os.Getenv("WAYBILL_GEN_SECONDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			t.Fatalf("WAYBILL_GEN_SECONDS is %q, want a number of seconds", s)
		}
		limit = time.Duration(n) * time.Second
	}
	if s := os.Getenv("WAYBILL_GEN_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil || n == 0 {
			t.Fatalf("WAYBILL_GEN_SEED is %q, want a positive number", s)
		}
		seed = n
	}
	ops := map[string]int{}
	start, graphs, failing, unsupported, failures := time.Now(), 0, 0, 0, 0
	for i := uint64(0); ; i++ {
		if limit < 0 && i >= count || limit >= 0 && i > 0 && time.Since(start) >= limit {
			break
		}
		g, ins := randomGraph(t, seed+i)
		graphs++
		countOps(g.Body, ops)
		ok := t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
			failed, un := checkGraph(t, g, ins, seed+i)
			if failed {
				failing++
			}
			if un != nil {
				unsupported++
				t.Logf("not compiled: %v", un)
			}
		})
		if !ok {
			if failures++; failures >= 20 {
				break
			}
		}
	}
	if limit < 0 && (len(ops) < 50 || unsupported*4 > graphs || failing == 0) {
		t.Errorf("the graphs show too little: %d operators; of %d graphs %d end in errors, %d are not supported", len(ops), graphs, failing, unsupported)
	}
	t.Logf("%d graphs, %d of them end in errors, %d are not supported, %d operators", graphs, failing, unsupported, len(ops))
	if testing.Verbose() {
		t.Logf("uses: %v", ops)
	}
}

func countOps(r *ir.Region, ops map[string]int) {
	for _, n := range r.Nodes {
		ops[n.Op]++
		for _, s := range n.Regions {
			countOps(s, ops)
		}
	}
}

// checkGraph tells whether the run of g ends in an error, or why the compiler does not take it.
func checkGraph(t *testing.T, g *ir.Graph, ins []*ir.Data, seed uint64) (failed bool, un *codegen.Unsupported) {
	t.Helper()
	text := ir.Print(g)
	in := map[string]*ir.Val{}
	for i, p := range g.Body.Params {
		in[p.Name] = ir.TensorVal(ins[i])
	}
	want, err := interp.Run(context.Background(), g, in)
	explain := func() {
		t.Helper()
		t.Logf("WAYBILL_GEN_SECONDS=0 WAYBILL_GEN_SEED=%d; the graph:\n%s", seed, text)
		for i, p := range g.Body.Params {
			t.Logf("input %s %s%v %.200x", p.Name, ins[i].DType, ins[i].Dims, ins[i].Bytes)
		}
	}
	for _, passes := range []bool{false, true} {
		if passes {
			// A branch that is always taken can bring an error of the run forward to the compilation.
			perr := pass.Run(context.Background(), g)
			if perr != nil && err != nil {
				return true, nil
			}
			if perr != nil {
				explain()
				t.Fatalf("passes: %v", perr)
			}
			before := want
			if want, err = interp.Run(context.Background(), g, in); (err == nil) != (before != nil) {
				explain()
				t.Fatalf("interpreted after the passes: %v", err)
			}
			for name, b := range before {
				// The passes know more dims: those of a body that never ran can change.
				if a := want[name].Tensor; a.Len() == 0 && b.Tensor.Len() == 0 && a.DType == b.Tensor.DType {
					continue
				}
				if serr := sameBits(want[name].Tensor, b.Tensor); serr != nil {
					explain()
					t.Fatalf("interpreted after the passes: output %q: %v", name, serr)
				}
			}
		}
		res, cerr := codegen.Compile(g, codegen.Options{WeightsAbove: int64(seed%3)*64 - 1, Parallel: seed%2 == 0, ParallelMin: 50})
		if errors.As(cerr, &un) {
			return err != nil, un
		}
		if cerr != nil {
			explain()
			t.Fatalf("compile (passes: %v): %v", passes, cerr)
		}
		m := load(t, g, res, runtimeConfig())
		for _, small := range []bool{false, true} {
			if small {
				m.budget, m.arena, m.reverse = 3, 0, true
			}
			got, gerr := m.run(ins...)
			if (err == nil) != (gerr == nil) {
				explain()
				t.Fatalf("passes: %v, small slices: %v: compiled: %v; interpreted: %v", passes, small, gerr, err)
			}
			if err != nil {
				continue
			}
			for i, r := range g.Body.Results {
				if serr := sameBits(got[i], want[r.Name].Tensor); serr != nil {
					explain()
					t.Fatalf("passes: %v, small slices: %v: output %q: %v", passes, small, r.Name, serr)
				}
			}
		}
	}
	return err != nil, nil
}

// maxRandom bounds the elements of a value.
const maxRandom = 600

// made is a value of a graph in the making, and what it is on the inputs chosen.
type made struct {
	v *ir.Value
	d *ir.Data
}

// generator makes a graph together with its inputs: each node is evaluated at once, so that the next ones fit.
type generator struct {
	rng
	t      testing.TB
	facts  *ir.Facts
	region *ir.Region
	params []*ir.Value
	ins    []*ir.Data
	pool   []made
	ids    *int
	inside bool // no parameters can be made here
	failed bool // a node fails on the inputs: the graph ends here
}

func (g *generator) n(n int) int            { return int(g.u() >> 33 % uint64(n)) }
func (g *generator) one(of int) bool        { return g.n(of) == 0 }
func (g *generator) name(p string) string   { *g.ids++; return fmt.Sprintf("%s%d", p, *g.ids) }
func (g *generator) axis(rank int) int64    { return int64(g.n(2*max(rank, 1)) - max(rank, 1)) }
func (g *generator) dtypes() []ir.DType     { return numeric }
func (g *generator) dtype() ir.DType        { return g.dtypes()[g.n(len(numeric))] }
func (g *generator) floatType() ir.DType    { return numeric[[]int{0, 0, 0, 1, 1, 2, 3}[g.n(7)]] }
func (g *generator) bit() int               { return g.n(2) }
func choose[T any](g *generator, of ...T) T { return of[g.n(len(of))] }

// randomGraph makes the graph of a seed and the inputs of its parameters.
func randomGraph(t testing.TB, seed uint64) (*ir.Graph, []*ir.Data) {
	t.Helper()
	g := &generator{rng: rng(seed*0x9e3779b97f4a7c15 | 1), t: t, facts: ir.NewFacts(), region: &ir.Region{}, ids: new(int)}
	for range 8 { // near seeds begin alike
		g.u()
	}
	nodes := 1 + g.n(10)
	for try := 0; len(g.region.Nodes) < nodes && try < 400 && !g.failed; try++ {
		g.step()
	}
	// What nobody uses is a result, and now and then something more.
	used := map[*ir.Value]bool{}
	for _, n := range g.region.Nodes {
		for _, v := range n.Ins {
			used[v] = true
		}
		for _, r := range n.Regions {
			for _, v := range r.Captures {
				used[v] = true
			}
		}
	}
	var results []*ir.Value
	for _, n := range g.region.Nodes {
		for _, v := range n.Outs {
			if v != nil && (!used[v] || g.one(4)) {
				results = append(results, v)
			}
		}
	}
	g.region.Params, g.region.Results = g.params, results
	ir.SetCaptures(g.region)
	gr := &ir.Graph{Name: fmt.Sprintf("random%d", seed), Body: g.region}
	if err := ir.Verify(gr); err != nil {
		t.Fatalf("seed %d: %v\n%s", seed, err, ir.Print(gr))
	}
	return gr, g.ins
}

// dims makes a shape; rank 0, 0 and 1 are not rare.
func (g *generator) dims() []int64 { return g.ranked(choose(g, 0, 1, 1, 2, 2, 2, 3, 3, 4)) }

func (g *generator) ranked(rank int) []int64 {
	d := []int64{}
	for range rank {
		d = append(d, choose[int64](g, 1, 1, 2, 2, 3, 3, 4, 5, 7, 9))
	}
	if rank > 0 && g.one(12) {
		d[g.n(rank)] = 0
	}
	return d
}

// value makes a parameter or constant that holds d.
func (g *generator) value(d *ir.Data) made {
	m := made{d: d}
	if g.inside || g.one(3) {
		m.v = &ir.Value{Name: g.name("c"), Type: d.Type(), Const: d}
	} else {
		ty := d.Type()
		switch g.n(5) {
		case 0:
			ty.Shape = ir.Unranked()
		case 1, 2:
			var dims []ir.Dim
			for _, n := range d.Dims {
				switch g.n(3) {
				case 0:
					dims = append(dims, ir.Static(n))
				case 1:
					dims = append(dims, ir.Symbol(fmt.Sprintf("N%d", n)))
				default:
					dims = append(dims, ir.Unknown())
				}
			}
			ty.Shape = ir.ShapeOf(dims...)
		}
		m.v = &ir.Value{Name: g.name("p"), Type: ty}
		g.params, g.ins = append(g.params, m.v), append(g.ins, d)
	}
	g.pool = append(g.pool, m)
	return m
}

func (g *generator) fresh(dt ir.DType, dims ...int64) made {
	if g.one(3) {
		return g.value(g.plain(dt, dims...))
	}
	return g.value(g.tensor(dt, dims...))
}

func (g *generator) list(v ...int64) made { return g.value(i64d(v...)) }

// pick takes a value that there is, mostly a late one, or makes one of type dt.
func (g *generator) pick(dt ir.DType, ok func(*ir.Data) bool) (made, bool) {
	for range 6 {
		if len(g.pool) == 0 {
			break
		}
		m := g.pool[max(g.n(len(g.pool)), g.n(len(g.pool)))]
		if ok(m.d) {
			return m, true
		}
	}
	for range 10 {
		m := g.fresh(dt, g.dims()...)
		if ok(m.d) {
			return m, true
		}
		g.drop(m)
	}
	return made{}, false
}

func (g *generator) drop(m made) {
	g.pool = g.pool[:len(g.pool)-1]
	if m.v.Const == nil {
		g.params, g.ins = g.params[:len(g.params)-1], g.ins[:len(g.ins)-1]
	}
}

// like gives a value of x's type that broadcasts with it.
func (g *generator) like(x *ir.Data) made {
	fits := func(d *ir.Data) bool {
		if d.DType != x.DType {
			return false
		}
		for i := 1; i <= min(len(d.Dims), len(x.Dims)); i++ {
			a, b := d.Dims[len(d.Dims)-i], x.Dims[len(x.Dims)-i]
			if a != b && a != 1 && b != 1 {
				return false
			}
		}
		return true
	}
	for range 8 {
		if m := g.pool[g.n(len(g.pool))]; fits(m.d) {
			return m
		}
	}
	dims := slices.Clone(x.Dims[g.n(len(x.Dims)+1):])
	for i := range dims {
		if g.one(3) {
			dims[i] = 1
		}
	}
	return g.fresh(x.DType, dims...)
}

func (g *generator) any() made {
	m, _ := g.pick(g.dtype(), func(*ir.Data) bool { return true })
	return m
}

func (g *generator) number() made {
	m, _ := g.pick(g.dtype(), func(d *ir.Data) bool { return slices.Contains(numeric, d.DType) })
	return m
}

func (g *generator) ranks(dt ir.DType, lo int, ok func(ir.DType) bool) (made, bool) {
	return g.pick(dt, func(d *ir.Data) bool { return len(d.Dims) >= lo && ok(d.DType) })
}

// step tries to add one node.
func (g *generator) step() {
	pool, params, ins := len(g.pool), len(g.params), len(g.ins)
	if !g.attempt() {
		g.pool, g.params, g.ins = g.pool[:pool], g.params[:params], g.ins[:ins]
	}
}

// add adds a node when it is valid, and when it succeeds on the inputs or may end the graph.
func (g *generator) add(op string, at ir.Attrs, outs int, vals ...made) bool {
	n := &ir.Node{Op: op, Attrs: map[string]ir.Attr{}}
	for k, v := range at {
		n.Attrs[k] = ir.AttrOf(v)
	}
	ir.FillDefaults(n)
	var data []*ir.Data
	for _, m := range vals {
		n.Ins, data = append(n.Ins, m.v), append(data, m.d)
	}
	for range outs {
		n.Outs = append(n.Outs, &ir.Value{Name: g.name("v")})
	}
	n.ID = *g.ids
	n.Name = fmt.Sprintf("%s_%d", op, n.ID)
	types, err := ir.InferWith(n, g.facts)
	if err != nil {
		return false
	}
	for i, o := range n.Outs {
		o.Type = types[i]
	}
	res, err := interp.Eval(context.Background(), n, data)
	var un *interp.UnsupportedError
	switch {
	case errors.As(err, &un):
		return false
	case err != nil:
		// Failures inside branches would be conditional: only the body of the graph ends in one.
		if g.inside || !g.one(8) {
			return false
		}
		g.failed = true
	default:
		for i, d := range res {
			if d.Len() > maxRandom {
				return false
			}
			g.pool = append(g.pool, made{n.Outs[i], d})
		}
	}
	g.region.Nodes = append(g.region.Nodes, n)
	return true
}

// What random graphs found: the compiled form took an axis twice, the interpreter refused pads that go back and forth,
// and the compiled mean of no integers was 0.
func TestFoundByRandomGraphs(t *testing.T) {
	build := func(op string, at ir.Attrs, ins ...*ir.Data) *ir.Graph {
		b := ir.NewBuilder()
		var vals []*ir.Value
		for i, d := range ins {
			vals = append(vals, b.Param(fmt.Sprintf("in%d", i), ir.TensorOf(d.DType, ir.Unranked())))
		}
		g, err := b.Graph("g", b.Op("y", op, at, vals...))
		if err != nil {
			t.Fatal(err)
		}
		return g
	}
	x := ir.I64s([]int64{3}, []int64{1, 2, 3})
	for _, c := range []struct {
		op   string
		at   ir.Attrs
		ins  []*ir.Data
		want *ir.Data // nil: an error
	}{
		{"ReduceSum", nil, []*ir.Data{x, i64d(0, -1)}, nil},
		{"ReduceSum", nil, []*ir.Data{x, i64d(-1)}, i64d(6)},
		{"ReduceMean", nil, []*ir.Data{ir.I64s([]int64{0}, nil)}, nil},
		{"ReduceMean", nil, []*ir.Data{x}, i64d(2)},
		{"Pad", ir.Attrs{"mode": "reflect"}, []*ir.Data{x, i64d(5, 3)}, i64d(2, 1, 2, 3, 2, 1, 2, 3, 2, 1, 2)},
		{"Pad", ir.Attrs{"mode": "reflect"}, []*ir.Data{i64d(7), i64d(1, 2)}, i64d(7, 7, 7, 7)},
		{"Pad", ir.Attrs{"mode": "edge"}, []*ir.Data{x, i64d(-1, -2)}, ir.I64s([]int64{0}, nil)},
		{"Pad", ir.Attrs{"mode": "edge"}, []*ir.Data{x, i64d(-1, -3)}, nil},
		{"Pad", ir.Attrs{"mode": "edge"}, []*ir.Data{x, i64d(-3, 2)}, nil},
		{"Pad", ir.Attrs{"mode": "edge"}, []*ir.Data{x, i64d(-1, 2)}, i64d(2, 3, 3, 3)},
		{"Pad", ir.Attrs{"mode": "wrap"}, []*ir.Data{x, i64d(-1, 2)}, i64d(2, 3, 2, 3)},
		{"Pad", ir.Attrs{"mode": "reflect"}, []*ir.Data{x, i64d(3, -1)}, i64d(2, 1, 2, 1, 2)},
		{"Pad", ir.Attrs{"mode": "edge"}, []*ir.Data{ir.I64s([]int64{2, 1}, []int64{1, 2}), i64d(-1, -1, -1, -1)}, nil},
	} {
		g := build(c.op, c.at, c.ins...)
		m := compile(t, g, codegen.Options{})
		against(t, m, c.ins)
		got, err := m.run(c.ins...)
		if (err != nil) != (c.want == nil) {
			t.Errorf("%s: %v", c.op, err)
		} else if err == nil {
			if err := sameBits(got[0], c.want); err != nil {
				t.Errorf("%s: %v", c.op, err)
			}
		}
	}
}
