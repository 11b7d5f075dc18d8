package bits

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/steps"
)

// builtinJob puts a built-in step of one input in front of a model that negates what it gives, f32.
func builtinJob(t *testing.T, code []byte, err error, dtype string, rank int, inputs ...engine.Tensor) Job {
	t.Helper()
	return chainJob(t, code, err, dtype, ir.F32, rank, nil, inputs...)
}

// chainJob is a job whose step gives the model's input, of a type, and more outputs of the same shape.
func chainJob(t *testing.T, code []byte, err error, dtype string, out ir.DType, rank int, more []string, inputs ...engine.Tensor) Job {
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
	x := &ir.Value{Name: "x", Type: ir.Type{DType: out, Shape: shape}}
	y := &ir.Value{Name: "y", Type: x.Type}
	j := compiled(t, &ir.Graph{Name: "step", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Neg", Name: "negate", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}})
	in := artifact.Port{Name: "in", Kind: "tensor", DType: dtype, Ranked: true, Shape: []artifact.Dim{{Size: -1}}}
	j.Interface.Steps = append([]artifact.Step{{Kind: "step", Name: "step", Reentrant: true,
		File:   artifact.FileRef{Path: "steps/step.wasm", Digest: artifact.DigestOf(code), Size: int64(len(code))},
		Inputs: []artifact.Port{in}, Outputs: []artifact.Port{j.Interface.Inputs[0]}}}, j.Interface.Steps...)
	j.Interface.Inputs = []artifact.Port{in}
	for _, n := range more {
		p := j.Interface.Steps[0].Outputs[0]
		p.Name = n
		j.Interface.Steps[0].Outputs = append(j.Interface.Steps[0].Outputs, p)
		j.Interface.Outputs = append(j.Interface.Outputs, p)
	}
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

// textJob runs normal forms, which take Hangul apart and put it together again, a pattern, BPE and padding to a multiple.
func textJob(t *testing.T) Job {
	t.Helper()
	b, err := os.ReadFile("../../../packager/steps/testdata/tokenizers/gpt2.json")
	if err != nil {
		t.Fatal(err)
	}
	var fixture struct {
		Tokenizer map[string]any
		Cases     []struct{ Texts []string }
	}
	if err := json.Unmarshal(b, &fixture); err != nil {
		t.Fatal(err)
	}
	k := fixture.Tokenizer
	k["normalizer"] = map[string]any{"type": "Sequence", "normalizers": []any{map[string]any{"type": "NFKD"}, map[string]any{"type": "Lowercase"}, map[string]any{"type": "NFC"}}}
	k["padding"] = map[string]any{"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": 7, "pad_id": 1, "pad_type_id": 1, "pad_token": "!"}
	file, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	code, err := steps.Text(file)
	hard := []string{"", " ", "\n\n\t x", "The lowest newest WORD's, they'll", "\uc548\ub155\ud558\uc138\uc694 \u1100\u1161\u11a8", "a\u0301\u0323\u0315 \u212b \ufb03 \ufdfa \u1e9b\u0323",
		"\U0001f468\u200d\U0001f469\u200d\U0001f467 \U0001f1e8\U0001f1ed", "x\x00y\u200b\ufeff\U0010fffd", "<|endoftext|>12345 \u0664\u0665 \u00bd", strings.Repeat("\u0130stanbul \u01c5 ", 40)}
	inputs := []engine.Tensor{engine.OfStrings(hard), engine.OfStrings([]string{"one row"})}
	for _, c := range fixture.Cases {
		inputs = append(inputs, engine.OfStrings(c.Texts))
	}
	return chainJob(t, code, err, "string", ir.I64, 2, []string{"mask", "types"}, inputs...)
}
