package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func rearrangeOps() map[string]handler {
	return map[string]handler{
		"DepthToSpace": depthToSpace, "SpaceToDepth": spaceToDepth, "CenterCropPad": centerCropPad,
		"LpPool": lpPool, "GlobalLpPool": globalLpPool, "AffineGrid": affineGrid,
	}
}

// block checks a 4-D input and gives the block size.
func (o *op) block(x *ir.Value) int64 {
	b := o.attrInt("blocksize", 0)
	if r := rank(x); r >= 0 && r != 4 {
		o.fail("input of rank %d, want 4", r)
	}
	if b < 1 || b > 1<<15 {
		o.fail("blocksize %d", b)
		return 1
	}
	return b
}

func depthToSpace(o *op) []*ir.Value {
	x := o.need(0)
	b := o.block(x)
	n, c, hw := o.sizes(x, 0, 1), o.calc("Div", o.sizes(x, 1, 2), o.ints(b*b)), o.sizes(x, 2, 4)
	var y *ir.Value
	switch mode := o.attrStr("mode", "DCR"); mode {
	case "DCR":
		y = o.permuted(o.shaped(x, n, o.ints(b, b), c, hw), []int64{0, 3, 4, 1, 5, 2})
	case "CRD":
		y = o.permuted(o.shaped(x, n, c, o.ints(b, b), hw), []int64{0, 1, 4, 2, 5, 3})
	default:
		return o.fail("mode %q", mode)
	}
	return one(o.shaped(y, n, c, o.calc("Mul", hw, o.ints(b, b))))
}

func spaceToDepth(o *op) []*ir.Value {
	x := o.need(0)
	b := o.block(x)
	n, c := o.sizes(x, 0, 1), o.sizes(x, 1, 2)
	h, w := o.calc("Div", o.sizes(x, 2, 3), o.ints(b)), o.calc("Div", o.sizes(x, 3, 4), o.ints(b))
	y := o.permuted(o.shaped(x, n, c, h, o.ints(b), w, o.ints(b)), []int64{0, 3, 5, 1, 2, 4})
	return one(o.shaped(y, n, o.calc("Mul", c, o.ints(b*b)), h, w))
}

// centerCropPad crops what is too long and pads what is too short, an odd element at the end.
func centerCropPad(o *op) []*ir.Value {
	x, shape := o.need(0), o.i64(o.need(1))
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	axes := append([]int64{}, o.attrInts("axes")...)
	if !o.hasAttr("axes") {
		for i := 0; i < r; i++ {
			axes = append(axes, int64(i))
		}
	}
	var dims []*ir.Value
	for i, a := range axes {
		k, err := ir.Axis(a, r)
		if err != nil {
			return o.fail("%w", err)
		}
		axes[i] = int64(k)
		dims = append(dims, o.sizes(x, k, k+1))
	}
	if len(axes) == 0 {
		return one(o.emit("Identity", nil, x))
	}
	dim := o.join(dims...)
	over, under := o.calc("Max", o.calc("Sub", dim, shape), o.ints(0)), o.calc("Max", o.calc("Sub", shape, dim), o.ints(0))
	start := o.calc("Div", over, o.ints(2))
	end := o.calc("Add", start, o.calc("Min", dim, shape))
	ones := make([]int64, len(axes))
	for i := range ones {
		ones[i] = 1
	}
	y := o.emit("Slice", nil, x, start, end, o.ints(axes...), o.ints(ones...))
	begin := o.calc("Div", under, o.ints(2))
	return one(o.emit("Pad", ir.Attrs{"mode": "constant"}, y, o.join(begin, o.calc("Sub", under, begin)), nil, o.ints(axes...)))
}

// power is |x|^p, root its inverse, both in f64 unless p is 1 or 2.
func (o *op) power(x *ir.Value, p float64) *ir.Value {
	switch p {
	case 1:
		return o.emit("Abs", nil, x)
	case 2:
		return o.emit("Mul", nil, x, x)
	}
	return o.cast(o.emit("Pow", nil, o.emit("Abs", nil, o.cast(x, ir.F64)), o.f64(p)), x.Type.DType)
}

func (o *op) root(x *ir.Value, p float64) *ir.Value {
	switch p {
	case 1:
		return x
	case 2:
		return o.emit("Sqrt", nil, x)
	}
	return o.cast(o.emit("Pow", nil, o.cast(x, ir.F64), o.f64(1/p)), x.Type.DType)
}

// order is the attribute p, a float in opset 1.
func (o *op) order() float64 {
	if o.ver < 2 {
		return o.attrFloat("p", 2)
	}
	return float64(o.attrInt("p", 2))
}

// lpPool sums the powers by a convolution with ones, each channel on its own.
func lpPool(o *op) []*ir.Value {
	x, kernel := o.need(0), o.attrInts("kernel_shape")
	a := o.spatial(x, kernel)
	n := len(kernel)
	if o.err != nil {
		return nil
	}
	if n > 3 {
		return o.lacks("%d spatial dims", n)
	}
	p := o.order()
	if o.attrInt("ceil_mode", 0) != 0 && a["auto_pad"] == "NOTSET" {
		pads := append([]int64{}, a["pads"].([]int64)...)
		s, d := a["strides"].([]int64), a["dilations"].([]int64)
		for i := range kernel {
			if !x.Type.Shape.Ranked || !x.Type.Shape.Dims[i+2].IsStatic() {
				return o.lacks("ceil_mode with sizes known only at run time")
			}
			if s[i] < 1 || d[i] < 1 || kernel[i] < 1 {
				return o.fail("kernel %v, strides %v or dilations %v", kernel, s, d)
			}
			size := x.Type.Shape.Dims[i+2].N
			out := ir.PoolSize(size, kernel[i], s[i], pads[i], pads[i+n], d[i], false, true)
			pads[i+n] = (out-1)*s[i] + (kernel[i]-1)*d[i] + 1 - size - pads[i]
		}
		a["pads"] = pads
	}
	a["group"] = 1
	cells := int64(1)
	for _, k := range kernel {
		if k < 1 || k > 1<<12 {
			return o.fail("kernel %v", kernel)
		}
		cells *= k
	}
	if cells > 1<<20 {
		return o.fail("kernel %v", kernel)
	}
	v := make([]float64, cells)
	for i := range v {
		v[i] = 1
	}
	return one(o.widened(func(d ir.DType) *ir.Value {
		w := o.konst(ir.FloatData(d, append([]int64{1, 1}, kernel...), v))
		z := o.power(o.cast(x, d), p)
		z = o.shaped(z, o.product(o.sizes(x, 0, 2)), o.ints(1), o.sizes(x, 2, n+2))
		y := o.emit("Conv", a, z, w)
		return o.root(o.shaped(y, o.sizes(x, 0, 2), o.sizes(y, 2, n+2)), p)
	}))
}

func globalLpPool(o *op) []*ir.Value {
	x := o.need(0)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	if r < 3 {
		return o.fail("input has rank %d, want at least 3", r)
	}
	p := o.order()
	var axes []int64
	for i := 2; i < r; i++ {
		axes = append(axes, int64(i))
	}
	return one(o.widened(func(d ir.DType) *ir.Value {
		return o.root(o.emit("ReduceSum", ir.Attrs{"keepdims": 1}, o.power(o.cast(x, d), p), o.ints(axes...)), p)
	}))
}

// affineGrid multiplies the homogeneous coordinates of each position with theta, in f64.
func affineGrid(o *op) []*ir.Value {
	theta, size := o.need(0), o.i64(o.need(1))
	sp := -1
	if s := theta.Type.Shape; s.Rank() == 3 && s.Dims[1].IsStatic() {
		sp = int(s.Dims[1].N)
	} else if s := size.Type.Shape; s.Rank() == 1 && s.Dims[0].IsStatic() {
		sp = int(s.Dims[0].N) - 2
	}
	if sp < 0 {
		return o.lacks("a number of spatial dims known only at run time")
	}
	if sp != 2 && sp != 3 {
		return o.fail("%d spatial dims", sp)
	}
	align := o.attrInt("align_corners", 0) != 0
	all := o.stretch(size, 0, o.ints(2), o.ints(int64(2+sp)))
	if s, ok := o.known(size); ok {
		if len(s) != 2+sp {
			return o.fail("size %v for %d spatial dims", s, sp)
		}
		all = o.ints(s[2:]...)
	}
	var cols []*ir.Value
	for i := sp - 1; i >= 0; i-- {
		n := o.stretch(all, 0, o.ints(int64(i)), o.ints(int64(i+1)))
		if s, ok := o.known(all); ok && i < len(s) {
			n = o.ints(s[i])
		}
		c, nf := o.emit("Mul", nil, o.indices(n, ir.F64), o.f64(2)), o.cast(n, ir.F64)
		if align {
			c = o.emit("Div", nil, c, o.emit("Sub", nil, nf, o.f64(1)))
		} else {
			c = o.emit("Div", nil, o.emit("Add", nil, c, o.f64(1)), nf)
		}
		c = o.emit("Sub", nil, c, o.f64(1))
		shape := make([]*ir.Value, sp)
		for j := range shape {
			shape[j] = o.ints(1)
		}
		shape[i] = n
		c = o.emit("Expand", nil, o.shaped(c, shape...), all)
		cols = append(cols, o.emit("Unsqueeze", nil, c, o.ints(int64(sp))))
	}
	cols = append(cols, o.emit("Expand", nil, o.f64(1), o.join(all, o.ints(1))))
	grid := o.shaped(o.emit("Concat", ir.Attrs{"axis": sp}, cols...), o.product(all), o.ints(int64(sp+1)))
	t := o.emit("Transpose", ir.Attrs{"perm": []int64{0, 2, 1}}, o.cast(theta, ir.F64))
	y := o.emit("MatMul", nil, grid, t)
	return one(o.cast(o.shaped(y, o.sizes(theta, 0, 1), all, o.ints(int64(sp))), theta.Type.DType))
}
