package trees_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// cases is what examples/trees/train.py stored beside a model.
type cases struct {
	Library    string    `json:"library"`
	Rows       [][]any   `json:"rows"`
	Margin     []float64 `json:"margin"`
	Prediction []float64 `json:"prediction"`
}

func cell(t *testing.T, v any) float64 {
	t.Helper()
	switch v := v.(type) {
	case nil:
		return math.NaN()
	case float64:
		return v
	case string:
		return math.Inf(map[string]int{"inf": 1, "-inf": -1}[v])
	}
	t.Fatalf("cell %v", v)
	return 0
}

func (c *cases) matrix(t *testing.T) [][]float64 {
	t.Helper()
	out := make([][]float64, len(c.Rows))
	for i, r := range c.Rows {
		for _, v := range r {
			out[i] = append(out[i], cell(t, v))
		}
	}
	return out
}

// predict compiles the model at path and runs rows in it, both in the compiled module and in the interpreter, whose bits
// must agree.
func predict(t *testing.T, path string, rows [][]float64) map[string]*ir.Data {
	t.Helper()
	ctx := t.Context()
	src, err := build.OpenSource(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(ctx, src, build.Options{Name: "m", Version: "0"})
	if err != nil {
		t.Fatal(err)
	}
	in := m.Source.Body.Params[0]
	width := int(in.Type.Shape.Dims[1].N)
	flat := make([]float64, len(rows)*width)
	for i := range flat {
		flat[i] = math.NaN()
	}
	for i, r := range rows {
		if len(r) > width {
			r = r[:width]
		}
		copy(flat[i*width:], r)
	}
	x := ir.FloatData(in.Type.DType, []int64{int64(len(rows)), int64(width)}, flat)
	want, err := interp.Run(ctx, &m.Source, map[string]*ir.Val{"X": ir.TensorVal(x)})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(ctx, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(ctx) })
	mod, err := e.Load(ctx, m.Code, engine.WeightsSource{Bytes: m.Weights}, m.Interface)
	if err != nil {
		t.Fatal(err)
	}
	outs, err := mod.Run(ctx, []engine.Tensor{{DType: abi.DType(x.DType), Shape: x.Dims, Data: x.Bytes}})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]*ir.Data{}
	for i, o := range outs {
		name := m.Interface.Outputs[i].Name
		w := want[name].Tensor
		if fmt.Sprint(o.Shape) != fmt.Sprint(w.Dims) || !bytes.Equal(o.Data, w.Bytes) {
			t.Errorf("output %q differs from the interpreter's", name)
		}
		got[name] = w
	}
	return got
}

// near fails for a relative difference above tol.
func near(t *testing.T, what string, got, want []float64, tol float64) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: %d values, want %d", what, len(got), len(want))
	}
	bad := 0
	for i := range want {
		g, w := got[i], want[i]
		if g == w || g != g && w != w || math.Abs(g-w) <= tol*math.Abs(w) {
			continue
		}
		if bad++; bad <= 5 {
			t.Errorf("%s[%d] = %.9g, want %.9g", what, i, g, w)
		}
	}
	if bad > 5 {
		t.Errorf("%s: %d of %d differ", what, bad, len(want))
	}
}

// check compares outputs with a library's margin and prediction; nil leaves a comparison out.
func check(t *testing.T, got map[string]*ir.Data, margin, prediction []float64) {
	t.Helper()
	const tol = 1e-6
	raw := got["margin"]
	if raw == nil {
		raw = got["prediction"]
	}
	if margin != nil {
		near(t, "margin", raw.Floats(), margin, 0) // sums are the library's, to the bit
	}
	if prediction == nil {
		return
	}
	p := got["prediction"]
	if p != nil {
		near(t, "prediction", p.Floats(), prediction, tol)
		return
	}
	probs, label := got["probabilities"].Floats(), got["label"].Ints()
	n := len(label)
	c := len(probs) / n
	if len(prediction) == n && c > 2 { // multi:softmax predicts the class
		near(t, "label", floats(label), prediction, 0)
		return
	}
	if len(prediction) == n {
		one := make([]float64, n)
		for i := range one {
			one[i] = probs[2*i+1]
			if (label[i] == 1) != (one[i] > 0.5) || math.Abs(probs[2*i]+one[i]-1) > 1e-7 {
				t.Errorf("row %d: label %d, probabilities %v", i, label[i], probs[2*i:2*i+2])
			}
		}
		probs = one
	} else {
		for i, l := range label {
			for k := range c {
				if prediction[i*c+k] > prediction[i*c+int(l)] {
					t.Errorf("row %d: label %d, probabilities %v", i, l, prediction[i*c:i*c+c])
				}
			}
		}
	}
	near(t, "probabilities", probs, prediction, tol)
}

func floats(v []int64) []float64 {
	out := make([]float64, len(v))
	for i, x := range v {
		out[i] = float64(x)
	}
	return out
}

// TestFixtures compares every committed model with the predictions of the library that trained it.
func TestFixtures(t *testing.T) {
	for _, lib := range []struct {
		dir  string
		want int
	}{{"xgboost", 62}, {"lightgbm", 51}} {
		files, _ := filepath.Glob(filepath.Join("..", lib.dir, "testdata", "*.cases.json"))
		if len(files) < lib.want {
			t.Errorf("%d fixtures of %s, want %d", len(files), lib.dir, lib.want)
		}
		for _, f := range files {
			base := strings.TrimSuffix(f, ".cases.json")
			t.Run(lib.dir+"/"+filepath.Base(base), func(t *testing.T) {
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				var c cases
				if err := json.Unmarshal(b, &c); err != nil {
					t.Fatal(err)
				}
				models, _ := filepath.Glob(base + ".*")
				for _, m := range models {
					if m != f {
						check(t, predict(t, m, c.matrix(t)), c.Margin, c.Prediction)
					}
				}
			})
		}
	}
}
