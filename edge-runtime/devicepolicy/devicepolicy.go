// Package devicepolicy evaluates a device-local policy: a WebAssembly module that OPA's compiler made of Rego (policy/device),
// over an input document (edge-runtime/deviceinput). It is the host side of OPA's WebAssembly ABI 1.2 and later, and nothing
// of OPA is in it.
//
// It fails closed. Only the one result `true` allows. Invalid input, a trap, an abort, a result of another form, a policy
// that runs too long or takes too much memory: not allowed, with the reason. Modules that need a builtin from the host do not
// load, since there are none: a builtin inside the module that fails makes its rule undefined, and a rule can only allow when
// it holds. Every evaluation has a fresh instance and a fresh memory.
package devicepolicy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Limits.
const (
	MaxModule  = 4 << 20 // bytes of a module, looked at before it is hashed
	memory     = 8 << 20 // bytes of linear memory in one evaluation
	maxReasons = 16
	maxReason  = 200 // characters of one reason
	maxResult  = 64 << 10
)

// DefaultTimeout bounds one evaluation, allow and reasons together.
const DefaultTimeout = 2 * time.Second

// Names of the two results that a module gives.
const (
	entryAllow   = "waybill/device/allow"
	entryReasons = "waybill/device/reasons"
)

// Compiler makes a module ready to run; *engine.Engine is one.
type Compiler interface {
	Foreign(ctx context.Context, code []byte, memory uint64, prepare func(*engine.Foreign) error) (*engine.Foreign, error)
}

// Policy is a loaded module. It is safe for concurrent use; evaluations wait for each other.
type Policy struct {
	digest  artifact.Digest
	timeout time.Duration
	checks  checks

	mu      sync.Mutex
	foreign *engine.Foreign
	env     wazero.CompiledModule
	aborted string // what the evaluation under way told opa_abort
	allow   uint64 // ids of the entrypoints
	reasons uint64
}

// Option changes how a policy is evaluated.
type Option func(*Policy)

// WithTimeout bounds one evaluation; the default is DefaultTimeout.
func WithTimeout(d time.Duration) Option { return func(p *Policy) { p.timeout = d } }

// checks are those that a test leaves out to see an attack succeed.
type checks struct {
	input  func(raw []byte) error
	result func(raw []byte) (bool, error)
}

// Decision is the outcome of one evaluation.
type Decision struct {
	Allow   bool
	Reasons []string // of the policy, for people; at most 16. Empty when it allows.
	// Err tells why the policy could not decide; Allow is then false.
	Err error
}

// Why is the outcome in a line.
func (d Decision) Why() string {
	switch {
	case d.Err != nil:
		return d.Err.Error()
	case d.Allow:
		return "allowed"
	case len(d.Reasons) == 0:
		return "the policy of this device does not allow it now, and gives no reason"
	}
	return strings.Join(d.Reasons, "; ")
}

// Load compiles a module and checks that it is a policy which this host can evaluate. The module must be pinned by the
// caller, who knows the trust document. The caller closes the policy.
func Load(ctx context.Context, c Compiler, code []byte, opts ...Option) (_ *Policy, err error) {
	if len(code) > MaxModule {
		return nil, diag.Errorf("device policy: the module has %d bytes, the limit is %d", len(code), MaxModule)
	}
	p := &Policy{digest: artifact.DigestOf(code), timeout: DefaultTimeout, checks: checks{
		input:  func(raw []byte) error { _, err := deviceinput.Parse(raw); return err },
		result: isTrue,
	}}
	for _, o := range opts {
		o(p)
	}
	fail := func(err error) (*Policy, error) {
		if p.foreign != nil {
			err = errors.Join(err, p.foreign.Close(ctx))
		}
		return nil, diag.Errorf("device policy %s: %w", p.digest.Short(), err)
	}
	p.foreign, err = c.Foreign(ctx, code, memory, func(f *engine.Foreign) error {
		pages, err := shape(f.Compiled)
		if err != nil {
			return err
		}
		if err := checkTables(code); err != nil {
			return err
		}
		if p.env, err = f.Runtime.CompileModule(ctx, envModule(pages, memory>>16)); err != nil {
			return err
		}
		return p.host(ctx, f.Runtime)
	})
	if err != nil {
		return fail(err)
	}
	if err := p.describe(ctx); err != nil {
		return fail(err)
	}
	return p, nil
}

// Digest is the sha256 of the module.
func (p *Policy) Digest() artifact.Digest { return p.digest }

// Close frees the module, after the evaluation under way.
func (p *Policy) Close(ctx context.Context) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.foreign.Close(ctx)
}

// Evaluate decides over input, a deviceinput.Document in JSON. It always returns a decision.
func (p *Policy) Evaluate(ctx context.Context, input []byte) Decision {
	if err := p.checks.input(input); err != nil {
		return Decision{Err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	p.mu.Lock()
	defer p.mu.Unlock()
	raw, err := p.eval(ctx, p.allow, input)
	if err != nil {
		return Decision{Err: diag.Errorf("device policy %s: %w", p.digest.Short(), err)}
	}
	allow, err := p.checks.result(raw)
	if err != nil {
		return Decision{Err: diag.Errorf("device policy %s: %w", p.digest.Short(), err)}
	}
	d := Decision{Allow: allow}
	if allow {
		return d
	}
	// Only for people: whatever goes wrong here, the answer stands.
	raw, err = p.eval(ctx, p.reasons, input)
	if err == nil {
		d.Reasons, err = readReasons(raw)
	}
	if err != nil {
		d.Reasons = []string{"its reasons could not be read: " + err.Error()}
	}
	return d
}

// isTrue reads the result of allow: exactly one, and a boolean.
func isTrue(raw []byte) (bool, error) {
	switch {
	case bytes.Equal(raw, []byte(`[{"result":true}]`)):
		return true, nil
	case bytes.Equal(raw, []byte(`[{"result":false}]`)):
		return false, nil
	}
	return false, diag.Errorf("its result is %.100q, neither true nor false", raw)
}

// readReasons reads the result of reasons: a set of texts, made fit to print.
func readReasons(raw []byte) ([]string, error) {
	var rs []struct {
		Result []string `json:"result"`
	}
	if err := strictjson.Decode(raw, &rs); err != nil {
		return nil, err
	}
	if len(rs) != 1 {
		return nil, diag.Errorf("%d results", len(rs))
	}
	out := rs[0].Result
	if n := len(out) - maxReasons; n > 0 {
		out = append(out[:maxReasons:maxReasons], fmt.Sprintf("and %d more", n))
	}
	for i, s := range out {
		out[i] = printable(s)
	}
	return out, nil
}

// printable keeps a text on one line and short.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == utf8.RuneError {
			return ' '
		}
		return r
	}, s)
	if rs := []rune(s); len(rs) > maxReason {
		s = string(rs[:maxReason]) + "..."
	}
	return s
}

// exports that a module must have, with the number of their i32 parameters and results.
var exports = map[string][2]int{
	"opa_eval": {7, 1}, "entrypoints": {0, 1}, "builtins": {0, 1}, "opa_json_dump": {1, 1}, "opa_malloc": {1, 1}, "opa_heap_ptr_get": {0, 1},
}

// shape checks imports and exports of a module and gives the pages that its memory starts with.
func shape(m wazero.CompiledModule) (uint32, error) {
	known := map[string][2]int{}
	for _, f := range hostFuncs {
		known[f.name] = [2]int{f.params, f.results}
	}
	for _, f := range m.ImportedFunctions() {
		mod, name, _ := f.Import()
		want, ok := known[name]
		if mod != "env" || !ok || !signature(f, want) {
			return 0, diag.Errorf("it imports %s.%s, which this host does not have", mod, name)
		}
	}
	mems := m.ImportedMemories()
	if len(mems) != 1 {
		return 0, errors.New("it does not import one memory")
	}
	if mod, name, _ := mems[0].Import(); mod != "env" || name != "memory" {
		return 0, diag.Errorf("it imports its memory as %s.%s, not env.memory", mod, name)
	}
	if mems[0].Min() > memory>>16 {
		return 0, diag.Errorf("it starts with %d pages of memory, the limit is %d", mems[0].Min(), memory>>16)
	}
	fns := m.ExportedFunctions()
	for name, want := range exports {
		f, ok := fns[name]
		if !ok || !signature(f, want) {
			return 0, diag.Errorf("it exports no function %s of the right type: it is not made by `waybill policy pack --device`", name)
		}
	}
	return mems[0].Min(), nil
}

func signature(f api.FunctionDefinition, want [2]int) bool {
	if len(f.ParamTypes()) != want[0] || len(f.ResultTypes()) != want[1] {
		return false
	}
	for _, t := range append(append([]api.ValueType{}, f.ParamTypes()...), f.ResultTypes()...) {
		if t != api.ValueTypeI32 {
			return false
		}
	}
	return true
}
