package codegen

import (
	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

type lowerer func(c *compiler, n *ir.Node) error

// lowerings joins the families' tables.
func lowerings() map[string]lowerer {
	all := map[string]lowerer{}
	for _, t := range []map[string]lowerer{
		mathLowering(),
		trigLowering(),
		bitsLowering(),
		smallLowering(),
		tensorLowering(),
		nnLowering(),
		reduceLowering(),
		controlLowering(),
		mlLowering(),
		textLowering(),
		indexLowering(),
		sequenceLowering(),
		stringLowering(),
		imageLowering(),
		sampleLowering(),
	} {
		for op, l := range t {
			if _, dup := all[op]; dup {
				panic("codegen: operator " + op + " has two lowerings")
			}
			all[op] = l
		}
	}
	return all
}

// Supported tells whether the compiler has kernels for an operator of ir's table. Some variants may still give
// an *Unsupported.
func Supported(op string) bool { return lowerings()[op] != nil }

// region lowers the nodes of r and releases each value after its last use. Results stay alive: the caller
// moves them out and releases them.
func (c *compiler) region(r *ir.Region) error {
	last := map[*ir.Value]int{}
	own := map[*ir.Value]bool{}
	use := func(i int, v *ir.Value) {
		if v != nil && v.Const == nil {
			last[v] = i
		}
	}
	for i, n := range r.Nodes {
		for _, v := range n.Ins {
			use(i, v)
		}
		for _, s := range n.Regions {
			for _, v := range s.Captures {
				use(i, v)
			}
			for _, v := range s.Results {
				use(i, v)
			}
		}
		for _, v := range n.Outs {
			if v != nil {
				own[v] = true
				use(i, v)
			}
		}
	}
	for _, v := range r.Results {
		last[v] = len(r.Nodes)
	}
	dying := make([][]*ir.Value, len(r.Nodes)+1)
	for i, n := range r.Nodes {
		seen := map[*ir.Value]bool{}
		add := func(v *ir.Value) {
			if v != nil && own[v] && last[v] == i && !seen[v] {
				seen[v] = true
				dying[i] = append(dying[i], v)
			}
		}
		for _, v := range n.Ins {
			add(v)
		}
		for _, s := range n.Regions {
			for _, v := range s.Captures {
				add(v)
			}
		}
		for _, v := range n.Outs {
			add(v)
		}
	}
	for i, n := range r.Nodes {
		l := c.table[n.Op]
		if l == nil {
			return unsupported(n, "the compiler has no kernel for it")
		}
		outer := c.node
		c.node = len(c.nodes)
		c.nodes = append(c.nodes, n.Name)
		if err := l(c, n); err != nil {
			return err
		}
		if len(dying[i]) > 0 {
			s := c.steps[len(c.steps)-1]
			for _, v := range dying[i] {
				s.frees = append(s.frees, c.slots[v].slot)
			}
		}
		c.node = outer
	}
	return nil
}

// dt is the kernel view of a value's element type.
func (c *compiler) dt(n *ir.Node, v *ir.Value) (kernel.DT, error) {
	if v.Type.Kind != ir.Tensor {
		return kernel.DT{}, unsupported(n, "value %q of type %s", v.Name, v.Type)
	}
	d, err := kernel.DTypeOf(abi.DType(v.Type.DType))
	if err != nil {
		return d, unsupported(n, "value %q: %v", v.Name, err)
	}
	return d, nil
}

func (c *compiler) ins(n *ir.Node) []*operand {
	out := make([]*operand, len(n.Ins))
	for i, v := range n.Ins {
		out[i] = c.operand(v)
	}
	return out
}

func (c *compiler) outs(n *ir.Node) []*operand {
	out := make([]*operand, len(n.Outs))
	for i, v := range n.Outs {
		out[i] = c.define(v)
	}
	return out
}

// simple lowers a node to one step whose kernel depends on the element type of input 0.
func simple(k func(d kernel.DT) *kernel.Kernel) lowerer {
	return func(c *compiler, n *ir.Node) error {
		d, err := c.dt(n, n.Ins[0])
		if err != nil {
			return err
		}
		c.step(k(d), c.outs(n), c.ins(n))
		return nil
	}
}

func mathLowering() map[string]lowerer {
	t := map[string]lowerer{
		"Cast": lowerCast,
		"Where": func(c *compiler, n *ir.Node) error {
			return c.moved(n, []int{1, 2}, kernel.Where)
		},
		"Mod": func(c *compiler, n *ir.Node) error {
			return simple(func(d kernel.DT) *kernel.Kernel { return kernel.Binary(kernel.Mod(n.Int("fmod") != 0), d) })(c, n)
		},
		"Pow": func(c *compiler, n *ir.Node) error {
			d, err := c.dt(n, n.Ins[0])
			if err != nil {
				return err
			}
			e, err := c.dt(n, n.Ins[1])
			if err != nil {
				return err
			}
			c.step(kernel.Pow(d, e), c.outs(n), c.ins(n))
			return nil
		},
	}
	for name, op := range kernel.Op2s() {
		t[name] = simple(func(d kernel.DT) *kernel.Kernel { return kernel.Binary(op, d) })
	}
	equal := t["Equal"]
	t["Equal"] = func(c *compiler, n *ir.Node) error {
		if !isString(n.Ins[0]) {
			return equal(c, n)
		}
		tm := &temps{c: c}
		ins := c.ins(n)
		ins[0], ins[1] = tm.explode(ins[0]), tm.explode(ins[1])
		tm.free(c.step(kernel.EqualStrings(), c.outs(n), ins))
		return nil
	}
	for name, op := range kernel.Op1s() {
		t[name] = simple(func(d kernel.DT) *kernel.Kernel { return kernel.Unary(op, d) })
	}
	return t
}

// wide makes a slot for the elements of v in f32.
func (c *compiler) wide(t *temps, v *ir.Value) *operand {
	x := infoOf(v)
	o := t.new()
	if x.bytes > 0 {
		n, _ := ir.Elements(x.dims)
		c.sized(o, v.Name+" in f32", max(4*n, 1), x.dims)
	}
	return o
}

// inF32 lowers a node on 16-bit floats by computing in f32 and rounding the outputs once. lower is given the f32
// operands.
func (c *compiler) inF32(n *ir.Node, d kernel.DT, lower func(outs, ins []*operand) *step) error {
	f32 := dtypeOf(abi.F32)
	t := &temps{c: c}
	ins := c.ins(n)
	for i, v := range n.Ins {
		if v != nil && v.Type.Kind == ir.Tensor && abi.DType(v.Type.DType) == d.ABI {
			w := c.wide(t, v)
			c.step(kernel.Cast(d, f32), []*operand{w}, []*operand{ins[i]})
			ins[i] = w
		}
	}
	outs := c.outs(n)
	wide := make([]*operand, len(outs))
	for i, o := range outs {
		if o != nil {
			wide[i] = c.wide(t, n.Outs[i])
		}
	}
	s := lower(wide, ins)
	for i, o := range outs {
		if o != nil {
			s = c.step(kernel.Cast(f32, d), []*operand{o}, []*operand{wide[i]})
		}
	}
	t.free(s)
	return nil
}
