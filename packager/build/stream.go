package build

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/oip"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
	"github.com/waybill-ml/waybill/packager/project"
)

// maxState bounds the file with a state's first value, in bytes.
const maxState = 64 << 20

// setBounds gives the dims of g that have one of the symbols their largest size. Every symbol must be one of an input.
func setBounds(g *ir.Graph, bounds []project.DimBound) error {
	of := map[string]int64{}
	for _, b := range bounds {
		of[b.Symbol] = b.Max
	}
	if len(of) == 0 {
		return nil
	}
	have := map[string]bool{}
	for _, v := range g.Body.Params {
		for _, d := range v.Type.Shape.Dims {
			if d.Sym != "" {
				have[d.Sym] = true
			}
		}
	}
	for _, b := range bounds {
		if !have[b.Symbol] {
			e := diag.New(diag.Usage, "limits.dims: no input has a dimension %q", b.Symbol).At(b.Loc)
			var names []string
			for _, v := range g.Body.Params {
				names = append(names, PortText(port(v.Name, v.Type)))
			}
			return e.Line("inputs: %s", strings.Join(names, ", "))
		}
	}
	mark := func(vs []*ir.Value) {
		for _, v := range vs {
			if v == nil {
				continue
			}
			s := v.Type.Shape.Clone()
			for i := range s.Dims {
				if m, ok := of[s.Dims[i].Sym]; ok {
					s.Dims[i].Max = m
				}
			}
			v.Type.Shape = s
		}
	}
	mark(g.Body.Params)
	return ir.Walk(g.Body, func(r *ir.Region, n *ir.Node) error {
		mark(n.Outs)
		for _, inner := range n.Regions {
			mark(inner.Params)
		}
		return nil
	})
}

// setState adds the streaming state that the project declares, with the first values, and checks that each output fits the input that
// it feeds. files has the bytes of State.File.
func setState(g *ir.Graph, states []project.State, files map[string][]byte) error {
	for _, s := range states {
		fail := func(format string, args ...any) error {
			return diag.New(diag.Usage, "state of input %q: %s", s.Input, fmt.Sprintf(format, args...)).At(s.Loc)
		}
		in, out := valueOf(g.Body.Params, s.Input), valueOf(g.Body.Results, s.Output)
		switch {
		case in == nil:
			return fail("the model has no such input; it has %s", quoted(g.Body.Params))
		case out == nil:
			return fail("the model has no output %q; it has %s", s.Output, quoted(g.Body.Results))
		case slices.ContainsFunc(g.State, func(t ir.State) bool { return t.Input == s.Input }):
			return fail("it is declared twice")
		case in.Type.Kind != ir.Tensor || in.Type.DType == ir.String:
			return fail("it is %s; only tensors of numbers can be carried", in.Type)
		case !in.Type.Compatible(out.Type):
			return fail("it is %s, but output %q is %s", PortText(port(in.Name, in.Type)), s.Output, PortText(port(out.Name, out.Type)))
		}
		st := ir.State{Input: s.Input, Output: s.Output}
		if s.File != "" {
			d, err := readState(files[s.File])
			if err != nil {
				return diag.Wrap(diag.Usage, err, "state of input %q: %s", s.Input, s.File).At(s.Loc)
			}
			if d.DType != in.Type.DType || !in.Type.Compatible(d.Type()) {
				return fail("it is %s, but %s holds %s", PortText(port(in.Name, in.Type)), s.File, d.Type())
			}
			st.Init = d
		} else {
			dims, ok := firstShape(in.Type.Shape)
			if !ok {
				return fail("%s has more than one open dimension, so the shape of its first value is not clear: name a file with it under init",
					PortText(port(in.Name, in.Type)))
			}
			d, err := filled(in.Type.DType, dims, s.Fill)
			if err != nil {
				return fail("init: %v", err)
			}
			st.Init = d
		}
		g.State = append(g.State, st)
	}
	return nil
}

// firstShape is the shape of one stream's state: an open dim is the batch, 1. Without a rank, or with several open dims, it is not known.
func firstShape(s ir.Shape) ([]int64, bool) {
	if !s.Ranked {
		return nil, false
	}
	dims, open := make([]int64, len(s.Dims)), 0
	for i, d := range s.Dims {
		dims[i] = d.N
		if !d.IsStatic() {
			dims[i] = 1
			open++
		}
	}
	return dims, open <= 1
}

func filled(dt ir.DType, dims []int64, x float64) (*ir.Data, error) {
	n, ok := ir.Elements(dims)
	if !ok || n*int64(dt.Bits()) > 8*maxState {
		return nil, fmt.Errorf("%v has too many elements", dims)
	}
	if x == 0 {
		return &ir.Data{DType: dt, Dims: dims, Bytes: make([]byte, (n*int64(dt.Bits())+7)/8)}, nil
	}
	if oip.Datatype(dt.String()) == "" {
		return nil, fmt.Errorf("a value of type %s is given in a file, or left out for zeros", dt)
	}
	one := artifact.GoldenTensor{DType: dt.String()}
	if err := oip.AppendNumber(&one, fmt.Sprint(x)); err != nil {
		return nil, err
	}
	d := &ir.Data{DType: dt, Dims: dims}
	for range n {
		d.Bytes = append(d.Bytes, one.Data...)
	}
	return d, nil
}

func readState(b []byte) (*ir.Data, error) {
	var t oip.Tensor
	if err := json.Unmarshal(b, &t); err != nil {
		return nil, fmt.Errorf("not a tensor (datatype, shape, data): %w", err)
	}
	g, err := oip.Decode(t)
	if err != nil {
		return nil, err
	}
	dt := ir.DTypeByName(g.DType)
	if dt == ir.Invalid || dt == ir.String {
		return nil, fmt.Errorf("it is %s, want numbers", g.DType)
	}
	return &ir.Data{DType: dt, Dims: g.Shape, Bytes: g.Data}, nil
}

// stateVar describes a state in the interface document.
func stateVar(s ir.State) artifact.StateVar {
	v := artifact.StateVar{Input: s.Input, Output: s.Output}
	if s.Init == nil {
		return v
	}
	v.Shape = s.Init.Dims
	if slices.ContainsFunc(s.Init.Bytes, func(b byte) bool { return b != 0 }) {
		v.Init = s.Init.Bytes
	}
	return v
}

func valueOf(vs []*ir.Value, name string) *ir.Value {
	for _, v := range vs {
		if v.Name == name {
			return v
		}
	}
	return nil
}

func quoted(vs []*ir.Value) string {
	var s []string
	for _, v := range vs {
		s = append(s, fmt.Sprintf("%q", v.Name))
	}
	return strings.Join(s, ", ")
}
