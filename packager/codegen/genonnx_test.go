package codegen_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Most operators of docs/operators.md exist in ONNX only: the frontend rewrites them. A random graph gets one by way of a
// model of that single node, read by the frontend; what comes out is spliced into the graph.

func pbMsg(num protowire.Number, parts ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), slices.Concat(parts...))
}

func pbText(num protowire.Number, s string) []byte { return pbMsg(num, []byte(s)) }

func pbNum(num protowire.Number, v int64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, num, protowire.VarintType), uint64(v))
}

func pbFloat(num protowire.Number, v float64) []byte {
	return protowire.AppendFixed32(protowire.AppendTag(nil, num, protowire.Fixed32Type), math.Float32bits(float32(v)))
}

// onnxGraph is an attribute that holds a body.
type onnxGraph []byte

// onnxType is an attribute that holds a type.
type onnxType ir.Type

func pbTensor(name string, d *ir.Data) []byte {
	var dims []byte
	for _, n := range d.Dims {
		dims = append(dims, pbNum(1, n)...)
	}
	b := slices.Concat(dims, pbNum(2, int64(d.DType)), pbText(8, name))
	if d.DType == ir.String {
		for _, s := range d.Strings {
			b = append(b, pbText(6, s)...)
		}
		return b
	}
	return append(b, pbMsg(9, d.Bytes)...)
}

// pbType encodes a type; dims that are not known are left without a size.
func pbType(t ir.Type) []byte {
	switch t.Kind {
	case ir.Sequence:
		return pbMsg(4, pbMsg(1, pbType(*t.Elem)))
	case ir.Optional:
		return pbMsg(9, pbMsg(1, pbType(*t.Elem)))
	case ir.Map:
		return pbMsg(5, pbNum(1, int64(t.Key)), pbMsg(2, pbType(*t.Elem)))
	}
	b := pbNum(1, int64(t.DType))
	if t.Shape.Ranked {
		var dims []byte
		for _, d := range t.Shape.Dims {
			switch {
			case d.Any:
				dims = append(dims, pbMsg(1)...)
			case d.Sym != "":
				dims = append(dims, pbMsg(1, pbText(2, d.Sym))...)
			default:
				dims = append(dims, pbMsg(1, pbNum(1, d.N))...)
			}
		}
		b = append(b, pbMsg(2, dims)...)
	}
	return pbMsg(1, b)
}

func pbAttr(name string, v any) []byte {
	head := pbText(1, name)
	var b []byte
	kind := int64(0)
	switch v := v.(type) {
	case int:
		b, kind = pbNum(3, int64(v)), 2
	case int64:
		b, kind = pbNum(3, v), 2
	case bool:
		n := int64(0)
		if v {
			n = 1
		}
		b, kind = pbNum(3, n), 2
	case ir.DType:
		b, kind = pbNum(3, int64(v)), 2
	case float64:
		b, kind = pbFloat(2, v), 1
	case string:
		b, kind = pbText(4, v), 3
	case *ir.Data:
		b, kind = pbMsg(5, pbTensor("", v)), 4
	case onnxGraph:
		b, kind = pbMsg(6, v), 5
	case []float64:
		for _, x := range v {
			b = append(b, pbFloat(7, x)...)
		}
		kind = 6
	case []int64:
		for _, x := range v {
			b = append(b, pbNum(8, x)...)
		}
		kind = 7
	case []string:
		for _, x := range v {
			b = append(b, pbText(9, x)...)
		}
		kind = 8
	case onnxType:
		b, kind = pbMsg(14, pbType(ir.Type(v))), 13
	default:
		panic(fmt.Sprintf("no attribute is made of %T", v))
	}
	return pbMsg(5, head, b, pbNum(20, kind))
}

// pbNode encodes a node; an empty name is absent.
func pbNode(op string, at map[string]any, ins, outs []string) []byte {
	dom := ""
	if i := strings.LastIndex(op, "."); i >= 0 {
		dom, op = op[:i], op[i+1:]
	}
	var b []byte
	for _, s := range ins {
		b = append(b, pbText(1, s)...)
	}
	for _, s := range outs {
		b = append(b, pbText(2, s)...)
	}
	b = slices.Concat(b, pbText(3, op), pbText(4, op), pbText(7, dom))
	names := make([]string, 0, len(at))
	for k := range at {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		b = append(b, pbAttr(k, at[k])...)
	}
	return b
}

// pbBody encodes the graph of a body: nodes, and names with types of what goes in and out.
func pbBody(nodes [][]byte, ins map[string]ir.Type, order, outs []string, inits map[string]*ir.Data) onnxGraph {
	b := pbText(2, "body")
	for _, n := range nodes {
		b = append(b, pbMsg(1, n)...)
	}
	names := make([]string, 0, len(inits))
	for k := range inits {
		names = append(names, k)
	}
	slices.Sort(names)
	for _, k := range names {
		b = append(b, pbMsg(5, pbTensor(k, inits[k]))...)
	}
	for _, k := range order {
		b = append(b, pbMsg(11, pbText(1, k), pbMsg(2, pbType(ins[k])))...)
	}
	for _, k := range outs {
		b = append(b, pbMsg(12, pbText(1, k))...)
	}
	return b
}

// onnxModel encodes a model of one node, behind those in lead, over the values in ins (an empty one is absent) with outs outputs named r0, r1 and so on,
// of which those in skip are not asked for.
func onnxModel(lead [][]byte, op string, ver int64, at map[string]any, outs int, skip []int, ins []made) []byte {
	var names, outNames, results []string
	types, inits, order := map[string]ir.Type{}, map[string]*ir.Data{}, []string{}
	for _, m := range ins {
		if m.v == nil {
			names = append(names, "")
			continue
		}
		n := m.v.Name
		names = append(names, n)
		if m.v.Const != nil {
			inits[n] = m.v.Const
		} else if _, dup := types[n]; !dup {
			types[n] = m.v.Type
			order = append(order, n)
		}
	}
	for i := range outs {
		if slices.Contains(skip, i) {
			outNames = append(outNames, "")
			continue
		}
		outNames = append(outNames, "r"+strconv.Itoa(i))
		results = append(results, "r"+strconv.Itoa(i))
	}
	vers := map[string]int64{"": 28, "ai.onnx.ml": 5, "com.microsoft": 1, "ai.onnx.preview": 1, "ai.onnx.preview.training": 1}
	if ver > 0 {
		dom := ""
		if i := strings.LastIndex(op, "."); i >= 0 {
			dom = op[:i]
		}
		vers[dom] = ver
	}
	b := slices.Concat(pbNum(1, 10), pbText(2, "random graphs"), pbMsg(7, pbBody(append(lead, pbNode(op, at, names, outNames)), types, order, results, inits)))
	for _, d := range []string{"", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview", "ai.onnx.preview.training"} {
		b = append(b, pbMsg(8, pbText(1, d), pbNum(2, vers[d]))...)
	}
	return b
}

// on adds what the ONNX operator op ("name", or "name@version" of its operator set) becomes. A negative number of outputs
// leaves some of them out by chance.
func (g *generator) on(op string, outs int, at map[string]any, ins ...made) bool {
	var ver int64
	if name, v, ok := strings.Cut(op, "@"); ok {
		n, err := strconv.Atoi(v)
		if err != nil {
			panic(err)
		}
		op, ver = name, int64(n)
	}
	var skip []int
	if outs < 0 {
		outs = -outs
		keep := g.n(outs)
		for i := range outs {
			if i != keep && g.one(3) {
				skip = append(skip, i)
			}
		}
	}
	if !g.inside && g.one(12) {
		g.spoil(ins)
	}
	lead := g.lead
	g.lead = nil
	text := onnxModel(lead, op, ver, at, outs, skip, ins)
	part, err := parseONNX(text)
	if errors.Is(err, errPanic) {
		g.t.Errorf("the frontend: %v; the model of %s has attributes %v and inputs %s", err, op, at, typesOf(ins))
	}
	if err != nil {
		g.tally.refuse(op, err)
		return false
	}
	in := map[string]*ir.Val{}
	known := map[string]made{}
	for _, m := range ins {
		if m.v != nil {
			known[m.v.Name] = m
		}
	}
	for _, p := range part.Body.Params {
		in[p.Name] = known[p.Name].value()
	}
	res, err := interp.Run(context.Background(), part, in)
	var un *interp.UnsupportedError
	if errors.As(err, &un) {
		g.tally.refuse(op, err)
		return false
	}
	if err != nil && (g.inside || !g.mayFail()) {
		g.tally.refuse(op, err)
		return false
	}
	for _, v := range res {
		if count(v) > maxRandom {
			return false
		}
	}
	if !g.splice(op, part, known) {
		return false
	}
	if err != nil {
		g.failed = true
		return true
	}
	g.results(part, res)
	return true
}

// results puts what a part gave among the values; its results bear their old names in res.
func (g *generator) results(part *ir.Graph, res map[string]*ir.Val) {
	for _, r := range part.Body.Results {
		v := res[g.renamed[r]]
		if v.Kind == ir.Tensor {
			g.pool = append(g.pool, made{v: r, d: v.Tensor})
		} else {
			g.lists = append(g.lists, made{v: r, val: v})
		}
	}
}

// splice moves the nodes of part, which is what op became, into the graph, with names of their own and the graph's values in place of its parameters
// and initialisers.
func (g *generator) splice(op string, part *ir.Graph, known map[string]made) bool {
	sub, dims := map[*ir.Value]*ir.Value{}, map[string]ir.Dim{}
	for _, p := range part.Body.Params {
		v := known[p.Name].v
		sub[p] = v
		if p.Type.Kind == ir.Tensor && p.Type.Shape.Ranked {
			for i, d := range p.Type.Shape.Dims {
				if d.Sym != "" && i < len(v.Type.Shape.Dims) {
					dims[d.Sym] = v.Type.Shape.Dims[i]
				}
			}
		}
	}
	g.renamed = map[*ir.Value]string{}
	seen := map[*ir.Value]bool{}
	fix := func(v *ir.Value) {
		if v == nil || seen[v] || sub[v] != nil {
			return
		}
		seen[v] = true
		if v.Const != nil {
			if m, ok := known[v.Name]; ok && m.v.Const != nil && sameData(m.v.Const, v.Const) {
				sub[v] = m.v
				return
			}
		}
		g.renamed[v] = v.Name
		if v.Const != nil {
			v.Name = g.name("c")
			g.tally.consts[v.Name] = op
			return
		}
		v.Name = g.name("v")
		v.Type = redim(v.Type, dims)
	}
	var visit func(r *ir.Region)
	visit = func(r *ir.Region) {
		for _, p := range r.Params {
			fix(p)
		}
		for _, n := range r.Nodes {
			for _, v := range n.Ins {
				fix(v)
			}
			for _, s := range n.Regions {
				visit(s)
			}
			for _, v := range n.Outs {
				fix(v)
			}
			*g.ids++
			n.ID = *g.ids
			g.tally.origin[n.ID] = op
			n.Name = fmt.Sprintf("%s_%d", n.Op, n.ID)
		}
		for _, v := range r.Results {
			fix(v)
		}
	}
	body := &ir.Region{Nodes: part.Body.Nodes, Results: part.Body.Results}
	visit(body)
	ir.ReplaceAll(body, sub)
	ir.SetCaptures(body)
	part.Body.Results = body.Results
	for _, n := range body.Nodes {
		if len(n.Regions) == 0 {
			if types, err := ir.InferWith(n, g.facts); err == nil {
				for i, o := range n.Outs {
					if o != nil {
						o.Type = types[i]
					}
				}
			}
		}
	}
	// A size that the frontend took for open can be one that the operator refuses.
	for _, v := range sub {
		if v.Const == nil && !slices.Contains(body.Params, v) {
			body.Params = append(body.Params, v)
		}
	}
	if err := ir.Verify(&ir.Graph{Name: "part", Body: body}); err != nil {
		g.tally.refuse(op, err)
		return false
	}
	g.region.Nodes = append(g.region.Nodes, body.Nodes...)
	return true
}

func redim(t ir.Type, dims map[string]ir.Dim) ir.Type {
	if t.Kind != ir.Tensor {
		if t.Elem != nil {
			e := redim(*t.Elem, dims)
			t.Elem = &e
		}
		return t
	}
	t.Shape = t.Shape.Clone()
	for i, d := range t.Shape.Dims {
		if d.Sym == "" {
			continue
		}
		if to, ok := dims[d.Sym]; ok {
			t.Shape.Dims[i] = to
		} else {
			t.Shape.Dims[i] = ir.Unknown()
		}
	}
	return t
}

func sameData(a, b *ir.Data) bool {
	return a.DType == b.DType && slices.Equal(a.Dims, b.Dims) && string(a.Bytes) == string(b.Bytes) && slices.Equal(a.Strings, b.Strings)
}

// count is the number of elements in a value.
func count(v *ir.Val) int64 {
	if v.Kind == ir.Tensor {
		return v.Tensor.Len()
	}
	n := int64(len(v.Elems))
	for _, e := range v.Elems {
		n += count(e)
	}
	return n
}

// spoil puts, in the place of one input, something that is likely not to fit; the compiler does not know its shape.
func (g *generator) spoil(ins []made) {
	if len(ins) == 0 {
		return
	}
	i := g.n(len(ins))
	m := ins[i]
	if m.v == nil || m.d == nil {
		return
	}
	d := &ir.Data{DType: m.d.DType, Dims: slices.Clone(m.d.Dims)}
	switch g.n(4) {
	case 0:
		d.Dims = append(d.Dims, int64(1+g.n(2)))
	case 1:
		if len(d.Dims) > 0 {
			d.Dims = d.Dims[1:]
		}
	case 2:
		if len(d.Dims) > 0 {
			d.Dims[g.n(len(d.Dims))] = int64(g.n(5))
		}
	}
	if n, _ := ir.Elements(d.Dims); n > maxRandom {
		return
	}
	switch {
	case d.DType == ir.String:
		d = g.strs(d.Dims...)
	case d.DType.IsStored():
		d = g.bits(d.DType, d.Dims...)
	case d.DType == ir.I64:
		n, _ := ir.Elements(d.Dims)
		for range n {
			d.Bytes = binary.LittleEndian.AppendUint64(d.Bytes, uint64(choose[int64](g, -1, 0, 1, 2, 3, 5, -2, -7, 9, 100, math.MinInt64, math.MaxInt64, 1<<33)))
		}
	default:
		d = g.tensor(d.DType, d.Dims...)
	}
	v := &ir.Value{Name: g.name("p"), Type: ir.TensorOf(d.DType, ir.Unranked())}
	if g.bit() == 0 {
		dims := make([]ir.Dim, len(d.Dims))
		for i := range dims {
			dims[i] = ir.Unknown()
		}
		v.Type.Shape = ir.ShapeOf(dims...)
	}
	g.params, g.ins = append(g.params, v), append(g.ins, ir.TensorVal(d))
	ins[i] = made{v: v, d: d}
	g.pool = append(g.pool, ins[i])
}

var errPanic = errors.New("panic")

// parseONNX makes an error of a panic.
func parseONNX(b []byte) (g *ir.Graph, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, r, debug.Stack())
		}
	}()
	return onnx.Parse(b, "")
}

func typesOf(ins []made) string {
	var out []string
	for _, m := range ins {
		if m.v == nil {
			out = append(out, "-")
			continue
		}
		out = append(out, m.v.Type.String())
	}
	return strings.Join(out, " ")
}
