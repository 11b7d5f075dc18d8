package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// handler converts one node and returns its outputs.
type handler = func(*op) []*ir.Value

func elementwise() map[string]handler {
	t := map[string]handler{
		"Pow": pow, "Mod": mod, "Cast": cast, "CastLike": castLike, "Where": where, "Clip": clip,
		"Identity": alias, "Dropout": dropout, "Constant": constant,
		"Sum": chain("Add"), "Min": chain("Min"), "Max": chain("Max"), "Mean": mean,
		"Reciprocal": func(o *op) []*ir.Value {
			x := o.need(0)
			o.ignore("consumed_inputs")
			return one(o.emit("Div", nil, o.scalar(x.Type.DType, 1), x))
		},
		"IsNaN": func(o *op) []*ir.Value {
			x := o.need(0)
			if x.Type.DType.IsSmallFloat() {
				x = o.cast(x, ir.F32)
			}
			return one(o.emit("Not", nil, o.emit("Equal", nil, x, x)))
		},
		"IsInf": isInf,
	}
	for _, name := range []string{"Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual"} {
		t[name] = binaryOp(name)
	}
	for _, name := range []string{"Neg", "Abs", "Sign", "Floor", "Ceil", "Round", "Sqrt", "Exp", "Log", "Erf", "Sigmoid", "Tanh", "Relu", "Not"} {
		t[name] = unaryOp(name)
	}
	return t
}

func one(v *ir.Value) []*ir.Value { return []*ir.Value{v} }

func unaryOp(name string) handler {
	return func(o *op) []*ir.Value {
		o.ignore("consumed_inputs")
		o.maxIns(1)
		return one(o.emit(name, nil, o.need(0)))
	}
}

// binaryOp also serves opset 1 to 6, where broadcasting was an attribute and `axis` placed B inside A.
func binaryOp(name string) handler {
	return func(o *op) []*ir.Value {
		o.maxIns(2)
		a, b := o.need(0), o.need(1)
		if o.ver < 7 {
			b = o.oldBroadcast(a, b)
		}
		return one(o.emit(name, nil, a, b))
	}
}

func (o *op) oldBroadcast(a, b *ir.Value) *ir.Value {
	o.ignore("consumed_inputs")
	on, has, axis := o.attrInt("broadcast", 0), o.hasAttr("axis"), o.attrInt("axis", 0)
	if on == 0 || !has {
		return b
	}
	ra, rb := o.needRank(a), o.needRank(b)
	if o.err != nil {
		return b
	}
	if axis < 0 {
		axis += int64(ra)
	}
	tail := int64(ra) - axis - int64(rb)
	if axis < 0 || tail < 0 {
		o.fail("axis %d does not place rank %d inside rank %d", axis, rb, ra)
		return b
	}
	if tail == 0 {
		return b
	}
	axes := make([]int64, tail)
	for i := range axes {
		axes[i] = int64(rb + i)
	}
	return o.emit("Unsqueeze", nil, b, o.ints(axes...))
}

// chain folds a variadic operator from left to right.
func chain(name string) handler {
	return func(o *op) []*ir.Value {
		o.ignore("consumed_inputs")
		v := o.need(0)
		for i := 1; i < len(o.ins); i++ {
			v = o.emit(name, nil, v, o.need(i))
		}
		return one(v)
	}
}

func mean(o *op) []*ir.Value {
	v := chain("Add")(o)[0]
	if len(o.ins) == 1 {
		return one(v)
	}
	return one(o.emit("Div", nil, v, o.scalar(v.Type.DType, float64(len(o.ins)))))
}

func pow(o *op) []*ir.Value {
	a, b := o.need(0), o.need(1)
	if o.ver < 7 {
		b = o.oldBroadcast(a, b)
	}
	d := b.Type.DType
	if d != a.Type.DType && !(a.Type.DType.IsFloat() && (d == ir.I64 || d == ir.I32)) {
		if a.Type.DType.IsInt() && d.IsFloat() { // in f64, and back by the rule of Cast
			y := o.emit("Pow", nil, o.cast(a, ir.F64), o.cast(b, ir.F64))
			return one(o.cast(y, a.Type.DType))
		}
		b = o.cast(b, a.Type.DType)
	}
	return one(o.emit("Pow", nil, a, b))
}

func mod(o *op) []*ir.Value {
	f := o.attrInt("fmod", 0)
	a := o.need(0)
	if f == 0 && a.Type.DType.IsFloat() && o.ver < 28 {
		return o.fail("fmod must be 1 for floats before opset 28")
	}
	return one(o.emit("Mod", ir.Attrs{"fmod": f}, a, o.need(1)))
}

func cast(o *op) []*ir.Value {
	var to ir.DType
	if o.ver < 6 {
		to = map[string]ir.DType{"FLOAT": ir.F32, "DOUBLE": ir.F64, "INT32": ir.I32, "INT64": ir.I64, "BOOL": ir.Bool, "UINT8": ir.U8,
			"INT8": ir.I8, "UINT16": ir.U16, "INT16": ir.I16, "UINT32": ir.U32, "UINT64": ir.U64, "FLOAT16": ir.F16, "STRING": ir.String}[o.attrStr("to", "")]
	} else {
		n := o.attrInt("to", 0)
		if n < 0 || n > 255 {
			return o.fail("element type %d", n)
		}
		to = ir.DType(n)
	}
	return o.castTo(to)
}

func (o *op) castTo(to ir.DType) []*ir.Value {
	saturate, mode := int64(1), "up"
	if o.ver >= 19 {
		saturate = o.attrInt("saturate", 1)
	}
	if o.ver >= 24 {
		mode = o.attrStr("round_mode", "up")
	}
	x := o.need(0)
	if !to.Valid() {
		return o.lacks("a cast to element type %d", to)
	}
	if x.Type.DType == to {
		return one(x)
	}
	if (x.Type.DType == ir.String) != (to == ir.String) {
		return one(o.castText(x, to, saturate, mode))
	}
	if to.IsSmallFloat() {
		return one(o.emit("CastSmall", ir.Attrs{"to": to, "saturate": saturate, "round_mode": mode}, x))
	}
	return one(o.emit("Cast", ir.Attrs{"to": to}, x))
}

func castLike(o *op) []*ir.Value { return o.castTo(o.need(1).Type.DType) }

func where(o *op) []*ir.Value {
	return one(o.emit("Where", nil, o.need(0), o.need(1), o.need(2)))
}

// clip is Min(Max(x, lo), hi): with lo above hi all becomes hi, as ONNX 12 says.
func clip(o *op) []*ir.Value {
	x := o.need(0)
	o.ignore("consumed_inputs")
	lo, hi := o.in(1), o.in(2)
	if o.ver < 11 {
		d := x.Type.DType
		if o.hasAttr("min") {
			lo = o.scalar(d, o.attrFloat("min", 0))
		}
		if o.hasAttr("max") {
			hi = o.scalar(d, o.attrFloat("max", 0))
		}
	}
	if lo != nil {
		x = o.emit("Max", nil, x, lo)
	}
	if hi != nil {
		x = o.emit("Min", nil, x, hi)
	}
	return one(x)
}

// alias gives the input itself a second name.
func alias(o *op) []*ir.Value {
	o.ignore("consumed_inputs")
	return one(o.need(0))
}

// dropout is the identity in inference; its mask is all true (in X's type before opset 10).
func dropout(o *op) []*ir.Value {
	o.ignore("ratio", "seed", "is_test", "consumed_inputs")
	x := o.need(0)
	if t := o.in(2); t != nil {
		switch r := o.in(1); {
		case t.Type.DType != ir.Bool:
			return o.fail("training_mode is %s", t.Type)
		case r != nil && (r.Const == nil && (t.Const == nil || t.Const.Len() != 1 || t.Const.Int(0) != 0)) || t.Const == nil || t.Const.Len() != 1:
			// Seen at run time: without training, or with a ratio of 0, nothing is drawn.
			quiet := o.emit("Not", nil, t)
			if r != nil {
				quiet = o.emit("Or", nil, quiet, o.emit("Equal", nil, r, o.cast(o.scalar(ir.F32, 0), r.Type.DType)))
			}
			x = o.emit("Where", nil, o.emit("Allowed", ir.Attrs{"what": 1}, quiet), x, x)
		case t.Const.Int(0) != 0 && !isZero(r):
			return o.draws("training mode: it draws random numbers")
		}
	}
	if !o.asked(1) {
		return one(x)
	}
	mask := o.emit("ConstantOfShape", ir.Attrs{"value": ir.Bools([]int64{1}, []bool{true})}, o.emit("Shape", nil, x))
	if o.ver < 10 {
		mask = o.cast(mask, x.Type.DType)
	}
	return []*ir.Value{x, mask}
}

// isZero tells whether v is a float constant of one element that is 0.
func isZero(v *ir.Value) bool {
	if v == nil || v.Const == nil || v.Const.Len() != 1 || !v.Const.DType.IsFloat() {
		return false
	}
	for i, b := range v.Const.Bytes { // little-endian: the sign bit does not count
		if i == len(v.Const.Bytes)-1 && b&0x7f != 0 || i < len(v.Const.Bytes)-1 && b != 0 {
			return false
		}
	}
	return true
}

func constant(o *op) []*ir.Value {
	for _, name := range []string{"value", "value_float", "value_floats", "value_int", "value_ints", "value_string", "value_strings"} {
		if !o.hasAttr(name) {
			continue
		}
		var d *ir.Data
		switch name {
		case "value":
			d = o.attrTensor(name)
		case "value_float":
			d = ir.FloatData(ir.F32, []int64{}, []float64{o.attrFloat(name, 0)})
		case "value_floats":
			v := o.attrFloats(name)
			d = ir.F32s([]int64{int64(len(v))}, v)
		case "value_int":
			d = ir.I64s([]int64{}, []int64{o.attrLong(name, 0)})
		case "value_ints":
			v := o.attrInts(name)
			d = ir.I64s([]int64{int64(len(v))}, v)
		case "value_string":
			d = ir.Strs([]int64{}, []string{o.attrStr(name, "")})
		case "value_strings":
			v := o.attrStrs(name)
			d = ir.Strs([]int64{int64(len(v))}, v)
		}
		if o.err != nil || d == nil {
			return nil
		}
		v := o.konst(d)
		o.fresh[v] = true
		return one(v)
	}
	return o.lacks("a constant without a dense value")
}

func isInf(o *op) []*ir.Value {
	x := o.need(0)
	if d := x.Type.DType; d.IsSmallFloat() || d == ir.F16 || d == ir.BF16 {
		x = o.cast(x, ir.F32) // exact
	}
	pos, neg := o.attrInt("detect_positive", 1), o.attrInt("detect_negative", 1)
	d := x.Type.DType
	var v *ir.Value
	if pos != 0 {
		v = o.emit("Equal", nil, x, o.scalar(d, math.Inf(1)))
	}
	if neg != 0 {
		w := o.emit("Equal", nil, x, o.scalar(d, math.Inf(-1)))
		if v == nil {
			v = w
		} else {
			v = o.emit("Or", nil, v, w)
		}
	}
	if v == nil { // neither: false everywhere
		v = o.emit("Xor", nil, o.emit("Equal", nil, x, x), o.emit("Equal", nil, x, x))
	}
	return one(v)
}
