package steps

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sections of a WebAssembly module that configure touches.
const (
	secMemory    = 5
	secGlobal    = 6
	secExport    = 7
	secDataCount = 12
	secCode      = 10
	secData      = 11
)

type section struct {
	id   byte
	body []byte
}

var errModule = errors.New("not a built-in step's module")

// configure returns module with config, behind its length as a u32, at the exported address __heap_base: as one more data
// segment, with a memory large enough for it. The result depends on the two alone.
func configure(module, config []byte) ([]byte, error) {
	secs, err := sections(module)
	if err != nil {
		return nil, err
	}
	base, err := heapBase(secs)
	if err != nil {
		return nil, err
	}
	blob := append(binary.LittleEndian.AppendUint32(nil, uint32(len(config))), config...)
	end := uint64(base) + uint64(len(blob))
	if end > 1<<31 {
		return nil, fmt.Errorf("a configuration of %d bytes", len(config))
	}
	seg := appendU([]byte{0, 0x41}, -1, int64(base)) // active, i32.const
	seg = append(seg, 0x0b)
	seg = append(appendU(seg, int64(len(blob)), 0), blob...)
	found := false
	for i := range secs {
		s := &secs[i]
		switch s.id {
		case secMemory:
			r := &reader{b: s.body}
			n, flags, low := r.u(), r.u(), r.u()
			if r.bad || n != 1 || flags > 1 {
				return nil, errModule
			}
			pages := max(uint64(low), (end+65535)>>16)
			s.body = append(appendU(appendU(appendU(nil, 1, 0), int64(flags), 0), int64(pages), 0), r.b[r.at:]...)
		case secDataCount, secData:
			r := &reader{b: s.body}
			n := r.u()
			if r.bad {
				return nil, errModule
			}
			s.body = append(appendU(nil, int64(n)+1, 0), r.b[r.at:]...)
			if s.id == secData {
				s.body = append(s.body, seg...)
				found = true
			}
		}
	}
	if !found {
		// After the code; the modules are stripped, so nothing else follows.
		secs = append(secs, section{secData, append([]byte{1}, seg...)})
	}
	out := bytes.Clone(module[:8])
	for _, s := range secs {
		out = append(appendU(append(out, s.id), int64(len(s.body)), 0), s.body...)
	}
	return out, nil
}

func sections(module []byte) ([]section, error) {
	if len(module) < 8 || string(module[:8]) != "\x00asm\x01\x00\x00\x00" {
		return nil, errModule
	}
	var out []section
	for r := (&reader{b: module, at: 8}); r.at < len(module); {
		id := r.b[r.at]
		r.at++
		n := int(r.u())
		if r.bad || n > len(module)-r.at {
			return nil, errModule
		}
		out = append(out, section{id, module[r.at : r.at+n]})
		r.at += n
	}
	return out, nil
}

// heapBase reads the value of the exported global __heap_base.
func heapBase(secs []section) (uint32, error) {
	index, values := -1, []uint32{}
	for _, s := range secs {
		r := &reader{b: s.body}
		switch s.id {
		case secExport:
			for n := r.u(); n > 0 && !r.bad; n-- {
				name := r.bytes(int(r.u()))
				kind := r.bytes(1)
				at := r.u()
				if !r.bad && string(name) == "__heap_base" && kind[0] == 3 {
					index = int(at)
				}
			}
		case secGlobal:
			for n := r.u(); n > 0 && !r.bad; n-- {
				r.bytes(2)                                    // type, mutability
				if op := r.bytes(1); r.bad || op[0] != 0x41 { // i32.const
					return 0, errModule
				}
				values = append(values, r.u()) // addresses below 2^31: the signed form has the same bits, sign bit included
				if e := r.bytes(1); r.bad || e[0] != 0x0b {
					return 0, errModule
				}
			}
		}
		if r.bad {
			return 0, errModule
		}
	}
	if index < 0 || index >= len(values) {
		return 0, errModule
	}
	return values[index], nil
}

type reader struct {
	b   []byte
	at  int
	bad bool
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n < 0 || n > len(r.b)-r.at {
		r.bad = true
		return nil
	}
	r.at += n
	return r.b[r.at-n : r.at]
}

func (r *reader) u() uint32 {
	var v uint64
	for shift := 0; shift < 35; shift += 7 {
		b := r.bytes(1)
		if r.bad {
			return 0
		}
		v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return uint32(v)
		}
	}
	r.bad = true
	return 0
}

// appendU appends u as unsigned LEB128, or for u < 0 the value s as signed LEB128.
func appendU(b []byte, u, s int64) []byte {
	if u >= 0 {
		return binary.AppendUvarint(b, uint64(u))
	}
	for {
		c := byte(s & 0x7f)
		s >>= 7
		if s == 0 && c&0x40 == 0 || s == -1 && c&0x40 != 0 {
			return append(b, c)
		}
		b = append(b, c|0x80)
	}
}
