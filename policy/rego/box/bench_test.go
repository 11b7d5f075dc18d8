package box_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// What the gate pays for the whole default policy over its passing document, with the middle and the 99th hundredth of the
// runs: in a process of its own, started, compiled and evaluated; the same here; its parts.
func BenchmarkGate(b *testing.B) {
	pol, err := library.Default()
	if err != nil {
		b.Fatal(err)
	}
	doc := base(b, pol)
	ctx := context.Background()
	p, err := rego.Compile(ctx, pol)
	if err != nil {
		b.Fatal(err)
	}
	x := box.New(self(b), pol, box.Limits{})
	idle := box.New(self(b), policy(b, "pass := true\nfail := set()"), box.Limits{})
	must := func(allow bool) {
		if !allow {
			b.Fatal("denied")
		}
	}
	for _, c := range []struct {
		name string
		run  func()
	}{
		{"box", func() { must(x.Evaluate(ctx, doc).Allow) }},
		{"in-process", func() {
			p, err := rego.Compile(ctx, pol)
			if err != nil {
				b.Fatal(err)
			}
			must(p.Evaluate(ctx, doc).Allow)
		}},
		{"start", func() {
			if _, err := idle.Describe(ctx); err != nil {
				b.Fatal(err)
			}
		}},
		{"compile", func() {
			if _, err := rego.Compile(ctx, pol); err != nil {
				b.Fatal(err)
			}
		}},
		{"evaluate", func() { must(p.Evaluate(ctx, doc).Allow) }},
	} {
		b.Run(c.name, func(b *testing.B) {
			var took []time.Duration
			for b.Loop() {
				s := time.Now()
				c.run()
				took = append(took, time.Since(s))
			}
			slices.Sort(took)
			at := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))].Microseconds()) / 1000 }
			b.ReportMetric(at(0.5), "p50-ms")
			b.ReportMetric(at(0.99), "p99-ms")
		})
	}
}
