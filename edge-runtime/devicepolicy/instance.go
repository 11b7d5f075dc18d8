package devicepolicy

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
)

// errAborted ends an evaluation that called opa_abort; errBuiltin one that asked for a builtin.
var (
	errAborted = errors.New("the policy aborted")
	errBuiltin = errors.New("the policy asked this device for a builtin, and there is none")
)

// host instantiates the module that env takes its functions from.
func (p *Policy) host(ctx context.Context, rt wazero.Runtime) error {
	b := rt.NewHostModuleBuilder(hostModule)
	for _, f := range hostFuncs {
		types := make([]api.ValueType, f.params)
		for i := range types {
			types[i] = api.ValueTypeI32
		}
		var fn api.GoModuleFunc
		switch f.name {
		case "opa_abort":
			fn = func(_ context.Context, m api.Module, stack []uint64) {
				p.aborted, _ = cstring(m.Memory(), api.DecodeU32(stack[0]), maxReason)
				panic(errAborted)
			}
		case "opa_println":
			fn = func(context.Context, api.Module, []uint64) {} // print is no builtin of a device
		default:
			fn = func(context.Context, api.Module, []uint64) { panic(errBuiltin) }
		}
		b.NewFunctionBuilder().WithGoModuleFunction(fn, types, types[:f.results]).Export(f.name)
	}
	_, err := b.Instantiate(ctx)
	return err
}

// instance is the module with a memory of its own.
type instance struct {
	env, mod api.Module
	mem      api.Memory
}

// open instantiates the module. The caller closes the instance, also when its context has ended.
func (p *Policy) open(ctx context.Context) (*instance, error) {
	p.aborted = ""
	in := &instance{}
	var err error
	quiet := wazero.NewModuleConfig().WithStartFunctions()
	if in.env, err = p.foreign.Runtime.InstantiateModule(ctx, p.env, quiet.WithName("env")); err != nil {
		return nil, p.failed(ctx, err)
	}
	in.mem = in.env.ExportedMemory("memory")
	if in.mod, err = p.foreign.Runtime.InstantiateModule(ctx, p.foreign.Compiled, quiet.WithName("")); err != nil {
		in.close()
		return nil, p.failed(ctx, err)
	}
	return in, nil
}

func (in *instance) close() {
	ctx := context.Background()
	if in.mod != nil {
		_ = in.mod.Close(ctx)
	}
	_ = in.env.Close(ctx)
}

// failed gives the reason behind an error of a call.
func (p *Policy) failed(ctx context.Context, err error) error {
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return diag.Errorf("it ran longer than %s", p.timeout)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errAborted):
		return diag.Errorf("%w: %q", errAborted, p.aborted)
	case errors.Is(err, errBuiltin):
		return errBuiltin
	}
	line, _, _ := bytes.Cut([]byte(err.Error()), []byte("\n"))
	return diag.Errorf("it failed: %s", line)
}

// call calls an export with i32 parameters and one i32 result.
func (p *Policy) call(ctx context.Context, in *instance, name string, args ...uint64) (uint32, error) {
	r, err := in.mod.ExportedFunction(name).Call(ctx, args...)
	if err != nil {
		return 0, p.failed(ctx, err)
	}
	return api.DecodeU32(r[0]), nil
}

// eval runs one entrypoint over input in a fresh instance and gives the JSON of its result set.
func (p *Policy) eval(ctx context.Context, entry uint64, input []byte) ([]byte, error) {
	in, err := p.open(ctx)
	if err != nil {
		return nil, err
	}
	defer in.close()
	// The heap begins behind what the module has laid out; the input takes its first bytes.
	base, err := p.call(ctx, in, "opa_heap_ptr_get")
	if err != nil {
		return nil, err
	}
	end := uint64(base) + uint64(len(input))
	if size := uint64(in.mem.Size()); end > size {
		if _, ok := in.mem.Grow(uint32((end - size + 0xffff) >> 16)); !ok {
			return nil, diag.Errorf("its memory is full: %d bytes", memory)
		}
	}
	if !in.mem.Write(base, input) {
		return nil, diag.Errorf("its heap begins at %d, outside of its memory", base)
	}
	addr, err := p.call(ctx, in, "opa_eval", 0, entry, 0, uint64(base), uint64(len(input)), end, 0)
	if err != nil {
		return nil, err
	}
	s, ok := cstring(in.mem, addr, maxResult)
	if !ok {
		return nil, diag.Errorf("its result at %d is outside of its memory, or has no end within %d bytes", addr, maxResult)
	}
	return []byte(s), nil
}

// cstring copies a text that ends with a zero byte, of at most max bytes.
func cstring(mem api.Memory, addr uint32, max int) (string, bool) {
	size := uint64(mem.Size())
	if uint64(addr) >= size {
		return "", false
	}
	n := min(size-uint64(addr), uint64(max)+1)
	b, ok := mem.Read(addr, uint32(n))
	if !ok {
		return "", false
	}
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return "", false
	}
	return string(b[:i]), true
}

// describe reads what the module says of itself: its version of the ABI, its entrypoints, and the builtins it needs.
func (p *Policy) describe(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	in, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer in.close()
	major, minor := in.mod.ExportedGlobal("opa_wasm_abi_version"), in.mod.ExportedGlobal("opa_wasm_abi_minor_version")
	if major == nil || minor == nil || api.DecodeU32(major.Get()) != 1 || api.DecodeU32(minor.Get()) < 2 {
		return errors.New("it is not of version 1.2 or later of OPA's WebAssembly ABI")
	}
	ids := func(export string) (map[string]json.Number, error) {
		addr, err := p.call(ctx, in, export)
		if err != nil {
			return nil, err
		}
		if addr, err = p.call(ctx, in, "opa_json_dump", uint64(addr)); err != nil {
			return nil, err
		}
		s, ok := cstring(in.mem, addr, maxResult)
		if !ok {
			return nil, diag.Errorf("the result of %s is outside of its memory, or has no end", export)
		}
		m := map[string]json.Number{}
		if err := strictjson.Decode([]byte(s), &m); err != nil {
			return nil, diag.Errorf("%s: %w", export, err)
		}
		return m, nil
	}
	needs, err := ids("builtins")
	if err != nil {
		return err
	}
	for name := range needs {
		return diag.Errorf("it needs the builtin %.50q from its host, which has none", name)
	}
	entries, err := ids("entrypoints")
	if err != nil {
		return err
	}
	for _, e := range []struct {
		name string
		id   *uint64
	}{{entryAllow, &p.allow}, {entryReasons, &p.reasons}} {
		n, err := entries[e.name].Int64()
		if err != nil || n < 0 || n > 1<<16 {
			return diag.Errorf("it has no entrypoint %s", e.name)
		}
		*e.id = uint64(n)
	}
	return nil
}
