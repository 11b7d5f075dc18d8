package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"golang.org/x/mod/semver"
)

// StepModule is the code of one step of the chain, named by its path in the interface document.
type StepModule struct {
	Path string
	Code []byte
}

// Model is a loaded artifact, ready to run. It is safe for concurrent use; up to Config.Instances calls run at once.
type Model struct {
	eng   *Engine
	iface *artifact.Interface
	chain []link
	slots int   // values of a call: chain inputs first, then every link's outputs
	outs  []int // slot of each chain output

	direct bool // one link, whose inputs and outputs are the chain's in the same order
}

// link is one member of the chain with its wiring.
type link struct {
	*guest
	in      []artifact.Port
	out     []artifact.Port
	from    []int // slot of each input
	to      int   // slot of the first output
	isModel bool
}

// Load compiles an artifact: the model's module, its weights and the steps around it, as the interface document lists
// them. Every byte is checked against the document's digests first, and every module against the ABI; the document
// itself must come from a verified manifest. Loading makes one instance of each module, so that a module that cannot
// start fails here and not at the first request.
func (e *Engine) Load(ctx context.Context, module []byte, weights WeightsSource, iface *artifact.Interface, steps ...StepModule) (_ *Model, err error) {
	if iface.ABI != abi.Version {
		return nil, diag.Errorf("load %s: the artifact needs version %d of the ABI, this runtime has version %d", iface.Name, iface.ABI, abi.Version)
	}
	if need := iface.MinRuntime; need != "" && (!semver.IsValid("v"+need) || semver.Compare("v"+version.Number, "v"+need) < 0) {
		return nil, diag.Errorf("load %s: it needs waybill-edge %s, this is %s", iface.Name, need, version.Number)
	}
	m := &Model{eng: e, iface: iface}
	defer func() {
		if err != nil {
			for _, l := range m.chain {
				if l.guest != nil {
					_ = l.close(ctx)
				}
			}
			err = diag.Errorf("load %s: %w", iface.Name, err)
		}
	}()
	if err := m.wire(); err != nil {
		return nil, err
	}
	if _, err := InitialState(iface); err != nil {
		return nil, err
	}
	code := map[string][]byte{}
	for _, s := range steps {
		code[s.Path] = s.Code
	}
	links := m.chain
	m.chain = nil
	for i, l := range links {
		st := iface.Steps[i]
		g := &guest{eng: e, name: st.Name, ours: l.isModel, reentrant: l.isModel || st.Reentrant, limit: e.cfg.MemoryLimit, outputs: len(l.out)}
		for _, p := range l.in {
			g.inputs = append(g.inputs, p.Name)
		}
		b := code[st.File.Path]
		var image *weightsImage
		if l.isModel {
			b = module
			g.want, g.nodes = iface.Memory, iface.Nodes
			if iface.Memory.Max != 0 {
				g.limit = min(g.limit, roundUp(iface.Memory.Max, abi.PageSize))
			}
			if d := artifact.DigestOf(b); d != iface.Module.Digest {
				return nil, diag.Errorf("%w: the module has digest %s, the interface document says %s", ErrIntegrity, d, iface.Module.Digest)
			}
			if image, err = openWeights(weights, iface.Weights); err != nil {
				return nil, err
			}
		} else if b == nil {
			return nil, diag.Errorf("step %s: its module %s was not given", st.Name, st.File.Path)
		} else if d := artifact.DigestOf(b); d != st.File.Digest {
			return nil, diag.Errorf("%w: step %s has digest %s, the interface document says %s", ErrIntegrity, st.Name, d, st.File.Digest)
		}
		// The code does not depend on the weights, so both are worked on at once. The guest gets them when they are proven.
		hashed := make(chan error, 1)
		go func() { hashed <- image.check() }()
		err := e.compileGuest(ctx, g, b)
		if bad := <-hashed; bad != nil {
			if err == nil {
				g.closeRuntime(ctx)
			}
			err = bad
		}
		if err != nil {
			image.close()
			return nil, l.loadError(st.Name, err)
		}
		g.weights = image
		l.guest = g
		m.chain = append(m.chain, l)
		inst, err := g.acquire(ctx)
		if err != nil {
			return nil, l.loadError(st.Name, err)
		}
		g.release(inst, true)
	}
	m.direct = m.isDirect()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, ErrClosed
	}
	e.models[m] = struct{}{}
	return m, nil
}

// loadError tells an error of a user's step from one of the model.
func (l *link) loadError(name string, err error) error {
	if l.isModel {
		return err
	}
	return &StepError{name, err}
}

// wire resolves names to slots: each link reads what the chain's inputs or earlier links provide under that name; a
// later link's output hides an earlier one of the same name.
func (m *Model) wire() error {
	slot := map[string]int{}
	for _, p := range m.iface.Inputs {
		if _, dup := slot[p.Name]; dup {
			return diag.Errorf("input %q stands twice in the interface document", p.Name)
		}
		slot[p.Name] = m.slots
		m.slots++
	}
	models := 0
	for _, st := range m.iface.Steps {
		l := link{in: st.Inputs, out: st.Outputs, to: m.slots, isModel: st.Kind == "model"}
		switch st.Kind {
		case "model":
			models++
		case "step":
		default:
			return diag.Errorf("step %q has the unknown kind %q", st.Name, st.Kind)
		}
		for _, p := range st.Inputs {
			s, ok := slot[p.Name]
			if !ok {
				return diag.Errorf("step %q needs %q, which nothing before it provides", st.Name, p.Name)
			}
			l.from = append(l.from, s)
		}
		for _, p := range st.Outputs {
			slot[p.Name] = m.slots
			m.slots++
		}
		m.chain = append(m.chain, l)
	}
	if models != 1 {
		return diag.Errorf("the interface document lists %d models; it must list one", models)
	}
	for _, p := range m.iface.Outputs {
		s, ok := slot[p.Name]
		if !ok {
			return diag.Errorf("output %q is provided by no step", p.Name)
		}
		m.outs = append(m.outs, s)
	}
	return nil
}

// isDirect tells whether the chain is the model alone.
func (m *Model) isDirect() bool {
	if len(m.chain) != 1 || len(m.chain[0].from) != len(m.iface.Inputs) || len(m.chain[0].out) != len(m.outs) {
		return false
	}
	l := &m.chain[0]
	for i, s := range l.from {
		if s != i {
			return false
		}
	}
	for i, s := range m.outs {
		if s != l.to+i {
			return false
		}
	}
	return true
}

// checkOutputs compares what a link gave with its ports.
func (l *link) checkOutputs(outs []Tensor) error {
	for i := range outs {
		if err := checkKind(&l.out[i], &outs[i]); err != nil {
			return &ProtocolError{l.name, diag.Errorf("output %q: %w", l.out[i].Name, err)}
		}
	}
	return nil
}

// Interface returns the interface document; do not change it.
func (m *Model) Interface() *artifact.Interface { return m.iface }

// PeakMemory returns the largest linear memory that one instance of each module has had, in bytes, summed over the
// chain.
func (m *Model) PeakMemory() uint64 {
	var n uint64
	for _, l := range m.chain {
		n += l.peak.Load()
	}
	return n
}

// Run performs one inference: ins in the order of the interface document's inputs, results in the order of its outputs.
// The tensors returned belong to the caller. When ctx ends, Run returns its cause soon after the current bounded step
// (a step of the user's is interrupted at once). Errors: *InputError and *GuestError with InputFault for what the
// caller did wrong, ErrMemoryLimit, *TrapError, *ProtocolError, ErrClosed.
func (m *Model) Run(ctx context.Context, ins []Tensor) ([]Tensor, error) {
	outs, _, err := m.RunTimed(ctx, ins)
	return outs, err
}

// RunTimed is Run that also tells how long the modules worked: without the wait for a free instance, also when the call
// failed.
func (m *Model) RunTimed(ctx context.Context, ins []Tensor) (_ []Tensor, busy time.Duration, _ error) {
	return m.runTimed(ctx, ins, nil)
}

// RunEach is Run that adds what each member of the chain took to spent, in the order of the interface document's steps,
// of which it has at least as many elements.
func (m *Model) RunEach(ctx context.Context, ins []Tensor, spent []time.Duration) ([]Tensor, error) {
	outs, _, err := m.runTimed(ctx, ins, spent[:len(m.chain)])
	return outs, err
}

func (m *Model) runTimed(ctx context.Context, ins []Tensor, spent []time.Duration) (_ []Tensor, busy time.Duration, _ error) {
	if err := m.checkInputs(ins); err != nil {
		return nil, 0, err
	}
	if m.direct { // no steps around the model: nothing to wire
		l := &m.chain[0]
		outs, busy, err := l.run(ctx, ins)
		if spent != nil {
			spent[0] += busy
		}
		if err == nil {
			err = l.checkOutputs(outs)
		}
		if err != nil {
			return nil, busy, err
		}
		return outs, busy, nil
	}
	values := make([]Tensor, m.slots)
	copy(values, ins)
	for n, l := range m.chain {
		args := make([]Tensor, len(l.from))
		for i, s := range l.from {
			args[i] = values[s]
		}
		outs, took, err := l.run(ctx, args)
		busy += took
		if spent != nil {
			spent[n] += took
		}
		if err != nil {
			return nil, busy, err
		}
		if err := l.checkOutputs(outs); err != nil {
			return nil, busy, err
		}
		copy(values[l.to:], outs)
	}
	outs := make([]Tensor, len(m.outs))
	for i, s := range m.outs {
		outs[i] = values[s]
	}
	return outs, busy, nil
}

// Close waits for running calls and frees the model. Later calls of Run return ErrClosed. When ctx ends first, Close
// returns and the rest is freed as calls finish.
func (m *Model) Close(ctx context.Context) error {
	m.eng.mu.Lock()
	delete(m.eng.models, m)
	m.eng.mu.Unlock()
	var errs []error
	for _, l := range m.chain {
		errs = append(errs, l.close(ctx))
	}
	return errors.Join(errs...)
}

// checkInputs compares the inputs with the interface document, so that errors carry names.
func (m *Model) checkInputs(ins []Tensor) error {
	if len(ins) != len(m.iface.Inputs) {
		return &InputError{"", diag.Errorf("the model has %d inputs, %d were given", len(m.iface.Inputs), len(ins))}
	}
	var syms map[string]int64
	for i := range ins {
		p, t := &m.iface.Inputs[i], &ins[i]
		if err := t.Check(); err != nil {
			return &InputError{p.Name, err}
		}
		if err := checkKind(p, t); err != nil {
			return &InputError{p.Name, err}
		}
		if t.Kind != abi.Tensor || !p.Ranked {
			continue
		}
		if len(t.Shape) != len(p.Shape) {
			return &InputError{p.Name, diag.Errorf("it has rank %d, the model wants %s", len(t.Shape), PortShape(p))}
		}
		for j, d := range p.Shape {
			n := t.Shape[j]
			switch {
			case d.Size >= 0 && n != d.Size:
				return &InputError{p.Name, diag.Errorf("its shape is %s, the model wants %s", ShapeString(t.Shape), PortShape(p))}
			case d.Size >= 0:
			case d.Max > 0 && n > d.Max:
				return &InputError{p.Name, diag.Errorf("dimension %d (%s) is %d, the model takes at most %d", j, d.Sym, n, d.Max)}
			case j == 0 && m.iface.Limits.MaxBatch > 0 && n > m.iface.Limits.MaxBatch:
				return &InputError{p.Name, diag.Errorf("a batch of %d, the model takes at most %d", n, m.iface.Limits.MaxBatch)}
			case d.Sym != "":
				if syms == nil {
					syms = map[string]int64{}
				}
				if have, ok := syms[d.Sym]; ok && have != n {
					return &InputError{p.Name, diag.Errorf("dimension %s is %d, another input has %d", d.Sym, n, have)}
				}
				syms[d.Sym] = n
			}
		}
	}
	return nil
}

// checkKind compares kind and element type.
func checkKind(p *artifact.Port, t *Tensor) error {
	k, ok := abi.ParseKind(p.Kind)
	if !ok {
		return diag.Errorf("the interface document has the unknown kind %q", p.Kind)
	}
	if k != t.Kind {
		return diag.Errorf("it is a %s, the model has a %s", t.Kind, k)
	}
	if k != abi.Tensor {
		if p.Elem == nil || k == abi.Map {
			return nil
		}
		for i := range t.Elems {
			if err := checkKind(p.Elem, &t.Elems[i]); err != nil {
				return diag.Errorf("element %d: %w", i, err)
			}
		}
		return nil
	}
	if t.DType.String() != p.DType {
		return diag.Errorf("its element type is %s, the model has %s", t.DType, p.DType)
	}
	return nil
}

// PortShape formats a port's shape: [N 30], with ? for a dimension that depends on the data.
func PortShape(p *artifact.Port) string {
	if !p.Ranked {
		return "any shape"
	}
	s := "["
	for i, d := range p.Shape {
		if i > 0 {
			s += " "
		}
		switch {
		case d.Size >= 0:
			s += fmt.Sprint(d.Size)
		case d.Sym != "":
			s += d.Sym
		default:
			s += "?"
		}
	}
	return s + "]"
}
