package interp_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

func corpora(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared models are needed")
	}
	return dir
}

// slow lists models that take the plain interpreter more than some seconds; -short leaves them out too.
var slow = []string{"light_densenet121", "light_inception_v1", "light_resnet50", "light_shufflenet", "light_squeezenet", "squeezenet_fp32_cast",
	"bodypix_mobilenetv1", "ppocr_det", "super_resolution_10", "ultraface_rfb_320", "yunet_n_320", "fastestdet", "basic_pitch", "ppocr_cls",
	"magika_v3_3", "nnsplit_en", "blazeface_front"}

// TestRealModels runs real models on their stored inputs and compares with the stored outputs of the reference.
func TestRealModels(t *testing.T) {
	dir := corpora(t)
	var cases []string
	for _, p := range []string{"models/*", "models-sklearn/*"} {
		m, err := filepath.Glob(filepath.Join(dir, filepath.FromSlash(p)))
		if err != nil {
			t.Fatal(err)
		}
		cases = append(cases, m...)
	}
	entered, done := 0, 0
	for _, c := range cases {
		name := filepath.Base(c)
		t.Run(name, func(t *testing.T) {
			entered++
			for _, s := range slow {
				if s == name && os.Getenv("WAYBILL_SLOW") == "" {
					t.Skip("slow in the interpreter: set WAYBILL_SLOW to run it")
				}
			}
			g, err := onnx.Read(context.Background(), filepath.Join(c, "model.onnx"))
			var u *frontend.UnsupportedError
			if errors.As(err, &u) {
				t.Skip(err)
			}
			if err != nil {
				t.Fatal(err)
			}
			sets, err := filepath.Glob(filepath.Join(c, "test_data_set_*"))
			if err != nil || len(sets) == 0 {
				t.Fatalf("no test data: %v", err)
			}
			for _, set := range sets {
				runSet(t, g, set)
			}
			done++
		})
	}
	if os.Getenv("WAYBILL_SLOW") != "" && entered == len(cases) && done < 50 {
		t.Errorf("only %d models ran", done)
	}
}

func runSet(t *testing.T, g *ir.Graph, set string) {
	t.Helper()
	in := readInputs(t, g, set)
	start := time.Now()
	out, err := interp.Run(context.Background(), g, in)
	var u *interp.UnsupportedError
	if errors.As(err, &u) && u.Op == "Allowed" { // what only the inputs ask for: Dropout that really trains
		t.Skip(err)
	}
	if err != nil {
		t.Errorf("%s: %v", filepath.Base(set), err)
		return
	}
	if d := time.Since(start); d > 3*time.Second {
		t.Logf("%s took %v", filepath.Base(set), d)
	}
	for i, r := range g.Body.Results {
		got := out[r.Name]
		b, err := os.ReadFile(filepath.Join(set, fmt.Sprintf("output_%d.pb", i)))
		typ := r.Type
		if os.IsNotExist(err) {
			// The references of map outputs hold the tensor that feeds ZipMap.
			b, err = os.ReadFile(filepath.Join(set, fmt.Sprintf("output_%d.zipmap_values.pb", i)))
			typ = ir.TensorOf(ir.F32, ir.Unranked())
			got = unzip(got)
		}
		if err != nil {
			t.Fatal(err)
		}
		_, want, err := onnx.ReadValue(b, typ)
		if err != nil {
			t.Fatalf("%s: output %q: %v", set, r.Name, err)
		}
		if err := equalVal(got, want, 1e-5); err != nil {
			t.Errorf("%s: output %q: %v", filepath.Base(set), r.Name, err)
		}
	}
}

func hasInput(g *ir.Graph, name string) bool {
	for _, p := range g.Body.Params {
		if p.Name == name {
			return true
		}
	}
	return false
}

// unzip turns a sequence of maps into the matrix of their values.
func unzip(v *ir.Val) *ir.Val {
	var flat []float32
	cols := 0
	for _, m := range v.Elems {
		cols = len(m.Elems)
		for _, e := range m.Elems {
			flat = append(flat, float32(e.Tensor.Float(0)))
		}
	}
	return ir.TensorVal(ir.F32s([]int64{int64(len(v.Elems)), int64(cols)}, flat))
}

// equalVal compares values of any kind.
func equalVal(got, want *ir.Val, atol float64) error {
	if got.Kind != want.Kind || len(got.Elems) != len(want.Elems) {
		return fmt.Errorf("kind %d with %d elements, want %d with %d", got.Kind, len(got.Elems), want.Kind, len(want.Elems))
	}
	for i := range want.Elems {
		if err := equalVal(got.Elems[i], want.Elems[i], atol); err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	if want.Tensor == nil {
		return nil
	}
	return equal(got.Tensor, want.Tensor, 1e-3, atol)
}

// equal compares floats within a tolerance and everything else exactly.
func equal(got, want *ir.Data, rtol, atol float64) error {
	if got.DType != want.DType || fmt.Sprint(got.Dims) != fmt.Sprint(want.Dims) {
		return fmt.Errorf("%s%v, want %s%v", got.DType, got.Dims, want.DType, want.Dims)
	}
	bad, worst, first := 0, 0.0, ""
	for i := 0; i < int(want.Len()); i++ {
		var d float64
		var s string
		switch {
		case want.DType == ir.String:
			if got.Strings[i] != want.Strings[i] {
				d, s = 1, fmt.Sprintf("%q, want %q", got.Strings[i], want.Strings[i])
			}
		case want.DType == ir.F32 || want.DType == ir.F64:
			a, b := got.Float(i), want.Float(i)
			if a != b && !(a != a && b != b) && !(math.Abs(a-b) <= atol+rtol*math.Abs(b)) {
				d, s = math.Abs(a-b), fmt.Sprintf("%v, want %v", a, b)
			}
		case want.DType == ir.F16 || want.DType == ir.BF16:
			// One step of the type is half a unit of its last bit away.
			a, b := int(binary.LittleEndian.Uint16(got.Bytes[2*i:])), int(binary.LittleEndian.Uint16(want.Bytes[2*i:]))
			inf := 0x7c00
			if want.DType == ir.BF16 {
				inf = 0x7f80
			}
			if nan := a&0x7fff > inf && b&0x7fff > inf; a != b && !nan && (a-b > 1 || b-a > 1) {
				d, s = 1, fmt.Sprintf("%04x, want %04x", a, b)
			}
		case want.DType == ir.F4E2M1 && got.Int(i)&7 == 0 && want.Int(i)&7 == 0: // zeros of either sign are equal
		default:
			if got.Int(i) != want.Int(i) {
				d, s = 1, fmt.Sprintf("%d, want %d", got.Int(i), want.Int(i))
			}
		}
		if s != "" {
			bad++
			worst = max(worst, d)
			if first == "" {
				first = fmt.Sprintf("element %d is %s", i, s)
			}
		}
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d differ, the worst by %g: %s", bad, want.Len(), worst, first)
	}
	return nil
}

// TestONNXNodes runs ONNX's own tests for what the frontend and the interpreter support; the log lists the rest.
func TestONNXNodes(t *testing.T) {
	for suite, least := range map[string]int{"onnx-node": 901, "onnx-expanded": 354, "onnx-pytorch": 85, "onnx-simple": 17, "onnx-node-exotic": 130} {
		t.Run(suite, func(t *testing.T) { runSuite(t, suite, least) })
	}
}

func runSuite(t *testing.T, suite string, least int) {
	dir := corpora(t)
	cases, err := filepath.Glob(filepath.Join(dir, suite, "*"))
	if err != nil || len(cases) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	missing := map[string]int{}
	ran := 0
	for _, c := range cases {
		g, err := onnx.Read(context.Background(), filepath.Join(c, "model.onnx"))
		var u *frontend.UnsupportedError
		if errors.As(err, &u) {
			missing[u.Op]++
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(c), err)
			continue
		}
		sets, _ := filepath.Glob(filepath.Join(c, "test_data_set_*"))
		for _, set := range sets {
			ran++
			t.Run(filepath.Base(c), func(t *testing.T) { runSet(t, g, set) })
		}
	}
	var names []string
	for n, k := range missing {
		names = append(names, fmt.Sprintf("%s:%d", n, k))
	}
	sort.Strings(names)
	if ran < least {
		t.Errorf("only %d cases ran, want %d", ran, least)
	}
	t.Logf("%d of %d cases ran; not supported: %s", ran, len(cases), strings.Join(names, " "))
}
