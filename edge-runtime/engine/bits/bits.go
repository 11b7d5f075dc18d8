// Package bits is the proof of "one digest, one answer": it runs one job (an artifact and calls) on a host and gives the
// outputs bit for bit, so that hosts can be compared: the compiler and the interpreter here, another architecture under
// an emulator, JavaScript. Its tests do that; bitsrun is the same as a program, to be built for other machines.
package bits

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Job is what edge-runtime/web/run.mjs reads too.
type Job struct {
	Interface *artifact.Interface       `json:"interface"`
	Module    string                    `json:"module"` // file
	Weights   string                    `json:"weights,omitempty"`
	Steps     map[string]string         `json:"steps,omitempty"` // path in the interface document to file
	Calls     [][]artifact.GoldenTensor `json:"calls"`
}

// Result holds the outputs of each call.
type Result struct {
	Calls [][]artifact.GoldenTensor `json:"calls"`
}

// Run performs the job on an engine.
func Run(ctx context.Context, e *engine.Engine, j Job) (Result, error) {
	var res Result
	module, err := os.ReadFile(j.Module)
	if err != nil {
		return res, err
	}
	var steps []engine.StepModule
	for path, file := range j.Steps {
		code, err := os.ReadFile(file)
		if err != nil {
			return res, err
		}
		steps = append(steps, engine.StepModule{Path: path, Code: code})
	}
	m, err := e.Load(ctx, module, engine.WeightsSource{Path: j.Weights}, j.Interface, steps...)
	if err != nil {
		return res, err
	}
	defer func() { _ = m.Close(context.WithoutCancel(ctx)) }()
	for i, in := range j.Calls {
		out, err := probe.Call(ctx, m, in)
		if err != nil {
			return res, fmt.Errorf("call %d: %w", i, err)
		}
		res.Calls = append(res.Calls, out)
	}
	return res, nil
}

// Hash names a result: SHA-256 of the canonical JSON of all outputs.
func Hash(r Result) (string, error) {
	norm(r.Calls)
	b, err := json.Marshal(r)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:]), nil
}

// norm makes absent and empty lists alike, so that only values count.
func norm(calls [][]artifact.GoldenTensor) {
	for _, ts := range calls {
		normTensors(ts)
	}
}

func normTensors(ts []artifact.GoldenTensor) {
	for i := range ts {
		t := &ts[i]
		if len(t.Data) == 0 {
			t.Data = nil
		}
		if len(t.Strings) == 0 {
			t.Strings = nil
		}
		if t.Shape == nil {
			t.Shape = []int64{}
		}
		normTensors(t.Elems)
	}
}
