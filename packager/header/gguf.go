package header

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

const gguf = "gguf"

// GGUF reads the header of a GGUF file (versions 2 and 3, little- or big-endian) of size bytes from its start: metadata
// and tensor table. The vocabulary and other large values are read past and not kept.
func GGUF(r io.Reader, size int64) (Facts, error) {
	g := &ggufReader{r: r, order: binary.LittleEndian}
	f, err := g.read(size)
	if err != nil {
		var fe *FormatError
		if errors.As(err, &fe) {
			return Facts{}, err
		}
		return Facts{}, short(gguf, err)
	}
	return f, nil
}

// ggufReader reads numbers and strings and counts what it took.
type ggufReader struct {
	r     io.Reader
	order binary.ByteOrder
	n     int64
	buf   [8]byte
}

func bad(format string, args ...any) error {
	return &FormatError{gguf, false, fmt.Errorf(format, args...)}
}

func (g *ggufReader) read(size int64) (Facts, error) {
	f := Facts{Format: gguf}
	magic, err := g.bytes(4)
	if err != nil {
		return f, err
	}
	if string(magic) != "GGUF" {
		return f, bad("it does not begin with GGUF")
	}
	version, err := g.u32()
	if err != nil {
		return f, err
	}
	if version&0xffff == 0 { // written on a big-endian machine
		g.order = binary.BigEndian
		version = version >> 24
	}
	if version != 2 && version != 3 {
		return f, bad("version %d is not known; 2 and 3 are", version)
	}
	tensors, err := g.u64()
	if err != nil {
		return f, err
	}
	pairs, err := g.u64()
	if err != nil {
		return f, err
	}
	if tensors > MaxTensors || pairs > MaxTensors {
		return f, bad("%d tensors and %d values, more than %d", tensors, pairs, MaxTensors)
	}
	align, fileType := uint64(32), int64(-1)
	for range pairs {
		key, err := g.str(maxName)
		if err != nil {
			return f, err
		}
		v, err := g.value(0)
		if err != nil {
			return f, err
		}
		switch key {
		case "general.architecture":
			f.Architecture = v.text
		case "general.alignment":
			if align = v.num; align == 0 || align > 1<<20 || align%8 != 0 {
				return f, bad("alignment %d is not possible", align)
			}
		case "general.file_type":
			fileType = int64(v.num & math.MaxInt32)
		case "split.no":
			f.Shard = int(v.num & math.MaxUint16)
		case "split.count":
			f.Shards = int(v.num & math.MaxUint16)
		}
	}
	if err := g.tensors(&f, tensors, align, fileType, size); err != nil {
		return f, err
	}
	return f, nil
}

// tensors reads the table of tensors and checks that each lies in the file.
func (g *ggufReader) tensors(f *Facts, n, align uint64, fileType, size int64) error {
	type place struct {
		name       string
		start, len uint64
	}
	var places []place
	quants := map[string]int64{} // elements by quantised type
	seen := map[string]bool{}
	for range n {
		name, err := g.str(maxName)
		if err != nil {
			return err
		}
		if seen[name] {
			return bad("tensor %q stands twice", name)
		}
		seen[name] = true
		rank, err := g.u32()
		if err != nil {
			return err
		}
		if rank > maxRank {
			return bad("tensor %q has %d dimensions, more than %d", name, rank, maxRank)
		}
		shape := make([]uint64, rank)
		for i := range shape {
			if shape[i], err = g.u64(); err != nil {
				return err
			}
		}
		typ, err := g.u32()
		if err != nil {
			return err
		}
		start, err := g.u64()
		if err != nil {
			return err
		}
		count, ok := elements(shape)
		if !ok {
			return bad("tensor %q has a shape %v that is too large", name, shape)
		}
		t, ok := ggmlType(typ)
		if !ok {
			return bad("tensor %q has the unknown type %d", name, typ)
		}
		if t.precision != "" {
			f.Precision = append(f.Precision, t.precision)
		} else {
			quants[t.name] += count
		}
		if f.Parameters, ok = add(f.Parameters, count); !ok {
			return bad("more parameters than 64 bits can count")
		}
		blocks := uint64(count) / t.block
		if rank > 0 && count > 0 && shape[0]%t.block != 0 {
			return bad("tensor %q: rows of %d elements are no whole blocks of %d", name, shape[0], t.block)
		}
		if blocks > math.MaxInt64/t.bytes || start > math.MaxInt64 {
			return bad("tensor %q is too large", name)
		}
		places = append(places, place{name, start, blocks * t.bytes})
		f.Names = append(f.Names, name)
	}
	data := (uint64(g.n) + align - 1) / align * align
	slices.SortFunc(places, func(a, b place) int { return compare(a.start, b.start) })
	end := uint64(0)
	for _, p := range places {
		if p.start%align != 0 {
			return bad("tensor %q lies at %d, which is no multiple of %d", p.name, p.start, align)
		}
		if p.start < end {
			return bad("tensor %q overlaps the one before it", p.name)
		}
		if end = p.start + p.len; data+end > uint64(size) {
			return bad("tensor %q ends at byte %d, the file has %d: it is cut off", p.name, data+end, size)
		}
	}
	slices.Sort(f.Names)
	f.Tensors, f.Precision = int(n), sorted(f.Precision)
	f.Quantization = ggufQuantization(fileType, quants)
	return nil
}

// ggufQuantization prefers what the file calls itself, where it also has quantised tensors; else the type of most elements.
func ggufQuantization(fileType int64, quants map[string]int64) string {
	if len(quants) == 0 {
		return ""
	}
	if s := ggufFileType(fileType); s != "" {
		return s
	}
	best := ""
	for name, n := range quants {
		if best == "" || n > quants[best] || n == quants[best] && name < best {
			best = name
		}
	}
	return best
}

// ggufFileType names general.file_type (llama.cpp, llama_ftype) for the quantised ones.
func ggufFileType(t int64) string {
	return map[int64]string{
		2: "q4_0", 3: "q4_1", 7: "q8_0", 8: "q5_0", 9: "q5_1", 10: "q2_k", 11: "q3_k_s", 12: "q3_k_m", 13: "q3_k_l",
		14: "q4_k_s", 15: "q4_k_m", 16: "q5_k_s", 17: "q5_k_m", 18: "q6_k", 19: "iq2_xxs", 20: "iq2_xs", 21: "q2_k_s",
		22: "iq3_xs", 23: "iq3_xxs", 24: "iq1_s", 25: "iq4_nl", 26: "iq3_s", 27: "iq3_m", 28: "iq2_s", 29: "iq2_m",
		30: "iq4_xs", 31: "iq1_m", 36: "tq1_0", 37: "tq2_0", 38: "mxfp4",
	}[t]
}

// ggml is one element type: how many elements make a block and how many bytes that takes.
type ggml struct {
	name         string
	precision    string // ModelPack's name; empty for quantised types
	block, bytes uint64
}

// ggmlType gives the type of a number in the tensor table (ggml.h, enum ggml_type).
func ggmlType(n uint32) (ggml, bool) {
	switch n {
	case 0:
		return ggml{"f32", float32Name, 1, 4}, true
	case 1:
		return ggml{"f16", float16Name, 1, 2}, true
	case 2:
		return ggml{"q4_0", "", 32, 18}, true
	case 3:
		return ggml{"q4_1", "", 32, 20}, true
	case 6:
		return ggml{"q5_0", "", 32, 22}, true
	case 7:
		return ggml{"q5_1", "", 32, 24}, true
	case 8:
		return ggml{"q8_0", "", 32, 34}, true
	case 9:
		return ggml{"q8_1", "", 32, 36}, true
	case 10:
		return ggml{"q2_k", "", 256, 84}, true
	case 11:
		return ggml{"q3_k", "", 256, 110}, true
	case 12:
		return ggml{"q4_k", "", 256, 144}, true
	case 13:
		return ggml{"q5_k", "", 256, 176}, true
	case 14:
		return ggml{"q6_k", "", 256, 210}, true
	case 15:
		return ggml{"q8_k", "", 256, 292}, true
	case 16:
		return ggml{"iq2_xxs", "", 256, 66}, true
	case 17:
		return ggml{"iq2_xs", "", 256, 74}, true
	case 18:
		return ggml{"iq3_xxs", "", 256, 98}, true
	case 19:
		return ggml{"iq1_s", "", 256, 50}, true
	case 20:
		return ggml{"iq4_nl", "", 32, 18}, true
	case 21:
		return ggml{"iq3_s", "", 256, 110}, true
	case 22:
		return ggml{"iq2_s", "", 256, 82}, true
	case 23:
		return ggml{"iq4_xs", "", 256, 136}, true
	case 24:
		return ggml{"i8", int8Name, 1, 1}, true
	case 25:
		return ggml{"i16", int16Name, 1, 2}, true
	case 26:
		return ggml{"i32", int32Name, 1, 4}, true
	case 27:
		return ggml{"i64", int64Name, 1, 8}, true
	case 28:
		return ggml{"f64", float64Name, 1, 8}, true
	case 29:
		return ggml{"iq1_m", "", 256, 56}, true
	case 30:
		return ggml{"bf16", bfloat16Name, 1, 2}, true
	case 34:
		return ggml{"tq1_0", "", 256, 54}, true
	case 35:
		return ggml{"tq2_0", "", 256, 66}, true
	case 39:
		return ggml{"mxfp4", "", 32, 17}, true
	}
	return ggml{}, false
}

// ggufValue is one metadata value, as far as somebody asks for it.
type ggufValue struct {
	num  uint64
	text string
}

// Metadata types of GGUF.
const (
	ggufString = 8
	ggufArray  = 9
)

func (g *ggufReader) value(depth int) (ggufValue, error) {
	t, err := g.u32()
	if err != nil {
		return ggufValue{}, err
	}
	return g.typed(t, depth)
}

func (g *ggufReader) typed(t uint32, depth int) (v ggufValue, err error) {
	switch t {
	case ggufString:
		v.text, err = g.str(MaxHeader)
		return v, err
	case ggufArray:
		if depth == 4 {
			return v, bad("arrays in arrays in arrays")
		}
		of, err := g.u32()
		if err != nil {
			return v, err
		}
		n, err := g.u64()
		if err != nil {
			return v, err
		}
		if size := ggufSize(of); size > 0 {
			if n > uint64(MaxHeader)/size {
				return v, bad("an array of %d elements", n)
			}
			return v, g.skip(int64(n * size))
		}
		for range n { // each takes at least four bytes of a bounded header
			if _, err := g.typed(of, depth+1); err != nil {
				return v, err
			}
		}
		return v, nil
	}
	size := ggufSize(t)
	if size == 0 {
		return v, bad("a value has the unknown type %d", t)
	}
	b, err := g.bytes(int(size))
	if err != nil {
		return v, err
	}
	switch size {
	case 1:
		v.num = uint64(b[0])
	case 2:
		v.num = uint64(g.order.Uint16(b))
	case 4:
		v.num = uint64(g.order.Uint32(b))
	default:
		v.num = g.order.Uint64(b)
	}
	return v, nil
}

// ggufSize is the size of a value of fixed size, else 0.
func ggufSize(t uint32) uint64 {
	switch t {
	case 0, 1, 7: // u8, i8, bool
		return 1
	case 2, 3: // u16, i16
		return 2
	case 4, 5, 6: // u32, i32, f32
		return 4
	case 10, 11, 12: // u64, i64, f64
		return 8
	}
	return 0
}

// take counts n bytes against the limit of a header.
func (g *ggufReader) take(n int64) error {
	if n < 0 || g.n+n > MaxHeader {
		return bad("it has more than %d bytes", MaxHeader)
	}
	g.n += n
	return nil
}

func (g *ggufReader) bytes(n int) ([]byte, error) {
	if err := g.take(int64(n)); err != nil {
		return nil, err
	}
	b := g.buf[:]
	_, err := io.ReadFull(g.r, b[:n])
	return b[:n], err
}

func (g *ggufReader) skip(n int64) error {
	if err := g.take(n); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, g.r, n)
	return err
}

func (g *ggufReader) u32() (uint32, error) {
	b, err := g.bytes(4)
	if err != nil {
		return 0, err
	}
	return g.order.Uint32(b), nil
}

func (g *ggufReader) u64() (uint64, error) {
	b, err := g.bytes(8)
	if err != nil {
		return 0, err
	}
	return g.order.Uint64(b), nil
}

// str reads a string; one longer than a name's limit is read past and comes out empty.
func (g *ggufReader) str(limit uint64) (string, error) {
	n, err := g.u64()
	if err != nil {
		return "", err
	}
	if n > limit {
		return "", bad("a string has %d bytes, more than %d", n, limit)
	}
	if n > maxName {
		return "", g.skip(int64(n))
	}
	if err := g.take(int64(n)); err != nil {
		return "", err
	}
	var b strings.Builder
	_, err = io.CopyN(&b, g.r, int64(n))
	return b.String(), err
}
