package build

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/project"
	"github.com/waybill-ml/waybill/packager/steps"
)

// StepFile is the code of one step of the chain.
type StepFile struct {
	Path string // in the interface document and in the bundle
	Code []byte
}

// maxStep bounds the module of a step, in bytes.
const maxStep = 64 << 20

// stepSource is the module of a step, or the tokenizer of one whose outputs depend on the model.
type stepSource struct {
	code      []byte
	tokenizer *steps.Tokenizer
}

// stepCode reads the module of a user's step, or configures a built-in one.
func (in *Input) stepCode(ctx context.Context, s project.Step) (stepSource, error) {
	if s.Tokenizer != "" {
		t, err := in.tokenizer(ctx, s)
		return stepSource{tokenizer: t}, err
	}
	code, err := in.moduleOf(ctx, s)
	return stepSource{code: code}, err
}

func (in *Input) tokenizer(ctx context.Context, s project.Step) (*steps.Tokenizer, error) {
	j, err := in.file(ctx, s.Tokenizer, maxStep)
	if err != nil {
		return nil, err
	}
	t, err := steps.ReadTokenizer(j)
	var e *steps.TokenizerError
	switch {
	case errors.As(err, &e):
		return nil, diag.Wrap(diag.Unsupported, err, "step %q", s.Name).At(diag.Loc{File: s.Tokenizer, Line: e.Line, Col: e.Col}).
			Line("%s names the file", s.Loc).Hint("%s", e.Way)
	case err != nil:
		return nil, diag.Wrap(diag.Unsupported, err, "step %q: %s", s.Name, s.Tokenizer).At(s.Loc)
	}
	return t, nil
}

// configured is list with the code of its steps. An output without a type, of a tokenizer, becomes what the model's input of that
// name is, and the step gives the element types that its outputs are declared with.
func configured(list []project.Step, from []stepSource, model []artifact.Port) ([]project.Step, [][]byte, error) {
	list = slices.Clone(list)
	code := make([][]byte, len(list))
	for i, s := range list {
		code[i] = from[i].code
		if from[i].tokenizer == nil {
			continue
		}
		s.Outputs = slices.Clone(s.Outputs)
		types := []string{}
		for j, o := range s.Outputs {
			if own := find(model, o.Name); o.DType == "" && own != nil {
				s.Outputs[j].DType, s.Outputs[j].Ranked, s.Outputs[j].Shape = own.DType, own.Ranked, own.Shape
			} else if o.DType == "" {
				return nil, nil, diag.New(diag.Usage, "step %q: no input of the model is called %q, so that output needs a type: {name: %s, type: i64, shape: [N, L]}",
					s.Name, o.Name, o.Name).At(o.Loc)
			}
			types = append(types, s.Outputs[j].DType)
		}
		list[i] = s
		var err error
		if code[i], err = from[i].tokenizer.Text(types...); err != nil {
			return nil, nil, diag.Wrap(diag.Usage, err, "step %q", s.Name).At(s.Loc)
		}
	}
	return list, code, nil
}

// moduleOf is the code of a step that the project alone determines.
func (in *Input) moduleOf(ctx context.Context, s project.Step) ([]byte, error) {
	if s.Image != nil {
		b, err := steps.Image(*s.Image)
		if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "step %q", s.Name).At(s.Loc)
		}
		return b, nil
	}
	if s.Audio != nil {
		b, err := steps.Audio(*s.Audio)
		if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "step %q", s.Name).At(s.Loc)
		}
		return b, nil
	}
	if s.TopK == nil {
		return in.file(ctx, s.File, maxStep)
	}
	labels := s.TopK.Labels
	if s.TopK.LabelsFile != "" {
		b, err := in.file(ctx, s.TopK.LabelsFile, maxDoc)
		if err != nil {
			return nil, err
		}
		labels = strings.Split(strings.TrimSuffix(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n"), "\n")
	}
	types := []string{}
	for _, o := range s.Outputs {
		types = append(types, o.DType)
	}
	b, err := steps.TopK(s.TopK.K, labels, types...)
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "step %q", s.Name).At(s.Loc)
	}
	return b, nil
}

// stepPath is where a step lies in a bundle.
func stepPath(name string) string { return "steps/" + name + ".wasm" }

// addSteps puts steps around the model that m holds alone. A value is what its name says: a step's input is the output
// of that name of whatever runs before it, the latest one, else an input of the artifact. Outputs of the artifact are
// what nothing behind it reads, and what a reader keeps.
func (m *Model) addSteps(list []project.Step, code [][]byte) error {
	if len(list) == 0 {
		return nil
	}
	f := m.Interface
	c := chain{}
	model := f.Steps[0]
	placed := false
	add := func(st artifact.Step, keep []string, fail func(format string, args ...any) *diag.Error) error {
		for i, p := range st.Inputs {
			if err := c.read(&st.Inputs[i], slices.Contains(keep, p.Name), fail); err != nil {
				return err
			}
		}
		for _, p := range st.Outputs {
			c.values = append(c.values, &chainValue{port: p})
		}
		f.Steps = append(f.Steps, st)
		return nil
	}
	addModel := func() error {
		placed = true
		model.Inputs, model.Outputs = slices.Clone(f.Inputs), slices.Clone(f.Outputs)
		return add(model, nil, func(format string, args ...any) *diag.Error {
			return diag.New(diag.Usage, "the model: "+format, args...).At(list[0].Loc)
		})
	}
	f.Steps = nil
	for i, s := range list {
		if s.After && !placed {
			if err := addModel(); err != nil {
				return err
			}
		}
		st := artifact.Step{Kind: "step", Name: s.Name, Reentrant: s.Reentrant,
			File: artifact.FileRef{Path: stepPath(s.Name), Digest: artifact.DigestOf(code[i]), Size: int64(len(code[i]))}}
		for _, p := range s.Inputs {
			st.Inputs = append(st.Inputs, stepPort(p))
		}
		for _, p := range s.Outputs {
			st.Outputs = append(st.Outputs, stepPort(p))
		}
		// An input without a type in front of the model may name one of the model's own.
		if !s.After {
			for j, p := range st.Inputs {
				if own := find(f.Inputs, p.Name); p.DType == "" && own != nil && c.latest(p.Name) == nil {
					st.Inputs[j] = *own
				}
			}
		}
		if err := add(st, s.Keep, func(format string, args ...any) *diag.Error {
			return diag.New(diag.Usage, fmt.Sprintf("step %q: ", s.Name)+format, args...).At(s.Loc)
		}); err != nil {
			return err
		}
		if err := checkBuiltin(s, &f.Steps[len(f.Steps)-1]); err != nil {
			return diag.Wrap(diag.Usage, err, "step %q", s.Name).At(s.Loc)
		}
		m.Steps = append(m.Steps, StepFile{Path: st.File.Path, Code: code[i]})
	}
	if !placed {
		if err := addModel(); err != nil {
			return err
		}
	}
	return c.finish(f, list[0].Loc)
}

// chain follows the values from step to step.
type chain struct {
	inputs []artifact.Port
	values []*chainValue // in the order in which they come to be; artifact inputs are not among them
}

type chainValue struct {
	port artifact.Port
	read bool // by a later step that does not keep it
}

func (c *chain) latest(name string) *chainValue {
	for _, v := range slices.Backward(c.values) {
		if v.port.Name == name {
			return v
		}
	}
	return nil
}

// read connects an input. One without a type takes that of its value.
func (c *chain) read(p *artifact.Port, keep bool, fail func(format string, args ...any) *diag.Error) error {
	if v := c.latest(p.Name); v != nil {
		v.read = v.read || !keep
		return connect(p, v.port, fail)
	}
	if in := find(c.inputs, p.Name); in != nil {
		return connect(p, *in, fail)
	}
	if p.Kind == "" {
		names := []string{}
		for _, v := range c.values {
			names = append(names, v.port.Name)
		}
		return fail("input %q is neither an output of what runs before it nor declared with a type", p.Name).
			Line("before it: %q", names)
	}
	c.inputs = append(c.inputs, *p)
	return nil
}

// connect demands that an input accepts a value: the dims may be wider on either side, the guest checks the rest.
func connect(p *artifact.Port, from artifact.Port, fail func(format string, args ...any) *diag.Error) error {
	if p.Kind == "" {
		*p = from
		return nil
	}
	ok := p.Kind == from.Kind && p.DType == from.DType
	if ok && p.Ranked && from.Ranked {
		ok = len(p.Shape) == len(from.Shape)
		for i := 0; ok && i < len(p.Shape); i++ {
			a, b := p.Shape[i].Size, from.Shape[i].Size
			ok = a < 0 || b < 0 || a == b
		}
	}
	if !ok {
		return fail("input %q does not fit the value of that name", p.Name).
			Line("it wants      %s", PortText(*p)).
			Line("the value is  %s", PortText(from))
	}
	return nil
}

// finish makes the chain's ends those of the artifact.
func (c *chain) finish(f *artifact.Interface, at diag.Loc) error {
	f.Inputs, f.Outputs = c.inputs, []artifact.Port{}
	if f.Inputs == nil {
		f.Inputs = []artifact.Port{}
	}
	for _, v := range c.values {
		if v.read || c.latest(v.port.Name) != v {
			continue
		}
		f.Outputs = append(f.Outputs, v.port)
	}
	if len(f.Outputs) == 0 {
		return diag.New(diag.Usage, "steps: every output is read by a later step, so none is left").At(at).
			Hint("name one under keep of the step that reads it")
	}
	for _, s := range f.State {
		if find(f.Inputs, s.Input) == nil || find(f.Outputs, s.Output) == nil {
			return diag.New(diag.Usage, "steps: the streaming state %q from %q must stay an input and an output of the artifact", s.Input, s.Output).At(at)
		}
	}
	return nil
}

func stepPort(p project.StepPort) artifact.Port {
	o := artifact.Port{Name: p.Name, Shape: []artifact.Dim{}}
	if p.DType != "" {
		o.Kind, o.DType, o.Ranked = "tensor", p.DType, p.Ranked
		o.Shape = append(o.Shape, p.Shape...)
	}
	return o
}

// stepAt returns the position of the step's file in the project file.
func stepAt(p *project.Project, name string) diag.Loc {
	for _, s := range p.Steps {
		if s.Name == name {
			return s.Loc
		}
	}
	return diag.Loc{}
}

// StepError gives an error of the step called name the position at which the project names it.
func (in *Input) StepError(name string, err error) error {
	return diag.Wrap(diag.Usage, err, "step %q can't be loaded", name).At(stepAt(in.Project, name)).
		Hint("compare the module with docs/abi.md; examples/steps has working ones")
}

// traced is an interface document of the same chain in which every value has a name of its own and all that enters or
// leaves the model is an output too, behind the chain's own.
func traced(f *artifact.Interface) *artifact.Interface {
	t := *f
	t.Steps, t.Inputs, t.Outputs, t.State = nil, nil, nil, nil
	latest := map[string]string{}
	n := 0
	fresh := func(p artifact.Port) artifact.Port {
		unique := fmt.Sprintf("%d", n)
		n++
		latest[p.Name] = unique
		p.Name = unique
		return p
	}
	for _, p := range f.Inputs {
		t.Inputs = append(t.Inputs, fresh(p))
	}
	var model []artifact.Port
	for _, s := range f.Steps {
		ins, outs := []artifact.Port{}, []artifact.Port{}
		for _, p := range s.Inputs {
			p.Name = latest[p.Name]
			ins = append(ins, p)
		}
		for _, p := range s.Outputs {
			outs = append(outs, fresh(p))
		}
		s.Inputs, s.Outputs = ins, outs
		if s.Kind == "model" {
			model = append(append(model, ins...), outs...)
		}
		t.Steps = append(t.Steps, s)
	}
	for _, p := range f.Outputs {
		p.Name = latest[p.Name]
		t.Outputs = append(t.Outputs, p)
	}
	t.Outputs = append(t.Outputs, model...)
	return &t
}

// modelCalls runs calls through the chain once more and returns what entered and left the model in each. It fails when
// the chain's own outputs differ in a bit from those of the first run: then a step is not deterministic, and no device
// could prove the artifact.
func modelCalls(ctx context.Context, m *Model, calls, first [][]artifact.GoldenTensor, r Runner) (ins, outs [][]artifact.GoldenTensor, err error) {
	mod := m.Module
	mod.Interface = traced(m.Interface)
	renamed := make([][]artifact.GoldenTensor, len(calls))
	for i, c := range calls {
		for j, p := range m.Interface.Inputs {
			t := *lookupTensor(c, p.Name)
			t.Name = mod.Interface.Inputs[j].Name
			renamed[i] = append(renamed[i], t)
		}
	}
	got, err := r.Run(ctx, mod, renamed)
	if err != nil {
		return nil, nil, err
	}
	i := slices.IndexFunc(m.Interface.Steps, func(s artifact.Step) bool { return s.Kind == "model" })
	st := m.Interface.Steps[i]
	n := len(m.Interface.Outputs)
	ins, outs = make([][]artifact.GoldenTensor, len(got)), make([][]artifact.GoldenTensor, len(got))
	for k, all := range got {
		for j := range n {
			again := all[j]
			again.Name = first[k][j].Name
			if !equalTensor(again, first[k][j]) {
				return nil, nil, fmt.Errorf("output %q differs between two runs of the same call: a step is not deterministic", again.Name)
			}
		}
		for j, p := range st.Inputs {
			all[n+j].Name = p.Name
			ins[k] = append(ins[k], all[n+j])
		}
		for j, p := range st.Outputs {
			all[n+len(st.Inputs)+j].Name = p.Name
			outs[k] = append(outs[k], all[n+len(st.Inputs)+j])
		}
	}
	return ins, outs, nil
}

func equalTensor(a, b artifact.GoldenTensor) bool {
	if a.Kind != b.Kind || a.DType != b.DType || !slices.Equal(a.Shape, b.Shape) || !slices.Equal(a.Data, b.Data) ||
		!slices.Equal(a.Strings, b.Strings) || len(a.Elems) != len(b.Elems) {
		return false
	}
	for i := range a.Elems {
		if !equalTensor(a.Elems[i], b.Elems[i]) {
			return false
		}
	}
	return true
}
