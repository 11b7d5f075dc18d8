package steps

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"github.com/waybill-ml/waybill/packager/steps/charset"
	"github.com/waybill-ml/waybill/packager/steps/regex"
)

// Operations of src/text.h.
const (
	opAdded = iota + 1
	opSplit
	opMap
	opBytes
	opReplace
	opPrepend
	opStrip
	opCharsmap
	opDecompose
	opOrder
	opCompose
	opEncode
	opChunk
)

// operation is one pass of the step over a row.
type operation struct {
	kind  uint32
	args  func(*blob) []uint32 // at most 7; nil means none
	apply func(string) string  // the same on a whole text, for those that make new text; several operations may have it all in the last one
}

const none = 1<<32 - 1

// words is the length of the structure config in src/text.h.
const words = 32

// blob is a configuration in the making: the words of the head are still missing.
type blob struct {
	body []byte
	at   map[string]uint32
}

// put places b once, at a multiple of 16.
func (b *blob) put(data []byte) uint32 {
	if at, ok := b.at[string(data)]; ok {
		return at
	}
	for (len(b.body)+4*words)%16 != 0 {
		b.body = append(b.body, 0)
	}
	at := uint32(len(b.body) + 4*words)
	b.body = append(b.body, data...)
	b.at[string(data)] = at
	return at
}

func (b *blob) put32(list []uint32) uint32 {
	data := make([]byte, 0, 4*len(list))
	for _, v := range list {
		data = binary.LittleEndian.AppendUint32(data, v)
	}
	return b.put(data)
}

func (b *blob) put16(list []uint16) uint32 {
	data := make([]byte, 0, 2*len(list))
	for _, v := range list {
		data = binary.LittleEndian.AppendUint16(data, v)
	}
	return b.put(data)
}

func (b *blob) text(s string) []uint32 { return []uint32{b.put([]byte(s)), uint32(len(s))} }

// automaton places a table of package regex.
func (b *blob) automaton(t *regex.Table) uint32 {
	return b.put32([]uint32{b.put16(t.Pages), b.put(t.Class), uint32(t.Classes), b.put16(t.Start), b.put16(t.Next)})
}

// trie places the keys of m, level by level: the offsets of first child, label and value. It also returns the node of prefix, or none.
func (b *blob) trie(m map[string]uint32, prefix string) (t [3]uint32, node uint32) {
	keys := slices.Sorted(maps.Keys(m))
	type span struct{ lo, hi, depth int }
	queue := []span{{0, len(keys), 0}}
	first, label, value := []uint32{}, []byte{0}, []uint32{}
	node = none
	if prefix == "" {
		node = 0
	}
	for i := 0; i < len(queue); i++ {
		s := queue[i]
		first = append(first, uint32(len(queue)))
		v := uint32(none)
		if s.lo < s.hi && len(keys[s.lo]) == s.depth {
			v = m[keys[s.lo]]
			s.lo++
		}
		value = append(value, v)
		for s.lo < s.hi {
			c := keys[s.lo][s.depth]
			hi := s.lo + 1
			for hi < s.hi && keys[hi][s.depth] == c {
				hi++
			}
			if prefix != "" && s.depth+1 == len(prefix) && keys[s.lo][:s.depth+1] == prefix {
				node = uint32(len(queue))
			}
			queue = append(queue, span{s.lo, hi, s.depth + 1})
			label = append(label, c)
			s.lo = hi
		}
	}
	first = append(first, uint32(len(queue)))
	return [3]uint32{b.put32(first), b.put(label), b.put32(value)}, node
}

// twoLevels makes pages of 256 code points each.
func twoLevels[T comparable](of func(rune) T) (pages []uint16, entries []T) {
	known := map[[256]T]uint16{}
	for p := rune(0); p <= charset.Max>>8; p++ {
		var page [256]T
		for i := range page {
			if r := p<<8 | rune(i); r < 0xd800 || r > 0xdfff {
				page[i] = of(r)
			}
		}
		n, ok := known[page]
		if !ok {
			n = uint16(len(known))
			known[page] = n
			entries = append(entries, page[:]...)
		}
		pages = append(pages, n)
	}
	return pages, entries
}

// replacements places what code points become: the pages, entries and texts of op_map.
func (b *blob) replacements(of func(rune) (string, bool)) []uint32 {
	at := map[string]uint32{}
	var texts []byte
	pages, entries := twoLevels(func(r rune) uint32 {
		s, changed := of(r)
		if !changed {
			return 0
		}
		off, ok := at[s]
		if !ok {
			off = uint32(len(texts))
			at[s] = off
			texts = append(texts, s...)
		}
		return 1 | uint32(len(s))<<1 | off<<8
	})
	return []uint32{b.put16(pages), b.put32(entries), b.put(texts)}
}

// classes places a table of bytes.
func (b *blob) classes(of func(rune) byte) []uint32 {
	pages, entries := twoLevels(of)
	return []uint32{b.put16(pages), b.put(entries)}
}

// wordsAndSpaces is the table of op_added and op_strip.
func (b *blob) wordsAndSpaces() []uint32 {
	word, space := charset.Named("~word"), charset.Named("~space")
	return b.classes(func(r rune) byte { return byte(flag(word.Has(r)) | flag(space.Has(r))<<1) })
}

func (b *blob) added(list []addedToken) []uint32 {
	index, info := map[string]uint32{}, []uint32{}
	for i, a := range list {
		index[a.text] = uint32(i)
		info = append(info, a.id, a.flags)
	}
	t, _ := b.trie(index, "")
	return append(append(t[:], b.put32(info)), b.wordsAndSpaces()...)
}

// encode lays the table out as src/text.h reads it. Bit i of narrow makes output i i32.
func (t *textTable) encode(narrow uint32) []byte {
	b := &blob{at: map[string]uint32{}}
	list := []operation{{kind: opAdded, args: func(b *blob) []uint32 { return b.added(t.raw) }}}
	list = append(list, t.normalizers...)
	list = append(list, operation{kind: opAdded, args: func(b *blob) []uint32 { return b.added(t.normal) }})
	list = append(list, t.splitters...)
	var ops []uint32
	for _, o := range list {
		var args []uint32
		if o.args != nil {
			args = o.args(b)
		}
		ops = append(append(ops, o.kind), append(args, make([]uint32, 7-len(args))...)...)
	}
	var frame []uint32
	for _, f := range slices.Concat(t.frame.before, t.frame.after) {
		frame = append(frame, f.id, f.typ)
	}
	p, m := t.padding, &t.model
	vocab, goOn := b.trie(m.vocab, m.prefix)
	suffix := b.text(m.suffix)
	bytesAt := uint32(0)
	if m.bytes != nil {
		bytesAt = b.put32(m.bytes)
	}
	merges, numLeft, pairs := m.merges.place(b)
	var scores []byte
	for _, s := range m.scores {
		scores = binary.LittleEndian.AppendUint64(scores, math.Float64bits(s))
	}
	unk := math.Float64bits(m.unkScore)
	head := []uint32{t.room, flag(t.cutLeft), p.kind, p.length, p.multiple, flag(p.left), p.id, p.typ,
		t.frame.typ, uint32(len(t.frame.before)), uint32(len(t.frame.after)), b.put32(frame), b.put32(ops), uint32(len(list)),
		m.kind, m.unk, m.flags, vocab[0], vocab[1], vocab[2], goOn, m.maxChars, suffix[0], suffix[1], bytesAt,
		merges, numLeft, pairs, b.put(scores), narrow, uint32(unk), uint32(unk >> 32)}
	head = append(head, make([]uint32, words-len(head))...)
	var out []byte
	for _, v := range head {
		out = binary.LittleEndian.AppendUint32(out, v)
	}
	return append(out, b.body...)
}
