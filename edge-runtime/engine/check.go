package engine

import (
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/internal/diag"
)

// guestInfo is what a module's exports tell before it is instantiated.
type guestInfo struct {
	heap       bool // waybill_heap: the host lays memory out; else waybill_alloc
	initialize bool // exports _initialize, as WASI reactors do
	weights    bool // exports waybill_weights
	minMemory  uint64
	maxMemory  uint64 // 0 when the module declares none
}

// exports of every guest, with their signatures.
var guestExports = map[string]signature{
	abi.ExportABI:    {nil, 1},
	abi.ExportCtx:    {nil, 1},
	abi.ExportBind:   {[]api.ValueType{i32}, 1},
	abi.ExportResume: {[]api.ValueType{i32}, 1},
	abi.ExportPart:   {[]api.ValueType{i32, i32}, 1},
}

const i32 = api.ValueTypeI32

type signature struct {
	params  []api.ValueType
	results int // of type i32
}

func (s signature) String() string {
	return fmt.Sprintf("(%s) -> %d", strings.TrimSuffix(strings.Repeat("i32 ", len(s.params)), " "), s.results)
}

func (s signature) matches(f api.FunctionDefinition) bool {
	if len(f.ParamTypes()) != len(s.params) || len(f.ResultTypes()) != s.results {
		return false
	}
	for _, t := range append(append([]api.ValueType{}, f.ParamTypes()...), f.ResultTypes()...) {
		if t != i32 {
			return false
		}
	}
	return true
}

// checkModule compares a compiled module with the ABI: exports, signatures and, for ours, that it imports nothing and
// runs nothing at instantiation.
func checkModule(c wazero.CompiledModule, code []byte, ours bool) (guestInfo, error) {
	var g guestInfo
	if err := checkImports(c, ours); err != nil {
		return g, err
	}
	if ours {
		if start, err := hasStart(code); err != nil {
			return g, err
		} else if start {
			return g, errors.New("the module has a start function; a model may not run code before bind")
		}
	}
	mem, ok := c.ExportedMemories()[abi.ExportMemory]
	if !ok {
		return g, diag.Errorf("the module does not export its memory as %q", abi.ExportMemory)
	}
	g.minMemory = uint64(mem.Min()) << 16
	if max, ok := mem.Max(); ok {
		g.maxMemory = uint64(max) << 16
	}
	fns := c.ExportedFunctions()
	want := map[string]signature{}
	for n, s := range guestExports {
		want[n] = s
	}
	_, heap := fns[abi.ExportHeap]
	_, alloc := fns[abi.ExportAlloc]
	switch {
	case heap && alloc:
		return g, diag.Errorf("the module exports both %s and %s; it must choose who owns its memory", abi.ExportHeap, abi.ExportAlloc)
	case heap:
		want[abi.ExportHeap] = signature{nil, 1}
	case alloc:
		want[abi.ExportAlloc] = signature{[]api.ValueType{i32}, 1}
		want[abi.ExportFree] = signature{[]api.ValueType{i32}, 0}
	default:
		return g, diag.Errorf("the module exports neither %s nor %s: it is no Waybill guest", abi.ExportHeap, abi.ExportAlloc)
	}
	g.heap = heap
	if _, g.weights = fns[abi.ExportWeights]; g.weights {
		want[abi.ExportWeights] = signature{nil, 1}
	}
	for _, n := range sortedKeys(want) {
		f, ok := fns[n]
		if !ok {
			return g, diag.Errorf("the module does not export the function %s", n)
		}
		if !want[n].matches(f) {
			return g, diag.Errorf("export %s has the wrong signature; it must be %s", n, want[n])
		}
	}
	if f, ok := fns["_initialize"]; ok {
		if ours {
			return g, errors.New("the module exports _initialize; a model may not run code before bind")
		}
		if !(signature{nil, 0}).matches(f) {
			return g, errors.New("export _initialize must take and return nothing")
		}
		g.initialize = true
	}
	if _, ok := fns["_start"]; ok && !ours {
		return g, errors.New("the module is a command (it exports _start), not a library; build it as a reactor, for example with go build -buildmode=c-shared")
	}
	return g, nil
}

func sortedKeys[V any](m map[string]V) []string {
	var k []string
	for n := range m {
		k = append(k, n)
	}
	sort.Strings(k)
	return k
}

// checkImports refuses whatever the frozen set does not hold. Models import nothing.
func checkImports(c wazero.CompiledModule, ours bool) error {
	if m := c.ImportedMemories(); len(m) > 0 {
		mod, name, _ := m[0].Import()
		return diag.Errorf("the module imports the memory %s.%s; it must define its own", mod, name)
	}
	for _, f := range c.ImportedFunctions() {
		mod, name, _ := f.Import()
		if ours {
			return diag.Errorf("the model imports %s.%s; a model may import nothing", mod, name)
		}
		h, ok := hostFunctions(mod)[name]
		if !ok {
			return diag.Errorf("the step imports %s.%s, which is not in the set that steps may use "+
				"(clock, random, arguments, environment and stdout of %s; %s.abort)", mod, name, wasiModule, envModule)
		}
		if string(h.params) != string(f.ParamTypes()) || string(h.results) != string(f.ResultTypes()) {
			return diag.Errorf("the step imports %s.%s with an unknown signature", mod, name)
		}
	}
	return nil
}

// hasStart looks for a start section. wazero has validated the module before, so a malformed one is only an error here.
func hasStart(code []byte) (bool, error) {
	const startSection = 8
	bad := errors.New("malformed section header")
	if len(code) < 8 {
		return false, bad
	}
	for p := uint64(8); p < uint64(len(code)); {
		id := code[p]
		p++
		var size uint64
		for shift := 0; ; shift += 7 {
			if p >= uint64(len(code)) || shift > 28 {
				return false, bad
			}
			b := code[p]
			p++
			size |= uint64(b&0x7f) << shift
			if b&0x80 == 0 {
				break
			}
		}
		if id == startSection {
			return true, nil
		}
		if size > uint64(len(code))-p {
			return false, bad
		}
		p += size
	}
	return false, nil
}
