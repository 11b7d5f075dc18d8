package build

import (
	"context"
	"errors"
	"fmt"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/ir"
)

// Recorded is the outcome of Record.
type Recorded struct {
	Golden     artifact.Golden
	Vectors    int
	References int          // vectors that carry the framework's outputs
	Worst      []Comparison // for each output with a reference: the largest difference over all vectors
	Tolerance  map[string]artifact.Tolerance
}

// Record runs the vectors through the compiled module and returns the golden document with what it gave. It fails when
// the module differs from the reference interpreter in a single bit, or from the framework by more than the tolerance:
// that of override, else that of the vectors' file, else DefaultTolerance.
func Record(ctx context.Context, m *Model, v *Vectors, override []artifact.Tolerance, r Runner) (*Recorded, error) {
	tol, err := tolerances(m.Interface, v, override)
	if err != nil {
		return nil, err
	}
	calls := make([][]artifact.GoldenTensor, len(v.Vectors))
	for i, w := range v.Vectors {
		for _, t := range w.Inputs {
			p := find(m.Interface.Inputs, t.Name)
			if p == nil {
				return nil, diag.New(diag.Usage, "golden vector %q: the model has no input %q", w.Name, t.Name).Line("inputs: %s", portNames(m.Interface.Inputs))
			}
			if p.DType != t.DType {
				return nil, diag.New(diag.Usage, "golden vector %q: input %q is %s, the model wants %s", w.Name, t.Name, t.DType, p.DType)
			}
		}
		for _, p := range m.Interface.Inputs {
			if !hasTensor(w.Inputs, p.Name) {
				return nil, diag.New(diag.Usage, "golden vector %q: input %q is missing", w.Name, p.Name)
			}
		}
		calls[i] = w.Inputs
	}
	outs, err := r.Run(ctx, m.Module, calls)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, diag.Wrap(diag.Failure, err, "run the golden vectors")
	}
	modelIns, modelOuts := calls, outs
	if len(m.Interface.Steps) > 1 {
		if modelIns, modelOuts, err = modelCalls(ctx, m, calls, outs, r); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, diag.Wrap(diag.Failure, err, "run the golden vectors")
		}
	}
	rec := &Recorded{Golden: artifact.Golden{Schema: artifact.GoldenSchema}, Vectors: len(v.Vectors), Tolerance: tol}
	worst := map[string]Comparison{}
	for i, w := range v.Vectors {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := against(ctx, &m.Source, w.Name, modelIns[i], modelOuts[i]); err != nil {
			return nil, err
		}
		gv := artifact.GoldenVector{Name: w.Name, Inputs: w.Inputs, Expected: outs[i], Reference: w.Reference}
		for _, ref := range w.Reference {
			got := lookupTensor(outs[i], ref.Name)
			if got == nil {
				return nil, diag.New(diag.Usage, "golden vector %q: the model has no output %q", w.Name, ref.Name).Line("outputs: %s", portNames(m.Interface.Outputs))
			}
			c, err := Compare(*got, ref, tol[ref.Name])
			if err != nil {
				return nil, diag.Wrap(diag.Failure, err, "golden vector %q", w.Name)
			}
			if c.Exceeds {
				t := tol[ref.Name]
				return nil, diag.New(diag.Failure, "golden vector %q: output %q differs from the framework's own", w.Name, ref.Name).
					Line("element %d is %s, the reference says %s", c.Where, c.Got, c.Want).
					Line("allowed: |difference| <= %g + %g x |reference|", t.ATol, t.RTol).
					Hint("check that the golden vectors belong to this model; a tolerance stands under golden in waybill.yaml")
			}
			if old, ok := worst[ref.Name]; !ok || c.MaxAbs > old.MaxAbs {
				worst[ref.Name] = c
			}
			gv.Tolerance = append(gv.Tolerance, tol[ref.Name])
		}
		if len(w.Reference) > 0 {
			rec.References++
		}
		rec.Golden.Vectors = append(rec.Golden.Vectors, gv)
	}
	for _, p := range m.Interface.Outputs {
		if c, ok := worst[p.Name]; ok {
			rec.Worst = append(rec.Worst, c)
		}
	}
	return rec, nil
}

// against compares one call of the model with the reference interpreter, bit for bit.
func against(ctx context.Context, g *ir.Graph, vector string, in, got []artifact.GoldenTensor) error {
	ins := map[string]*ir.Val{}
	for _, t := range in {
		v, err := toVal(t)
		if err != nil {
			return diag.Wrap(diag.Usage, err, "golden vector %q", vector)
		}
		ins[t.Name] = v
	}
	want, err := interpret(ctx, g, ins)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "golden vector %q: the reference interpreter failed where the module answered", vector)
	}
	for i, res := range g.Body.Results {
		if d := sameBits(got[i], want[res.Name]); d != "" {
			return diag.Wrap(diag.Failure, errors.New(d), "golden vector %q: output %q of the compiled module differs from the reference interpreter", vector, res.Name).
				Hint("this is a defect of the compiler: please report it with the model")
		}
	}
	return nil
}

func tolerances(f *artifact.Interface, v *Vectors, override []artifact.Tolerance) (map[string]artifact.Tolerance, error) {
	tol := map[string]artifact.Tolerance{}
	for _, p := range f.Outputs {
		tol[p.Name] = artifact.Tolerance{Output: p.Name}
		switch p.DType {
		case "f32", "f64", "f16", "bf16":
			tol[p.Name] = DefaultTolerance(p.Name)
		}
	}
	for _, list := range [][]artifact.Tolerance{v.Tolerance, override} {
		for _, t := range list {
			if _, ok := tol[t.Output]; !ok {
				return nil, diag.New(diag.Usage, "tolerance: the model has no output %q", t.Output).Line("outputs: %s", portNames(f.Outputs))
			}
			tol[t.Output] = t
		}
	}
	return tol, nil
}

func lookupTensor(ts []artifact.GoldenTensor, name string) *artifact.GoldenTensor {
	for i := range ts {
		if ts[i].Name == name {
			return &ts[i]
		}
	}
	return nil
}

func hasTensor(ts []artifact.GoldenTensor, name string) bool { return lookupTensor(ts, name) != nil }

func portNames(ports []artifact.Port) string {
	s := ""
	for i, p := range ports {
		if i > 0 {
			s += ", "
		}
		s += fmt.Sprintf("%q", p.Name)
	}
	return s
}

// Doc returns the golden document; nil of a nil *Recorded.
func (r *Recorded) Doc() *artifact.Golden {
	if r == nil {
		return nil
	}
	return &r.Golden
}
