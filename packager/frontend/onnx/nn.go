package onnx

import (
	"github.com/waybill-ml/waybill/packager/ir"
)

func nnOps() map[string]handler {
	return map[string]handler{
		"MatMul": func(o *op) []*ir.Value { return one(o.emit("MatMul", nil, o.need(0), o.need(1))) },
		"Gemm":   gemm, "Conv": conv, "MaxPool": maxPool, "AveragePool": averagePool,
		"GlobalAveragePool":  globalPool("ReduceMean"),
		"GlobalMaxPool":      globalPool("ReduceMax"),
		"BatchNormalization": batchNorm,
	}
}

func gemm(o *op) []*ir.Value {
	o.ignore("broadcast") // before opset 7; the canonical form broadcasts C anyway
	a := ir.Attrs{"alpha": o.attrFloat("alpha", 1), "beta": o.attrFloat("beta", 1), "transA": o.attrInt("transA", 0), "transB": o.attrInt("transB", 0)}
	return one(o.emit("Gemm", a, o.need(0), o.need(1), o.in(2)))
}

// spatial completes the attributes of a window operator for r-2 spatial dims: defaults, and auto_pad resolved where the
// sizes are known. kernel gives the kernel's size, from the attribute or the weights.
func (o *op) spatial(x *ir.Value, kernel []int64) ir.Attrs {
	n := len(kernel)
	if r := rank(x); n < 1 || r >= 0 && r != n+2 {
		o.fail("input of rank %d with a kernel of %d dims", r, n)
		return nil
	}
	fill := func(v []int64, k int, def int64) []int64 {
		if len(v) > 0 {
			return v
		}
		v = make([]int64, k)
		for i := range v {
			v[i] = def
		}
		return v
	}
	strides := fill(o.attrInts("strides"), n, 1)
	dilations := fill(o.attrInts("dilations"), n, 1)
	pads := fill(o.attrInts("pads"), 2*n, 0)
	if len(strides) != n || len(dilations) != n || len(pads) != 2*n {
		o.fail("strides %v, dilations %v, pads %v for %d spatial dims", strides, dilations, pads, n)
		return nil
	}
	auto := o.attrStr("auto_pad", "NOTSET")
	switch auto {
	case "", "NOTSET":
		auto = "NOTSET"
	case "VALID":
		auto, pads = "NOTSET", fill(nil, 2*n, 0)
	case "SAME_UPPER", "SAME_LOWER":
		pads = fill(nil, 2*n, 0)
		static := true
		for i := 0; i < n; i++ {
			d := ir.Unknown()
			if x.Type.Shape.Ranked {
				d = x.Type.Shape.Dims[i+2]
			}
			if !d.IsStatic() {
				static = false
				break
			}
			if strides[i] < 1 {
				o.fail("stride %d", strides[i])
				return nil
			}
			out := (d.N + strides[i] - 1) / strides[i]
			total := max((out-1)*strides[i]+(kernel[i]-1)*dilations[i]+1-d.N, 0)
			small := total / 2
			if auto == "SAME_UPPER" {
				pads[i], pads[i+n] = small, total-small
			} else {
				pads[i], pads[i+n] = total-small, small
			}
		}
		if static {
			auto = "NOTSET"
		} else {
			pads = fill(nil, 2*n, 0)
		}
	default:
		o.fail("auto_pad %q", auto)
		return nil
	}
	return ir.Attrs{"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations, "auto_pad": auto}
}

func conv(o *op) []*ir.Value {
	x, w := o.need(0), o.need(1)
	a := o.convAttrs(x, w)
	if o.err != nil {
		return nil
	}
	return one(o.emit("Conv", a, x, w, o.in(2)))
}

// convAttrs completes the attributes of a convolution.
func (o *op) convAttrs(x, w *ir.Value) ir.Attrs {
	kernel := o.attrInts("kernel_shape")
	if s := w.Type.Shape; len(kernel) == 0 && s.Ranked {
		for _, d := range s.Dims[min(2, len(s.Dims)):] {
			if !d.IsStatic() {
				o.lacks("a kernel whose size is known only at run time")
				return nil
			}
			kernel = append(kernel, d.N)
		}
	}
	a := o.spatial(x, kernel)
	if o.err != nil {
		return nil
	}
	if len(kernel) > 3 {
		o.lacks("%d spatial dims", len(kernel))
		return nil
	}
	a["group"] = o.attrInt("group", 1)
	return a
}

func maxPool(o *op) []*ir.Value {
	x := o.need(0)
	a := o.spatial(x, o.attrInts("kernel_shape"))
	if o.err != nil {
		return nil
	}
	a["ceil_mode"], a["storage_order"] = o.attrInt("ceil_mode", 0), o.attrInt("storage_order", 0)
	if o.asked(1) {
		return o.emitN("MaxPool", a, 2, x)
	}
	return one(o.emit("MaxPool", a, x))
}

func averagePool(o *op) []*ir.Value {
	x := o.need(0)
	a := o.spatial(x, o.attrInts("kernel_shape"))
	if o.err != nil {
		return nil
	}
	a["ceil_mode"], a["count_include_pad"] = o.attrInt("ceil_mode", 0), o.attrInt("count_include_pad", 0)
	return one(o.emit("AveragePool", a, x))
}

func globalPool(reduce string) handler {
	return func(o *op) []*ir.Value {
		x := o.need(0)
		r := o.needRank(x)
		if o.err != nil {
			return nil
		}
		if r < 3 {
			return o.fail("input has rank %d, want at least 3", r)
		}
		var axes []int64
		for i := 2; i < r; i++ {
			axes = append(axes, int64(i))
		}
		return one(o.emit(reduce, ir.Attrs{"keepdims": 1}, x, o.ints(axes...)))
	}
}

func batchNorm(o *op) []*ir.Value {
	o.ignore("consumed_inputs", "is_test")
	if o.ver >= 14 && o.attrInt("training_mode", 0) != 0 {
		return batchNormTraining(o)
	}
	o.ignore("momentum")
	for i := 1; i < len(o.p.outs); i++ {
		if o.asked(i) {
			return o.lacks("output %d, which exists in training only", i)
		}
	}
	x := o.need(0)
	ins := []*ir.Value{x}
	for i := 1; i < 5; i++ {
		ins = append(ins, o.cast(o.need(i), x.Type.DType))
	}
	if o.ver < 9 && o.attrInt("spatial", 1) != 1 {
		return wide(batchNormEach)(o)
	}
	return one(o.emit("BatchNormalization", ir.Attrs{"epsilon": o.attrFloat("epsilon", 1e-5)}, ins...))
}

// batchNormEach has statistics for each element of a sample (spatial = 0): x*a + (bias - mean*a), a = scale / sqrt(var + epsilon).
func batchNormEach(o *op) []*ir.Value {
	x, scale, bias, mean, v := o.need(0), o.need(1), o.need(2), o.need(3), o.need(4)
	a := o.emit("Div", nil, scale, o.emit("Sqrt", nil, o.emit("Add", nil, v, o.like(v, o.attrFloat("epsilon", 1e-5)))))
	b := o.emit("Sub", nil, bias, o.emit("Mul", nil, mean, a))
	return one(o.emit("Add", nil, o.emit("Mul", nil, x, a), b))
}

// batchNormTraining normalises by the batch's own mean and (population) variance, and gives the running ones, which are
// running*momentum + batch*(1 - momentum).
func batchNormTraining(o *op) []*ir.Value {
	xt, st := o.need(0).Type.DType, o.need(3).Type.DType
	o.widen()
	x := o.need(0)
	r := o.needRank(x)
	for i := 1; i < 5; i++ {
		if o.need(i); o.err == nil {
			o.ins[i] = o.cast(o.ins[i], x.Type.DType)
		}
	}
	if o.err != nil {
		return nil
	}
	if r < 2 {
		return o.fail("input has rank %d, want at least 2", r)
	}
	axes := o.ints(append([]int64{0}, from(2, r)...)...)
	flat := ir.Attrs{"keepdims": 0}
	mean := o.emit("ReduceMean", flat, x, axes)
	d := o.emit("Sub", nil, x, o.trail(mean, r-2))
	v := o.emit("ReduceMean", flat, o.emit("Mul", nil, d, d), axes)
	y := o.scaled(d, o.trail(o.inverse(v, 1e-5), r-2), o.ins[1], o.ins[2], r)
	m := float32(o.attrFloat("momentum", 0.9))
	running := func(old, now *ir.Value) *ir.Value {
		return o.cast(o.emit("Add", nil, o.emit("Mul", nil, old, o.like(x, float64(m))), o.emit("Mul", nil, now, o.like(x, float64(1-m)))), st)
	}
	return []*ir.Value{o.cast(y, xt), running(o.ins[3], mean), running(o.ins[4], v)}
}
