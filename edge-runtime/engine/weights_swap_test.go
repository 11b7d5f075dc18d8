package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// The weights are exchanged behind their name after they were hashed and before an instance maps them: what was hashed is what is
// mapped, since the name is looked at once. A loader that opened it again would run the other file.
func TestWeightsExchangedBeforeUse(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("an open file cannot be replaced here")
	}
	code, w := adder().bytes(), weightsImageBytes()
	evil := append([]byte{}, w...)
	le.PutUint32(evil, 0) // 0 instead of 100
	modes(t, func(t *testing.T, mode Mode) {
		for _, open := range []bool{false, true} {
			dir := t.TempDir()
			path, other := filepath.Join(dir, "weights.bin"), filepath.Join(dir, "other")
			for p, b := range map[string][]byte{path: w, other: evil} {
				if err := os.WriteFile(p, b, 0o400); err != nil {
					t.Fatal(err)
				}
			}
			e := newEngine(t, Config{Mode: mode, Instances: 2})
			m, err := e.Load(t.Context(), code, WeightsSource{Path: path}, weightedIface(code, w))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other, path); err != nil {
				t.Fatal(err)
			}
			g := m.chain[0].guest
			if open {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				_ = g.weights.file.Close()
				g.weights.file = f
			}
			first, err := g.acquire(t.Context()) // of before the exchange, perhaps
			if err != nil {
				t.Fatal(err)
			}
			inst, err := g.acquire(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c := call{g: g, inst: inst}
			outs, err := c.do(t.Context(), []Tensor{Of([]float32{1})})
			if err != nil {
				t.Fatal(err)
			}
			g.release(first, true)
			g.release(inst, true)
			want := float32(101.5)
			if open {
				want = 1.5
			}
			if y, _ := Values[float32](outs[0]); y[0] != want {
				t.Errorf("a second look at the name %v: y=%v, want %v", open, y[0], want)
			}
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	})
}
