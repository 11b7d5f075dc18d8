package engine

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/packager/build"
)

// BenchmarkMeter compares calls with and without the meter, in turns, best of all: what a bound on model code costs.
func BenchmarkMeter(b *testing.B) {
	type source struct {
		name string
		data []byte
	}
	var sources []source
	for _, v := range []string{"v1", "v2"} {
		raw, err := examples.BreastCancer.ReadFile("breast-cancer/" + v + "/model.onnx")
		if err != nil {
			b.Fatal(err)
		}
		sources = append(sources, source{"breast-cancer-" + v, raw})
	}
	if root := os.Getenv("WAYBILL_CORPORA"); root != "" {
		for _, name := range []string{"mnist_8", "wine_knn", "bc_isolationforest", "silero_vad_v6_fw", "blazeface_front", "text_tfidf_logreg", "ultraface_rfb_320", "squeezenet_fp32_cast", "magika_v3_3", "basic_pitch"} {
			raw, err := os.ReadFile(filepath.Join(root, "models", name, "model.onnx"))
			if err != nil {
				b.Log(err)
				continue
			}
			sources = append(sources, source{name, raw})
		}
	}
	for _, s := range sources {
		b.Run(s.name, func(b *testing.B) {
			m, err := build.Compile(b.Context(), build.Source{Path: "model.onnx", Data: s.data}, build.Options{Name: "m", Version: "1"})
			if err != nil {
				b.Skip(err)
			}
			var ins []Tensor
			for _, p := range m.Interface.Inputs {
				var shape []int64
				n := int64(1)
				for _, d := range p.Shape {
					size := max(d.Size, 1)
					shape, n = append(shape, size), n*size
				}
				d, ok := abi.ParseDType(p.DType)
				if !ok || p.Kind != "tensor" {
					b.Skip("an input that is no tensor")
				}
				if d == abi.String {
					ins = append(ins, OfStrings(make([]string, n), shape...))
					continue
				}
				ins = append(ins, Tensor{DType: d, Shape: shape, Data: make([]byte, (int(n)*d.Bits()+7)/8)})
			}
			var models [2]*Model
			for i := range models {
				e, err := New(b.Context(), Config{Threads: 1, Instances: 1})
				if err != nil {
					b.Fatal(err)
				}
				defer func() { _ = e.Close(b.Context()) }()
				e.bare = i == 0
				if models[i], err = e.Load(b.Context(), m.Code, WeightsSource{Bytes: m.Weights}, m.Interface); err != nil {
					b.Fatal(err)
				}
			}
			var best [2]time.Duration
			for b.Loop() {
				for i, m := range models {
					const reps = 20
					start := time.Now()
					n := 0
					for ; n < 2000 && (n < reps || time.Since(start) < 20*time.Millisecond); n++ {
						if _, err := m.Run(b.Context(), ins); err != nil {
							b.Fatal(err)
						}
					}
					if d := time.Since(start) / time.Duration(n); best[i] == 0 || d < best[i] {
						best[i] = d
					}
				}
			}
			b.ReportMetric(float64(best[0])/1000, "us-bare")
			b.ReportMetric(float64(best[1])/1000, "us-metered")
			b.ReportMetric(float64(best[1])/float64(best[0]), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}
