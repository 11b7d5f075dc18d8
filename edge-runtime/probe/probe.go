// Package probe proves a model on the device where it is to serve: it runs the golden vectors of the artifact and
// compares the outputs with the expected ones bit for bit. There is no tolerance: every host of one digest must give the
// same bits, and NaNs are canonical at a graph's outputs.
package probe

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Runner is a loaded model; *engine.Model is one.
type Runner interface {
	Interface() *artifact.Interface
	Run(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, error)
}

// Report is the outcome of a probe. Durations are in nanoseconds.
type Report struct {
	Vectors    int       `json:"vectors"`
	Passed     int       `json:"passed"`
	Calls      int       `json:"calls"` // of all vectors together; more than Vectors when they were repeated
	Failures   []Failure `json:"failures,omitempty"`
	FirstNS    int64     `json:"firstNs"` // of the first call
	P50NS      int64     `json:"p50Ns"`
	P99NS      int64     `json:"p99Ns"`
	MaxNS      int64     `json:"maxNs"`
	TotalNS    int64     `json:"totalNs"`
	PeakMemory uint64    `json:"peakMemory"` // bytes of linear memory; 0 when the runner cannot tell
}

// Failure is one vector that was not reproduced.
type Failure struct {
	Vector string `json:"vector"`
	Output string `json:"output,omitempty"` // empty when the call itself failed
	Detail string `json:"detail"`
}

// OK tells whether there were vectors and all of them were reproduced.
func (r Report) OK() bool { return r.Vectors > 0 && r.Passed == r.Vectors && len(r.Failures) == 0 }

// Err returns nil when OK, else an error that names the first failure.
func (r Report) Err() error {
	if r.OK() {
		return nil
	}
	if r.Vectors == 0 {
		return errors.New("the artifact has no golden vectors")
	}
	f := r.Failures[0]
	at := f.Vector
	if f.Output != "" {
		at += ", output " + f.Output
	}
	if r.Passed == r.Vectors {
		return fmt.Errorf("a golden vector that was reproduced once was not at a later call: %s: %s", at, f.Detail)
	}
	return fmt.Errorf("%d of %d golden vectors were not reproduced; first: %s: %s", r.Vectors-r.Passed, r.Vectors, at, f.Detail)
}

// Effort says how much is done to tell times.
type Effort struct {
	// Calls is how many calls are made at least, over all vectors in turn, unless Budget is over before; every vector is run once
	// whatever they say.
	Calls  int
	Budget time.Duration
	// Timeout ends a call; 0: none. What does not finish is a failure, and the vectors after it are not tried.
	Timeout time.Duration
}

// Run runs every vector once, in order; see Measure.
func Run(ctx context.Context, r Runner, g *artifact.Golden) (Report, error) {
	return Measure(ctx, r, g, Effort{})
}

// Measure runs every vector, in order, and again and again as e asks. A vector that is not reproduced, at the first call or at
// a later one, is a Failure in the report; the error is for a golden document that does not fit the model and for a context that ended.
func Measure(ctx context.Context, r Runner, g *artifact.Golden, e Effort) (Report, error) {
	rep := Report{Vectors: len(g.Vectors)}
	if g.Schema != artifact.GoldenSchema {
		return Report{}, fmt.Errorf("golden vectors have schema %q, not %q", g.Schema, artifact.GoldenSchema)
	}
	iface := r.Interface()
	pairs := make([]pair, len(g.Vectors))
	for i := range g.Vectors {
		v := &g.Vectors[i]
		var err error
		if pairs[i].ins, err = inputs(v.Inputs, iface.Inputs); err != nil {
			return rep, fmt.Errorf("golden vector %s: %w", v.Name, err)
		}
		if pairs[i].want, err = inputs(v.Expected, iface.Outputs); err != nil {
			return rep, fmt.Errorf("golden vector %s: expected: %w", v.Name, err)
		}
	}
	var times []int64
	for round := 0; ; round++ {
		for i := range pairs {
			if round > 0 && (len(times) >= e.Calls || rep.TotalNS >= e.Budget.Nanoseconds()) {
				return rep.done(r, times), nil
			}
			name := g.Vectors[i].Name
			got, took, err := call(ctx, r, pairs[i].ins, e.Timeout)
			times = append(times, took)
			rep.TotalNS += took
			if ctx.Err() != nil && err != nil {
				return rep, fmt.Errorf("golden vector %s: %w", name, context.Cause(ctx))
			}
			fs := pairs[i].failures(name, iface, got, err)
			rep.Failures = append(rep.Failures, fs...)
			switch {
			case errors.Is(err, errTimeout):
				return rep.done(r, times), nil
			case len(fs) == 0 && round == 0:
				rep.Passed++
			}
		}
		if len(pairs) == 0 || len(rep.Failures) > 0 || e.Calls <= len(times) {
			return rep.done(r, times), nil
		}
	}
}

// errTimeout says that a call took longer than Effort.Timeout.
var errTimeout = errors.New("it did not finish in time")

// call runs the model once.
func call(ctx context.Context, r Runner, ins []engine.Tensor, timeout time.Duration) (outs []engine.Tensor, took int64, err error) {
	one, cancel := ctx, context.CancelFunc(func() {})
	if timeout > 0 {
		one, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	start := time.Now()
	outs, err = r.Run(one, ins)
	took = time.Since(start).Nanoseconds()
	if err != nil && one.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %s: %w", errTimeout, timeout, err)
	}
	return outs, took, err
}

// pair is one vector in the order of the ports.
type pair struct{ ins, want []engine.Tensor }

func (p *pair) failures(name string, iface *artifact.Interface, got []engine.Tensor, err error) (out []Failure) {
	if err != nil {
		return []Failure{{Vector: name, Detail: err.Error()}}
	}
	if len(got) != len(p.want) {
		return []Failure{{Vector: name, Detail: fmt.Sprintf("%d outputs, expected %d", len(got), len(p.want))}}
	}
	for j := range p.want {
		if detail := Diff(got[j], p.want[j]); detail != "" {
			out = append(out, Failure{name, iface.Outputs[j].Name, detail})
		}
	}
	return out
}

// done fills in what the calls took.
func (r Report) done(runner Runner, times []int64) Report {
	if r.Calls = len(times); r.Calls > 0 {
		r.FirstNS = times[0]
		sort.Slice(times, func(i, j int) bool { return times[i] < times[j] })
		r.P50NS, r.P99NS, r.MaxNS = times[len(times)/2], times[(len(times)*99+99)/100-1], times[len(times)-1]
	}
	if p, ok := runner.(interface{ PeakMemory() uint64 }); ok {
		r.PeakMemory = p.PeakMemory()
	}
	return r
}

// Call runs the model once on tensors in the golden document's form, which are found by name; the outputs have that form
// too, in the order of the interface document.
func Call(ctx context.Context, r Runner, named []artifact.GoldenTensor) ([]artifact.GoldenTensor, error) {
	iface := r.Interface()
	ins, err := inputs(named, iface.Inputs)
	if err != nil {
		return nil, &engine.InputError{Err: err}
	}
	outs, err := r.Run(ctx, ins)
	if err != nil {
		return nil, err
	}
	res := make([]artifact.GoldenTensor, len(outs))
	for i := range outs {
		res[i] = ToGolden(iface.Outputs[i].Name, outs[i])
	}
	return res, nil
}

// inputs puts named tensors into the order of the ports; every port needs one, and there may be no others.
func inputs(named []artifact.GoldenTensor, ports []artifact.Port) ([]engine.Tensor, error) {
	by := map[string]*artifact.GoldenTensor{}
	for i := range named {
		if by[named[i].Name] != nil {
			return nil, fmt.Errorf("%q stands twice", named[i].Name)
		}
		by[named[i].Name] = &named[i]
	}
	if len(by) != len(ports) {
		return nil, fmt.Errorf("it has %d tensors, the model %d", len(by), len(ports))
	}
	out := make([]engine.Tensor, len(ports))
	for i, p := range ports {
		g := by[p.Name]
		if g == nil {
			return nil, fmt.Errorf("%q is missing", p.Name)
		}
		var err error
		if out[i], err = FromGolden(*g); err != nil {
			return nil, fmt.Errorf("%q: %w", p.Name, err)
		}
	}
	return out, nil
}

// FromGolden converts a tensor of the golden document. Foreign bytes: everything is checked.
func FromGolden(g artifact.GoldenTensor) (engine.Tensor, error) {
	t, err := fromGolden(g, 0)
	if err == nil {
		err = t.Check()
	}
	return t, err
}

func fromGolden(g artifact.GoldenTensor, depth int) (engine.Tensor, error) {
	k, ok := abi.ParseKind(g.Kind)
	if !ok || depth > 8 {
		return engine.Tensor{}, fmt.Errorf("unknown kind %q", g.Kind)
	}
	d, ok := abi.ParseDType(g.DType)
	if !ok && (k == abi.Tensor || g.DType != "") {
		return engine.Tensor{}, fmt.Errorf("unknown element type %q", g.DType)
	}
	t := engine.Tensor{Kind: k, DType: d, Shape: g.Shape, Data: g.Data, Strings: g.Strings}
	for _, e := range g.Elems {
		c, err := fromGolden(e, depth+1)
		if err != nil {
			return t, err
		}
		t.Elems = append(t.Elems, c)
	}
	return t, nil
}

// ToGolden is the inverse of FromGolden.
func ToGolden(name string, t engine.Tensor) artifact.GoldenTensor {
	g := artifact.GoldenTensor{Name: name, Shape: t.Shape, Data: t.Data, Strings: t.Strings}
	if t.Kind != abi.Tensor {
		g.Kind = t.Kind.String()
	}
	if t.DType != 0 {
		g.DType = t.DType.String()
	}
	if g.Shape == nil {
		g.Shape = []int64{}
	}
	for _, e := range t.Elems {
		g.Elems = append(g.Elems, ToGolden("", e))
	}
	return g
}

// Diff describes the first difference between got and want, "" when they are equal bit for bit.
func Diff(got, want engine.Tensor) string {
	if engine.Equal(got, want) {
		return ""
	}
	switch {
	case got.Kind != want.Kind:
		return fmt.Sprintf("a %s, expected a %s", got.Kind, want.Kind)
	case got.Kind != abi.Tensor:
		if len(got.Elems) != len(want.Elems) {
			return fmt.Sprintf("%d elements, expected %d", len(got.Elems), len(want.Elems))
		}
		for i := range got.Elems {
			if d := Diff(got.Elems[i], want.Elems[i]); d != "" {
				return fmt.Sprintf("element %d: %s", i, d)
			}
		}
	case got.DType != want.DType:
		return fmt.Sprintf("element type %s, expected %s", got.DType, want.DType)
	case engine.ShapeString(got.Shape) != engine.ShapeString(want.Shape):
		return fmt.Sprintf("shape %s, expected %s", engine.ShapeString(got.Shape), engine.ShapeString(want.Shape))
	case got.DType == abi.String:
		for i := range got.Strings {
			if got.Strings[i] != want.Strings[i] {
				return fmt.Sprintf("element %d is %q, expected %q", i, clip(got.Strings[i]), clip(want.Strings[i]))
			}
		}
	}
	size := max(got.DType.Bits()/8, 1)
	for i := 0; i+size <= len(got.Data) && i+size <= len(want.Data); i += size {
		a, b := got.Data[i:i+size], want.Data[i:i+size]
		if string(a) != string(b) {
			return fmt.Sprintf("element %d is %s, expected %s", i/size, element(got.DType, a), element(got.DType, b))
		}
	}
	return "they differ"
}

func clip(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "..."
	}
	return s
}

// element shows a value with its bits, since two values that print alike may differ in them.
func element(d abi.DType, b []byte) string {
	var bits uint64
	for i := len(b) - 1; i >= 0; i-- {
		bits = bits<<8 | uint64(b[i])
	}
	hex := fmt.Sprintf("0x%0*x", 2*len(b), bits)
	switch d {
	case abi.F32:
		return fmt.Sprintf("%v (%s)", math.Float32frombits(uint32(bits)), hex)
	case abi.F64:
		return fmt.Sprintf("%v (%s)", math.Float64frombits(bits), hex)
	case abi.I64:
		return fmt.Sprint(int64(bits))
	case abi.I32:
		return fmt.Sprint(int32(bits))
	}
	return hex
}
