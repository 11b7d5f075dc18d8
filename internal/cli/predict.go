package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/oip"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func predictCommand() Command {
	return Command{
		Name: "predict", Group: Build, Summary: "run a model on rows or tensors, as a device would",
		Args: "[MODEL|PROJECT|REF] INPUT", Min: 1, Max: 2,
		Long: `INPUT is a file or - for stdin: an inference request of the Open Inference Protocol V2 (JSON), CSV rows with a header, or
JSON records (a list of flat objects, or one of them); or, for a model whose one input is the bytes of a file, that
file: a picture or a sound. Columns and fields fill the features that waybill.yaml lists, or the inputs of the same
name; an empty cell, null or an absent field is a missing value. With text output there is one line per row, else one
per tensor; with --output json it is a V2 response.

A request may leave out the inputs that carry a stream's state (waybill.yaml: state); they start with their first
value. With --stream, INPUT holds any number of requests, one behind the other (JSON lines), and each gets the state
that the one before it left; the answers are JSON lines too.`,
		Examples: []string{
			"waybill predict churn:1.0 customers.csv",
			`echo '{"inputs":[{"name":"X","datatype":"FP32","shape":[1,2],"data":[1,2]}]}' | waybill predict model.onnx -`,
			"waybill predict reg.example/ml/churn:1.0 request.json --output json",
			"waybill predict flowers:1.0 rose.jpg",
		},
		Flags: []ucli.Flag{
			&ucli.BoolFlag{Name: "stream", Usage: "carry the state from request to request"},
			&ucli.StringFlag{Name: "format", Value: "auto", Usage: "`FORMAT` of the input: auto, json, records, csv or file"},
			engineFlag(),
		},
		Exits: []diag.Code{diag.Verification, diag.Unsupported, diag.Registry, diag.NotFound},
		See:   []string{"test", "bench"},
		Run:   runPredict,
	}
}

func engineFlag() ucli.Flag {
	return &ucli.StringFlag{Name: "engine", Value: "auto", Usage: "`MODE` of execution: auto, compiler or interpreter; the answers are the same"}
}

func engineConfig(c *Call) (engine.Config, error) {
	m, err := engine.ParseMode(c.String("engine"))
	if err != nil {
		return engine.Config{}, diag.Wrap(diag.Usage, err, "--engine")
	}
	return engine.Config{Mode: m}, nil
}

type v2Request struct {
	ID         string          `json:"id,omitempty"`
	Parameters json.RawMessage `json:"parameters,omitempty"`
	Inputs     []oip.Tensor    `json:"inputs"`
	Outputs    []struct {
		Name string `json:"name"`
	} `json:"outputs,omitempty"`
}

type v2Response struct {
	ModelName    string       `json:"model_name"`
	ModelVersion string       `json:"model_version"`
	ID           string       `json:"id,omitempty"`
	Outputs      []oip.Tensor `json:"outputs"`
}

func runPredict(ctx context.Context, c *Call) error {
	cfg, err := engineConfig(c)
	if err != nil {
		return err
	}
	what, input := "", c.Args[0]
	if len(c.Args) == 2 {
		what, input = c.Args[0], c.Args[1]
	}
	t, err := openTarget(ctx, c, what)
	if err != nil {
		return err
	}
	data, err := readInput(c, input)
	if err != nil {
		return err
	}
	if c.Bool("stream") {
		return predictStream(ctx, c, t, input, data, cfg)
	}
	var req v2Request
	format := c.String("format")
	if format == "auto" && isBinary(data) {
		format = "file"
	}
	if format == "auto" {
		format = "csv"
		if b := bytes.TrimSpace(data); strings.HasSuffix(input, ".json") || len(b) > 0 && b[0] == '{' || len(b) > 0 && b[0] == '[' {
			format = "json"
			if isRecords(b) {
				format = "records"
			}
		}
	}
	var ins []artifact.GoldenTensor
	switch format {
	case "json":
		if ins, err = readRequest(data, &req, t.Interface.Inputs); err == nil {
			ins, err = withState(t.Interface, ins)
		}
	case "csv", "records":
		var ignored []string
		if format == "csv" {
			ins, ignored, err = readRows(bytes.NewReader(data), t.Interface.Inputs)
		} else {
			ins, ignored, err = readRecords(data, t.Interface.Inputs)
		}
		if len(ignored) > 0 {
			c.UI.Say("ignored columns: %s", strings.Join(ignored, ", "))
		}
	case "file":
		ins, err = readFileInput(data, t.Interface.Inputs)
	default:
		return diag.New(diag.Usage, "--format %s: not one of auto, json, records, csv, file", format)
	}
	if err != nil {
		return diag.Wrap(diag.Usage, err, "predict: %s", input)
	}
	l, err := runner{cfg}.load(ctx, t.Module)
	if err != nil {
		return err
	}
	defer l.Close(context.WithoutCancel(ctx))
	outs, err := l.call(ctx, ins)
	if err != nil {
		return runError(ctx, err, "predict: "+input)
	}
	res, err := respond(t.Interface, &req, outs)
	if err != nil {
		return err
	}
	if c.UI.JSON {
		return c.UI.PrintJSON(res)
	}
	return printOutputs(c.UI, res.Outputs)
}

// isBinary tells a picture or a sound from any text.
func isBinary(b []byte) bool {
	b = b[:min(len(b), 512)]
	return bytes.IndexByte(b, 0) >= 0 || len(b) >= 4 && b[0] == 0xff && b[1] == 0xd8
}

// readFileInput makes the bytes of a file the value of the artifact's one input.
func readFileInput(b []byte, ports []artifact.Port) ([]artifact.GoldenTensor, error) {
	if len(ports) != 1 || ports[0].DType != "u8" || ports[0].Ranked && len(ports[0].Shape) != 1 {
		return nil, errors.New("the bytes of a file are the input of an artifact whose one input is u8 [N], which this is not")
	}
	return []artifact.GoldenTensor{{Name: ports[0].Name, Kind: "tensor", DType: "u8", Shape: []int64{int64(len(b))}, Data: b}}, nil
}

// respond puts the outputs that were asked for into a response.
func respond(f *artifact.Interface, req *v2Request, outs []artifact.GoldenTensor) (*v2Response, error) {
	res := &v2Response{ModelName: f.Name, ModelVersion: f.Version, ID: req.ID, Outputs: []oip.Tensor{}}
	for _, o := range outs {
		if len(req.Outputs) > 0 && !wanted(*req, o.Name) {
			continue
		}
		x, err := oip.EncodeAny(o)
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "predict")
		}
		res.Outputs = append(res.Outputs, x)
	}
	return res, nil
}

// isRecords tells a list of objects, or one object without the member inputs, from an inference request.
func isRecords(b []byte) bool {
	if b[0] == '[' {
		return true
	}
	var o map[string]json.RawMessage
	if json.Unmarshal(b, &o) != nil {
		return false
	}
	_, request := o["inputs"]
	return !request
}

// runError tells the caller's fault from others.
func runError(ctx context.Context, err error, what string) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var in *engine.InputError
	var g *engine.GuestError
	if errors.As(err, &in) || errors.As(err, &g) && g.InputFault() {
		return diag.Wrap(diag.Usage, err, "%s", what)
	}
	return diag.Wrap(diag.Failure, err, "%s", what)
}

func wanted(r v2Request, name string) bool {
	for _, o := range r.Outputs {
		if o.Name == name {
			return true
		}
	}
	return false
}

func readInput(c *Call, name string) ([]byte, error) {
	r := c.Env.Stdin
	if name != "-" {
		f, err := os.Open(c.Abs(name))
		if errors.Is(err, os.ErrNotExist) {
			return nil, diag.New(diag.NotFound, "input %s does not exist", name)
		}
		if err != nil {
			return nil, diag.Wrap(diag.Failure, err, "read input")
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read input %s", name)
	}
	if len(b) > maxInput {
		return nil, diag.New(diag.Usage, "input %s has more than %d bytes", name, maxInput)
	}
	return b, nil
}

// readRequest reads a V2 request. A tensor may be of a wider float or integer type than the port: JSON numbers are read
// as the port's type.
func readRequest(b []byte, req *v2Request, ports []artifact.Port) ([]artifact.GoldenTensor, error) {
	if err := json.Unmarshal(b, req); err != nil {
		return nil, fmt.Errorf("not an inference request: %w", err)
	}
	if len(req.Inputs) == 0 {
		return nil, errors.New("not an inference request: no inputs")
	}
	var out []artifact.GoldenTensor
	for _, t := range req.Inputs {
		for _, p := range ports {
			if want := oip.Datatype(p.DType); p.Name == t.Name && want != "" && want != t.Datatype {
				return nil, fmt.Errorf("input %q is %s, the model wants %s", t.Name, t.Datatype, want)
			}
		}
		g, err := oip.Decode(t)
		if err != nil {
			return nil, err
		}
		out = append(out, g)
	}
	return out, nil
}

// printOutputs prints a line per row when all outputs have the same first dimension, else a line per tensor.
func printOutputs(u *ui.UI, outs []oip.Tensor) error {
	values := make([][]json.RawMessage, len(outs))
	rows := int64(-1)
	for i, o := range outs {
		var n int64
		var err error
		if values[i], n, err = oip.Items(o); err != nil {
			return fmt.Errorf("output %s: %w", o.Name, err)
		}
		if i > 0 && n != rows {
			n = -2
		}
		rows = n
	}
	if rows < 0 {
		for i, o := range outs {
			u.Data("%s %s%v %s", o.Name, o.Datatype, o.Shape, join(values[i]))
		}
		return nil
	}
	table := [][]string{{}}
	for _, o := range outs {
		table[0] = append(table[0], o.Name)
	}
	for r := int64(0); r < rows; r++ {
		var line []string
		for i := range outs {
			per := int64(len(values[i])) / rows
			line = append(line, join(values[i][r*per:(r+1)*per]))
		}
		table = append(table, line)
	}
	ui.Table(u.Out, true, table)
	return nil
}

func join(v []json.RawMessage) string {
	s := make([]string, len(v))
	for i, x := range v {
		s[i] = string(x)
	}
	return strings.Join(s, " ")
}
