package engine

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	wBase = 2 << 16
	wSize = 3 << 16
)

// adder is y = x + w[0] + w[last], with the weights behind two pages of the module's own; then it overwrites w[0] in
// its own memory, so that an instance that shared pages with another, or with the file, would show.
func adder() mod {
	w := func(at int64) []byte { return cat(con(at), loadF(0)) }
	resume := cat(
		get(0), load(abi.CtxArenaBase),
		in(), load(abi.DescData), loadF(0), w(wBase), addF, w(wBase+wSize-4), addF, storeF(0),
		con(wBase), con(0), store(0),
		putOut(cat(get(0), load(abi.CtxArenaBase)), con(4)), con(0))
	return mod{fns: frame(wBase+wSize, con(0), resume, con(0)), min: 2}
}

func weightsImageBytes() []byte {
	b := make([]byte, wSize)
	for i := 0; i < wSize; i += 4 {
		le.PutUint32(b[i:], math.Float32bits(float32(i%977)))
	}
	le.PutUint32(b, math.Float32bits(100))
	le.PutUint32(b[wSize-4:], math.Float32bits(0.5))
	return b
}

func weightedIface(code, w []byte) *artifact.Interface {
	i := vectorIface(code)
	i.Memory.Heap = wBase + wSize
	i.Weights = &artifact.Weights{FileRef: artifact.FileRef{Path: "weights.bin", Digest: artifact.DigestOf(w), Size: int64(len(w))},
		Base: wBase, ChunkSize: 100000}
	for at := 0; at < len(w); at += 100000 {
		i.Weights.Chunks = append(i.Weights.Chunks, artifact.DigestOf(w[at:min(at+100000, len(w))]))
	}
	return i
}

func TestWeights(t *testing.T) {
	code, w := adder().bytes(), weightsImageBytes()
	path := filepath.Join(t.TempDir(), "weights.bin")
	if err := os.WriteFile(path, w, 0o400); err != nil {
		t.Fatal(err)
	}
	for name, src := range map[string]WeightsSource{
		"mapped": {Path: path}, "copied": {Path: path, Copy: true}, "bytes": {Bytes: w}, "trusted": {Path: path, Trusted: true},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, mode Mode) {
				e := newEngine(t, Config{Mode: mode, Instances: 2})
				m, err := e.Load(t.Context(), code, src, weightedIface(code, w))
				if err != nil {
					t.Fatal(err)
				}
				g := m.chain[0].guest
				a, err := g.acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				b, err := g.acquire(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				for _, inst := range []*instance{a, b} { // each has its own copy on write
					c := call{g: g, inst: inst}
					outs, err := c.do(t.Context(), []Tensor{Of([]float32{1})})
					if err != nil {
						t.Fatal(err)
					}
					if y, _ := Values[float32](outs[0]); y[0] != 101.5 {
						t.Errorf("y=%v, want 101.5", y[0])
					}
				}
				g.release(a, true)
				g.release(b, true)
			})
		})
	}
	after, err := os.ReadFile(path)
	if err != nil || string(after) != string(w) {
		t.Errorf("the weights file was written to (%v)", err)
	}
}

func TestWeightsRefused(t *testing.T) {
	code, w := adder().bytes(), weightsImageBytes()
	dir := t.TempDir()
	file := func(b []byte) WeightsSource {
		f, err := os.CreateTemp(dir, "w")
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(b)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		return WeightsSource{Path: f.Name()}
	}
	flipped := append([]byte(nil), w...)
	flipped[150000] ^= 1
	for _, c := range []struct {
		name string
		src  WeightsSource
		edit func(w *artifact.Weights)
		want string
	}{
		{"flipped bit", file(flipped), nil, "bytes 100000 to 196608"},
		{"flipped bit in bytes", WeightsSource{Bytes: flipped}, nil, "does not match its digest"},
		{"truncated", file(w[:len(w)-1]), nil, "have 196607 bytes"},
		{"missing", WeightsSource{Path: filepath.Join(dir, "none")}, nil, "open the weights"},
		{"directory", WeightsSource{Path: dir}, nil, "weights"},
		{"unaligned base", file(w), func(x *artifact.Weights) { x.Base = 4096 }, "multiples of 65536"},
		{"beyond 4 GiB", file(w), func(x *artifact.Weights) { x.Base = 0xFFFF0000 }, "4 GiB"},
		{"few chunks", file(w), func(x *artifact.Weights) { x.Chunks = x.Chunks[:1] }, "chunk digests"},
		{"under the heap", file(w), func(x *artifact.Weights) { x.Base += 65536 }, "inside the weights"},
		{"chunk size", file(w), func(x *artifact.Weights) { x.ChunkSize = 0 }, "chunk digests"},
		{"whole digest", file(flipped), func(x *artifact.Weights) { x.Chunks = nil }, "does not match its digest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ifc := weightedIface(code, w)
			if c.edit != nil {
				c.edit(ifc.Weights)
			}
			_, err := newEngine(t, Config{}).Load(t.Context(), code, c.src, ifc)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
	// The module's own word about the address must agree too.
	own := adder()
	own.fns = append(own.fns, fn{abi.ExportWeights, 0, 1, 0, con(wBase + 65536)})
	if _, err := newEngine(t, Config{}).Load(t.Context(), own.bytes(), file(w), weightedIface(own.bytes(), w)); err == nil ||
		!strings.Contains(err.Error(), "wants its weights at") {
		t.Errorf("error %v", err)
	}
	ifc := vectorIface(own.bytes())
	ifc.Memory.Heap = wBase + wSize
	if _, err := newEngine(t, Config{}).Load(t.Context(), own.bytes(), WeightsSource{}, ifc); err == nil || !strings.Contains(err.Error(), "names none") {
		t.Errorf("error %v", err)
	}
	// What the check is for: without it the flipped image is served.
	src := file(flipped)
	src.Trusted = true
	if _, err := newEngine(t, Config{}).Load(t.Context(), code, src, weightedIface(code, w)); err != nil {
		t.Errorf("the check could not be switched off: %v", err)
	}
	if _, err := newEngine(t, Config{}).Load(t.Context(), code, file(w), vectorIface(code)); err == nil {
		t.Error("weights that the interface does not name were accepted")
	}
}

// The base of a growing memory must not move where the system can reserve address space.
func TestReservedMemoryGrowsInPlace(t *testing.T) {
	lm, err := newMemory(64<<20, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lm.Free()
	if _, plain := lm.(*plainMemory); plain {
		t.Skip("this system has no reservation")
	}
	a := lm.Reallocate(1 << 16)
	a[0] = 7
	b := lm.Reallocate(32 << 20)
	if &a[0] != &b[0] || b[0] != 7 || len(b) != 32<<20 {
		t.Error("the memory moved")
	}
	b[len(b)-1] = 1
	if lm.Reallocate(65<<20) != nil {
		t.Error("it grew beyond its reservation")
	}
}
