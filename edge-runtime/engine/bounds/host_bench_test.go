package bounds_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// big is a model that works for seconds, or moves hundreds of megabytes between host and guest.
type big struct {
	name string
	m    *engine.Model
	ins  []engine.Tensor
}

func bigModels(b *testing.B) []big {
	b.Helper()
	bl := ir.NewBuilder()
	x := bl.Param("x", ir.TensorOf(ir.F32, ir.ShapeOf(ir.Unknown())))
	g, err := bl.Graph("copy", bl.Op("y", "Neg", nil, x))
	if err != nil {
		b.Fatal(err)
	}
	all := []big{{"copy of 200 MB", load(b, g, engine.Config{}, nil), []engine.Tensor{engine.Of(make([]float32, 50<<20))}}}
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		b.Log("WAYBILL_CORPORA is not set: without the largest real models")
		return all
	}
	for _, name := range []string{"light_resnet50", "light_densenet121", "magika_v3_3"} {
		g, err := onnx.Read(b.Context(), filepath.Join(root, "models", name, "model.onnx"))
		if err == nil {
			err = pass.Run(b.Context(), g)
		}
		if err != nil {
			b.Fatal(err)
		}
		var ins []engine.Tensor
		for _, p := range g.Body.Params {
			var shape []int64
			n := int64(1)
			for _, d := range p.Type.Shape.Dims {
				size := max(d.N, 1)
				shape, n = append(shape, size), n*size
			}
			if p.Type.DType != ir.F32 {
				ins = append(ins, engine.Of(make([]int32, n), shape...))
				continue
			}
			ins = append(ins, engine.Of(make([]float32, n), shape...))
		}
		all = append(all, big{name, load(b, g, engine.Config{}, nil), ins})
	}
	return all
}

// BenchmarkHost measures what the rest of a process notices of its largest calls: how late the ticks of a millisecond come, and how long a
// cancellation and a deadline take to act. It reports the best of all runs, which is what the runtime is responsible for, and
// the worst, which includes what the machine did meanwhile: go test -bench Host -benchtime 10x ./edge-runtime/engine/bounds.
func BenchmarkHost(b *testing.B) {
	b.Run("nothing but the machine", func(b *testing.B) {
		// The same without a model: work that yields every half millisecond. Compare the figures below with these.
		var worst []time.Duration
		for b.Loop() {
			worst = append(worst, lateTicks(b, func() error {
				for begin := time.Now(); time.Since(begin) < 2*time.Second; runtime.Gosched() {
					for piece := time.Now(); time.Since(piece) < 500*time.Microsecond; {
					}
				}
				return nil
			}))
		}
		b.ReportMetric(float64(slices.Min(worst).Microseconds())/1000, "ms-late-best")
		b.ReportMetric(float64(slices.Max(worst).Microseconds())/1000, "ms-late-worst")
		b.ReportMetric(0, "ns/op")
	})
	for _, c := range bigModels(b) {
		b.Run(c.name, func(b *testing.B) {
			ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
			var worst, cancels, deadlines []time.Duration
			for b.Loop() {
				worst = append(worst, lateTicks(b, func() error {
					_, err := c.m.Run(b.Context(), c.ins)
					return err
				}))
				ctx, cancel := context.WithCancel(b.Context())
				var at time.Time
				timer := time.AfterFunc(20*time.Millisecond, func() { at = time.Now(); cancel() })
				if _, err := c.m.Run(ctx, c.ins); errors.Is(err, context.Canceled) {
					cancels = append(cancels, time.Since(at))
				}
				timer.Stop()
				cancel()
				until := time.Now().Add(20 * time.Millisecond)
				ctx, cancel = context.WithDeadline(b.Context(), until)
				if _, err := c.m.Run(ctx, c.ins); errors.Is(err, context.DeadlineExceeded) {
					deadlines = append(deadlines, time.Since(until))
				}
				cancel()
			}
			for unit, l := range map[string][]time.Duration{"late": worst, "cancel": cancels, "deadline": deadlines} {
				if len(l) > 0 {
					b.ReportMetric(ms(slices.Min(l)), "ms-"+unit+"-best")
					b.ReportMetric(ms(slices.Max(l)), "ms-"+unit+"-worst")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// lateTicks runs work and returns how late the latest tick of a ticker of a millisecond was meanwhile.
func lateTicks(b *testing.B, work func() error) time.Duration {
	stop, late := make(chan struct{}), make(chan time.Duration)
	ready := make(chan struct{})
	go func() {
		t := time.NewTicker(time.Millisecond)
		defer t.Stop()
		close(ready)
		worst, last := time.Duration(0), time.Now()
		for {
			select {
			case <-stop:
				late <- worst
				return
			case <-t.C:
				now := time.Now()
				worst = max(worst, now.Sub(last)-time.Millisecond)
				last = now
			}
		}
	}()
	<-ready
	if err := work(); err != nil {
		b.Fatal(err)
	}
	close(stop)
	return <-late
}
