package codegen_test

import (
	"context"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/pass"
)

// BenchmarkCompile measures, for every real model, the way from the file to the module and wazero's way from the module to
// native code, on one thread: go test -bench 'Compile$' -benchtime 3x.
func BenchmarkCompile(b *testing.B) {
	files, _ := filepath.Glob(filepath.Join(corpora(b), "models*", "*", "model.onnx"))
	for _, file := range files {
		b.Run(filepath.Base(filepath.Dir(file)), func(b *testing.B) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			ctx := context.Background()
			ours, theirs := time.Hour, time.Hour
			nodes, bytes := 0, 0
			for b.Loop() {
				start := threadTime()
				g, err := onnx.Read(ctx, file)
				if err != nil {
					b.Skip(err)
				}
				read := len(g.Body.Nodes)
				if err := pass.Run(ctx, g); err != nil {
					b.Fatal(err)
				}
				res, err := codegen.Compile(g, codegen.Options{})
				if err != nil {
					b.Skip(err)
				}
				ours = min(ours, threadTime()-start)
				nodes, bytes = read, len(res.Module)
				rt := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig())
				start = threadTime()
				if _, err := rt.CompileModule(ctx, res.Module); err != nil {
					b.Fatal(err)
				}
				theirs = min(theirs, threadTime()-start)
				_ = rt.Close(ctx)
			}
			b.ReportMetric(float64(ours.Microseconds())/1000, "ms-ours")
			b.ReportMetric(float64(theirs.Microseconds())/1000, "ms-wazero")
			b.ReportMetric(float64(bytes), "module-bytes")
			b.ReportMetric(float64(nodes), "ir-nodes")
			b.ReportMetric(0, "ns/op")
		})
	}
}
