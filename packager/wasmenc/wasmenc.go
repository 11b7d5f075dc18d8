// Package wasmenc encodes WebAssembly modules. It knows the binary format and nothing else: the caller gives
// function bodies as finished instruction bytes. The same Module always gives the same bytes.
package wasmenc

import (
	"fmt"
	"math"
)

// ValType is a value type of the binary format.
type ValType byte

// Value types.
const (
	I32  ValType = 0x7f
	I64  ValType = 0x7e
	F32  ValType = 0x7d
	F64  ValType = 0x7c
	V128 ValType = 0x7b
)

// String names the type as the text format does.
func (t ValType) String() string {
	switch t {
	case I32:
		return "i32"
	case I64:
		return "i64"
	case F32:
		return "f32"
	case F64:
		return "f64"
	case V128:
		return "v128"
	}
	return fmt.Sprintf("valtype(0x%02x)", byte(t))
}

// Limits of one body, kept so that optimising engines stay fast on every function.
const (
	MaxBody   = 64 << 10
	MaxLocals = 1000
)

// FuncType is a function's signature.
type FuncType struct {
	Params, Results []ValType
}

func (t FuncType) key() string {
	b := make([]byte, 0, len(t.Params)+len(t.Results)+1)
	for _, p := range t.Params {
		b = append(b, byte(p))
	}
	b = append(b, 0)
	for _, r := range t.Results {
		b = append(b, byte(r))
	}
	return string(b)
}

// Func is a defined function. Body holds the instructions without the closing end.
type Func struct {
	Name   string // for the name section; may be empty
	Type   FuncType
	Locals []ValType // after the parameters, in index order
	Body   []byte
}

// Data is an active data segment.
type Data struct {
	Offset uint32
	Bytes  []byte
}

// Module is a module without imports and globals: one memory, at most one table that holds every function
// (entry i is function i, entry 0 stays null so that index 0 never calls anything).
type Module struct {
	types   []FuncType
	typeIdx map[string]uint32
	funcs   []Func
	exports []export

	MinPages, MaxPages uint32
	MemoryName         string // export name of the memory
	Table              bool   // emit the table of all functions
	Data               []Data
}

type export struct {
	name string
	fn   uint32
}

// New returns an empty module whose function 0 is a placeholder that traps; index 0 means "none" to callers.
func New() *Module {
	m := &Module{typeIdx: map[string]uint32{}}
	m.Add(Func{Name: "none", Body: []byte{0x00}})
	return m
}

// TypeIndex interns a signature.
func (m *Module) TypeIndex(t FuncType) uint32 {
	k := t.key()
	if i, ok := m.typeIdx[k]; ok {
		return i
	}
	i := uint32(len(m.types))
	m.types = append(m.types, t)
	m.typeIdx[k] = i
	return i
}

// Add appends a function and returns its index.
func (m *Module) Add(f Func) uint32 {
	m.TypeIndex(f.Type)
	m.funcs = append(m.funcs, f)
	return uint32(len(m.funcs) - 1)
}

// Declare reserves an index for a function that Define completes later (mutual calls).
func (m *Module) Declare(name string, t FuncType) uint32 {
	return m.Add(Func{Name: name, Type: t, Body: []byte{0x00}})
}

// Define replaces the body of a declared function.
func (m *Module) Define(i uint32, locals []ValType, body []byte) {
	m.funcs[i].Locals, m.funcs[i].Body = locals, body
}

// NumFuncs is the number of functions so far.
func (m *Module) NumFuncs() int { return len(m.funcs) }

// Func returns function i, for printing and tests.
func (m *Module) Func(i uint32) Func { return m.funcs[i] }

// Export exports function i.
func (m *Module) Export(name string, i uint32) {
	m.exports = append(m.exports, export{name, i})
}

// Encode returns the binary module. It fails when a body or its locals pass the limits above.
func (m *Module) Encode() ([]byte, error) {
	out := []byte{0, 'a', 's', 'm', 1, 0, 0, 0}

	var s []byte
	s = AppendU(s, uint64(len(m.types)))
	for _, t := range m.types {
		s = append(s, 0x60)
		s = AppendU(s, uint64(len(t.Params)))
		for _, p := range t.Params {
			s = append(s, byte(p))
		}
		s = AppendU(s, uint64(len(t.Results)))
		for _, r := range t.Results {
			s = append(s, byte(r))
		}
	}
	out = section(out, 1, s)

	s = AppendU(nil, uint64(len(m.funcs)))
	for _, f := range m.funcs {
		s = AppendU(s, uint64(m.TypeIndex(f.Type)))
	}
	out = section(out, 3, s)

	if m.Table {
		s = []byte{1, 0x70, 1}
		s = AppendU(s, uint64(len(m.funcs)))
		s = AppendU(s, uint64(len(m.funcs)))
		out = section(out, 4, s)
	}
	s = []byte{1, 1}
	s = AppendU(s, uint64(m.MinPages))
	s = AppendU(s, uint64(m.MaxPages))
	out = section(out, 5, s)

	s = AppendU(nil, uint64(len(m.exports)+1))
	s = appendName(s, m.MemoryName)
	s = append(s, 2, 0)
	for _, e := range m.exports {
		s = appendName(s, e.name)
		s = append(s, 0)
		s = AppendU(s, uint64(e.fn))
	}
	out = section(out, 7, s)

	if m.Table && len(m.funcs) > 1 {
		s = []byte{1, 0, 0x41, 1, 0x0b}
		s = AppendU(s, uint64(len(m.funcs)-1))
		for i := 1; i < len(m.funcs); i++ {
			s = AppendU(s, uint64(i))
		}
		out = section(out, 9, s)
	}

	s = AppendU(nil, uint64(len(m.funcs)))
	for _, f := range m.funcs {
		if len(f.Body) > MaxBody {
			return nil, fmt.Errorf("function %q: body of %d bytes, limit %d", f.Name, len(f.Body), MaxBody)
		}
		if len(f.Locals) > MaxLocals {
			return nil, fmt.Errorf("function %q: %d locals, limit %d", f.Name, len(f.Locals), MaxLocals)
		}
		var b []byte
		b = appendLocals(b, f.Locals)
		b = append(b, f.Body...)
		b = append(b, 0x0b)
		s = AppendU(s, uint64(len(b)))
		s = append(s, b...)
	}
	out = section(out, 10, s)

	if len(m.Data) > 0 {
		s = AppendU(nil, uint64(len(m.Data)))
		for _, d := range m.Data {
			s = append(s, 0, 0x41)
			s = AppendS(s, int64(int32(d.Offset)))
			s = append(s, 0x0b)
			s = AppendU(s, uint64(len(d.Bytes)))
			s = append(s, d.Bytes...)
		}
		out = section(out, 11, s)
	}
	return append(out, m.names()...), nil
}

func (m *Module) names() []byte {
	var fn []byte
	n := 0
	for i, f := range m.funcs {
		if f.Name != "" {
			fn = AppendU(fn, uint64(i))
			fn = appendName(fn, f.Name)
			n++
		}
	}
	sub := append(AppendU(nil, uint64(n)), fn...)
	s := appendName(nil, "name")
	s = append(s, 1)
	s = AppendU(s, uint64(len(sub)))
	s = append(s, sub...)
	return section(nil, 0, s)
}

func appendLocals(b []byte, ls []ValType) []byte {
	var runs [][2]int
	for _, l := range ls {
		if n := len(runs); n > 0 && runs[n-1][1] == int(l) {
			runs[n-1][0]++
			continue
		}
		runs = append(runs, [2]int{1, int(l)})
	}
	b = AppendU(b, uint64(len(runs)))
	for _, r := range runs {
		b = AppendU(b, uint64(r[0]))
		b = append(b, byte(r[1]))
	}
	return b
}

func section(out []byte, id byte, body []byte) []byte {
	out = append(out, id)
	out = AppendU(out, uint64(len(body)))
	return append(out, body...)
}

func appendName(b []byte, s string) []byte {
	b = AppendU(b, uint64(len(s)))
	return append(b, s...)
}

// AppendU appends v as unsigned LEB128.
func AppendU(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

// AppendS appends v as signed LEB128.
func AppendS(b []byte, v int64) []byte {
	for {
		c := byte(v & 0x7f)
		v >>= 7
		if (v == 0 && c&0x40 == 0) || (v == -1 && c&0x40 != 0) {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}

// AppendF32 appends the little-endian bits of v.
func AppendF32(b []byte, v float32) []byte {
	u := math.Float32bits(v)
	return append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
}

// AppendF64 appends the little-endian bits of v.
func AppendF64(b []byte, v float64) []byte {
	u := math.Float64bits(v)
	return append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24), byte(u>>32), byte(u>>40), byte(u>>48), byte(u>>56))
}
