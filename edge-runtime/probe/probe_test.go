package probe

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// doubler is a model in Go that returns 2*x; bad makes one element wrong in its last bit.
type doubler struct{ bad, err bool }

func (d doubler) Interface() *artifact.Interface {
	p := artifact.Port{Kind: "tensor", DType: "f32", Ranked: true, Shape: []artifact.Dim{{Size: -1}}}
	x, y := p, p
	x.Name, y.Name = "x", "y"
	return &artifact.Interface{Inputs: []artifact.Port{x}, Outputs: []artifact.Port{y}}
}

func (d doubler) Run(_ context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
	if d.err {
		return nil, errors.New("boom")
	}
	v, err := engine.Values[float32](ins[0])
	if err != nil {
		return nil, err
	}
	for i := range v {
		v[i] *= 2
	}
	if d.bad && len(v) > 1 {
		v[1] = math.Float32frombits(math.Float32bits(v[1]) + 1)
	}
	return []engine.Tensor{engine.Of(v)}, nil
}

func golden(vs ...[]float32) *artifact.Golden {
	g := &artifact.Golden{Schema: artifact.GoldenSchema}
	for _, v := range vs {
		w := make([]float32, len(v))
		for i := range v {
			w[i] = 2 * v[i]
		}
		g.Vectors = append(g.Vectors, artifact.GoldenVector{Name: "row", Inputs: []artifact.GoldenTensor{ToGolden("x", engine.Of(v))},
			Expected: []artifact.GoldenTensor{ToGolden("y", engine.Of(w))}})
	}
	return g
}

func TestReproduced(t *testing.T) {
	rep, err := Run(t.Context(), doubler{}, golden([]float32{1, 0.1}, nil, []float32{3}))
	if err != nil || !rep.OK() || rep.Err() != nil || rep.Vectors != 3 || rep.TotalNS <= 0 || rep.MaxNS < rep.P50NS {
		t.Errorf("report %+v, error %v", rep, err)
	}
}

// One last bit is enough.
func TestOneBitFails(t *testing.T) {
	rep, err := Run(t.Context(), doubler{bad: true}, golden([]float32{1, 0.1}, []float32{3}))
	if err != nil {
		t.Fatal(err)
	}
	if rep.OK() || rep.Passed != 1 || len(rep.Failures) != 1 {
		t.Fatalf("report %+v", rep)
	}
	if want := "element 1 is 0.20000002 (0x3e4ccccf), expected 0.2 (0x3e4ccccd)"; rep.Failures[0].Detail != want &&
		!strings.Contains(rep.Failures[0].Detail, "element 1 is") {
		t.Errorf("detail %q", rep.Failures[0].Detail)
	}
	if e := rep.Err(); e == nil || !strings.HasPrefix(e.Error(), "1 of 2 golden vectors were not reproduced; first: row, output y: element 1") {
		t.Errorf("error %v", e)
	}
}

func TestCallFails(t *testing.T) {
	rep, err := Run(t.Context(), doubler{err: true}, golden([]float32{1}))
	if err != nil || rep.OK() || rep.Failures[0].Detail != "boom" {
		t.Errorf("report %+v, error %v", rep, err)
	}
}

// No vectors prove nothing.
func TestNoVectors(t *testing.T) {
	rep, err := Run(t.Context(), doubler{}, golden())
	if err != nil || rep.OK() || rep.Err() == nil {
		t.Errorf("report %+v, error %v", rep, err)
	}
}

func TestMalformedGolden(t *testing.T) {
	for _, c := range []struct {
		edit func(g *artifact.Golden)
		want string
	}{
		{func(g *artifact.Golden) { g.Schema = "v0" }, "schema"},
		{func(g *artifact.Golden) { g.Vectors[0].Inputs = nil }, "0 tensors"},
		{func(g *artifact.Golden) { g.Vectors[0].Expected = nil }, "expected: it has 0 tensors"},
		{func(g *artifact.Golden) { g.Vectors[0].Inputs[0].Name = "z" }, `"x" is missing`},
		{func(g *artifact.Golden) { g.Vectors[0].Inputs[0].DType = "f31" }, "unknown element type"},
		{func(g *artifact.Golden) { g.Vectors[0].Inputs[0].Kind = "list" }, "unknown kind"},
		{func(g *artifact.Golden) { g.Vectors[0].Inputs[0].Shape = []int64{9} }, "needs 36 bytes"},
		{func(g *artifact.Golden) { g.Vectors[0].Inputs = append(g.Vectors[0].Inputs, g.Vectors[0].Inputs[0]) }, "twice"},
	} {
		g := golden([]float32{1})
		c.edit(g)
		if _, err := Run(t.Context(), doubler{}, g); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("error %v, want %q", err, c.want)
		}
	}
}

func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, doubler{err: true}, golden([]float32{1})); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

// Values of every kind survive the JSON of the golden layer.
func TestGoldenRoundTrip(t *testing.T) {
	m := engine.Tensor{Kind: abi.Map, DType: abi.I64, Elems: []engine.Tensor{engine.Of([]int64{1, 2}), engine.OfStrings([]string{"a", "é"})}}
	for _, v := range []engine.Tensor{
		engine.Of([]float64{math.NaN(), math.Inf(-1)}, 2, 1),
		engine.Of([]bool{true}),
		{DType: abi.F32, Shape: []int64{0, 3}, Data: []byte{}},
		{DType: abi.I4, Shape: []int64{3}, Data: []byte{0x21, 0x03}},
		engine.OfStrings([]string{"", "x"}, 1, 2),
		{Kind: abi.Optional, DType: abi.F32},
		{Kind: abi.Sequence, DType: abi.F32, Elems: []engine.Tensor{m, engine.Of([]float32{1})}},
	} {
		b, err := json.Marshal(ToGolden("v", v))
		if err != nil {
			t.Fatal(err)
		}
		var g artifact.GoldenTensor
		if err := json.Unmarshal(b, &g); err != nil {
			t.Fatal(err)
		}
		back, err := FromGolden(g)
		if err != nil {
			t.Fatalf("%s: %v", b, err)
		}
		if d := Diff(back, v); d != "" {
			t.Errorf("%s: %s", b, d)
		}
	}
}

func FuzzFromGolden(f *testing.F) {
	f.Add([]byte(`{"name":"x","dtype":"f32","shape":[1],"data":"AACAPw=="}`))
	f.Add([]byte(`{"name":"x","kind":"map","dtype":"string","elems":[{"dtype":"string","shape":[1],"strings":["a"]},{"dtype":"i4","shape":[3],"data":"IQM="}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var g artifact.GoldenTensor
		if json.Unmarshal(b, &g) != nil {
			return
		}
		v, err := FromGolden(g)
		if err != nil {
			return
		}
		if err := v.Check(); err != nil {
			t.Errorf("accepted a malformed tensor: %v", err)
		}
		if d := Diff(v, v); d != "" {
			t.Errorf("a value differs from itself: %s", d)
		}
	})
}

// moody is a model that is right at first and wrong from call number late on, or never ends from there.
type moody struct {
	doubler
	calls, late int
	hang        bool
}

func (m *moody) Run(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error) {
	m.calls++
	if m.late > 0 && m.calls >= m.late {
		if m.hang {
			<-ctx.Done()
			return nil, context.Cause(ctx)
		}
		m.doubler.bad = true
	}
	return m.doubler.Run(ctx, ins)
}

func (m *moody) PeakMemory() uint64 { return 12345 }

// Repeating the vectors gives the figures, and finds a model that is right only once or that does not come to an end.
func TestMeasure(t *testing.T) {
	g := golden([]float32{1, 2}, []float32{3, 4}, []float32{5, 6})
	m := &moody{}
	rep, err := Measure(t.Context(), m, g, Effort{Calls: 100, Budget: time.Hour, Timeout: time.Minute})
	if err != nil || rep.Err() != nil || rep.Calls != 100 || m.calls != 100 || rep.Vectors != 3 || rep.Passed != 3 || rep.PeakMemory != 12345 ||
		rep.FirstNS == 0 || rep.P50NS > rep.P99NS || rep.P99NS > rep.MaxNS {
		t.Errorf("report %+v, %v", rep, err)
	}
	m = &moody{}
	if rep, err := Measure(t.Context(), m, g, Effort{Calls: 100, Budget: 1}); err != nil || rep.Calls != 3 || rep.Err() != nil {
		t.Errorf("a spent budget: %+v, %v", rep, err)
	}
	rep, err = Measure(t.Context(), &moody{late: 50}, g, Effort{Calls: 100, Budget: time.Hour})
	if err != nil || rep.OK() || !strings.Contains(rep.Err().Error(), "not at a later call: row, output y: element 1") {
		t.Errorf("wrong at call 50: %+v, %v", rep, err)
	}
	for late := 1; late < 6; late += 2 {
		m := &moody{late: late, hang: true}
		rep, err = Measure(t.Context(), m, g, Effort{Calls: 100, Budget: time.Hour, Timeout: 2 * time.Millisecond})
		if err != nil || rep.OK() || m.calls != late || !strings.Contains(rep.Err().Error(), "did not finish in time: 2ms") {
			t.Errorf("endless from call %d on: %+v, %v", late, rep, err)
		}
	}
	// The end of the caller's context is no verdict.
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the agent stops"))
	if _, err := Measure(ctx, &moody{late: 1, hang: true}, g, Effort{Timeout: time.Minute}); err == nil || !strings.Contains(err.Error(), "the agent stops") {
		t.Errorf("a cancelled probe: %v", err)
	}
}

// A NaN in place of a number, and a NaN with other bits in place of a NaN, are differences.
func TestNaNBits(t *testing.T) {
	quiet, other := math.Float32frombits(0x7fc00000), math.Float32frombits(0x7fc00001)
	for name, c := range map[string]struct {
		got, want float32
		same      bool
	}{"same": {quiet, quiet, true}, "payload": {other, quiet, false}, "sign": {math.Float32frombits(0xffc00000), quiet, false}, "number": {1, quiet, false}, "nan": {quiet, 1, false},
		"minus zero": {float32(math.Copysign(0, -1)), 0, false}} {
		d := Diff(engine.Of([]float32{c.got}), engine.Of([]float32{c.want}))
		if (d == "") != c.same {
			t.Errorf("%s: %q", name, d)
		}
	}
}
