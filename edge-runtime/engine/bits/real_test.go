package bits

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// TestRealModelsSameBits runs every real model of the corpora, with its own inputs and with inputs sprinkled with NaN,
// infinities, -0 and denormals, on every host: the reference interpreter, wazero's compiler here and on arm64, Node and
// Chromium. All outputs must have the same bits. wazero's interpreter takes the small models, and all with
// WAYBILL_BITS_ALL=1. WAYBILL_BITS_MODELS is a pattern of folders.
func TestRealModelsSameBits(t *testing.T) {
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("WAYBILL_CORPORA is not set: the real models are not here")
	}
	pattern := os.Getenv("WAYBILL_BITS_MODELS")
	if pattern == "" {
		t.Skip("minutes: set WAYBILL_BITS_MODELS='models*/*' to run it")
	}
	dirs, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(pattern)))
	if err != nil || len(dirs) == 0 {
		t.Fatalf("no models match %q: %v", pattern, err)
	}
	hosts := []host{compilerHost(t), {name: "interpreter", run: func(t *testing.T, j Job) Result { return here(t, engine.Interpreter, j) }},
		emulated(t, "arm64", "aarch64", "compiler"), nodeHost(), browserHost(t)}
	spent := map[string]time.Duration{}
	for _, dir := range dirs {
		file := build.ModelIn(dir)
		if file == "" {
			continue
		}
		name, err := filepath.Rel(root, dir)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(filepath.ToSlash(name), func(t *testing.T) {
			j, m := realJob(t, dir, file)
			var first Result
			from := ""
			compare := func(t *testing.T, name string, run func() Result) {
				t.Helper()
				begin := time.Now()
				res := run()
				spent[name] += time.Since(begin)
				t.Logf("%v", time.Since(begin).Round(time.Millisecond))
				if len(res.Calls) != len(j.Calls) {
					t.Fatalf("%d results for %d calls", len(res.Calls), len(j.Calls))
				}
				if from == "" {
					first, from = res, name
				} else if d := diff(t, res, first); d != "" {
					t.Errorf("differs from %s: %s", from, d)
				}
			}
			for _, h := range hosts {
				t.Run(h.name, func(t *testing.T) {
					h.needed(t)
					if h.name == "interpreter" && !strings.HasPrefix(filepath.ToSlash(name), "models-sklearn/") && os.Getenv("WAYBILL_BITS_ALL") == "" {
						t.Skip("slow: set WAYBILL_BITS_ALL=1 to run it")
					}
					compare(t, h.name, func() Result { return h.run(t, j) })
				})
			}
			t.Run("reference", func(t *testing.T) { compare(t, "reference", func() Result { return reference(t, &m.Source, j) }) })
		})
	}
	t.Logf("time spent: %v", spent)
}

// realJob compiles a model as waybill pack does. Its calls are the stored inputs, as they are and with special values.
func realJob(t *testing.T, dir, file string) (Job, *build.Model) {
	t.Helper()
	src, err := build.OpenSource(t.Context(), file)
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(t.Context(), src, build.Options{Name: "m", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	tmp := t.TempDir()
	j := Job{Module: filepath.Join(tmp, "model.wasm"), Interface: m.Interface}
	if err := os.WriteFile(j.Module, m.Code, 0o600); err != nil {
		t.Fatal(err)
	}
	if m.Weights != nil {
		j.Weights = filepath.Join(tmp, "weights.bin")
		if err := os.WriteFile(j.Weights, m.Weights, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sets, err := build.DataSets(dir)
	if err != nil || len(sets) == 0 {
		t.Skipf("no test data: %v", err)
	}
	c, err := build.ReadCase(sets[0], &m.Source)
	if err != nil {
		t.Fatal(err)
	}
	j.Calls = append(j.Calls, c.Inputs)
	special, floats := make([]artifact.GoldenTensor, len(c.Inputs)), false
	for i, g := range c.Inputs {
		special[i] = g
		if g.DType == "f32" || g.DType == "f64" {
			special[i].Data, floats = sprinkle(g.DType, g.Data), true
		}
	}
	if !floats {
		return j, m
	}
	// Some models refuse such numbers, by an index that they are turned into: then on every host.
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.WithoutCancel(t.Context()))
	try := j
	try.Calls = [][]artifact.GoldenTensor{special}
	if _, err := Run(t.Context(), e, try); err != nil {
		t.Logf("special values: %v", err)
		return j, m
	}
	j.Calls = append(j.Calls, special)
	return j, m
}

// sprinkle replaces one in some thirty floats.
func sprinkle(dtype string, data []byte) []byte {
	b := append([]byte(nil), data...)
	size := 4
	if dtype == "f64" {
		size = 8
	}
	for i := 0; i < len(b)/size; i++ {
		h := uint32(i+1) * 2654435761 // scattered, and the same everywhere
		h = (h ^ h>>15) * 0x2c1b3c6d
		h ^= h >> 12
		if h%31 != 0 && i != 1 {
			continue
		}
		k := int(h/31) % 7
		if size == 4 {
			v := []uint32{0x7fc00000, 0xffc00001, 0x7f800001, 0x7f800000, 0xff800000, 0x80000000, 0x00000001}[k]
			binary.LittleEndian.PutUint32(b[4*i:], v)
		} else {
			v := []uint64{0x7ff8 << 48, 0xfff8<<48 | 1, 0x7ff0<<48 | 1, 0x7ff0 << 48, 0xfff0 << 48, 1 << 63, 1}[k]
			binary.LittleEndian.PutUint64(b[8*i:], v)
		}
	}
	return b
}

// reference runs the graph as it was imported in the reference interpreter.
func reference(t *testing.T, g *ir.Graph, j Job) Result {
	t.Helper()
	var res Result
	for _, call := range j.Calls {
		ins := map[string]*ir.Val{}
		for _, in := range call {
			d := ir.DTypeByName(in.DType)
			if !d.Valid() || in.Kind != "tensor" && in.Kind != "" {
				t.Skipf("input %s is a %s of %s", in.Name, in.Kind, in.DType)
			}
			ins[in.Name] = ir.TensorVal(&ir.Data{DType: d, Dims: in.Shape, Bytes: in.Data, Strings: in.Strings})
		}
		outs, err := interp.Run(t.Context(), g, ins)
		if err != nil {
			t.Fatal(err)
		}
		var gs []artifact.GoldenTensor
		for _, p := range g.Body.Results {
			gs = append(gs, probe.ToGolden(p.Name, tensorOf(outs[p.Name])))
		}
		res.Calls = append(res.Calls, gs)
	}
	return res
}

// tensorOf converts a value of the interpreter.
func tensorOf(v *ir.Val) engine.Tensor {
	if v.Kind == ir.Tensor {
		return dataOf(v.Tensor)
	}
	t := engine.Tensor{Kind: abi.Kind(v.Kind), Shape: []int64{int64(len(v.Elems))}}
	if v.Kind == ir.Map {
		return engine.Tensor{Kind: abi.Map, DType: abi.DType(v.Keys.DType), Shape: t.Shape, Elems: []engine.Tensor{dataOf(v.Keys), valuesOf(v)}}
	}
	for _, e := range v.Elems {
		t.Elems = append(t.Elems, tensorOf(e))
	}
	if t.DType == 0 && len(t.Elems) > 0 {
		t.DType = t.Elems[0].DType
	}
	return t
}

// valuesOf joins the values of a map, which the interpreter holds one by one or in one tensor.
func valuesOf(v *ir.Val) engine.Tensor {
	all := engine.Tensor{Kind: abi.Tensor}
	for _, e := range v.Elems {
		d := dataOf(e.Tensor)
		all.DType, all.Data, all.Strings = d.DType, append(all.Data, d.Data...), append(all.Strings, d.Strings...)
	}
	all.Shape = v.Keys.Dims
	return all
}

func dataOf(d *ir.Data) engine.Tensor {
	return engine.Tensor{Kind: abi.Tensor, DType: abi.DType(d.DType), Shape: d.Dims, Data: d.Bytes, Strings: d.Strings}
}

// The special values must be there: a NaN with a payload, and others.
func TestSprinkle(t *testing.T) {
	b := sprinkle("f32", make([]byte, 4*1000))
	kinds := map[string]int{}
	for i := 0; i < len(b); i += 4 {
		if v := binary.LittleEndian.Uint32(b[i:]); v != 0 {
			kinds[fmt.Sprintf("%08x", v)]++
		}
	}
	if len(kinds) != 7 || !math.IsNaN(float64(math.Float32frombits(0x7f800001))) {
		t.Errorf("special values: %v", kinds)
	}
}
