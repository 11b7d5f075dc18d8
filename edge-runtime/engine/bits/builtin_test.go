package bits

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/steps"
)

// builtinJob puts a built-in step of one input in front of a model that negates what it gives.
func builtinJob(t *testing.T, code []byte, err error, dtype string, rank int, inputs ...engine.Tensor) Job {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "step.wasm")
	if err := os.WriteFile(file, code, 0o600); err != nil {
		t.Fatal(err)
	}
	shape := ir.Shape{Ranked: true}
	for i := range rank {
		shape.Dims = append(shape.Dims, ir.Dim{Sym: string(rune('A' + i))})
	}
	x := &ir.Value{Name: "x", Type: ir.Type{DType: ir.F32, Shape: shape}}
	y := &ir.Value{Name: "y", Type: x.Type}
	j := compiled(t, &ir.Graph{Name: "step", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Neg", Name: "negate", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}})
	in := artifact.Port{Name: "in", Kind: "tensor", DType: dtype, Ranked: true, Shape: []artifact.Dim{{Size: -1}}}
	j.Interface.Steps = append([]artifact.Step{{Kind: "step", Name: "step", Reentrant: true,
		File:   artifact.FileRef{Path: "steps/step.wasm", Digest: artifact.DigestOf(code), Size: int64(len(code))},
		Inputs: []artifact.Port{in}, Outputs: []artifact.Port{j.Interface.Inputs[0]}}}, j.Interface.Steps...)
	j.Interface.Inputs = []artifact.Port{in}
	j.Steps = map[string]string{"steps/step.wasm": file}
	for _, v := range inputs {
		j.Calls = append(j.Calls, []artifact.GoldenTensor{probe.ToGolden("in", v)})
	}
	return j
}

// audioJob runs resampling, a transform by convolution, mel filters, logarithms and a cosine transform.
func audioJob(t *testing.T) Job {
	t.Helper()
	code, err := steps.Audio(steps.AudioConfig{Rate: 16000, SourceRate: 44100, Output: "mfcc", Frame: 394, Hop: 160, Window: "povey", Mels: 40, Coefs: 13, Log: "db", Range: 60,
		Normalize: "feature", Epsilon: 1e-6, Lifter: 22})
	var inputs []engine.Tensor
	for _, n := range []int{900, 5000} {
		v := make([]int16, n)
		for i := range v {
			v[i] = int16(uint32(i) * uint32(i) * 2654435761 >> 18)
		}
		inputs = append(inputs, engine.Of(v))
	}
	return builtinJob(t, code, err, "i16", 3, inputs...)
}

func imageJob(t *testing.T) Job {
	t.Helper()
	code, err := steps.Image(steps.ImageConfig{Width: 31, Height: 57, Mean: [3]float64{123.675, 116.28, 103.53}, Std: [3]float64{58.395, 57.12, 57.375}, Turn: true})
	var inputs []engine.Tensor
	for _, n := range []string{"progressive420.jpg", "baseline422.png", "exif6.jpg"} {
		b, err := os.ReadFile(filepath.Join("../../../packager/steps/testdata/jpeg", n))
		if err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, engine.Of(b))
	}
	return builtinJob(t, code, err, "u8", 4, inputs...)
}
