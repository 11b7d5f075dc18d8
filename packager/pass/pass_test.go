package pass

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/frontend"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

// golden runs one pass over a graph in text form and compares the result.
func golden(t *testing.T, run func(context.Context, *ir.Graph) (bool, error), before, after string) {
	t.Helper()
	g, err := ir.Parse(strings.TrimSpace(before) + "\n")
	if err != nil {
		t.Fatal(err)
	}
	changed, err := run(context.Background(), g)
	if err != nil {
		t.Fatal(err)
	}
	if err := ir.Verify(g); err != nil {
		t.Fatalf("%v\n%s", err, ir.Print(g))
	}
	got, want := strings.TrimSpace(ir.Print(g)), strings.TrimSpace(after)
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if changed != (want != strings.TrimSpace(before)) {
		t.Errorf("changed is %v", changed)
	}
}

func TestFold(t *testing.T) {
	golden(t, fold, `
graph "g" {
  const zero i64[1](0)
  const two i64[](2)
  const w f32[2,1](1, 2)
  param x f32[N,3]
  s i64[?] = Shape(x) {end=9223372036854775807, start=0} #0 "s"
  n i64[] = Size(s) #1 "n"
  c bool[] = Equal(n, two) #2 "c"
  d i64[?] = Gather(s, zero) {axis=0} #3 "d"
  wt f32[1,2] = Transpose(w) {perm=[1, 0]} #4 "wt"
  a f32[2,2] = MatMul(w, wt) #5 "a"
  result c, d, a
}`, `
graph "g" {
  const zero i64[1](0)
  const w f32[2,1](1, 2)
  const wt f32[1,2](1, 2)
  const c bool[](1)
  param x f32[N,3]
  s i64[2] = Shape(x) {end=9223372036854775807, start=0} #0 "s"
  d i64[1] = Gather(s, zero) {axis=0} #3 "d"
  a f32[2,2] = MatMul(w, wt) #5 "a"
  result c, d, a
}`)
}

func TestFoldLeavesErrors(t *testing.T) {
	text := `
graph "g" {
  const a f32[2](7, 8)
  const b i64[1](2)
  c f32[1] = Gather(a, b) {axis=0} #0 "c"
  result c
}`
	golden(t, fold, text, text)
}

func TestBranch(t *testing.T) {
	golden(t, branch, `
graph "g" {
  const c bool[](1)
  param x f32[3]
  y f32[?] = If(c) #0 "if"
    region (x) {
      a f32[3] = Relu(x) #1 "relu"
      result a
    }
    region (x) {
      b f32[3] = Neg(x) #2 "neg"
      result b
    }
  z f32[?] = Exp(y) #3 "exp"
  result z
}`, `
graph "g" {
  param x f32[3]
  a f32[3] = Relu(x) #1 "relu"
  y f32[3] = Identity(a) #4 "if"
  z f32[?] = Exp(y) #3 "exp"
  result z
}`)
}

func TestIdentity(t *testing.T) {
	golden(t, identity, `
graph "g" {
  const shape i64[2](-1, 3)
  param x f32[N,3]
  a f32[N,3] = Relu(x) #0 "a"
  b f32[N,3] = Reshape(a, shape) {allowzero=0} #1 "b"
  out f32[N,3] = Identity(b) #2 "out"
  same f32[N,3] = Identity(x) #3 "same"
  again f32[N,3] = Identity(b) #4 "again"
  result out, same, again
}`, `
graph "g" {
  param x f32[N,3]
  out f32[N,3] = Relu(x) #0 "a"
  same f32[N,3] = Identity(x) #3 "same"
  again f32[N,3] = Identity(out) #4 "again"
  result out, same, again
}`)
}

func TestCSE(t *testing.T) {
	golden(t, cse, `
graph "g" {
  const k1 f32[1](2)
  const k2 f32[1](2)
  const k3 f32[1](3)
  param x f32[N]
  param c bool[]
  a f32[N] = Mul(x, k1) #0 "a"
  b f32[N] = Mul(x, k2) #1 "b"
  d f32[N] = Mul(x, k3) #2 "d"
  e f32[N] = Add(a, b) #3 "e"
  f f32[N] = Add(e, d) #4 "f"
  g f32[N] = If(c) #5 "if"
    region (x, f) {
      h f32[N] = Mul(x, k3) #6 "h"
      i f32[N] = Add(h, f) #7 "i"
      result i
    }
    region (f) {
      j f32[N] = Neg(f) #8 "j"
      result j
    }
  result g
}`, `
graph "g" {
  const k1 f32[1](2)
  const k3 f32[1](3)
  param x f32[N]
  param c bool[]
  a f32[N] = Mul(x, k1) #0 "a"
  d f32[N] = Mul(x, k3) #2 "d"
  e f32[N] = Add(a, a) #3 "e"
  f f32[N] = Add(e, d) #4 "f"
  g f32[N] = If(c) #5 "if"
    region (d, f) {
      i f32[N] = Add(d, f) #7 "i"
      result i
    }
    region (f) {
      j f32[N] = Neg(f) #8 "j"
      result j
    }
  result g
}`)
}

func TestDCE(t *testing.T) {
	golden(t, dce, `
graph "g" {
  param x f32[N]
  param c bool[]
  a f32[N] = Exp(x) #0 "a"
  b f32[N] = Log(a) #1 "b"
  p f32[N], q f32[N] = If(c) #2 "if"
    region (x) {
      d f32[N] = Neg(x) #3 "d"
      e f32[N] = Abs(x) #4 "e"
      result d, e
    }
    region (x) {
      f f32[N] = Sqrt(x) #5 "f"
      result x, f
    }
  result q
}`, `
graph "g" {
  param x f32[N]
  param c bool[]
  q f32[N] = If(c) #2 "if"
    region (x) {
      e f32[N] = Abs(x) #4 "e"
      result e
    }
    region (x) {
      f f32[N] = Sqrt(x) #5 "f"
      result f
    }
  result q
}`)
}

// TestRealModels runs every pass on every real model: each step must leave a graph that Verify accepts, outputs must keep
// their names, and the result must not depend on map order.
func TestRealModels(t *testing.T) {
	dir := os.Getenv("WAYBILL_CORPORA")
	if dir == "" {
		t.Skip("WAYBILL_CORPORA is not set: the shared models are needed")
	}
	files, err := filepath.Glob(filepath.Join(dir, "models*", "*", "model.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models: %v", err)
	}
	for _, f := range files {
		name := filepath.Base(filepath.Dir(f))
		t.Run(name, func(t *testing.T) {
			read := func() *ir.Graph {
				g, err := onnx.Read(context.Background(), f)
				var u *frontend.UnsupportedError
				if errors.As(err, &u) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				return g
			}
			g := read()
			before, names := count(g), outputs(g)
			for round := 0; round < 3; round++ {
				for _, p := range Pipeline() {
					if _, err := p.Run(context.Background(), g); err != nil {
						t.Fatalf("%s: %v", p.Name, err)
					}
					if err := ir.Verify(g); err != nil {
						t.Fatalf("after %s: %v", p.Name, err)
					}
					if got := outputs(g); got != names {
						t.Fatalf("after %s the outputs are %s, were %s", p.Name, got, names)
					}
				}
			}
			a, b := read(), read()
			if err := errors.Join(Run(context.Background(), a), Run(context.Background(), b)); err != nil {
				t.Fatal(err)
			}
			if ir.Print(a) != ir.Print(b) {
				t.Error("two runs differ")
			}
			t.Logf("%d nodes, %d after", before, count(a))
		})
	}
}

func count(g *ir.Graph) int {
	n := 0
	_ = ir.Walk(g.Body, func(*ir.Region, *ir.Node) error { n++; return nil })
	return n
}

func outputs(g *ir.Graph) string {
	var s []string
	for _, v := range g.Body.Results {
		s = append(s, v.Name)
	}
	return strings.Join(s, " ")
}
