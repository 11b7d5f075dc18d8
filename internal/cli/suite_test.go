package cli

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// tensorProto writes an ONNX test vector.
func tensorProto(dtype uint64, dims []int64, raw []byte) []byte {
	var b []byte
	for _, d := range dims {
		b = protowire.AppendTag(b, 1, protowire.VarintType)
		b = protowire.AppendVarint(b, uint64(d))
	}
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	b = protowire.AppendVarint(b, dtype)
	b = protowire.AppendTag(b, 9, protowire.BytesType)
	return protowire.AppendBytes(b, raw)
}

// The JSON of waybill test is a contract: counts, one entry per case, and the exit code that follows from them.
func TestSuite(t *testing.T) {
	example := filepath.Join("..", "..", "examples", "breast-cancer", "v1")
	model, err := os.ReadFile(filepath.Join(example, "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	var golden struct {
		Vectors []struct {
			Inputs, Reference []struct {
				Shape []int64
				Data  []float64
			}
		}
	}
	b, err := os.ReadFile(filepath.Join(example, "golden.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &golden); err != nil {
		t.Fatal(err)
	}
	v := golden.Vectors[0]
	f32 := func(data []float64) (raw []byte) {
		for _, x := range data {
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(float32(x)))
		}
		return raw
	}
	var labels []byte
	for _, x := range v.Reference[0].Data {
		labels = binary.LittleEndian.AppendUint64(labels, uint64(int64(x)))
	}
	suite := t.TempDir()
	add := func(name string, model []byte, files map[string][]byte) {
		t.Helper()
		dir := filepath.Join(suite, name, "test_data_set_0")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		files["../model.onnx"] = model
		for n, b := range files {
			if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	x := tensorProto(1, v.Inputs[0].Shape, f32(v.Inputs[0].Data))
	label, prob := tensorProto(7, v.Reference[0].Shape, labels), tensorProto(1, v.Reference[1].Shape, f32(v.Reference[1].Data))
	far := append([]float64{}, v.Reference[1].Data...)
	far[3] += 0.01
	run := func(args ...string) (testJSON, int, string) {
		t.Helper()
		e, out, errb := testEnv(t, nil)
		code := Run(t.Context(), e, append([]string{"test", "--output", "json"}, args...))
		var v testJSON
		if out.Len() > 0 {
			if err := json.Unmarshal(out.Bytes(), &v); err != nil {
				t.Fatalf("%v in %s", err, out)
			}
		}
		return v, code, errb.String()
	}

	add("a_good", model, map[string][]byte{"input_0.pb": x, "output_0.pb": label, "output_1.pb": prob})
	if got, code, errs := run("--suite", suite); code != 0 || got.Passed != 1 || got.Failed != 0 || got.Cases[0] != (testCase{"a_good", "passed", ""}) {
		t.Errorf("good: code %d %+v %s", code, got, errs)
	}
	add("b_other_format", []byte("GGUF\x03\x00\x00\x00"), map[string][]byte{})
	if got, code, _ := run("--suite", suite); code != 5 || got.Passed != 1 || got.Unsupported != 1 || got.Cases[1].Status != "unsupported" {
		t.Errorf("unsupported: code %d %+v", code, got)
	}
	add("c_wrong", model, map[string][]byte{"input_0.pb": x, "output_0.pb": label, "output_1.pb": tensorProto(1, v.Reference[1].Shape, f32(far))})
	got, code, _ := run("--suite", suite)
	if code != 1 || got.Passed != 1 || got.Failed != 1 || got.Unsupported != 1 || !strings.Contains(got.Cases[2].Detail, "element 3") {
		t.Errorf("wrong: code %d %+v", code, got)
	}
	if got, code, _ := run("--suite", suite, "--atol", "0.1"); code != 5 || got.Passed != 2 {
		t.Errorf("looser: code %d %+v", code, got)
	}
	if got, code, errs := run(filepath.Join(suite, "c_wrong", "model.onnx"), "--data", filepath.Join(suite, "a_good")); code != 0 || got.Passed != 1 {
		t.Errorf("one model: code %d %+v %s", code, got, errs)
	}
	for want, args := range map[int][]string{
		2: {"--suite", suite, "model.onnx"},
		7: {"--suite", filepath.Join(suite, "nowhere")},
	} {
		if _, code, _ := run(args...); code != want {
			t.Errorf("%v: code %d, want %d", args, code, want)
		}
	}
}
