package codegen

import (
	"encoding/binary"
	"math"
	"slices"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

// packing identifies a packed form of a constant.
type packing struct {
	d     *ir.Data
	trans bool
	group int64 // of a convolution, else 0
}

// panels lays out columns of terms as package kernel's tile kernels read them: group after group of [panels][terms][PanelCols],
// padded with zeros. value gives one element's bits.
func panels(groups, terms, cols int, value func(group, term, col int) uint32) *ir.Data {
	const w, q = kernel.PanelCols, kernel.PanelTerms
	np, nt := (cols+w-1)/w, (terms+q-1)/q*q
	b := make([]byte, 4*groups*np*nt*w)
	for g := 0; g < groups; g++ {
		for c := 0; c < cols; c++ {
			for t := 0; t < terms; t++ {
				binary.LittleEndian.PutUint32(b[4*(((g*np+c/w)*nt+t)*w+c%w):], value(g, t, c))
			}
		}
	}
	return &ir.Data{DType: ir.F32, Dims: []int64{int64(groups * np * nt * w)}, Bytes: b}
}

func bitsAt(d *ir.Data, i int) uint32 { return binary.LittleEndian.Uint32(d.Bytes[4*i:]) }

// scratch makes the slot of a packed product's scratch. With an unknown number of rows, below 0, it comes from the heap, where it takes
// turns with the rows.
func (c *compiler) scratch(t *temps, rows, terms, cols int64) *operand {
	if rows < 0 {
		return t.new()
	}
	return c.sized(t.new(), "scratch", kernel.PackedScratch(rows, terms, cols), nil)
}

// rowsOf is the number of rows of the last dim of v, or -1.
func rowsOf(v *ir.Value) int64 {
	d, ok := v.Type.Shape.Static()
	if !ok || len(d) == 0 {
		return -1
	}
	n, ok := ir.Elements(d[:len(d)-1])
	if !ok {
		return -1
	}
	return n
}

// packable tells whether v is a constant f32 matrix of some size with which a packed product may be made.
func packable(v *ir.Value) bool {
	return v != nil && v.Const != nil && v.Type.Kind == ir.Tensor && v.Const.DType == ir.F32 && len(v.Const.Dims) == 2 && v.Const.Len() > 0
}

// packed is the constant of v's panels; trans says that columns are v's rows. It also gives terms and columns.
func (c *compiler) packed(n *ir.Node, v *ir.Value, trans bool) (op *operand, terms, cols int64) {
	d := v.Const
	terms, cols = d.Dims[0], d.Dims[1]
	if trans {
		terms, cols = cols, terms
	}
	key := packing{d, trans, 0}
	p, ok := c.packs[key]
	if !ok {
		p = panels(1, int(terms), int(cols), func(_, t, col int) uint32 {
			if trans {
				return bitsAt(d, col*int(terms)+t)
			}
			return bitsAt(d, t*int(cols)+col)
		})
		c.packs[key] = p
	}
	c.note(n, "weights packed in panels of %d columns", kernel.PanelCols)
	return c.constant(p), terms, cols
}

func lowerMatMul(c *compiler, n *ir.Node) error {
	if !packable(n.Ins[1]) || abi.DType(n.Ins[0].Type.DType) != abi.F32 {
		return simple(kernel.MatMul)(c, n)
	}
	b, terms, cols := c.packed(n, n.Ins[1], false)
	a := c.operand(n.Ins[0])
	t := &temps{c: c}
	t.free(c.step(kernel.MatMulPacked(), append(c.outs(n), c.scratch(t, rowsOf(n.Ins[0]), terms, cols)), []*operand{a, b}, ai(terms), ai(cols)))
	return nil
}

// minFilters is the number of filters of a group from which on a panel is worth its padding.
const minFilters = 3

func lowerConv(c *compiler, n *ir.Node) error {
	d, err := c.dt(n, n.Ins[0])
	if err != nil {
		return err
	}
	group := int64(n.Int("group"))
	as, err := windowAttrs(n, n.Int("group"), 0)
	if err != nil {
		return err
	}
	w := n.Ins[1]
	plain := func() error {
		c.step(kernel.Conv(d, n.In(2) != nil), c.outs(n), c.ins(n), as...)
		return nil
	}
	if d.ABI != abi.F32 || w.Const == nil || w.Const.DType != ir.F32 || group < 1 || w.Const.Dims[0]%group != 0 || len(w.Const.Dims) != len(n.Ints("kernel_shape"))+2 ||
		w.Const.Len() == 0 || !kernelFits(w.Const.Dims[2:], n.Ints("kernel_shape")) || !finite(w.Const) {
		return plain()
	}
	if w.Const.Dims[0]/group < minFilters {
		if w.Const.Dims[1] != 1 || len(w.Const.Dims) > 4 || slices.Min(n.Ints("pads")) < 0 {
			return plain()
		}
		as = append(as, ai(w.Const.Dims[0]), ai(1), ai(int64(len(w.Const.Dims))))
		t := &temps{c: c}
		spare := c.sized(t.new(), "scratch", depthwiseScratch(n), nil)
		t.free(c.step(kernel.Depthwise(n.In(2) != nil), append(c.outs(n), spare), c.ins(n), as...))
		return nil
	}
	dims := w.Const.Dims
	filters, channels := dims[0], dims[1]
	positions := int(w.Const.Len() / (filters * channels))
	mg, cg := int(filters/group), int(channels)
	key := packing{w.Const, false, group}
	p, ok := c.packs[key]
	if !ok {
		p = panels(int(group), positions*cg, mg, func(g, t, col int) uint32 {
			return bitsAt(w.Const, ((g*mg+col)*cg+t%cg)*positions+t/cg)
		})
		c.packs[key] = p
	}
	c.note(n, "filters packed in panels of %d", kernel.PanelCols)
	ins := []*operand{c.operand(n.Ins[0]), c.constant(p)}
	if n.In(2) != nil {
		ins = append(ins, c.operand(n.Ins[2]))
	}
	as = append(as, ai(filters), ai(channels), ai(int64(len(dims))))
	t := &temps{c: c}
	rows := int64(-1)
	if y, ok := n.Outs[0].Type.Shape.Static(); ok {
		rows, _ = ir.Elements(y[2:])
	}
	spare := c.scratch(t, rows, int64(positions*cg), int64(mg))
	t.free(c.step(kernel.ConvPacked(n.In(2) != nil), append(c.outs(n), spare), ins, as...))
	return nil
}

// depthwiseScratch is the scratch of a depthwise convolution, or 0 when it is not known.
func depthwiseScratch(n *ir.Node) int64 {
	y, ok := n.Outs[0].Type.Shape.Static()
	ks, st, dil := n.Ints("kernel_shape"), n.Ints("strides"), n.Ints("dilations")
	if !ok || len(ks) > 2 || len(y) != len(ks)+2 {
		return 0
	}
	// The last two dims, of which the first may be missing.
	two := func(x []int64) (int64, int64) {
		if len(x) == 1 {
			return 1, x[0]
		}
		return x[0], x[1]
	}
	oh, ow := two(y[2:])
	kh, kw := two(ks)
	sh, sw := two(st)
	dh, dw := two(dil)
	return kernel.DepthwiseScratch(oh, ow, kh, kw, sh, sw, dh, dw)
}

// kernelFits tells whether the weights have the shape that the attributes state; the general kernel reports it otherwise.
func kernelFits(dims []int64, shape []int64) bool {
	for i := range dims {
		if dims[i] != shape[i] {
			return false
		}
	}
	return true
}

// finite tells whether all elements are: only then a term of +0 may stand for one in the padding.
func finite(d *ir.Data) bool {
	for i := 0; i < int(d.Len()); i++ {
		if f := float64(math.Float32frombits(bitsAt(d, i))); math.IsInf(f, 0) || math.IsNaN(f) {
			return false
		}
	}
	return true
}
