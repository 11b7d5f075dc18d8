package onnx

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/ir"
)

// importer turns one model into a graph.
type importer struct {
	dir     string
	opsets  map[string]int64
	used    map[string]bool // names of values
	next    map[string]int  // next suffix to try for a taken name
	nodes   int             // ids given out
	source  int             // nodes of the model seen, for unnamed ones
	facts   *ir.Facts
	table   map[string]entry
	local   map[string]*functionProto // functions that the model brings along, "domain.name.overload"
	inlined int                       // depth of calls
	ends    [2][]string               // names of the model's inputs and outputs
}

// scope maps ONNX names to values; bodies see the outer ones.
type scope struct {
	outer *scope
	vals  map[string]*ir.Value
}

func (s *scope) find(name string) *ir.Value {
	for ; s != nil; s = s.outer {
		if v, ok := s.vals[name]; ok {
			return v
		}
	}
	return nil
}

// domain maps the spellings of the default domain to "".
func domain(d string) string {
	if d == "ai.onnx" {
		return ""
	}
	return d
}

func importModel(m *modelProto, dir string) (*ir.Graph, error) {
	im := &importer{dir: dir, table: handlers(), opsets: map[string]int64{}, used: map[string]bool{}, next: map[string]int{}, facts: ir.NewFacts(), local: map[string]*functionProto{}}
	g := &ir.Graph{Name: m.graph.name, Opsets: map[string]int64{}, Producer: m.producer}
	if m.prodVer != "" {
		g.Producer += " " + m.prodVer
	}
	for _, o := range m.opsets {
		if o.version < 1 {
			return nil, fmt.Errorf("opset version %d of domain %q", o.version, o.domain)
		}
		im.opsets[domain(o.domain)] = o.version
		g.Opsets[domain(o.domain)] = o.version
	}
	if _, ok := im.opsets[""]; !ok {
		im.opsets[""] = 1 // the specification's default
	}
	for i := range m.functions {
		f := &m.functions[i]
		im.local[domain(f.domain)+"."+f.name+"."+f.overload] = f
	}
	// Names of the main graph are what users see: they keep theirs, others get a suffix.
	for _, in := range m.graph.inputs {
		im.used[in.name] = true
		im.ends[0] = append(im.ends[0], in.name)
	}
	for _, out := range m.graph.outputs {
		im.used[out.name] = true
		im.ends[1] = append(im.ends[1], out.name)
	}
	for i := range m.graph.nodes {
		for _, o := range m.graph.nodes[i].outs {
			im.used[o] = true
		}
	}
	r, err := im.mainGraph(m.graph)
	if err != nil {
		return nil, err
	}
	g.Body = r
	ir.SetCaptures(r)
	dropUnused(r)
	if err := ir.Verify(g); err != nil {
		return nil, fmt.Errorf("the imported graph is not consistent: %w", err)
	}
	return g, nil
}

// dropUnused marks outputs that nobody uses as not asked for. Nodes themselves stay: removing them is a pass.
func dropUnused(r *ir.Region) {
	uses := ir.Uses(r)
	_ = ir.Walk(r, func(_ *ir.Region, n *ir.Node) error {
		if len(n.Outs) > 1 {
			for i, v := range n.Outs {
				if uses[v] == 0 {
					n.Outs[i] = nil
				}
			}
		}
		return nil
	})
}

func (im *importer) mainGraph(p *graphProto) (*ir.Region, error) {
	r := &ir.Region{}
	sc := &scope{vals: map[string]*ir.Value{}}
	if err := im.initializers(p, sc, true); err != nil {
		return nil, err
	}
	for _, in := range p.inputs {
		if v := sc.vals[in.name]; v != nil && v.Const != nil {
			continue // an initializer with the default of an input: a constant, as in ONNX Runtime without an override
		}
		if in.name == "" {
			return nil, errors.New("an input has no name")
		}
		t, err := im.inputType(in)
		if err != nil {
			var dt errElemType
			if errors.As(err, &dt) {
				return nil, &frontend.UnsupportedError{Node: in.name, Reason: err.Error(), Hint: "export the model with float32 or integer inputs"}
			}
			return nil, fmt.Errorf("input %q: %w", in.name, err)
		}
		v := &ir.Value{Name: in.name, Type: t}
		if sc.vals[in.name] != nil {
			return nil, fmt.Errorf("input %q is declared twice", in.name)
		}
		sc.vals[in.name] = v
		r.Params = append(r.Params, v)
	}
	if err := im.body(p, r, sc, true); err != nil {
		return nil, err
	}
	if len(p.outputs) == 0 {
		return nil, errors.New("the graph has no outputs")
	}
	for _, out := range p.outputs {
		v := sc.vals[out.name]
		if v == nil {
			return nil, fmt.Errorf("output %q is not computed by any node", out.name)
		}
		if v.Name != out.name {
			// An alias of another value: outputs carry their own names.
			o := im.newOp(r, sc, &nodeProto{op: "Identity", name: "output " + out.name})
			w := o.emit("Identity", nil, v)
			if o.err != nil {
				return nil, o.err
			}
			w.Name = out.name
			v = w
			sc.vals[out.name] = v
		}
		r.Results = append(r.Results, v)
	}
	return r, nil
}

// subgraph imports a body of a control flow node with the given parameter types; nil takes the declared ones.
func (im *importer) subgraph(p *graphProto, outer *scope, params []ir.Type) (*ir.Region, error) {
	r := &ir.Region{}
	sc := &scope{outer: outer, vals: map[string]*ir.Value{}}
	if err := im.initializers(p, sc, false); err != nil {
		return nil, err
	}
	if params != nil && len(params) != len(p.inputs) {
		return nil, fmt.Errorf("body %q takes %d inputs, want %d", p.name, len(p.inputs), len(params))
	}
	for i, in := range p.inputs {
		if in.name == "" {
			return nil, fmt.Errorf("an input of body %q has no name", p.name)
		}
		v := &ir.Value{Name: im.unique(in.name, false)}
		if params != nil {
			v.Type = params[i]
		}
		sc.vals[in.name] = v
		r.Params = append(r.Params, v)
	}
	if err := im.body(p, r, sc, false); err != nil {
		return nil, err
	}
	for _, out := range p.outputs {
		v := sc.find(out.name)
		if v == nil {
			return nil, fmt.Errorf("output %q of body %q is not computed by any node", out.name, p.name)
		}
		r.Results = append(r.Results, v)
	}
	return r, nil
}

func (im *importer) initializers(p *graphProto, sc *scope, main bool) error {
	if p.sparse > 0 {
		return &frontend.UnsupportedError{Op: "sparse_initializer", Node: p.name, Opset: im.opsets[""],
			Hint: "store the weights as dense tensors"}
	}
	for i := range p.inits {
		t := &p.inits[i]
		d, err := t.data(im.dir)
		var dt errElemType
		if errors.As(err, &dt) {
			return &frontend.UnsupportedError{Node: t.name, Reason: err.Error(), Hint: "store the weights as float32 or integers"}
		}
		if err != nil {
			return err
		}
		if t.name == "" {
			return errors.New("an initializer has no name")
		}
		if sc.vals[t.name] != nil {
			return fmt.Errorf("initializer %q is given twice", t.name)
		}
		sc.vals[t.name] = &ir.Value{Name: im.unique(t.name, main), Type: d.Type(), Const: d}
	}
	return nil
}

// unique gives a value name that is not taken yet. Names of the main graph are reserved for it already.
func (im *importer) unique(name string, main bool) string {
	if main || !im.used[name] && name != "" {
		im.used[name] = true
		return name
	}
	for {
		im.next[name]++
		s := name + "~" + strconv.Itoa(im.next[name])
		if !im.used[s] {
			im.used[s] = true
			return s
		}
	}
}

func (im *importer) body(p *graphProto, r *ir.Region, sc *scope, main bool) error {
	for _, n := range ordered(p.nodes, func(name string) bool { return sc.find(name) != nil }) {
		im.source++
		if im.source > maxNodes {
			return fmt.Errorf("the model has more than %d nodes", maxNodes)
		}
		if n.name == "" {
			n.name = n.op + "_" + strconv.Itoa(im.source-1)
		}
		if err := im.node(n, r, sc, main); err != nil {
			return err
		}
	}
	return nil
}

// node converts one node of the model.
func (im *importer) node(n *nodeProto, r *ir.Region, sc *scope, main bool) error {
	n.domain = domain(n.domain)
	o := im.newOp(r, sc, n)
	name := n.op
	if n.domain != "" {
		name = n.domain + "." + name
	}
	if f := im.local[n.domain+"."+n.op+"."+n.overload]; f != nil {
		return im.inline(n, f, r, sc)
	}
	e, ok := im.table[name]
	if !ok {
		return o.unsupported("", "")
	}
	v, declared := im.opsets[n.domain]
	if !declared && n.domain == "com.microsoft" {
		v, declared = 1, true // its only version; ONNX Runtime's optimisers leave the import out
		im.opsets[n.domain] = v
		o.ver = v
	}
	if !declared {
		return fmt.Errorf("node %q (%s): the model does not import the operator set %q", n.name, n.op, n.domain)
	}
	if v < e.since {
		return o.unsupported(fmt.Sprintf("the operator exists from opset %d on", e.since), convertHint(e.since))
	}
	if v > e.known {
		return o.unsupported(fmt.Sprintf("operator sets of %q above %d are not known", n.domain, e.known), convertHint(e.known))
	}
	for _, in := range n.ins {
		if in == "" {
			o.ins = append(o.ins, nil)
			continue
		}
		x := sc.find(in)
		if x == nil {
			return fmt.Errorf("node %q (%s): input %q is not computed before it", n.name, n.op, in)
		}
		o.ins = append(o.ins, x)
	}
	outs := e.fn(o)
	if o.err != nil {
		var u *frontend.UnsupportedError
		if errors.As(o.err, &u) {
			return u
		}
		var dt errElemType
		if errors.As(o.err, &dt) {
			return o.unsupported(dt.Error()+" is not known", "")
		}
		return fmt.Errorf("node %q (%s, opset %d): %w", n.name, n.op, v, o.err)
	}
	for _, a := range n.attrs {
		if !o.read[a.name] {
			return o.unsupported(fmt.Sprintf("attribute %q is not known", a.name), "")
		}
	}
	for i, name := range n.outs {
		if name == "" {
			continue
		}
		if i >= len(outs) || outs[i] == nil {
			return o.unsupported(fmt.Sprintf("output %d (%q) is not computed", i, name), "")
		}
		if sc.vals[name] != nil {
			return fmt.Errorf("node %q (%s): value %q is computed twice", n.name, n.op, name)
		}
		v := outs[i]
		if o.fresh[v] {
			delete(o.fresh, v)
			v.Name = im.unique(name, main)
		}
		sc.vals[name] = v
	}
	return nil
}

// op is one node of the model while it is converted. The first error sticks; after it, emit gives placeholders, so
// that handlers need not check each step.
type op struct {
	im    *importer
	r     *ir.Region
	sc    *scope
	p     *nodeProto
	ver   int64
	ins   []*ir.Value
	read  map[string]bool
	fresh map[*ir.Value]bool // values made for this node that have no ONNX name yet
	err   error
}

func (im *importer) newOp(r *ir.Region, sc *scope, p *nodeProto) *op {
	return &op{im: im, r: r, sc: sc, p: p, ver: im.opsets[p.domain], read: map[string]bool{}, fresh: map[*ir.Value]bool{}}
}

func (o *op) unsupported(reason, hint string) error {
	if hint == "" {
		hint = hintOf(o.p, reason)
	}
	return &frontend.UnsupportedError{Op: o.p.op, Domain: o.p.domain, Opset: o.im.opsets[o.p.domain], Node: o.p.name, Reason: reason, Hint: hint}
}

// lacks records that something is not supported, and returns nil for handlers to return.
func (o *op) lacks(format string, args ...any) []*ir.Value {
	if o.err == nil {
		o.err = o.unsupported(fmt.Sprintf(format, args...), "")
	}
	return nil
}

func (o *op) fail(format string, args ...any) []*ir.Value {
	if o.err == nil {
		o.err = fmt.Errorf(format, args...)
	}
	return nil
}

// in gives input i, nil when absent.
func (o *op) in(i int) *ir.Value {
	if i >= len(o.ins) {
		return nil
	}
	return o.ins[i]
}

// need gives input i; its absence is an error.
func (o *op) need(i int) *ir.Value {
	if v := o.in(i); v != nil {
		return v
	}
	o.fail("input %d is missing", i)
	return &ir.Value{Name: "?", Type: ir.TensorOf(ir.F32, ir.Unranked())}
}

// maxIns refuses surplus inputs.
func (o *op) maxIns(n int) {
	if len(o.ins) > n {
		o.fail("%d inputs, at most %d", len(o.ins), n)
	}
}

// asked reports whether output i has a name.
func (o *op) asked(i int) bool { return i < len(o.p.outs) && o.p.outs[i] != "" }

func (o *op) emit(name string, a ir.Attrs, ins ...*ir.Value) *ir.Value {
	return o.emitN(name, a, 1, ins...)[0]
}

func (o *op) emitN(name string, a ir.Attrs, outs int, ins ...*ir.Value) []*ir.Value {
	return o.emitRegions(name, a, outs, nil, ins...)
}

func (o *op) emitRegions(name string, a ir.Attrs, outs int, regions []*ir.Region, ins ...*ir.Value) []*ir.Value {
	n := &ir.Node{ID: o.im.nodes, Op: name, Name: o.p.name, Attrs: map[string]ir.Attr{}, Ins: ins, Regions: regions}
	for k, v := range a {
		n.Attrs[k] = ir.AttrOf(v)
	}
	for len(n.Ins) > 0 && n.Ins[len(n.Ins)-1] == nil {
		n.Ins = n.Ins[:len(n.Ins)-1]
	}
	ir.FillDefaults(n)
	for i := 0; i < outs; i++ {
		v := &ir.Value{Type: ir.TensorOf(ir.F32, ir.Unranked())}
		n.Outs = append(n.Outs, v)
	}
	if o.err != nil {
		return n.Outs
	}
	types, err := ir.InferWith(n, o.im.facts)
	if err != nil {
		o.err = err
		return n.Outs
	}
	o.im.nodes++
	base := o.p.name
	for i, v := range n.Outs {
		v.Type = types[i]
		v.Name = o.im.unique(base+"~"+strings.ToLower(name), false)
		o.fresh[v] = true
	}
	o.r.Nodes = append(o.r.Nodes, n)
	return append([]*ir.Value(nil), n.Outs...)
}

// konst makes a constant.
func (o *op) konst(d *ir.Data) *ir.Value {
	if err := d.Check(); err != nil {
		o.fail("%w", err)
	}
	return &ir.Value{Name: o.im.unique(o.p.name+"~const", false), Type: d.Type(), Const: d}
}

// ints makes an i64 list.
func (o *op) ints(v ...int64) *ir.Value { return o.konst(ir.I64s([]int64{int64(len(v))}, v)) }

// scalar makes a scalar of the element type: a float, rounded, or an integer of at least 8 bits.
func (o *op) scalar(d ir.DType, v float64) *ir.Value {
	switch {
	case d == ir.F32 || d == ir.F64:
		return o.konst(ir.FloatData(d, []int64{}, []float64{v}))
	case d == ir.F16 || d == ir.BF16:
		return o.emit("Cast", ir.Attrs{"to": d}, o.konst(ir.FloatData(ir.F32, []int64{}, []float64{v})))
	case d.IsInt() && d.Bits() >= 8:
		return o.konst(ir.IntData(d, []int64{}, []int64{int64(v)}))
	}
	o.lacks("it is lowered with constants, and constants of %s are not made yet", d)
	return o.konst(ir.F32s([]int64{}, []float32{0}))
}

// cast converts v to d, doing nothing when it has that type already.
func (o *op) cast(v *ir.Value, d ir.DType) *ir.Value {
	if v == nil || v.Type.DType == d {
		return v
	}
	if v.Const != nil && (v.Const.DType == ir.I32 || v.Const.DType == ir.I64) && (d == ir.I64 || d == ir.I32) {
		return o.konst(ir.IntData(d, v.Const.Dims, v.Const.Ints()))
	}
	return o.emit("Cast", ir.Attrs{"to": d}, v)
}

// i64 is cast for index-like inputs; nil stays nil.
func (o *op) i64(v *ir.Value) *ir.Value { return o.cast(v, ir.I64) }

// known gives the elements of an integer input when the compiler knows them.
func (o *op) known(v *ir.Value) ([]int64, bool) {
	if v == nil {
		return nil, false
	}
	return o.im.facts.Known(v)
}

// rank gives the rank of v, or -1.
func rank(v *ir.Value) int { return v.Type.Shape.Rank() }

// needRank is rank for handlers that cannot do without.
func (o *op) needRank(v *ir.Value) int {
	r := rank(v)
	if r < 0 {
		o.lacks("the rank of its input is known only at run time")
	}
	return r
}

func (o *op) find(name string, typ int64) *attrProto {
	o.read[name] = true
	for i := range o.p.attrs {
		a := &o.p.attrs[i]
		if a.name != name {
			continue
		}
		if a.ref != "" || a.other {
			o.lacks("attribute %q has a form that is not supported", name)
			return nil
		}
		if a.typ != typ {
			// Empty lists have lost their type in old files.
			if a.typ == 0 && (typ == attrFloats || typ == attrInts || typ == attrStrings) {
				return a
			}
			o.fail("attribute %q has type %d, want %d", name, a.typ, typ)
			return nil
		}
		if typ == attrTensor && a.t == nil || typ == attrGraph && a.g == nil || typ == attrType && a.tp == nil {
			o.fail("attribute %q holds no value", name)
			return nil
		}
		return a
	}
	return nil
}

// ignore marks attributes that carry no meaning for inference.
func (o *op) ignore(names ...string) {
	for _, n := range names {
		o.read[n] = true
	}
}

func (o *op) hasAttr(name string) bool {
	for i := range o.p.attrs {
		if o.p.attrs[i].name == name {
			return true
		}
	}
	return false
}

func (o *op) attrInt(name string, def int64) int64 {
	a := o.find(name, attrInt)
	if a == nil {
		return def
	}
	if int64(int32(a.i)) != a.i { // axes, counts and flags: what does not fit is an accident or an attack
		o.fail("attribute %q is %d, which is out of range", name, a.i)
		return def
	}
	if isFlag(name) && a.i != 0 {
		return 1
	}
	return a.i
}

// isFlag tells which integer attributes are booleans: any number but zero means yes.
func isFlag(name string) bool {
	switch name {
	case "keepdims", "ceil_mode", "count_include_pad", "storage_order", "select_last_index", "largest", "sorted", "exclusive", "reverse",
		"transA", "transB", "fmod", "center_point_box", "antialias", "exclude_outside", "align_corners", "zeros", "mark", "onesided", "inverse",
		"linear_before_reset", "half_pixel", "is_causal", "upper", "is_case_sensitive", "keep_split":
		return true
	}
	return false
}

// attrLong is attrInt for a value that a model computes with.
func (o *op) attrLong(name string, def int64) int64 {
	if a := o.find(name, attrInt); a != nil {
		return a.i
	}
	return def
}

func (o *op) attrFloat(name string, def float32) float64 {
	if a := o.find(name, attrFloat); a != nil {
		return float64(a.f)
	}
	return float64(def)
}

func (o *op) attrStr(name, def string) string {
	if a := o.find(name, attrString); a != nil {
		return a.s
	}
	return def
}

func (o *op) attrInts(name string) []int64 {
	if a := o.find(name, attrInts); a != nil {
		return a.ints
	}
	return nil
}

func (o *op) attrFloats(name string) []float32 {
	if a := o.find(name, attrFloats); a != nil {
		return a.floats
	}
	return nil
}

func (o *op) attrStrs(name string) []string {
	if a := o.find(name, attrStrings); a != nil {
		return a.strs
	}
	return nil
}

func (o *op) attrTensor(name string) *ir.Data {
	a := o.find(name, attrTensor)
	if a == nil {
		return nil
	}
	d, err := a.t.data(o.im.dir)
	if err != nil {
		o.fail("attribute %q: %w", name, err)
		return nil
	}
	return d
}

func (o *op) attrGraph(name string) *graphProto {
	a := o.find(name, attrGraph)
	if a == nil || a.g == nil {
		o.fail("attribute %q is missing", name)
		return nil
	}
	return a.g
}

// inputType converts a declared type. Dims without a size become symbols: those without a name get one from the
// input's, since every input's size is known once a call begins.
func (im *importer) inputType(in valueInfo) (ir.Type, error) {
	if in.typ == nil {
		return ir.Type{}, errors.New("its type is not declared")
	}
	return im.convType(in.typ, in.name)
}

func (im *importer) convType(t *typeProto, name string) (ir.Type, error) {
	sub := func() (ir.Type, error) {
		if t.elem == nil {
			return ir.Type{}, errors.New("the element type is missing")
		}
		return im.convType(t.elem, "")
	}
	switch t.kind {
	case "tensor":
		d := ir.DType(t.elemType)
		if t.elemType < 0 || t.elemType > 255 || !d.Valid() {
			return ir.Type{}, elemTypeError(t.elemType)
		}
		if !t.hasShape {
			return ir.TensorOf(d, ir.Unranked()), nil
		}
		if len(t.dims) > ir.MaxRank {
			return ir.Type{}, fmt.Errorf("rank %d is over %d", len(t.dims), ir.MaxRank)
		}
		s := ir.Shape{Ranked: true, Dims: make([]ir.Dim, len(t.dims))}
		for i, dp := range t.dims {
			switch {
			case dp.hasValue && dp.value >= 0 && dp.param == "":
				s.Dims[i] = ir.Static(dp.value)
				if dp.value == 0 && name != "" {
					// Exporters write 0 for "not known"; a model cannot have an empty input.
					s.Dims[i] = im.symbol(name, i)
				}
			case dp.param != "" && dp.param != "?" && name != "":
				s.Dims[i] = ir.Symbol(dp.param)
			case name != "":
				s.Dims[i] = im.symbol(name, i)
			default:
				s.Dims[i] = ir.Unknown()
			}
		}
		return ir.TensorOf(d, s), nil
	case "sequence":
		e, err := sub()
		return ir.SequenceOf(e), err
	case "optional":
		e, err := sub()
		return ir.OptionalOf(e), err
	case "map":
		e, err := sub()
		k := ir.DType(t.elemType)
		if t.elemType != int64(ir.I64) && t.elemType != int64(ir.String) {
			return ir.Type{}, fmt.Errorf("map keys of type %d are not supported", t.elemType)
		}
		return ir.MapOf(k, e), err
	}
	return ir.Type{}, fmt.Errorf("a %s type is not supported", t.kind)
}

// errElemType is an element type of ONNX that the compiler does not know.
type errElemType int64

func (e errElemType) Error() string { return fmt.Sprintf("element type %d of ONNX", int64(e)) }

// elemTypeError tells types that ONNX has from numbers that only damage explains.
func elemTypeError(n int64) error {
	if n >= 1 && n <= 32 {
		return errElemType(n)
	}
	return fmt.Errorf("element type %d does not exist", n)
}

// symbol names dim i of an input that the model left unnamed.
func (im *importer) symbol(input string, i int) ir.Dim {
	return ir.Symbol(input + "_" + strconv.Itoa(i))
}
