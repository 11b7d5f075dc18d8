package codegen_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestRandomGraphs makes random small graphs and compares, bit for bit, the interpreter on the graph as made with the
// module compiled from it, before and after the passes (see examine). The graphs of a seed are always the same; each
// is about one operator, and those of the table take turns from seed to seed. WAYBILL_GEN_SECONDS says how long to go on after the first round
// of all operators, WAYBILL_GEN_SEED where to start: the seed that a failure names, with WAYBILL_GEN_SECONDS=0, makes that graph
// alone. WAYBILL_GEN_OPS names operators to make graphs about, separated by commas.
func TestRandomGraphs(t *testing.T) {
	once.Skip(t)
	names := recipeNames()
	seed, count := uint64(1), uint64(len(names))
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
		seed, count = n, 1
	}
	if s := os.Getenv("WAYBILL_GEN_OPS"); s != "" {
		names = strings.Split(s, ",")
	}
	all := count > 1 && os.Getenv("WAYBILL_GEN_OPS") == ""
	start, failures := time.Now(), 0
	cover := newTally()
	for i := uint64(0); i < count || limit > 0 && time.Since(start) < limit || limit > 0 && all && i < 20*count && len(cover.missing()) > 0; i++ {
		if op := names[(seed+i)%uint64(len(names))]; i >= count && time.Since(start) >= limit && cover.agreed[op] > 0 && cover.agreed["ir:"+op] > 0 {
			continue // only for the sake of operators that luck left out
		}
		g, ins := randomGraph(t, seed+i, names, cover)
		ops := cover.in(g)
		v := examine(g, ins, seed+i)
		cover.note(ops, v)
		if v.bad == "" {
			continue
		}
		h, hins := shrink(g, ins, func(h *ir.Graph, hins []*ir.Val) bool { return examine(h, hins, seed+i).bad == v.bad })
		t.Errorf("WAYBILL_GEN_SECONDS=0 WAYBILL_GEN_SEED=%d (about %s): %s: %s\nmade small:\n%s%s", seed+i, names[(seed+i)%uint64(len(names))], v.bad, v.detail, show(h, hins),
			examine(h, hins, seed+i).detail)
		if failures++; failures >= 20 {
			break
		}
	}
	if all && failures == 0 {
		cover.check(t, limit > 0)
	}
	t.Log(cover.summary())
	if testing.Verbose() {
		t.Log("\n" + cover.table())
		for _, op := range names {
			for i, r := range cover.reasons(op) {
				if i < 3 && cover.agreed[op] < 3 {
					t.Logf("%s: %s", op, r)
				}
			}
		}
	}
}

// maxRandom bounds the elements of a value.
const maxRandom = 1500

// made is a value of a graph in the making, and what it is on the inputs chosen.
type made struct {
	v   *ir.Value
	d   *ir.Data // of a tensor
	val *ir.Val  // of anything else
}

func (m made) value() *ir.Val {
	if m.d != nil {
		return ir.TensorVal(m.d)
	}
	return m.val
}

// generator makes a graph together with its inputs: each node is evaluated at once, so that the next ones fit.
type generator struct {
	rng
	t      testing.TB
	facts  *ir.Facts
	region *ir.Region
	params []*ir.Value
	ins    []*ir.Val
	pool   []made
	lists  []made // sequences, optionals and maps
	ids    *int
	tally  *tally
	lead   [][]byte // nodes in front of the next one of ONNX
	book   map[string]recipe
	all    []string // its operators
	depth  int      // of bodies
	inside bool     // no parameters can be made here
	failed bool     // a node fails on the inputs: the graph ends here

	renamed map[*ir.Value]string // names of the last part spliced in
}

// mayFail tells whether the graph may end in an error now.
func (g *generator) mayFail() bool { return g.one(2) }

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
func randomGraph(t testing.TB, seed uint64, names []string, cover *tally) (*ir.Graph, []*ir.Val) {
	t.Helper()
	cover.origin, cover.consts = map[int]string{}, map[string]string{}
	g := &generator{rng: rng(seed*0x9e3779b97f4a7c15 | 1), t: t, facts: ir.NewFacts(), region: &ir.Region{}, ids: new(int), tally: cover, book: recipes(), all: recipeNames()}
	for range 8 { // near seeds begin alike
		g.u()
	}
	for range g.n(3) {
		g.step()
	}
	about := recipes()[names[seed%uint64(len(names))]]
	for try, have := 0, len(g.region.Nodes); len(g.region.Nodes) == have && try < 30 && !g.failed; try++ {
		g.attemptOr(func() bool { return about(g) })
	}
	nodes := len(g.region.Nodes) + g.n(6)
	for try := 0; len(g.region.Nodes) < max(nodes, 1) && try < 400 && !g.failed; try++ {
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
		t.Errorf("seed %d: %v\n%s", seed, err, ir.Print(gr))
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
		g.params, g.ins = append(g.params, m.v), append(g.ins, ir.TensorVal(d))
	}
	g.pool = append(g.pool, m)
	return m
}

func (g *generator) fresh(dt ir.DType, dims ...int64) made {
	return g.value(g.data(dt, dims...))
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
	if g.one(3) {
		g.attemptOr(func() bool { return g.book[g.all[g.n(len(g.all))]](g) })
		return
	}
	g.attemptOr(g.attempt)
}

// attemptOr takes back what an attempt without success made.
func (g *generator) attemptOr(f func() bool) bool {
	pool, lists, params, ins, nodes := len(g.pool), len(g.lists), len(g.params), len(g.ins), len(g.region.Nodes)
	if f() {
		return true
	}
	g.pool, g.lists, g.params, g.ins, g.region.Nodes = g.pool[:pool], g.lists[:lists], g.params[:params], g.ins[:ins], g.region.Nodes[:nodes]
	g.lead, g.failed = nil, false
	return false
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
		if g.inside || !g.mayFail() {
			return false
		}
		g.failed = true
	default:
		for i, d := range res {
			if d.Len() > maxRandom {
				return false
			}
			g.pool = append(g.pool, made{v: n.Outs[i], d: d})
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
