package codegen_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// sameBits compares two tensors exactly.
func sameBits(got, want *ir.Data) error {
	if got.DType != want.DType || fmt.Sprint(got.Dims) != fmt.Sprint(want.Dims) {
		return fmt.Errorf("%s%v, the interpreter has %s%v", got.DType, got.Dims, want.DType, want.Dims)
	}
	if got.DType == ir.String {
		for i := range want.Strings {
			if got.Strings[i] != want.Strings[i] {
				return fmt.Errorf("element %d is %q, the interpreter has %q", i, got.Strings[i], want.Strings[i])
			}
		}
		return nil
	}
	if !bytes.Equal(got.Bytes, want.Bytes) {
		w := max(got.DType.Bits()/8, 1)
		for i := 0; i < len(want.Bytes)/w; i++ {
			a, b := got.Bytes[i*w:(i+1)*w], want.Bytes[i*w:(i+1)*w]
			if !bytes.Equal(a, b) {
				return fmt.Errorf("element %d is %x, the interpreter has %x", i, a, b)
			}
		}
		return fmt.Errorf("%d bytes, the interpreter has %d", len(got.Bytes), len(want.Bytes))
	}
	return nil
}

// against runs both and compares every tensor output.
func against(t *testing.T, m *machine, ins []*ir.Data) {
	t.Helper()
	in := map[string]*ir.Val{}
	for i, p := range m.g.Body.Params {
		in[p.Name] = ir.TensorVal(ins[i])
	}
	want, err := interp.Run(context.Background(), m.g, in)
	var u *interp.UnsupportedError
	if errors.As(err, &u) {
		t.Skip(err)
	}
	got, gerr := m.run(ins...)
	if (err == nil) != (gerr == nil) {
		t.Fatalf("compiled: %v; interpreted: %v", gerr, err)
	}
	if err != nil {
		return
	}
	for i, r := range m.g.Body.Results {
		if r.Type.Kind != ir.Tensor {
			continue
		}
		if err := sameBits(got[i], want[r.Name].Tensor); err != nil {
			t.Errorf("output %q: %v", r.Name, err)
		}
	}
}

// slow models take the interpreter minutes.
var slow = []string{"light_densenet121", "light_resnet50", "light_inception_v1", "squeezenet_fp32_cast", "light_squeezenet",
	"super_resolution_10", "fastestdet", "ppocr_det", "bodypix_mobilenetv1", "light_shufflenet", "ppocr_cls", "ultraface_rfb_320", "magika_v3_3",
	"basic_pitch", "yunet_n_320", "blazeface_front"}

// TestModelsExact compares the compiled models with the interpreter, bit for bit.
func TestModelsExact(t *testing.T) {
	dir := corpora(t)
	for _, pat := range []string{"models/*", "models-sklearn/*"} {
		ms, _ := filepath.Glob(filepath.Join(dir, filepath.FromSlash(pat)))
		for _, m := range ms {
			name := filepath.Base(m)
			t.Run(name, func(t *testing.T) {
				if slices.Contains(slow, name) && os.Getenv("WAYBILL_SLOW") == "" {
					t.Skip("slow in the interpreter: set WAYBILL_SLOW to run it")
				}
				exactCase(t, m)
			})
		}
	}
}

func exactCase(t *testing.T, dir string) {
	g, err := onnx.Read(context.Background(), filepath.Join(dir, "model.onnx"))
	var uf *frontend.UnsupportedError
	if errors.As(err, &uf) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	res, err := codegen.Compile(g, codegen.Options{})
	var uc *codegen.Unsupported
	if errors.As(err, &uc) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	m := load(t, g, res, runtimeConfig())
	sets, _ := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
	for _, s := range sets {
		for _, p := range g.Body.Params {
			if p.Type.Kind != ir.Tensor {
				t.Skipf("input %q of type %s", p.Name, p.Type)
			}
		}
		ins, outs := readSet(t, g, s)
		against(t, m, ins)
		got, err := m.run(ins...)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range outs {
			if want == nil || want.DType == ir.F16 || want.DType == ir.BF16 {
				continue
			}
			if err := near(got[i], want, 1e-3, 1e-5); err != nil {
				t.Errorf("%s: output %q: %v", filepath.Base(s), g.Body.Results[i].Name, err)
			}
		}
	}
}

// TestONNXNodesExact runs ONNX's operator tests: the bits of the interpreter, and the reference within tolerance.
func TestONNXNodesExact(t *testing.T) {
	dir := corpora(t)
	cases, _ := filepath.Glob(filepath.Join(dir, "onnx-node", "*"))
	if len(cases) < 500 {
		t.Fatalf("only %d cases", len(cases))
	}
	missing := map[string]int{}
	ran := 0
	for _, c := range cases {
		g, err := onnx.Read(context.Background(), filepath.Join(c, "model.onnx"))
		if err != nil {
			continue // the frontend's own tests speak about that
		}
		_, err = codegen.Compile(g, codegen.Options{})
		var uc *codegen.Unsupported
		if errors.As(err, &uc) {
			missing[uc.Op]++
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", filepath.Base(c), err)
			continue
		}
		ran++
		t.Run(filepath.Base(c), func(t *testing.T) { exactCase(t, c) })
	}
	var names []string
	for n, k := range missing {
		names = append(names, fmt.Sprintf("%s:%d", n, k))
	}
	sort.Strings(names)
	t.Logf("%d of %d cases ran; no kernels: %s", ran, len(cases), strings.Join(names, " "))
}
