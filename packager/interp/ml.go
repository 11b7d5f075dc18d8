package interp

import (
	"fmt"
	"math"

	"github.com/waybill-ml/waybill/packager/ir"
)

func (c *call) trees() (*tensor, error) {
	x, n := c.t(0), c.n
	if len(x.dims) != 2 {
		return nil, fmt.Errorf("X of %v", x.dims)
	}
	targets := int(n.Int("n_targets"))
	out, err := alloc(x.dt, []int64{x.dims[0], int64(targets)})
	if err != nil {
		return nil, err
	}
	feature, mode, yes, no := n.Ints("node_feature"), n.Ints("node_mode"), n.Ints("node_true"), n.Ints("node_false")
	missing, begin, target := n.Ints("node_missing_true"), n.Ints("leaf_begin"), n.Ints("leaf_target")
	threshold, weight, base := n.Data("node_threshold").Floats(), n.Data("leaf_weight").Floats(), n.Data("base_values").Floats()
	roots, agg, features := n.Ints("roots"), n.Str("aggregate"), int(x.dims[1])
	single := n.Str("accumulate") == "F32"
	linBegin, linFeature, linConst, linCoef := n.Ints("linear_begin"), n.Ints("linear_feature"), n.Data("linear_const").Floats(), n.Data("linear_coef").Floats()
	for _, f := range append(append([]int64{}, feature...), linFeature...) { // wherever the rows go
		if int(f) >= features {
			return nil, fmt.Errorf("feature %d of %d", f, features)
		}
	}
	// linear gives the weight of entry k in a row of X, which is f64 when there are linear leaves.
	linear := func(k int64, row int) float64 {
		if len(linBegin) == 0 || linBegin[k] == linBegin[k+1] {
			return weight[k]
		}
		sum := linConst[k]
		for j := linBegin[k]; j < linBegin[k+1]; j++ {
			v := x.f64[row*features+int(linFeature[j])]
			if v != v {
				return weight[k]
			}
			sum += float64(linCoef[j] * v)
		}
		return sum
	}
	for row := 0; row < int(x.dims[0]); row++ {
		sum, hit := make([]float64, targets), make([]bool, targets)
		if single {
			copy(sum, base)
			for t := range sum {
				sum[t] = float64(float32(sum[t]))
			}
		}
		for _, at := range roots {
			for at >= 0 {
				f := int(feature[at])
				var v float64 // widening both sides compares like the narrower type
				if x.f32 != nil {
					v = float64(x.f32[row*features+f])
				} else {
					v = x.f64[row*features+f]
				}
				if treeTest(mode[at], v, threshold[at]) || v != v && missing[at] != 0 {
					at = yes[at]
				} else {
					at = no[at]
				}
			}
			for k := begin[^at]; k < begin[^at+1]; k++ {
				t, w := target[k], linear(k, row)
				switch {
				case single:
					sum[t] = float64(float32(sum[t]) + float32(w))
				case agg == "SUM" || agg == "AVERAGE":
					sum[t] += w
				case !hit[t] || sum[t] != sum[t] || agg == "MIN" && w < sum[t] || agg == "MAX" && w > sum[t]:
					sum[t] = w
				}
				hit[t] = true
			}
		}
		for t := range sum {
			v := sum[t]
			if agg == "AVERAGE" {
				v /= float64(len(roots))
			}
			if len(base) > 0 && !single {
				v += base[t]
			}
			if out.f32 != nil {
				out.f32[row*targets+t] = float32(v)
			} else {
				out.f64[row*targets+t] = v
			}
		}
	}
	return out, nil
}

func treeTest(mode int64, v, t float64) bool {
	switch mode {
	case ir.TreeLEQ:
		return v <= t
	case ir.TreeLT:
		return v < t
	case ir.TreeGTE:
		return v >= t
	case ir.TreeGT:
		return v > t
	case ir.TreeEQ:
		return v == t
	}
	return v != t
}

// mapKey gives element i in a form that compares like the element: NaNs are equal, and so are the zeros.
func (t *tensor) mapKey(i int) any {
	var f float64
	switch {
	case t.strs != nil:
		return t.strs[i]
	case t.f32 != nil:
		f = float64(t.f32[i])
	case t.f64 != nil:
		f = t.f64[i]
	default:
		return t.ints[i]
	}
	if f != f {
		return "nan"
	}
	if f == 0 {
		return 0.0
	}
	return math.Float64bits(f)
}

func (c *call) labelEncoder() (*tensor, error) {
	x := c.t(0)
	var ts []*tensor
	for _, name := range []string{"keys", "values", "default"} {
		t, err := fromData(c.n.Data(name))
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	at := map[any]int{}
	for i := 0; i < ts[0].len(); i++ {
		at[ts[0].mapKey(i)] = i
	}
	out, err := alloc(ts[1].dt, x.dims)
	if err != nil {
		return nil, err
	}
	for i := 0; i < x.len(); i++ {
		if k, ok := at[x.mapKey(i)]; ok {
			out.set(i, ts[1], k)
		} else {
			out.set(i, ts[2], 0)
		}
	}
	return out, nil
}

func (c *call) mlOneHot() (*tensor, error) {
	x := c.t(0)
	cats, err := fromData(c.n.Data("cats"))
	if err != nil {
		return nil, err
	}
	n := cats.len()
	out, err := alloc(ir.F32, append(append([]int64{}, x.dims...), int64(n)))
	if err != nil {
		return nil, err
	}
	for i := 0; i < x.len(); i++ {
		found := false
		for k := n - 1; k >= 0 && !found; k-- { // the last of equal categories counts
			if x.mapKey(i) == cats.mapKey(k) {
				out.f32[i*n+k] = 1
				found = true
			}
		}
		if !found && c.n.Int("zeros") == 0 {
			return nil, valuef("element %d is none of the categories", i)
		}
	}
	return out, nil
}

func (c *call) zipMap() ([]*value, error) {
	x := c.t(0)
	classes, err := fromData(c.n.Data("classes"))
	if err != nil {
		return nil, err
	}
	n := classes.len()
	if r := len(x.dims); r < 1 || r > 2 || int(x.dims[r-1]) != n {
		return nil, fmt.Errorf("X of %v for %d classes", x.dims, n)
	}
	seq := &value{kind: ir.Sequence}
	for row := 0; row*n < x.len(); row++ {
		m := &value{kind: ir.Map, keys: classes}
		for k := 0; k < n; k++ {
			m.elems = append(m.elems, tensors(&tensor{dt: ir.F32, dims: []int64{}, f32: []float32{x.f32[row*n+k]}})...)
		}
		seq.elems = append(seq.elems, m)
	}
	return []*value{seq}, nil
}
