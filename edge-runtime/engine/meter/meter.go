// Package meter rewrites a WebAssembly module so that no call into it can run for ever or nest without end. A native call of
// wazero cannot be interrupted from outside, so a module has to stop itself: every function gets the fuel that is left as one more
// parameter and one more result, counts what it does out of it, at its entry and at each turn of a loop, and traps when nothing is
// left. A second parameter is the stack that is left. Both live in registers; nothing that the module can reach holds them, and calls
// on several threads do not share them.
//
// What the module computes does not change by a bit. Tables never grow in a rewritten module, and the memory does only where that is
// asked for: the memory of a model belongs to the host, which moves or maps it while no guest runs.
package meter

import (
	"errors"
	"fmt"
	"math"
)

// Names under which a counted module exports its meter. A module that has exports of these names is refused.
const (
	Fuel  = "waybill_meter_fuel"  // global, mutable i64: what each call from the host may spend
	Spent = "waybill_meter_spent" // global, mutable i32: OutOfFuel or OutOfStack once a call was ended
)

// Values of the global Spent.
const (
	OutOfFuel  = 1
	OutOfStack = 2
)

// Stack is what the frames of a call may take, in bytes, by an estimate that is above what compiled code takes.
const Stack = 8 << 20

// frame is the estimate: for the frame itself, and for each local and each instruction, which may leave a value.
const (
	frameBase = 128
	frameSlot = 16
)

// ErrImports: the module imports something. What the host does for a guest would not be counted.
var ErrImports = errors.New("the module imports something")

// Weights of what takes longer than an instruction does; one unit of fuel is about an instruction.
const (
	costCall   = 6
	costDivide = 8
	bulkShift  = 4 // bytes or elements per unit, as a shift
)

const (
	i32 = 0x7f
	i64 = 0x7e
)

// maxTable bounds the entries that the tables of a module start with, in sum: a table is memory of the host.
const maxTable = 1 << 20

// Options say what Rewrite does besides fixing the size of tables.
type Options struct {
	Count bool  // the meter; only for modules that import nothing
	Fuel  int64 // what a call may spend unless the host sets the global, in units of about an instruction
	Grow  bool  // memory.grow works; otherwise it fails, as it may according to the specification
	// Watch is for code that looks at its context in each turn of a loop, as wazero's does on request: every function begins with
	// a loop of one turn, since calls that call twice need no loop to go on for ever.
	Watch bool
}

// Rewrite changes code as o says. It reads modules of the second version of the core specification and does not validate
// them as a whole, but what it lets pass is valid only if code was.
func Rewrite(code []byte, o Options) (_ []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			bad, ok := r.(malformed)
			if !ok {
				panic(r)
			}
			err = bad.error
		}
	}()
	w := &rewriter{Options: o}
	return w.module(code), nil
}

// malformed carries an error out of the parser.
type malformed struct{ error }

func fail(format string, args ...any) { panic(malformed{fmt.Errorf(format, args...)}) }

// rewriter holds what the sections before the code have told.
type rewriter struct {
	Options

	types   []funcType
	extra   []funcType // types added for blocks with several results
	funcs   []uint32   // type of each function
	exports []uint32   // functions that are exported, each once
	globals uint32
	wrapper map[uint32]uint32 // exported function to its wrapper
}

type funcType struct{ params, results []byte }

// Sections of the binary format, in their order.
const (
	secType    = 1
	secImport  = 2
	secFunc    = 3
	secTable   = 4
	secMemory  = 5
	secGlobal  = 6
	secExport  = 7
	secStart   = 8
	secElem    = 9
	secCount   = 12
	secCode    = 10
	secData    = 11
	secCustom  = 0
	maxSection = 12
)

var order = []byte{secType, secImport, secFunc, secTable, secMemory, secGlobal, secExport, secStart, secElem, secCount, secCode, secData}

func (w *rewriter) module(code []byte) []byte {
	r := &reader{b: code}
	if string(r.take(8)) != "\x00asm\x01\x00\x00\x00" {
		fail("not a WebAssembly module of version 1")
	}
	var sections [maxSection + 1][]byte
	var have [maxSection + 1]bool
	var custom []byte
	last := -1
	for !r.end() {
		id := r.byte()
		body := r.take(int(r.u32()))
		if id == secCustom { // kept behind the others: names, which may be malformed
			custom = appendU32(append(custom, id), uint32(len(body)))
			custom = append(custom, body...)
			continue
		}
		if id > maxSection {
			fail("unknown section %d", id)
		}
		if id == secImport {
			if w.Count && (&reader{b: body}).u32() != 0 {
				panic(malformed{ErrImports})
			}
		}
		at := -1
		for i, o := range order {
			if o == id {
				at = i
			}
		}
		if have[id] || at <= last {
			fail("section %d stands twice or out of order", id)
		}
		last = at
		sections[id], have[id] = body, true
	}
	if w.Count {
		w.readTypes(sections[secType], have[secType])
		w.readFuncs(sections[secFunc], have[secFunc])
	}
	if w.Count && have[secStart] {
		fail("the module has a start function")
	}
	if have[secTable] {
		tables(sections[secTable])
	}
	if have[secGlobal] {
		w.globals = (&reader{b: sections[secGlobal]}).u32()
	}
	if w.Count {
		sections[secExport] = w.exportSection(sections[secExport], have[secExport])
		sections[secGlobal] = w.globalSection(sections[secGlobal], have[secGlobal])
		have[secExport], have[secGlobal] = true, true
	}
	if have[secCode] {
		sections[secCode] = w.codeSection(sections[secCode])
	}
	if w.Count {
		sections[secType] = w.typeSection()
		sections[secFunc] = w.funcSection()
		have[secType] = true
	}
	out := append(make([]byte, 0, len(code)+len(code)/2), code[:8]...)
	for _, id := range order {
		if have[id] {
			out = append(out, id)
			out = appendU32(out, uint32(len(sections[id])))
			out = append(out, sections[id]...)
		}
	}
	return append(out, custom...)
}

// tables adds up what the tables start with.
func tables(b []byte) {
	r := &reader{b: b}
	sum := uint64(0)
	for range r.count() {
		r.valueType()
		limits := r.byte()
		sum += uint64(r.u32())
		if limits&1 != 0 {
			r.u32()
		}
	}
	r.done("table section")
	if sum > maxTable {
		fail("tables of %d entries, at most %d", sum, maxTable)
	}
}

func (w *rewriter) readTypes(b []byte, have bool) {
	if !have {
		return
	}
	r := &reader{b: b}
	for range r.count() {
		if r.byte() != 0x60 {
			fail("a type that is no function's")
		}
		p := r.valueTypes()
		w.types = append(w.types, funcType{p, r.valueTypes()})
	}
	r.done("type section")
}

func (w *rewriter) readFuncs(b []byte, have bool) {
	if !have {
		return
	}
	r := &reader{b: b}
	for range r.count() {
		t := r.u32()
		w.typeOf(t)
		w.funcs = append(w.funcs, t)
	}
	r.done("function section")
}

func (w *rewriter) typeOf(t uint32) funcType {
	if uint64(t) >= uint64(len(w.types)) {
		fail("type %d of %d", t, len(w.types))
	}
	return w.types[t]
}

// typeSection holds the module's own types, then each with the fuel, then those that blocks need.
func (w *rewriter) typeSection() []byte {
	all := append([]funcType(nil), w.types...)
	for _, t := range w.types {
		all = append(all, funcType{append(append([]byte(nil), t.params...), i64, i32), append(append([]byte(nil), t.results...), i64)})
	}
	all = append(all, w.extra...)
	out := appendU32(nil, uint32(len(all)))
	for _, t := range all {
		out = append(out, 0x60)
		out = append(appendU32(out, uint32(len(t.params))), t.params...)
		out = append(appendU32(out, uint32(len(t.results))), t.results...)
	}
	return out
}

// funcSection gives every function its type with the fuel, and adds the wrappers of exports, which have the types that
// the host knows.
func (w *rewriter) funcSection() []byte {
	out := appendU32(nil, uint32(len(w.funcs)+len(w.exports)))
	for _, t := range w.funcs {
		out = appendU32(out, w.metered(t))
	}
	for _, f := range w.exports {
		out = appendU32(out, w.funcs[f])
	}
	return out
}

func (w *rewriter) metered(t uint32) uint32 { return uint32(len(w.types)) + t }

func (w *rewriter) exportSection(b []byte, have bool) []byte {
	w.wrapper = map[uint32]uint32{}
	var out []byte
	n := uint32(0)
	if have {
		r := &reader{b: b}
		n = r.count()
		for range n {
			name := r.take(int(r.u32()))
			kind, index := r.byte(), r.u32()
			if string(name) == Fuel || string(name) == Spent {
				fail("the module exports %s", name)
			}
			if kind == 0 {
				if uint64(index) >= uint64(len(w.funcs)) {
					fail("export %q is function %d of %d", name, index, len(w.funcs))
				}
				to, ok := w.wrapper[index]
				if !ok {
					to = uint32(len(w.funcs) + len(w.exports))
					w.wrapper[index] = to
					w.exports = append(w.exports, index)
				}
				index = to
			}
			out = append(appendU32(out, uint32(len(name))), name...)
			out = appendU32(append(out, kind), index)
		}
		r.done("export section")
	}
	for i, name := range []string{Fuel, Spent} {
		out = append(appendU32(out, uint32(len(name))), name...)
		out = appendU32(append(out, 3), w.globals+uint32(i))
	}
	return append(appendU32(nil, n+2), out...)
}

func (w *rewriter) globalSection(b []byte, have bool) []byte {
	out := appendU32(nil, w.globals+2)
	if have {
		r := &reader{b: b}
		r.u32()
		out = append(out, r.b[r.at:]...)
	}
	out = append(out, i64, 1, 0x42)
	out = append(appendI64(out, w.Fuel), 0x0b)
	return append(out, i32, 1, 0x41, 0, 0x0b)
}

func (w *rewriter) codeSection(b []byte) []byte {
	r := &reader{b: b}
	n := r.count()
	if w.Count && int(n) != len(w.funcs) {
		fail("%d functions have %d bodies", len(w.funcs), n)
	}
	out := make([]byte, 0, len(b)+len(b)/2)
	out = appendU32(out, n+uint32(len(w.exports)))
	var body []byte
	for i := range n {
		f := function{w: w, in: &reader{b: r.take(int(r.u32()))}, out: body[:0]}
		if w.Count {
			f.typ = w.types[w.funcs[i]]
		}
		body = f.rewrite()
		out = append(appendU32(out, uint32(len(body))), body...)
	}
	r.done("code section")
	for _, f := range w.exports {
		t := w.types[w.funcs[f]]
		body := []byte{0} // no locals
		for p := range t.params {
			body = appendU32(append(body, opLocalGet), uint32(p))
		}
		body = appendU32(append(body, opGlobalGet), w.globals)
		body = appendI64(append(body, opI32Const), Stack)
		body = appendU32(append(body, opCall), f)
		body = append(body, opDrop, opEnd) // drop what is left
		out = append(appendU32(out, uint32(len(body))), body...)
	}
	return out
}

// reader reads the binary format; it panics with malformed.
type reader struct {
	b  []byte
	at int
}

func (r *reader) end() bool { return r.at >= len(r.b) }

func (r *reader) done(what string) {
	if !r.end() {
		fail("%d bytes after the end of the %s", len(r.b)-r.at, what)
	}
}

func (r *reader) byte() byte {
	if r.end() {
		fail("the module ends early")
	}
	r.at++
	return r.b[r.at-1]
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b)-r.at {
		fail("the module ends early")
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

// count reads the length of a vector, each of whose elements has at least a byte.
func (r *reader) count() uint32 {
	n := r.u32()
	if uint64(n) > uint64(len(r.b)-r.at) {
		fail("the module ends early")
	}
	return n
}

func (r *reader) u32() uint32 {
	var v uint64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		v |= uint64(b&0x7f) << shift
		if shift == 28 && b > 0x0f {
			fail("a number that does not fit 32 bits")
		}
		if b&0x80 == 0 {
			return uint32(v)
		}
	}
}

// skip passes over a number of at most n bytes.
func (r *reader) skip(n int) {
	for range n {
		if r.byte()&0x80 == 0 {
			return
		}
	}
	fail("a number that is too long")
}

// valueType reads one of the types of a byte, which are all that the second version of the specification has.
func (r *reader) valueType() byte {
	t := r.byte()
	if t != 0x70 && t != 0x6f && (t < 0x7b || t > 0x7f) {
		fail("unknown type 0x%02x", t)
	}
	return t
}

func (r *reader) valueTypes() []byte {
	n := r.count()
	from := r.at
	for range n {
		r.valueType()
	}
	return r.b[from:r.at]
}

// blockType reads a type, no type, or the index of a function's.
func (r *reader) blockType() {
	from := r.at
	first := r.byte()
	switch {
	case first == 0x40:
	case first&0xc0 == 0x40: // a negative number of one byte
		r.at = from
		r.valueType()
	case first&0x80 != 0:
		r.at = from
		r.skip(5)
	}
}

// appendU32 is not inlined: its copies were 10 kB of the device's program.
//
//go:noinline
func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendI64(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if v == 0 && c&0x40 == 0 || v == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

func saturate(n uint64) int64 { return int64(min(n, math.MaxInt32)) }
