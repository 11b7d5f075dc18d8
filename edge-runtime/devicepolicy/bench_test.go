package devicepolicy

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/deviceinput/deviceinputtest"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/device"
)

func example(b testing.TB) []byte {
	b.Helper()
	p, err := bundle.FromFS(os.DirFS("../../examples/device-policy"))
	if err != nil {
		b.Fatal(err)
	}
	m, err := device.Compile(context.Background(), p)
	if err != nil {
		b.Fatal(err)
	}
	return m.Code
}

// One decision of the example policy: readings checked, fresh instance, allow; with reasons when it is a no.
func BenchmarkEvaluate(b *testing.B) {
	code := example(b)
	yes, no := deviceinputtest.Good(), deviceinputtest.Good()
	yes.Action = deviceinput.Download
	no.Device.Battery.Percent = new(int64(12))
	for _, mode := range []engine.Mode{engine.Compiler, engine.Interpreter} {
		for _, c := range []struct {
			name string
			doc  []byte
		}{{"yes", encode(b, yes)}, {"no", encode(b, no)}} {
			b.Run(mode.String()+"/"+c.name, func(b *testing.B) {
				e, err := engine.New(context.Background(), engine.Config{Mode: mode})
				if err != nil {
					b.Skip(err)
				}
				p, err := Load(context.Background(), e, code, WithTimeout(time.Minute))
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close(context.Background())
				var took []time.Duration
				for b.Loop() {
					start := time.Now()
					if d := p.Evaluate(context.Background(), c.doc); d.Err != nil || d.Allow != (c.name == "yes") {
						b.Fatalf("%+v", d)
					}
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
			})
		}
	}
}

// Loading: the one-time compilation, and what the compile cache makes of it.
func BenchmarkLoad(b *testing.B) {
	code := example(b)
	for _, c := range []struct {
		name  string
		mode  engine.Mode
		cache bool
	}{{"compiler", engine.Compiler, false}, {"cached", engine.Compiler, true}, {"interpreter", engine.Interpreter, false}} {
		b.Run(c.name, func(b *testing.B) {
			cfg := engine.Config{Mode: c.mode}
			if c.cache {
				cfg.CacheDir, cfg.CacheSecret = filepath.Join(b.TempDir(), "cache"), make([]byte, 32)
			}
			e, err := engine.New(context.Background(), cfg)
			if err != nil {
				b.Skip(err)
			}
			for b.Loop() {
				p, err := Load(context.Background(), e, code, WithTimeout(time.Minute))
				if err != nil {
					b.Fatal(err)
				}
				_ = p.Close(context.Background())
			}
		})
	}
}

// A second start takes the native code from the cache, and an entry that was altered is not believed.
func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var lines []string
	e := newEngine(t, engine.Config{CacheDir: dir, CacheSecret: make([]byte, 32), Log: func(_, l string) { lines = append(lines, l) }})
	if e.Mode() != engine.Compiler {
		t.Skip("no compiler on this machine")
	}
	code := build(t, batteryPolicy)
	in := encode(t, deviceinputtest.Good())
	entries := func() []string {
		fs, err := filepath.Glob(filepath.Join(dir, "*", "*", "*"))
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	for i := range 3 {
		p := load(t, e, code)
		for range 3 {
			if d := p.Evaluate(t.Context(), in); !d.Allow {
				t.Fatalf("%+v", d)
			}
		}
		if got := len(entries()); got != 2 { // the policy and env
			t.Fatalf("start %d: %d entries, %v", i, got, entries())
		}
	}
	if len(lines) != 0 {
		t.Errorf("the cache was not used: %q", lines)
	}
	raw, err := os.ReadFile(entries()[0])
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.WriteFile(entries()[0], raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if d := load(t, e, code).Evaluate(t.Context(), in); !d.Allow || len(lines) == 0 {
		t.Errorf("%+v %q", d, lines)
	}
}
