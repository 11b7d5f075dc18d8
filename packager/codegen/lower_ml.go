package codegen

import (
	"encoding/binary"
	"math"

	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func mlLowering() map[string]lowerer {
	return map[string]lowerer{
		"ml.TreeEnsemble": lowerTrees,
		"ml.LabelEncoder": lowerLabelEncoder,
		"ml.OneHotEncoder": func(c *compiler, n *ir.Node) error {
			cats := n.Data("cats")
			t := &temps{c: c}
			x, in, str, err := c.lookupInput(n, t)
			if err != nil {
				return err
			}
			keys, at := lastOfEquals(cats)
			table, cnt := c.lookupTable(keys, func(i int) uint64 { return uint64(at[i]) }, nil)
			t.free(c.step(kernel.HotRows(in, str), c.outs(n), []*operand{x}, ab(table), ai(int64(cnt)), ai(cats.Len()), ai(n.Int("zeros"))))
			return nil
		},
		"ml.ZipMap": func(c *compiler, n *ir.Node) error {
			cl := n.Data("classes")
			c.step(kernel.ZipMap(), c.outs(n), c.ins(n), ab(c.constant(cl).desc), ai(cl.Len()), ai(int64(cl.DType)))
			return nil
		},
	}
}

// lastOfEquals gives the different elements of a list of i64 or strings, and where each one stands last.
func lastOfEquals(d *ir.Data) (*ir.Data, []int) {
	last := map[any]int{}
	key := func(i int) any {
		if d.DType == ir.String {
			return d.Strings[i]
		}
		return d.Int(i)
	}
	n := int(d.Len())
	for i := range n {
		last[key(i)] = i
	}
	out, at := &ir.Data{DType: d.DType}, []int{}
	for i := range n {
		if last[key(i)] != i {
			continue
		}
		at = append(at, i)
		if d.DType == ir.String {
			out.Strings = append(out.Strings, d.Strings[i])
		} else {
			out.Bytes = append(out.Bytes, d.Bytes[8*i:8*i+8]...)
		}
	}
	out.Dims = []int64{int64(len(at))}
	return out, at
}

func lowerTrees(c *compiler, n *ir.Node) error {
	d, err := c.dt(n, n.Ins[0])
	if err != nil {
		return err
	}
	le := binary.LittleEndian
	feat, mode, tr, fa, miss := n.Ints("node_feature"), n.Ints("node_mode"), n.Ints("node_true"), n.Ints("node_false"), n.Ints("node_missing_true")
	thr := n.Data("node_threshold")
	v := kernel.TreeVariant{Mode: -1, Single: true, Agg: n.Str("aggregate"), Narrow: n.Str("accumulate") == "F32"}
	if len(mode) > 0 {
		v.Mode = int(mode[0])
	} else {
		v.Mode = 0
	}
	if int64(len(feat))*kernel.TreeNode > math.MaxInt32 {
		return unsupported(n, "%d tree nodes", len(feat))
	}
	child := func(i int64) uint32 {
		if i >= 0 {
			return uint32(i * kernel.TreeNode)
		}
		return uint32(int32(i))
	}
	nodes := make([]byte, len(feat)*kernel.TreeNode)
	features := int64(0)
	for i, f := range feat {
		b := nodes[i*kernel.TreeNode:]
		features = max(features, f+1)
		if int(mode[i]) != v.Mode {
			v.Mode = -1
		}
		v.Missing = v.Missing || miss[i] != 0
		le.PutUint32(b[kernel.TreeFeature:], uint32(f<<d.Shift))
		le.PutUint32(b[kernel.TreeFlags:], uint32(mode[i]|miss[i]<<8))
		le.PutUint32(b[kernel.TreeTrue:], child(tr[i]))
		le.PutUint32(b[kernel.TreeFalse:], child(fa[i]))
		es := 1 << d.Shift
		copy(b[kernel.TreeThresh:], thr.Bytes[i*es:(i+1)*es])
	}
	begin, target, weight := n.Ints("leaf_begin"), n.Ints("leaf_target"), n.Data("leaf_weight")
	for i := 0; i+1 < len(begin); i++ {
		if begin[i+1]-begin[i] != 1 {
			v.Single = false
		}
	}
	begins := make([]byte, 4*len(begin))
	for i, b := range begin {
		le.PutUint32(begins[4*i:], uint32(b*kernel.LeafEntry))
	}
	entries := make([]byte, len(target)*kernel.LeafEntry)
	for i, t := range target {
		le.PutUint32(entries[i*kernel.LeafEntry+kernel.LeafTarget:], uint32(8*t))
		le.PutUint64(entries[i*kernel.LeafEntry+kernel.LeafWeight:], math.Float64bits(weight.Float(i)))
	}
	if v.Narrow {
		for i := range target {
			le.PutUint64(entries[i*kernel.LeafEntry+kernel.LeafWeight:], math.Float64bits(float64(float32(weight.Float(i)))))
		}
	}
	linear, coefs := attr{}, attr{}
	if begin := n.Ints("linear_begin"); len(begin) > 0 {
		v.Linear = true
		lin, con := make([]byte, 0, len(target)*kernel.LinearEntry), n.Data("linear_const").Floats()
		for i := range target {
			lin = le.AppendUint32(lin, uint32(begin[i]*kernel.LinearCoef))
			lin = le.AppendUint32(lin, uint32(begin[i+1]*kernel.LinearCoef))
			lin = le.AppendUint64(lin, math.Float64bits(con[i]))
		}
		var co []byte
		w := n.Data("linear_coef").Floats()
		for i, f := range n.Ints("linear_feature") {
			features = max(features, f+1)
			co = le.AppendUint64(co, uint64(f<<d.Shift))
			co = le.AppendUint64(co, math.Float64bits(w[i]))
		}
		linear, coefs = ab(c.blob(lin, 16)), ab(c.blob(co, 16))
	}
	var roots []byte
	for _, r := range n.Ints("roots") {
		roots = le.AppendUint32(roots, child(r))
	}
	base := attr{}
	if b := n.Data("base_values"); b.Len() > 0 {
		var bb []byte
		for _, x := range b.Floats() {
			bb = le.AppendUint64(bb, math.Float64bits(x))
		}
		base = ab(c.blob(bb, 16))
	}
	acc := c.newSlot()
	outs := append(c.outs(n), acc)
	trees := int64(len(n.Ints("roots")))
	s := c.step(kernel.TreeEnsemble(v, d), outs, c.ins(n),
		ab(c.blob(nodes, 16)), ab(c.blob(roots, 16)), ai(trees), ab(c.blob(begins, 16)), ab(c.blob(entries, 16)),
		ai(n.Int("n_targets")), base, ai(features), ai(trees*30+20), linear, coefs)
	s.frees = append(s.frees, acc.slot)
	c.note(n, "%d trees, %d nodes, %d leaves: %d bytes of tables", trees, len(feat), max(len(begin)-1, 0), len(nodes)+len(entries)+len(begins)+len(roots))
	return nil
}

// lookupInput gives the operand, type and stringness of a node's input 0 as a lookup kernel takes it.
func (c *compiler) lookupInput(n *ir.Node, t *temps) (*operand, kernel.DT, bool, error) {
	x := c.ins(n)[0]
	if isString(n.Ins[0]) {
		return t.explode(x), u64DT(), true, nil
	}
	d, err := c.dt(n, n.Ins[0])
	if err == nil && d.Half() {
		err = unsupported(n, "keys of type %s", d.Name)
	}
	return x, d, false, err
}

func lowerLabelEncoder(c *compiler, n *ir.Node) error {
	keys, vals, def := n.Data("keys"), n.Data("values"), n.Data("default")
	t := &temps{c: c}
	x, in, str, err := c.lookupInput(n, t)
	if err != nil {
		return err
	}
	if vals.DType == ir.String {
		text, at := c.textBlob(append(append([]string{}, vals.Strings...), def.Strings...))
		ref := func(i int) uint64 { return uint64(at[i][0]) | uint64(at[i][1])<<32 }
		table, cnt := c.lookupTable(keys, ref, text)
		refs := t.new()
		c.step(kernel.Lookup(in, str, u64DT()), []*operand{refs}, []*operand{x}, ab(table), ai(int64(cnt)), attr{v: ref(len(vals.Strings)), b: text})
		t.free(c.step(kernel.Implode(), c.outs(n), []*operand{refs}))
		return nil
	}
	out, err := c.dt(n, n.Outs[0])
	if err != nil {
		return err
	}
	table, cnt := c.lookupTable(keys, func(i int) uint64 { return elemBits(vals, i) }, nil)
	t.free(c.step(kernel.Lookup(in, str, out), c.outs(n), []*operand{x}, ab(table), ai(int64(cnt)), attr{v: elemBits(def, 0)}))
	return nil
}
