package onnx

import (
	"context"
	"math"
	"testing"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// lstmCase is an LSTM of `dirs` directions whose weights W [dirs, in, 4*hidden] and R [dirs, hidden, 4*hidden] are u8.
type lstmCase struct {
	steps, batch, in, hidden, dirs int
	x, bias, h0, c0, ws, rs        []float32
	w, r, wz, rz                   []int64
}

// quantised is v in whole numbers less the zero point, and the step between them: 8 bits over the range of v with zero.
func quantised(v []float32) ([]int64, float32) {
	var lo, hi float32
	for _, x := range v {
		lo, hi = min(lo, x), max(hi, x)
	}
	step := (hi - lo) / 255
	if hi == lo {
		step = float32(1) / 255
	}
	zp := int64(math.RoundToEven(float64(min(max(0-lo/step, 0), 255))))
	out := make([]int64, len(v))
	for i, x := range v {
		out[i] = min(max(int64(math.RoundToEven(float64(x/step)))+zp, 0), 255) - zp
	}
	return out, step
}

// byCodes is v [rows, k] by m [k, n] with v quantised as a whole.
func byCodes(v []float32, rows, k, n int, m []int64, zp int64, scale float32) []float32 {
	q, step := quantised(v)
	out := make([]float32, rows*n)
	for i := range rows {
		for j := range n {
			acc := int64(0)
			for l := range k {
				acc += q[i*k+l] * (m[l*n+j] - zp)
			}
			out[i*n+j] = float32(acc) * float32(step*scale)
		}
	}
	return out
}

// run gives Y [steps, dirs, batch, hidden].
func (c lstmCase) run() []float32 {
	n := 4 * c.hidden
	y := make([]float32, c.steps*c.dirs*c.batch*c.hidden)
	sigmoid := func(v float32) float32 { return float32(1 / (1 + math.Exp(-float64(v)))) }
	tanh := func(v float32) float32 { return float32(math.Tanh(float64(v))) }
	for d := range c.dirs {
		part := func(v []int64, size int) []int64 { return v[d*size : (d+1)*size] }
		xw := byCodes(c.x, c.steps*c.batch, c.in, n, part(c.w, c.in*n), c.wz[d], c.ws[d])
		state := c.batch * c.hidden
		h, cell := append([]float32{}, c.h0[d*state:(d+1)*state]...), append([]float32{}, c.c0[d*state:(d+1)*state]...)
		for i := range c.steps {
			t := i
			if d == 1 {
				t = c.steps - 1 - i
			}
			hr := byCodes(h, c.batch, c.hidden, n, part(c.r, c.hidden*n), c.rz[d], c.rs[d])
			for b := range c.batch {
				for u := range c.hidden {
					gate := func(g int) float32 {
						j := g*c.hidden + u
						return float32(xw[(t*c.batch+b)*n+j]+hr[b*n+j]) + float32(c.bias[d*2*n+j]+c.bias[d*2*n+n+j])
					}
					at := b*c.hidden + u
					cell[at] = float32(sigmoid(gate(2))*cell[at]) + float32(sigmoid(gate(0))*tanh(gate(3)))
					h[at] = sigmoid(gate(1)) * tanh(cell[at])
					y[(t*c.dirs+d)*state+at] = h[at]
				}
			}
		}
	}
	return y
}

// TestQuantisedLSTM compares with the algorithm written out: the input quantised once for all steps, the hidden states of
// a batch at each step.
func TestQuantisedLSTM(t *testing.T) {
	seed := uint64(7)
	next := func() float32 { // in [-2, 2)
		seed = seed*6364136223846793005 + 1442695040888963407
		return float32(seed>>40)/(1<<22) - 2
	}
	floats := func(n int, scale, shift float32) []float32 {
		v := make([]float32, n)
		for i := range v {
			v[i] = next()*scale + shift
		}
		return v
	}
	codes := func(n int) []int64 {
		v := make([]int64, n)
		for i := range v {
			v[i] = int64((next() + 2) * 64)
		}
		return v
	}
	for _, c := range []lstmCase{{steps: 4, batch: 1, in: 3, hidden: 2, dirs: 1}, {steps: 5, batch: 3, in: 2, hidden: 3, dirs: 2}} {
		n := 4 * c.hidden
		c.x, c.bias = floats(c.steps*c.batch*c.in, 1, 0.5), floats(c.dirs*2*n, 0.3, 0)
		c.h0, c.c0 = floats(c.dirs*c.batch*c.hidden, 0.5, 0), floats(c.dirs*c.batch*c.hidden, 1, 0)
		c.ws, c.rs = floats(c.dirs, 0.002, 0.01), floats(c.dirs, 0.002, 0.01)
		c.w, c.r, c.wz, c.rz = codes(c.dirs*c.in*n), codes(c.dirs*c.hidden*n), codes(c.dirs), codes(c.dirs)
		d, b, i, h := int64(c.dirs), int64(c.batch), int64(c.in), int64(c.hidden)
		ins := map[string]*ir.Data{
			"x": ir.F32s([]int64{int64(c.steps), b, i}, c.x), "bias": ir.F32s([]int64{d, 8 * h}, c.bias),
			"w": ir.IntData(ir.U8, []int64{d, i, 4 * h}, c.w), "r": ir.IntData(ir.U8, []int64{d, h, 4 * h}, c.r),
			"h0": ir.F32s([]int64{d, b, h}, c.h0), "c0": ir.F32s([]int64{d, b, h}, c.c0),
			"ws": ir.F32s([]int64{d}, c.ws), "rs": ir.F32s([]int64{d}, c.rs), "wz": ir.IntData(ir.U8, []int64{d}, c.wz), "rz": ir.IntData(ir.U8, []int64{d}, c.rz),
		}
		direction := []string{"forward", "bidirectional"}[c.dirs-1]
		g := graphParts{outs: [][]byte{info("y", int64(ir.F32))}, nodes: [][]byte{node("com.microsoft.DynamicQuantizeLSTM x w r bias _ h0 c0 _ ws wz rs rz -> y",
			attrI("hidden_size", h), attrS("direction", direction))}}
		in := map[string]*ir.Val{}
		for name, v := range ins {
			g.ins = append(g.ins, info(name, int64(v.DType), v.Dims...))
			in[name] = ir.TensorVal(v)
		}
		parsed, err := Parse(model(17, g), "")
		if err != nil {
			t.Fatal(err)
		}
		out, err := interp.Run(context.Background(), parsed, in)
		if err != nil {
			t.Fatal(err)
		}
		y, want := out["y"].Tensor, c.run()
		if int(y.Len()) != len(want) {
			t.Fatalf("%d elements, want %d", y.Len(), len(want))
		}
		for k, w := range want {
			if got := y.Float(k); math.Abs(got-float64(w)) > 1e-6 {
				t.Errorf("%s: element %d is %g, want %g", direction, k, got, w)
			}
		}
	}
}
