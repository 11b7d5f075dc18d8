package codegen_test

import (
	"context"
	"fmt"
	"slices"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// maxDepth bounds how deeply bodies nest.
const maxDepth = 2

// branch makes a body of a few nodes over what there is outside.
func (g *generator) branch(params []made) *generator {
	s := &generator{rng: rng(g.u() | 1), t: g.t, facts: g.facts, region: &ir.Region{}, ids: g.ids, tally: g.tally, book: g.book, all: g.all, depth: g.depth + 1, inside: true}
	s.pool = append(slices.Clone(g.pool), params...)
	s.lists = slices.Clone(g.lists)
	for _, p := range params {
		s.region.Params = append(s.region.Params, p.v)
	}
	for i, n := 0, 1+g.n(3); len(s.region.Nodes) < n && i < 30; i++ {
		s.step()
	}
	return s
}

// param makes a parameter of a body.
func (g *generator) param(name string, t ir.Type, d *ir.Data) made {
	return made{v: &ir.Value{Name: g.name(name), Type: t}, d: d}
}

// controlOf adds an If, a Loop or a Scan; what it gives is found by interpreting it.
func (g *generator) controlOf(op string) bool {
	if len(g.pool) == 0 || g.depth >= maxDepth || g.inside && g.bit() == 0 {
		return false
	}
	n := &ir.Node{Op: op, Attrs: map[string]ir.Attr{}}
	outs := 1
	scalar := func(d ir.DType) ir.Type { return ir.TensorOf(d, ir.StaticShape()) }
	switch op {
	case "If":
		cond := g.value(ir.Bools(choose(g, []int64{}, []int64{}, []int64{1}), []bool{g.bit() == 0}))
		th, el := g.branch(nil), g.branch(nil)
		for range 1 + g.n(2) {
			x := th.pool[len(th.pool)-1-g.n(min(2, len(th.pool)))]
			y, ok := el.pick(x.d.DType, func(d *ir.Data) bool { return d.DType == x.d.DType })
			if !ok {
				return false
			}
			th.region.Results, el.region.Results = append(th.region.Results, x.v), append(el.region.Results, y.v)
		}
		outs = len(th.region.Results)
		n.Ins, n.Regions = []*ir.Value{cond.v}, []*ir.Region{th.region, el.region}
	case "Loop":
		x := g.thing(0)
		m := g.value(ir.I64s(nil, []int64{int64(g.n(4))}))
		it := g.param("i", scalar(ir.I64), ir.I64s(nil, []int64{0}))
		co := g.param("k", scalar(ir.Bool), ir.Bools(nil, []bool{true}))
		ca := g.param("a", x.v.Type, x.d)
		loose := g.one(3) // the dims may change from turn to turn
		if loose {
			ca.v.Type.Shape = ir.Unranked()
		}
		s := g.branch([]made{it, co, ca})
		y, ok := s.pick(x.d.DType, func(d *ir.Data) bool { return d.DType == x.d.DType && (loose || slices.Equal(d.Dims, x.d.Dims)) })
		if !ok {
			return false
		}
		on := co
		if g.one(3) {
			if c, ok := s.pick(ir.Bool, func(d *ir.Data) bool { return d.DType == ir.Bool && len(d.Dims) == 0 }); ok {
				on = c
			}
		}
		s.region.Results = []*ir.Value{on.v, y.v}
		for range 1 + g.n(2) {
			s.region.Results = append(s.region.Results, s.pool[len(s.pool)-1-g.n(min(2, len(s.pool)))].v)
		}
		outs = len(s.region.Results) - 1
		n.Ins, n.Regions = []*ir.Value{m.v, nil, x.v}, []*ir.Region{s.region}
		if g.one(4) {
			n.Ins[0] = nil
			if on == co {
				n.Ins[0] = m.v
			}
		}
		if g.one(3) {
			n.Ins[1] = g.value(ir.Bools(nil, []bool{!g.one(3)})).v
		}
		if n.Ins[0] == nil { // it must end
			n.Ins[0] = m.v
		}
	case "Scan":
		var params []made
		var states int
		if g.bit() == 0 {
			x := g.thing(0)
			n.Ins, params, states = append(n.Ins, x.v), append(params, g.param("a", x.v.Type, x.d)), 1
		}
		var axes, dirs []int64
		length := int64(-1)
		for range 1 + g.n(2) {
			x := g.thing(1)
			a := g.n(len(x.d.Dims))
			if length >= 0 {
				d := slices.Clone(x.d.Dims)
				d[a] = length
				x = g.of(x.d.DType, d...)
			}
			length = x.d.Dims[a]
			if length > 5 || !x.v.Type.Shape.Ranked {
				return false
			}
			t := x.v.Type
			t.Shape = ir.ShapeOf(slices.Delete(slices.Clone(t.Shape.Dims), a, a+1)...)
			d := g.data(x.d.DType, slices.Delete(slices.Clone(x.d.Dims), a, a+1)...)
			n.Ins, params = append(n.Ins, x.v), append(params, g.param("e", t, d))
			axes, dirs = append(axes, int64(a-len(x.d.Dims)*g.bit())), append(dirs, int64(g.bit()))
		}
		s := g.branch(params)
		if states == 1 {
			x := params[0].d
			y, ok := s.pick(x.DType, func(d *ir.Data) bool { return d.DType == x.DType && slices.Equal(d.Dims, x.Dims) })
			if !ok {
				return false
			}
			s.region.Results = append(s.region.Results, y.v)
		}
		var outAxes, outDirs []int64
		for range 1 + g.n(2) {
			r := s.pool[len(s.pool)-1-g.n(min(3, len(s.pool)))]
			if len(r.d.Dims) >= ir.MaxRank {
				return false
			}
			s.region.Results = append(s.region.Results, r.v)
			outAxes, outDirs = append(outAxes, g.axis(len(r.d.Dims)+1)), append(outDirs, int64(g.bit()))
		}
		outs = len(s.region.Results)
		n.Regions = []*ir.Region{s.region}
		for k, v := range (ir.Attrs{"num_scan_inputs": len(axes), "scan_input_axes": axes, "scan_input_directions": dirs, "scan_output_axes": outAxes, "scan_output_directions": outDirs}) {
			n.Attrs[k] = ir.AttrOf(v)
		}
	}
	return g.addControl(n, outs)
}

// addControl adds a node with bodies when it runs.
func (g *generator) addControl(n *ir.Node, outs int) bool {
	ir.FillDefaults(n)
	for range outs {
		n.Outs = append(n.Outs, &ir.Value{Name: g.name("v")})
	}
	*g.ids++
	n.ID = *g.ids
	n.Name = fmt.Sprintf("%s_%d", n.Op, n.ID)
	body := &ir.Region{Nodes: []*ir.Node{n}, Results: n.Outs}
	ir.SetCaptures(body)
	in := map[string]*ir.Val{}
	take := func(v *ir.Value) {
		if v == nil || v.Const != nil || in[v.Name] != nil {
			return
		}
		for _, m := range slices.Concat(g.pool, g.lists) {
			if m.v == v {
				in[v.Name] = m.value()
				body.Params = append(body.Params, v)
				return
			}
		}
	}
	for _, v := range n.Ins {
		take(v)
	}
	for _, r := range n.Regions {
		for _, v := range r.Captures {
			take(v)
		}
	}
	types, err := ir.InferWith(n, g.facts)
	if err != nil {
		g.tally.refuse(n.Op, err)
		return false
	}
	for i, o := range n.Outs {
		o.Type = types[i]
	}
	part := &ir.Graph{Name: "part", Body: body}
	if err := ir.Verify(part); err != nil {
		g.tally.refuse(n.Op, err)
		return false
	}
	res, err := interp.Run(context.Background(), part, in)
	if err != nil {
		g.tally.refuse(n.Op, err)
		if g.inside || !g.mayFail() {
			return false
		}
		g.failed = true
	}
	for _, v := range res {
		if count(v) > maxRandom {
			return false
		}
	}
	g.region.Nodes = append(g.region.Nodes, n)
	g.tally.origin[n.ID] = n.Op
	if !g.failed {
		for _, o := range n.Outs {
			g.pool = append(g.pool, made{v: o, d: res[o.Name].Tensor})
		}
	}
	return true
}
