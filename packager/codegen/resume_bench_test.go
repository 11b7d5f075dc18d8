package codegen_test

import (
	"context"
	"path/filepath"
	"runtime"
	"sort"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/pass"
)

// turn is one resume: the least time that it took in several runs, and the node that was at work when it returned.
type turn struct {
	took time.Duration
	node string
}

// turns runs a context that run has laid out again. The same inputs give the same resumes, so the least time of each in many runs
// is its work; what is above comes from the machine. best are those of earlier runs.
func (m *machine) turns(best []turn) []turn {
	m.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx := context.Background()
	bind, resume := m.mod.ExportedFunction(abi.ExportBind), m.mod.ExportedFunction(abi.ExportResume)
	at := uint64(m.call(abi.ExportHeap))
	if _, err := bind.Call(ctx, at); err != nil {
		m.t.Fatal(err)
	}
	for i := 0; ; i++ {
		start := threadTime()
		st, err := resume.Call(ctx, at)
		took := threadTime() - start
		if err != nil {
			m.t.Fatal(err)
		}
		if i == len(best) {
			n, _ := m.mod.Memory().ReadUint32Le(uint32(at) + abi.CtxErrNode)
			best = append(best, turn{took, m.res.Nodes[n]})
		}
		best[i].took = min(best[i].took, took)
		if st[0] != uint64(abi.More) {
			return best
		}
	}
}

// reportTurns measures resumes and reports the longest one.
func reportTurns(b *testing.B, g *ir.Graph, ins ...*ir.Data) {
	b.Helper()
	m := compile(b, g, codegen.Options{})
	if _, err := m.run(ins...); err != nil {
		b.Fatal(err)
	}
	var best []turn
	for b.Loop() {
		best = m.turns(best)
	}
	var total time.Duration
	for _, t := range best {
		total += t.took
	}
	sort.SliceStable(best, func(i, j int) bool { return best[i].took > best[j].took })
	b.ReportMetric(float64(best[0].took.Microseconds())/1000, "ms-longest")
	b.ReportMetric(float64(total.Microseconds())/1000, "ms-all")
	b.ReportMetric(float64(len(best)), "resumes")
	b.ReportMetric(0, "ns/op")
	for _, t := range best[:min(3, len(best))] {
		b.Logf("%v in %s", t.took.Round(time.Microsecond), t.node)
	}
}

// BenchmarkResumeModels measures the resumes of every real model: go test -bench ResumeModels -benchtime 5x -v.
func BenchmarkResumeModels(b *testing.B) {
	files, _ := filepath.Glob(filepath.Join(corpora(b), "models*", "*", "model.onnx"))
	for _, file := range files {
		dir := filepath.Dir(file)
		b.Run(filepath.Base(dir), func(b *testing.B) {
			g, err := onnx.Read(context.Background(), file)
			if err == nil {
				err = pass.Run(context.Background(), g)
			}
			if err != nil {
				b.Skip(err)
			}
			sets, _ := filepath.Glob(filepath.Join(dir, "test_data_set_*"))
			ins, _ := readSet(b, g, sets[0])
			reportTurns(b, g, ins...)
		})
	}
}
