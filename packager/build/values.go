package build

import (
	"bytes"
	"fmt"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
)

// toVal turns a tensor of a golden document into the interpreter's value.
func toVal(g artifact.GoldenTensor) (*ir.Val, error) {
	switch g.Kind {
	case "", "tensor":
		dt := ir.DTypeByName(g.DType)
		if dt == ir.Invalid {
			return nil, fmt.Errorf("tensor %q has the unknown type %q", g.Name, g.DType)
		}
		return ir.TensorVal(&ir.Data{DType: dt, Dims: g.Shape, Bytes: g.Data, Strings: g.Strings}), nil
	case "sequence", "optional":
		v := &ir.Val{Kind: ir.Sequence}
		if g.Kind == "optional" {
			v.Kind = ir.Optional
		}
		for _, e := range g.Elems {
			c, err := toVal(e)
			if err != nil {
				return nil, err
			}
			v.Elems = append(v.Elems, c)
		}
		return v, nil
	}
	return nil, fmt.Errorf("tensor %q: golden vectors can't hold kind %q", g.Name, g.Kind)
}

// sameBits tells where the module's output differs from the interpreter's, "" when nowhere.
func sameBits(got artifact.GoldenTensor, want *ir.Val) string {
	if want == nil {
		return "the interpreter gave nothing"
	}
	switch want.Kind {
	case ir.Tensor:
		w := want.Tensor
		if got.Kind != "" && got.Kind != "tensor" || got.DType != w.DType.String() {
			return fmt.Sprintf("%s %s, interpreter: %s", got.Kind, got.DType, w.DType)
		}
		if len(got.Shape) != len(w.Dims) {
			return fmt.Sprintf("shape %v, interpreter: %v", got.Shape, w.Dims)
		}
		for i := range w.Dims {
			if got.Shape[i] != w.Dims[i] {
				return fmt.Sprintf("shape %v, interpreter: %v", got.Shape, w.Dims)
			}
		}
		if len(got.Strings) != len(w.Strings) || len(got.Data) != len(w.Bytes) {
			return "another length"
		}
		for i := range w.Strings {
			if got.Strings[i] != w.Strings[i] {
				return fmt.Sprintf("element %d is %q, interpreter: %q", i, got.Strings[i], w.Strings[i])
			}
		}
		if bytes.Equal(got.Data, w.Bytes) {
			return ""
		}
		for i := range w.Bytes {
			if got.Data[i] != w.Bytes[i] {
				size := max(len(w.Bytes)/max(elements(w.Dims), 1), 1)
				e := i / size
				end := min((e+1)*size, len(w.Bytes))
				return fmt.Sprintf("element %d has the bytes %x, interpreter: %x", e, got.Data[e*size:end], w.Bytes[e*size:end])
			}
		}
	case ir.Map:
		if len(got.Elems) == 0 {
			return "a map without keys"
		}
		if d := sameBits(got.Elems[0], ir.TensorVal(want.Keys)); d != "" {
			return "keys: " + d
		}
		vals := mapValues(got)
		if len(vals) != len(want.Elems) {
			return fmt.Sprintf("%d values, interpreter: %d", len(vals), len(want.Elems))
		}
		for i := range want.Elems {
			if d := sameBits(vals[i], want.Elems[i]); d != "" {
				return fmt.Sprintf("value of key %d: %s", i, d)
			}
		}
	default:
		if len(got.Elems) != len(want.Elems) {
			return fmt.Sprintf("%d elements, interpreter: %d", len(got.Elems), len(want.Elems))
		}
		for i := range want.Elems {
			if d := sameBits(got.Elems[i], want.Elems[i]); d != "" {
				return fmt.Sprintf("element %d: %s", i, d)
			}
		}
	}
	return ""
}

// mapValues gives the values of a map one by one. A module gives them as one tensor, the interpreter and MapProto as a
// scalar for each key.
func mapValues(m artifact.GoldenTensor) []artifact.GoldenTensor {
	if len(m.Elems) != 2 || len(m.Elems[1].Shape) != 1 || m.Elems[1].Kind != "" && m.Elems[1].Kind != "tensor" {
		return m.Elems[1:]
	}
	all, n := m.Elems[1], int(m.Elems[1].Shape[0])
	var out []artifact.GoldenTensor
	for i := range n {
		v := artifact.GoldenTensor{Kind: "tensor", DType: all.DType, Shape: []int64{}}
		if len(all.Strings) == n {
			v.Strings = all.Strings[i : i+1]
		} else {
			w := len(all.Data) / n
			v.Data = all.Data[i*w : (i+1)*w]
		}
		out = append(out, v)
	}
	return out
}

func elements(dims []int64) int {
	n := 1
	for _, d := range dims {
		n *= int(d)
	}
	return n
}
