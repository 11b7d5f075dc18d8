package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func sampleOps() map[string]handler {
	return map[string]handler{
		"Col2Im": col2Im, "MaxUnpool": maxUnpool, "NonMaxSuppression": nonMaxSuppression, "GridSample": gridSample, "DeformConv": deformConv,
		"Det": func(o *op) []*ir.Value {
			return one(o.widened(func(d ir.DType) *ir.Value { return o.emit("Det", nil, o.cast(o.need(0), d)) }))
		},
		"RoiAlign": roiAlign,
	}
}

// filled reads a list attribute or gives k copies of def.
func (o *op) filled(name string, k int, def int64) []int64 {
	v := append([]int64{}, o.attrInts(name)...)
	if len(v) == 0 {
		for i := 0; i < k; i++ {
			v = append(v, def)
		}
	}
	if len(v) != k {
		o.fail("%s %v, want %d entries", name, v, k)
		return make([]int64, k)
	}
	return v
}

// entry is element i of a list.
func (o *op) entry(list *ir.Value, i int) *ir.Value {
	if x, ok := o.known(list); ok && i < len(x) {
		return o.ints(x[i])
	}
	return o.stretch(list, 0, o.ints(int64(i)), o.ints(int64(i+1)))
}

// zeros makes a tensor of dims.
func (o *op) zerosOf(d ir.DType, dims *ir.Value) *ir.Value {
	v := &ir.Data{DType: d, Dims: []int64{1}, Bytes: make([]byte, d.Bits()/8)}
	return o.emit("ConstantOfShape", ir.Attrs{"value": v}, dims)
}

// col2Im scatters the columns into the image; what falls into the padding goes to a spare element.
func col2Im(o *op) []*ir.Value {
	x, im, block := o.need(0), o.i64(o.need(1)), o.i64(o.need(2))
	sp := -1
	for _, v := range []*ir.Value{im, block} {
		if s := v.Type.Shape; s.Rank() == 1 && s.Dims[0].IsStatic() {
			sp = int(s.Dims[0].N)
		}
	}
	if sp < 0 {
		return o.lacks("a number of spatial dims known only at run time")
	}
	if sp < 1 || sp > ir.MaxRank-2 {
		return o.fail("%d spatial dims", sp)
	}
	if d := x.Type.DType; d.Bits() < 8 {
		return o.lacks("elements of %s", d)
	}
	dil, pads, str := o.filled("dilations", sp, 1), o.filled("pads", 2*sp, 0), o.filled("strides", sp, 1)
	cells := o.product(block)
	var counts []*ir.Value
	for i := 0; i < sp; i++ {
		if str[i] < 1 || dil[i] < 1 {
			return o.fail("strides %v or dilations %v", str, dil)
		}
		span := o.calc("Add", o.calc("Mul", o.calc("Sub", o.entry(block, i), o.ints(1)), o.ints(dil[i])), o.ints(1))
		n := o.calc("Sub", o.calc("Add", o.entry(im, i), o.ints(pads[i]+pads[i+sp])), span)
		counts = append(counts, o.calc("Add", o.calc("Div", n, o.ints(str[i])), o.ints(1)))
	}
	blocks := o.product(o.join(counts...))
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	mod := func(a, b *ir.Value) *ir.Value { return o.emit("Mod", ir.Attrs{"fmod": 0}, a, b) }
	q, l := o.indices(cells, ir.I64), o.indices(blocks, ir.I64)
	pos := make([]*ir.Value, sp)
	for i := sp - 1; i >= 0; i-- {
		kc, lc := mod(q, o.entry(block, i)), mod(l, counts[i])
		q, l = f("Div", q, o.entry(block, i)), f("Div", l, counts[i])
		lc = f("Sub", f("Mul", lc, o.ints(str[i])), o.ints(pads[i]))
		pos[i] = f("Add", o.emit("Unsqueeze", nil, f("Mul", kc, o.ints(dil[i])), o.ints(1)), o.emit("Unsqueeze", nil, lc, o.ints(0)))
	}
	var inside, flat *ir.Value
	for i, p := range pos {
		ok := f("And", f("GreaterOrEqual", p, o.ints(0)), f("Less", p, o.entry(im, i)))
		if i == 0 {
			inside, flat = ok, p
			continue
		}
		inside, flat = f("And", inside, ok), f("Add", f("Mul", flat, o.entry(im, i)), p)
	}
	total := o.product(im)
	flat = o.emit("Where", nil, inside, flat, total)
	n, c := o.sizes(x, 0, 1), o.calc("Div", o.sizes(x, 1, 2), cells)
	all := o.calc("Mul", cells, blocks)
	flat = o.emit("Expand", nil, o.shaped(flat, o.ints(1), o.ints(1), all), o.join(n, c, all))
	y := o.emit("ScatterElements", ir.Attrs{"axis": 2, "reduction": "add"}, o.zerosOf(x.Type.DType, o.join(n, c, o.calc("Add", total, o.ints(1)))),
		flat, o.shaped(x, n, c, all))
	return one(o.shaped(o.stretch(y, 2, o.ints(0), total), n, c, im))
}

// maxUnpool puts each maximum back where it came from; a larger output_shape leaves zeros at the end of each dim.
func maxUnpool(o *op) []*ir.Value {
	x, at := o.need(0), o.i64(o.need(1))
	k := o.attrInts("kernel_shape")
	n := len(k)
	if r := o.needRank(x); o.err == nil && (n < 1 || r != n+2) {
		return o.fail("input of rank %d with a kernel of %d dims", r, n)
	}
	str, pads := o.filled("strides", n, 1), o.filled("pads", 2*n, 0)
	if o.err != nil {
		return nil
	}
	dims := []*ir.Value{o.sizes(x, 0, 2)}
	for i := 0; i < n; i++ {
		d := o.calc("Mul", o.calc("Sub", o.sizes(x, i+2, i+3), o.ints(1)), o.ints(str[i]))
		dims = append(dims, o.calc("Add", d, o.ints(k[i]-pads[i]-pads[i+n])))
	}
	shape := o.join(dims...)
	total := o.product(shape)
	y := o.emit("ScatterElements", ir.Attrs{"axis": 0, "reduction": "none"}, o.zerosOf(x.Type.DType, total),
		o.shaped(at, o.product(o.sizes(at, 0, n+2))), o.shaped(x, o.product(o.sizes(x, 0, n+2))))
	y = o.shaped(y, shape)
	if want := o.i64(o.in(2)); want != nil {
		begin := make([]int64, n+2)
		y = o.emit("Pad", ir.Attrs{"mode": "constant"}, y, o.join(o.ints(begin...), o.calc("Sub", want, shape)))
	}
	return one(y)
}

// nonMaxSuppression sorts the scores of each class first.
func nonMaxSuppression(o *op) []*ir.Value {
	boxes, scores := o.need(0), o.need(1)
	opt := func(i int, d ir.DType) *ir.Value {
		if v := o.in(i); !empty(v) {
			return o.cast(v, d)
		}
		return nil
	}
	n := o.sizes(scores, 2, 3)
	top := o.emitN("TopK", ir.Attrs{"axis": 2, "largest": 1, "sorted": 1}, 2, o.cast(scores, ir.F32), n)
	return one(o.emit("NonMaxSuppression", ir.Attrs{"center_point_box": o.attrInt("center_point_box", 0)},
		o.cast(boxes, ir.F32), top[0], top[1], opt(2, ir.I64), opt(3, ir.F32), opt(4, ir.F32)))
}

// gridSample turns the grid into positions, in the grid's own precision.
func gridSample(o *op) []*ir.Value {
	x, grid := o.need(0), o.need(1)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	sp := r - 2
	if sp < 1 || sp > 3 {
		return o.lacks("%d spatial dims", sp)
	}
	if !x.Type.DType.IsFloat() || !grid.Type.DType.IsFloat() {
		return o.lacks("elements of %s", x.Type.DType)
	}
	def := "linear"
	if o.ver < 20 {
		def = "bilinear"
	}
	mode := o.attrStr("mode", def)
	if m, ok := map[string]string{"bilinear": "linear", "bicubic": "cubic"}[mode]; ok {
		mode = m
	}
	align := o.attrInt("align_corners", 0)
	a := ir.Attrs{"mode": mode, "padding_mode": o.attrStr("padding_mode", "zeros"), "align_corners": align}
	g := grid
	if g.Type.DType != ir.F64 {
		g = o.cast(g, ir.F32)
	}
	gd := g.Type.DType
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	s := func(v float64) *ir.Value { return o.scalar(gd, v) }
	// The last dim lists x, y, z: the spatial dims backwards.
	rev := make([]int64, sp)
	for i := range rev {
		rev[i] = int64(sp - 1 - i)
	}
	g = o.emit("Gather", ir.Attrs{"axis": sp + 1}, g, o.ints(rev...))
	size := o.cast(o.sizes(x, 2, r), gd)
	g = f("Add", g, s(1))
	if align != 0 {
		g = f("Mul", f("Div", g, s(2)), f("Sub", size, s(1)))
	} else {
		g = f("Div", f("Sub", f("Mul", g, size), s(1)), s(2))
	}
	out := o.sizes(grid, 1, sp+1)
	g = o.shaped(g, o.sizes(grid, 0, 1), o.product(out), o.ints(int64(sp)))
	return one(o.widened(func(d ir.DType) *ir.Value {
		y := o.emit("Sample", a, o.cast(x, d), o.cast(g, ir.F64))
		return o.shaped(y, o.sizes(x, 0, 2), out)
	}))
}

// deformConv samples the columns of the convolution and multiplies them with W.
func deformConv(o *op) []*ir.Value {
	x, w, offset := o.need(0), o.need(1), o.need(2)
	r := o.needRank(x)
	if o.err != nil {
		return nil
	}
	n := r - 2
	if n < 1 || n > 3 {
		return o.lacks("%d spatial dims", n)
	}
	kernel := append([]int64{}, o.attrInts("kernel_shape")...)
	if s := w.Type.Shape; len(kernel) == 0 && s.Rank() == r {
		for _, d := range s.Dims[2:] {
			if !d.IsStatic() {
				return o.lacks("a kernel whose size is known only at run time")
			}
			kernel = append(kernel, d.N)
		}
	}
	if len(kernel) != n {
		return o.fail("kernel_shape %v for %d spatial dims", kernel, n)
	}
	str, pads, dil := o.filled("strides", n, 1), o.filled("pads", 2*n, 0), o.filled("dilations", n, 1)
	group, og := o.attrInt("group", 1), o.attrInt("offset_group", 1)
	cells := int64(1)
	for _, k := range kernel {
		cells *= k
	}
	if group < 1 || og < 1 || cells < 1 || cells > 1<<20 || o.err != nil {
		return o.fail("group %d, offset_group %d or kernel_shape %v", group, og, kernel)
	}
	batch, ch, out := o.sizes(x, 0, 1), o.sizes(x, 1, 2), o.sizes(offset, 2, r)
	points := o.product(out)
	f := func(name string, a, b *ir.Value) *ir.Value { return o.emit(name, nil, a, b) }
	// Positions: start + stride*output + dilation*kernel + offset, [batch*og, cells*points, n].
	lead := o.calc("Mul", batch, o.ints(og))
	off := o.shaped(o.cast(offset, ir.F64), lead, o.ints(cells, int64(n)), out)
	perm := []int64{0, 1}
	for i := 0; i < n; i++ {
		perm = append(perm, int64(3+i))
	}
	off = o.permuted(off, append(perm, 2))
	var axes []*ir.Value
	for i := 0; i < n; i++ {
		kp := make([]float64, cells)
		inner := int64(1)
		for _, k := range kernel[i+1:] {
			inner *= k
		}
		for c := range kp {
			kp[c] = float64(int64(c)/inner%kernel[i]*dil[i] - pads[i])
		}
		shape := make([]int64, n+1)
		for j := range shape {
			shape[j] = 1
		}
		shape[0] = cells
		k := o.konst(ir.F64s(shape, kp))
		step := f("Mul", o.indices(o.entry(out, i), ir.F64), o.f64(float64(str[i])))
		dims := make([]*ir.Value, n)
		for j := range dims {
			dims[j] = o.ints(1)
		}
		dims[i] = o.entry(out, i)
		p := o.emit("Expand", nil, f("Add", k, o.shaped(step, dims...)), o.join(o.ints(cells), out))
		axes = append(axes, o.emit("Unsqueeze", nil, p, o.ints(int64(n+1))))
	}
	base := axes[0]
	if n > 1 {
		base = o.emit("Concat", ir.Attrs{"axis": n + 1}, axes...)
	}
	at := o.shaped(f("Add", off, base), lead, o.calc("Mul", points, o.ints(cells)), o.ints(int64(n)))
	return one(o.widened(func(d ir.DType) *ir.Value {
		xs := o.shaped(o.cast(x, d), lead, o.calc("Div", ch, o.ints(og)), o.sizes(x, 2, r))
		y := o.emit("Sample", ir.Attrs{"mode": "linear", "padding_mode": "zeros", "align_corners": 1}, xs, at)
		if m := o.in(4); m != nil {
			y = f("Mul", y, o.shaped(o.cast(m, d), lead, o.ints(1), o.calc("Mul", points, o.ints(cells))))
		}
		g := o.ints(group)
		y = o.shaped(y, batch, g, o.calc("Mul", o.calc("Div", ch, g), o.ints(cells)), points)
		m := o.sizes(w, 0, 1)
		ws := o.shaped(o.cast(w, d), g, o.calc("Div", m, g), o.calc("Mul", o.sizes(w, 1, 2), o.ints(cells)))
		z := o.shaped(o.emit("MatMul", nil, ws, y), batch, m, out)
		if b := o.in(3); b != nil {
			dims := []*ir.Value{m}
			for i := 0; i < n; i++ {
				dims = append(dims, o.ints(1))
			}
			z = f("Add", z, o.shaped(o.cast(b, d), dims...))
		}
		return z
	}))
}

func roiAlign(o *op) []*ir.Value {
	x, rois, at := o.need(0), o.need(1), o.i64(o.need(2))
	def := "half_pixel"
	if o.ver < 16 {
		def = "output_half_pixel"
	}
	half := int64(0)
	switch m := o.attrStr("coordinate_transformation_mode", def); m {
	case "half_pixel":
		half = 1
	case "output_half_pixel":
	default:
		return o.fail("coordinate_transformation_mode %q", m)
	}
	a := ir.Attrs{"mode": o.attrStr("mode", "avg"), "half_pixel": half, "output_height": o.attrInt("output_height", 1), "output_width": o.attrInt("output_width", 1),
		"sampling_ratio": o.attrInt("sampling_ratio", 0), "spatial_scale": o.attrFloat("spatial_scale", 1)}
	return one(o.widened(func(d ir.DType) *ir.Value {
		return o.emit("RoiAlign", a, o.cast(x, d), o.cast(rois, ir.F64), at)
	}))
}
