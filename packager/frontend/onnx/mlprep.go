package onnx

import (
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

// Feature preparation of ai.onnx.ml. Where the specification is loose, this follows ONNX Runtime.

func mlPrep() map[string]handler {
	return map[string]handler{
		"Scaler": scaler, "Normalizer": normalizer, "Binarizer": binarizer, "Imputer": imputer,
		"FeatureVectorizer": featureVectorizer, "ArrayFeatureExtractor": arrayFeatureExtractor,
		"LabelEncoder": labelEncoder, "CategoryMapper": categoryMapper, "OneHotEncoder": mlOneHot, "ZipMap": zipMap,
	}
}

func f32List(v []float32) *ir.Data { return ir.F32s([]int64{int64(len(v))}, v) }

func i64List(v []int64) *ir.Data { return ir.I64s([]int64{int64(len(v))}, v) }

func strList(v []string) *ir.Data { return ir.Strs([]int64{int64(len(v))}, v) }

// scaler is (x - offset) * scale in f32.
func scaler(o *op) []*ir.Value {
	x := o.cast(o.need(0), ir.F32)
	if v := o.attrFloats("offset"); len(v) > 0 {
		x = o.emit("Sub", nil, x, o.konst(f32List(v)))
	}
	if v := o.attrFloats("scale"); len(v) > 0 {
		x = o.emit("Mul", nil, x, o.konst(f32List(v)))
	}
	return one(x)
}

// normalizer divides by the norm of the last axis; a norm of 0 leaves the values. MAX is the largest value, not the
// largest magnitude.
func normalizer(o *op) []*ir.Value {
	x := o.cast(o.need(0), ir.F32)
	last, keep := o.ints(-1), ir.Attrs{"keepdims": 1}
	var norm *ir.Value
	switch kind := o.attrStr("norm", "MAX"); kind {
	case "MAX":
		norm = o.emit("ReduceMax", keep, x, last)
	case "L1":
		norm = o.emit("ReduceSum", keep, o.emit("Abs", nil, x), last)
	case "L2":
		norm = o.emit("Sqrt", nil, o.emit("ReduceSum", keep, o.emit("Mul", nil, x, x), last))
	default:
		return o.lacks("norm %q", kind)
	}
	zero := o.emit("Equal", nil, norm, o.like(x, 0))
	return one(o.emit("Div", nil, x, o.emit("Where", nil, zero, o.like(x, 1), norm)))
}

func binarizer(o *op) []*ir.Value {
	x := o.need(0)
	t := o.like(x, o.attrFloat("threshold", 0))
	return one(o.emit("Cast", ir.Attrs{"to": x.Type.DType}, o.emit("Greater", nil, x, t)))
}

func imputer(o *op) []*ir.Value {
	x := o.need(0)
	fv, iv := o.attrFloats("imputed_value_floats"), o.attrInts("imputed_value_int64s")
	rf, ri := o.attrFloat("replaced_value_float", 0), o.attrInt("replaced_value_int64", 0)
	switch {
	case len(fv) > 0 && x.Type.DType.IsFloat():
		vals := make([]float64, len(fv))
		for i, v := range fv {
			vals[i] = float64(v)
		}
		var missing *ir.Value
		if math.IsNaN(rf) {
			missing = o.emit("Not", nil, o.emit("Equal", nil, x, x))
		} else {
			missing = o.emit("Equal", nil, x, o.like(x, rf))
		}
		if x.Type.DType != ir.F32 && x.Type.DType != ir.F64 {
			return o.lacks("element type %s", x.Type.DType)
		}
		return one(o.emit("Where", nil, missing, o.konst(ir.FloatData(x.Type.DType, []int64{int64(len(vals))}, vals)), x))
	case len(iv) > 0 && x.Type.DType == ir.I64:
		missing := o.emit("Equal", nil, x, o.konst(ir.I64s([]int64{}, []int64{ri})))
		return one(o.emit("Where", nil, missing, o.konst(i64List(iv)), x))
	}
	return o.fail("the imputed values do not fit inputs of %s", x.Type.DType)
}

// featureVectorizer joins [N,...] inputs ([C] counts as one row) along the flattened features, in f32.
func featureVectorizer(o *op) []*ir.Value {
	dims := o.attrInts("inputdimensions")
	var parts []*ir.Value
	for i := range o.ins {
		x := o.cast(o.need(i), ir.F32)
		switch r := o.needRank(x); r {
		case 1:
			x = o.emit("Unsqueeze", nil, x, o.ints(0))
		case 2:
		default:
			x = o.emit("Flatten", ir.Attrs{"axis": 1}, x)
		}
		if d := x.Type.Shape.Dims; o.err == nil && i < len(dims) && (!d[1].IsStatic() || d[1].N != dims[i]) {
			return o.lacks("input %d has %s features, inputdimensions says %d", i, d[1], dims[i])
		}
		parts = append(parts, x)
	}
	if len(parts) == 0 {
		return o.fail("no inputs")
	}
	return one(o.emit("Concat", ir.Attrs{"axis": 1}, parts...))
}

// arrayFeatureExtractor gathers on the last axis; a 1-D input gives one row.
func arrayFeatureExtractor(o *op) []*ir.Value {
	x, y := o.need(0), o.i64(o.need(1))
	if y.Const != nil && len(y.Const.Dims) != 1 {
		y = o.konst(i64List(y.Const.Ints()))
	} else if rank(y) != 1 {
		y = o.emit("Reshape", nil, y, o.ints(-1))
	}
	z := o.emit("Gather", ir.Attrs{"axis": -1}, x, y)
	switch o.needRank(x) {
	case 1:
		z = o.emit("Unsqueeze", nil, z, o.ints(0))
	}
	return one(z)
}

// encode emits ml.LabelEncoder; the first of doubled keys counts.
func (o *op) encode(x *ir.Value, keys, values, def *ir.Data) []*ir.Value {
	if o.err != nil {
		return nil
	}
	if keys.Len() != values.Len() {
		return o.fail("%d keys with %d values", keys.Len(), values.Len())
	}
	if keys.DType != x.Type.DType {
		return o.fail("keys of %s for inputs of %s", keys.DType, x.Type.DType)
	}
	if keys.DType != ir.String && keys.DType.Bits() < 8 {
		return o.lacks("keys of %s", keys.DType)
	}
	seen := map[string]bool{}
	var keep []int
	for i := 0; i < int(keys.Len()); i++ {
		k := keyOf(keys, i)
		if !seen[k] && !(k == "nan" && o.ver < 4) { // NaN keys match since opset 4
			seen[k] = true
			keep = append(keep, i)
		}
	}
	return one(o.emit("ml.LabelEncoder", ir.Attrs{"keys": pick(keys, keep), "values": pick(values, keep), "default": def}, x))
}

// keyOf gives element i in a form that is equal for equal keys: NaNs are one key, and so are the zeros.
func keyOf(d *ir.Data, i int) string {
	if d.DType == ir.String {
		return d.Strings[i]
	}
	if d.DType == ir.F32 || d.DType == ir.F64 {
		switch v := d.Float(i); {
		case math.IsNaN(v):
			return "nan"
		case v == 0:
			return "zero"
		}
	}
	w := d.DType.Bits() / 8
	return string(d.Bytes[i*w : (i+1)*w])
}

// pick gives the chosen elements as a list.
func pick(d *ir.Data, idx []int) *ir.Data {
	out := &ir.Data{DType: d.DType, Dims: []int64{int64(len(idx))}}
	w := d.DType.Bits() / 8
	for _, i := range idx {
		if d.DType == ir.String {
			out.Strings = append(out.Strings, d.Strings[i])
		} else {
			out.Bytes = append(out.Bytes, d.Bytes[i*w:(i+1)*w]...)
		}
	}
	return out
}

func labelEncoder(o *op) []*ir.Value {
	x := o.need(0)
	one := []int64{1}
	if o.ver < 2 {
		classes := o.attrStrs("classes_strings")
		defInt, defStr := o.attrInt("default_int64", -1), o.attrStr("default_string", "_Unused")
		return o.categories(x, indexList(len(classes)), classes, defInt, defStr)
	}
	side := func(what string) *ir.Data {
		if o.hasAttr(what + "_tensor") {
			d := o.attrTensor(what + "_tensor")
			if d != nil && len(d.Dims) != 1 {
				d = &ir.Data{DType: d.DType, Dims: []int64{d.Len()}, Bytes: d.Bytes, Strings: d.Strings}
			}
			return d
		}
		switch {
		case o.hasAttr(what + "_strings"):
			return strList(o.attrStrs(what + "_strings"))
		case o.hasAttr(what + "_int64s"):
			return i64List(o.attrInts(what + "_int64s"))
		case o.hasAttr(what + "_floats"):
			return f32List(o.attrFloats(what + "_floats"))
		}
		o.fail("there are no %s", what)
		return nil
	}
	keys, values := side("keys"), side("values")
	def := o.attrTensor("default_tensor")
	ds, di, df := o.attrStr("default_string", "_Unused"), o.attrInt("default_int64", -1), o.attrFloat("default_float", float32(math.Copysign(0, -1)))
	if o.err != nil {
		return nil
	}
	if def == nil {
		switch d := values.DType; {
		case d == ir.String:
			def = ir.Strs(one, []string{ds})
		case d == ir.F32 || d == ir.F64:
			def = ir.FloatData(d, one, []float64{df})
		case d.IsInt() && d.Bits() >= 8:
			def = ir.IntData(d, one, []int64{di})
		default:
			return o.lacks("values of %s", d)
		}
	}
	if def.DType != values.DType || def.Len() != 1 {
		return o.fail("the default is %s for values of %s", def.Type(), values.DType)
	}
	return o.encode(x, keys, values, def)
}

func indexList(n int) []int64 {
	v := make([]int64, n)
	for i := range v {
		v[i] = int64(i)
	}
	return v
}

// categories maps strings to integers or integers to strings, by the input's type.
func (o *op) categories(x *ir.Value, ints []int64, strs []string, defInt int64, defStr string) []*ir.Value {
	one := []int64{1}
	if x.Type.DType == ir.String {
		return o.encode(x, strList(strs), i64List(ints), ir.I64s(one, []int64{defInt}))
	}
	return o.encode(x, i64List(ints), strList(strs), ir.Strs(one, []string{defStr}))
}

func categoryMapper(o *op) []*ir.Value {
	return o.categories(o.need(0), o.attrInts("cats_int64s"), o.attrStrs("cats_strings"), o.attrInt("default_int64", -1), o.attrStr("default_string", "_Unused"))
}

func mlOneHot(o *op) []*ir.Value {
	x, ints, strs := o.need(0), o.attrInts("cats_int64s"), o.attrStrs("cats_strings")
	cats := i64List(ints)
	if x.Type.DType == ir.String {
		cats = strList(strs)
	} else {
		x = o.i64(x)
	}
	if cats.Len() == 0 {
		return o.fail("there are no categories for inputs of %s", x.Type.DType)
	}
	return one(o.emit("ml.OneHotEncoder", ir.Attrs{"cats": cats, "zeros": o.attrInt("zeros", 1)}, x))
}

func zipMap(o *op) []*ir.Value {
	ints, strs := o.attrInts("classlabels_int64s"), o.attrStrs("classlabels_strings")
	cl := i64List(ints)
	if len(strs) > 0 {
		cl = strList(strs)
	}
	return one(o.emit("ml.ZipMap", ir.Attrs{"classes": cl}, o.need(0)))
}
