package build_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

// outcome is how far a model came.
type outcome int

const (
	refused outcome = iota // by the compiler, with a reason
	failed                 // at run time, with a reason
	answered
)

// through takes a model file the whole way: read, compile, load, run on made-up inputs, and compares the outputs with the
// interpreter's. What must never happen is a panic, a crash of the module, a module that breaks the ABI, an error
// without a text, memory beyond the limit, or other bits than the interpreter's.
func through(t *testing.T, e *engine.Engine, r *rand.Rand, path string, b []byte) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	m, err := build.Compile(ctx, build.Source{Path: path, Dir: filepath.Dir(path), Data: b}, build.Options{Name: "m"})
	if err != nil {
		var d *diag.Error
		if !errors.As(err, &d) || d.Error() == "" {
			t.Errorf("compile: an error without a code: %v", err)
		}
		return refused
	}
	defer func() {
		if !t.Failed() {
			return
		}
		for _, g := range []*ir.Graph{&m.Source, m.Final} {
			if text := ir.Print(g); len(text) < 4000 {
				t.Logf("the graph:\n%s", text)
			}
		}
	}()
	ins, vals, ok := madeUp(r, &m.Source)
	if !ok {
		return refused
	}
	l, err := e.Load(ctx, m.Code, engine.WeightsSource{Bytes: m.Weights}, m.Interface)
	if err != nil {
		if errors.Is(err, engine.ErrMemoryLimit) {
			return failed
		}
		t.Errorf("load: %v", err)
		return failed
	}
	defer l.Close(context.WithoutCancel(ctx))
	rctx, rcancel := context.WithTimeout(ctx, 3*time.Second)
	outs, err := l.Run(rctx, ins)
	rcancel()
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, engine.ErrMemoryLimit) {
		return failed
	}
	ictx, icancel := context.WithTimeout(ctx, 10*time.Second)
	defer icancel()
	want, ierr := interp.Run(ictx, &m.Source, vals)
	if errors.Is(ierr, context.DeadlineExceeded) {
		return failed
	}
	if err != nil {
		var g *engine.GuestError
		var in *engine.InputError
		if errors.As(err, &g) && g.Code == abi.ErrMemory {
			return failed // working memory may outgrow the address space where the values alone would not
		}
		if !errors.As(err, &g) && !errors.As(err, &in) {
			t.Errorf("run: %v", err)
		} else if ierr == nil {
			t.Errorf("run: %v, and the interpreter answers", err)
		}
		return failed
	}
	if ierr != nil {
		// What no output needs is not computed: its errors go with it.
		if want, err := interp.Run(ictx, m.Final, vals); err == nil {
			return compare(t, &m.Source, outs, want)
		}
		t.Errorf("the module answers, and the interpreter says: %v", ierr)
		return answered
	}
	return compare(t, &m.Source, outs, want)
}

func compare(t *testing.T, g *ir.Graph, outs []engine.Tensor, want map[string]*ir.Val) outcome {
	t.Helper()
	for i, o := range g.Body.Results {
		w, err := toTensor(want[o.Name])
		if err != nil {
			continue
		}
		if !engine.Equal(outs[i], w) {
			t.Errorf("output %q: other bits than the interpreter's", o.Name)
		}
	}
	return answered
}

// madeUp gives inputs for every input of g; ok is false when they would be large.
func madeUp(r *rand.Rand, g *ir.Graph) (ins []engine.Tensor, vals map[string]*ir.Val, ok bool) {
	vals = map[string]*ir.Val{}
	sizes := map[string]int64{}
	specials := []float64{0, 1, -1, 0.5, 2, 3, -7, 100, math.NaN(), math.Inf(1), math.Inf(-1), 1e-40, 1e30}
	for _, p := range g.Body.Params {
		if p.Type.Kind != ir.Tensor || !p.Type.Shape.Ranked {
			return nil, nil, false
		}
		dims, n := []int64{}, int64(1)
		for _, d := range p.Type.Shape.Dims {
			v := d.N
			if !d.IsStatic() {
				if s, ok := sizes[d.Sym]; ok && d.Sym != "" {
					v = s
				} else {
					v = int64(r.IntN(4))
					sizes[d.Sym] = v
				}
			}
			if v > 1<<20 || n > 1<<20 {
				return nil, nil, false
			}
			dims, n = append(dims, v), n*v
		}
		if n > 1<<20 {
			return nil, nil, false
		}
		var d *ir.Data
		if p.Type.DType == ir.String {
			d = &ir.Data{DType: ir.String, Dims: dims, Strings: make([]string, n)}
			for i := range d.Strings {
				d.Strings[i] = []string{"", "a", "the cat", "ß", "12.5", "é"}[r.IntN(6)]
			}
		} else {
			x := make([]float64, n)
			for i := range x {
				if x[i] = r.NormFloat64(); r.IntN(8) == 0 {
					x[i] = specials[r.IntN(len(specials))]
				}
				if !p.Type.DType.IsFloat() {
					x[i] = float64(r.IntN(5) - 1)
				}
				if p.Type.DType == ir.Bool {
					x[i] = float64(r.IntN(2))
				}
			}
			d = ir.FloatData(p.Type.DType, dims, x)
		}
		v := ir.TensorVal(d)
		vals[p.Name] = v
		te, err := toTensor(v)
		if err != nil {
			return nil, nil, false
		}
		ins = append(ins, te)
	}
	return ins, vals, true
}

func toTensor(v *ir.Val) (engine.Tensor, error) {
	if v == nil || v.Tensor == nil {
		return engine.Tensor{}, errors.New("no tensor")
	}
	d := v.Tensor
	return engine.Tensor{Kind: abi.Tensor, DType: abi.DType(d.DType), Shape: d.Dims, Data: d.Bytes, Strings: d.Strings}, nil
}

// TestMutatedModels damages the small models of the corpora a field at a time, in ways that stay readable, and takes
// each the whole way. WAYBILL_MUTATE_SECONDS says how long (else 400 models), WAYBILL_MUTATE_SEED where to start.
func TestMutatedModels(t *testing.T) {
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("WAYBILL_CORPORA is not set")
	}
	var files []string
	for _, suite := range []string{"onnx-node", "onnx-expanded", "onnx-pytorch", "onnx-simple", "onnx-node-exotic", "models-sklearn"} {
		more, err := filepath.Glob(filepath.Join(root, suite, "*", "model.onnx"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	if len(files) == 0 {
		t.Fatal("no models below WAYBILL_CORPORA")
	}
	count, limit, seed := uint64(400), time.Duration(-1), uint64(1)
	if s := os.Getenv("WAYBILL_MUTATE_SECONDS"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		limit = time.Duration(n) * time.Second
	}
	if s := os.Getenv("WAYBILL_MUTATE_SEED"); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		seed = n
	}
	keep := os.Getenv("WAYBILL_MUTATE_KEEP") // file for the last model
	e, err := engine.New(t.Context(), engine.Config{Mode: engine.Interpreter, MemoryLimit: 128 << 20, Poison: true})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(context.WithoutCancel(t.Context()))
	var counts [3]int
	var slow time.Duration
	var slowest uint64
	start, failures := time.Now(), 0
	for i := uint64(0); limit < 0 && i < count || limit >= 0 && (i == 0 || time.Since(start) < limit); i++ {
		r := rand.New(rand.NewPCG(seed+i, 1))
		path := files[r.IntN(len(files))]
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > 1<<20 {
			continue
		}
		b = mutate(r, b, 1+r.IntN(4))
		if b == nil {
			continue
		}
		if keep != "" {
			if err := os.WriteFile(keep, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		ok := t.Run(fmt.Sprintf("seed=%d", seed+i), func(t *testing.T) {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			counts[through(t, e, r, path, b)]++
			if t.Failed() {
				t.Logf("model: %s; again with WAYBILL_MUTATE_SECONDS=0 WAYBILL_MUTATE_SEED=%d", filepath.Base(filepath.Dir(path)), seed+i)
			}
		})
		if d := time.Since(begin); d > slow {
			slow, slowest = d, seed+i
		}
		if !ok {
			if failures++; failures >= 20 {
				break
			}
		}
	}
	t.Logf("%d refused, %d failed at run time, %d answered; the slowest took %v (seed %d)", counts[refused], counts[failed], counts[answered], slow, slowest)
	if limit != 0 && (counts[refused] == 0 || counts[answered] == 0) {
		t.Error("the mutations show too little")
	}
}
