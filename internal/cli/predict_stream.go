package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// withState adds the inputs that carry a stream's state, as they are before its first call, where they are missing.
func withState(f *artifact.Interface, ins []artifact.GoldenTensor) ([]artifact.GoldenTensor, error) {
	first, err := engine.InitialState(f)
	if err != nil {
		return nil, err
	}
	for i, s := range f.State {
		if named(ins, s.Input) == nil {
			ins = append(ins, probe.ToGolden(s.Input, first[i]))
		}
	}
	return ins, nil
}

func named(ts []artifact.GoldenTensor, name string) *artifact.GoldenTensor {
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i]
		}
	}
	return nil
}

// predictStream answers the requests in data one after the other, each with the state that the one before it left, unless it brings its own.
func predictStream(ctx context.Context, c *Call, t *target, input string, data []byte, cfg engine.Config) error {
	f := t.Interface
	if len(f.State) == 0 {
		return diag.New(diag.Usage, "predict: %s has no streaming state", f.Name).
			Hint("name what each call hands to the next in waybill.yaml, state: [{input: h, output: h_out}], and pack again")
	}
	if s := c.String("format"); s != "auto" && s != "json" {
		return diag.New(diag.Usage, "predict: --stream reads requests as JSON lines, not --format %s", s)
	}
	l, err := runner{cfg}.load(ctx, t.Module)
	if err != nil {
		return err
	}
	defer l.Close(context.WithoutCancel(ctx))
	d := json.NewDecoder(bytes.NewReader(data))
	var state []artifact.GoldenTensor
	for n := 1; ; n++ {
		var raw json.RawMessage
		if err := d.Decode(&raw); errors.Is(err, io.EOF) && n > 1 {
			return nil
		} else if err != nil {
			return diag.Wrap(diag.Usage, err, "predict: %s: request %d", input, n)
		}
		what := fmt.Sprintf("predict: %s: request %d", input, n)
		var req v2Request
		ins, err := readRequest(raw, &req, f.Inputs)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "%s", what)
		}
		for _, s := range state {
			if named(ins, s.Name) == nil {
				ins = append(ins, s)
			}
		}
		if ins, err = withState(f, ins); err != nil {
			return diag.Wrap(diag.Failure, err, "%s", what)
		}
		outs, err := l.call(ctx, ins)
		if err != nil {
			return runError(ctx, err, what)
		}
		state = state[:0]
		for _, s := range f.State {
			if o := named(outs, s.Output); o != nil {
				next := *o
				next.Name = s.Input
				state = append(state, next)
			}
		}
		res, err := respond(f, &req, outs)
		if err != nil {
			return err
		}
		var line bytes.Buffer
		e := json.NewEncoder(&line)
		e.SetEscapeHTML(false)
		if err := e.Encode(res); err != nil {
			return diag.Wrap(diag.Failure, err, "%s", what)
		}
		if _, err := c.Env.Stdout.Write(line.Bytes()); err != nil {
			return diag.Wrap(diag.Failure, err, "write the answer")
		}
	}
}
