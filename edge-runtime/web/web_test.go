package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/engine/bits"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

func node(t *testing.T) string {
	t.Helper()
	p, err := exec.LookPath("node")
	if err != nil && os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
		t.Fatal("node is not installed")
	}
	if err != nil {
		t.Skip("node is not installed")
	}
	return p
}

// job is an artifact that passes a tensor through Identity.
func job(t *testing.T, d ir.DType) bits.Job {
	t.Helper()
	x := &ir.Value{Name: "x", Type: ir.Type{DType: d, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{Sym: "N"}}}}}
	y := &ir.Value{Name: "y", Type: x.Type}
	res, err := codegen.Compile(&ir.Graph{Name: "id", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: "Identity", Name: "id", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}}, codegen.Options{})
	var un *codegen.Unsupported
	if errors.As(err, &un) {
		t.Skipf("the compiler takes no inputs of %s: %v", d, err)
	}
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "model.wasm")
	if err := os.WriteFile(file, res.Module, 0o600); err != nil {
		t.Fatal(err)
	}
	port := func(n string) []artifact.Port {
		return []artifact.Port{{Name: n, Kind: "tensor", DType: d.String(), Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "N"}}}}
	}
	ref := artifact.FileRef{Path: "model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	return bits.Job{Module: file, Interface: &artifact.Interface{Schema: artifact.InterfaceSchema, Name: "id", Version: "1", ABI: abi.Version,
		Inputs: port("x"), Outputs: port("y"), Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "id", File: ref, Inputs: port("x"), Outputs: port("y")}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: 1 << 16, Max: 4 << 20}}}
}

func run(t *testing.T, j bits.Job) ([]byte, string, error) {
	t.Helper()
	in, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node(t), "run.mjs")
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	err = cmd.Run()
	return out.Bytes(), errs.String(), err
}

// Every element type goes through the loader unchanged.
func TestDTypes(t *testing.T) {
	node(t)
	for _, info := range abi.DTypes() {
		t.Run(info.Name, func(t *testing.T) {
			j := job(t, ir.DType(info.DType))
			v := engine.Tensor{DType: info.DType, Shape: []int64{3}}
			if info.DType == abi.String {
				v.Strings = []string{"", "é", "a\x00b"}
			} else {
				v.Data = make([]byte, (3*info.Bits+7)/8)
				for i := range v.Data {
					v.Data[i] = byte(1+i*37) & 0x3f // no NaNs, whose bits may change
				}
				if info.DType == abi.Bool {
					v.Data = []byte{1, 0, 1}
				}
				if info.Bits == 4 {
					v.Data = []byte{0x21, 0x03}
				}
			}
			j.Calls = [][]artifact.GoldenTensor{{probe.ToGolden("x", v)}}
			out, errs, err := run(t, j)
			if err != nil {
				t.Fatalf("%v %s", err, errs)
			}
			var res bits.Result
			if err := json.Unmarshal(out, &res); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			got, err := probe.FromGolden(res.Calls[0][0])
			if err != nil {
				t.Fatal(err)
			}
			if d := probe.Diff(got, v); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestRefuses(t *testing.T) {
	node(t)
	for _, c := range []struct {
		name string
		edit func(j *bits.Job)
		want string
	}{
		{"digest", func(j *bits.Job) { j.Interface.Module.Digest = artifact.DigestOf(nil) }, "the module has digest"},
		{"abi", func(j *bits.Job) { j.Interface.ABI = 9 }, "needs version 9"},
		{"no model", func(j *bits.Job) { j.Interface.Steps = []artifact.Step{} }, "must list one model"},
		{"no weights", func(j *bits.Job) { j.Interface.Weights = &artifact.Weights{} }, "needs its weights"},
		{"no step", func(j *bits.Job) {
			j.Interface.Steps = append([]artifact.Step{{Kind: "step", Name: "s", File: artifact.FileRef{Path: "p"}}}, j.Interface.Steps...)
		}, "was not given"},
	} {
		t.Run(c.name, func(t *testing.T) {
			j := job(t, ir.F32)
			c.edit(&j)
			if _, errs, err := run(t, j); err == nil || !strings.Contains(errs, c.want) {
				t.Errorf("%v: %s, want %q", err, errs, c.want)
			}
		})
	}
}

// A call that fails leaves the model usable.
func TestCallErrors(t *testing.T) {
	node(t)
	j := job(t, ir.F32)
	good := probe.ToGolden("x", engine.Of([]float32{7}))
	short, rank, dtype, large := good, probe.ToGolden("x", engine.Of([]float32{1}, 1, 1)), probe.ToGolden("x", engine.Of([]float64{1})), good
	short.Shape = []int64{2}
	large = probe.ToGolden("x", engine.Of(make([]float32, 1<<20)))
	want := []string{"is missing", "needs 8 bytes, there are 4", "rank", "element type", "memory", ""}
	j.Calls = append(j.Calls, [][]artifact.GoldenTensor{{}, {short}, {rank}, {dtype}, {large}, {good}}...)
	out, errs, err := run(t, j)
	if err != nil {
		t.Fatalf("%v %s", err, errs)
	}
	var res struct{ Calls []json.RawMessage }
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatal(err)
	}
	for i, w := range want {
		if !strings.Contains(string(res.Calls[i]), w) || (w != "") != strings.Contains(string(res.Calls[i]), `"error"`) {
			t.Errorf("call %d: %.200s, want %q", i, res.Calls[i], w)
		}
	}
}
