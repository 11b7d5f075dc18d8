package facts

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"unicode/utf8"
)

// wasmImports lists the imports of a WebAssembly binary as "module.name", sorted. It reads only the section headers and
// the import section; the engine validates the rest before anything runs.
func wasmImports(b []byte) ([]string, error) {
	if !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")) {
		return nil, errors.New("not a WebAssembly module of version 1")
	}
	r := reader{b: b[8:]}
	out := []string{}
	seen := false
	for len(r.b) > 0 {
		id := r.byte()
		body := r.bytes(r.u32())
		if r.err != nil {
			return nil, r.err
		}
		if id > 13 {
			return nil, fmt.Errorf("unknown section %d", id)
		}
		if id != 2 {
			continue
		}
		if seen {
			return nil, errors.New("two import sections")
		}
		seen = true
		s := reader{b: body}
		for n := s.u32(); n > 0 && s.err == nil; n-- {
			mod, name := s.bytes(s.u32()), s.bytes(s.u32())
			s.desc()
			if s.err == nil && (!utf8.Valid(mod) || !utf8.Valid(name)) {
				return nil, errors.New("import name is not UTF-8")
			}
			out = append(out, string(mod)+"."+string(name))
		}
		if s.err != nil {
			return nil, s.err
		}
		if len(s.b) != 0 {
			return nil, errors.New("import section is longer than its entries")
		}
	}
	slices.Sort(out)
	return out, nil
}

// reader reads LEB128 and byte vectors; the first error sticks.
type reader struct {
	b   []byte
	err error
}

var errShort = errors.New("module ends early")

func (r *reader) byte() byte {
	if r.err != nil || len(r.b) == 0 {
		r.fail(errShort)
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) u64(bits uint) uint64 {
	var v uint64
	for shift := uint(0); ; shift += 7 {
		c := r.byte()
		if r.err != nil {
			return 0
		}
		if shift >= bits || shift+7 > bits && uint64(c&0x7f)>>(bits-shift) != 0 {
			r.fail(errors.New("integer too large"))
			return 0
		}
		v |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return v
		}
	}
}

func (r *reader) u32() uint32 { return uint32(r.u64(32)) }

func (r *reader) bytes(n uint32) []byte {
	if r.err != nil || uint64(n) > uint64(len(r.b)) {
		r.fail(errShort)
		return nil
	}
	s := r.b[:n]
	r.b = r.b[n:]
	return s
}

// desc skips an import's description.
func (r *reader) desc() {
	limits := func() {
		flags := r.byte()
		if flags > 7 {
			r.fail(fmt.Errorf("limits flag %#x", flags))
		}
		r.u64(64)
		if flags&1 != 0 {
			r.u64(64)
		}
	}
	switch k := r.byte(); k {
	case 0: // function: type index
		r.u32()
	case 1: // table: element type, limits
		r.byte()
		limits()
	case 2: // memory
		limits()
	case 3: // global: value type, mutability
		r.byte()
		r.byte()
	case 4: // tag
		r.byte()
		r.u32()
	default:
		r.fail(fmt.Errorf("unknown import kind %d", k))
	}
}
