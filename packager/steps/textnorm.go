package steps

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/packager/steps/charset"
	"github.com/waybill-ml/waybill/packager/steps/regex"
)

// maxReplacement bounds the bytes that a code point, a match or a prefix becomes.
const maxReplacement = 1 << 12

// readNormalizer reads a normalizer as operations that make new text.
func readNormalizer(b json.RawMessage, field string, depth int) ([]operation, error) {
	if absent(b) {
		return nil, nil
	}
	kind, err := kindOf(b, field)
	if err != nil {
		return nil, err
	}
	plain := func(ops ...operation) ([]operation, error) { return ops, only(b, field) }
	switch kind {
	case "Sequence":
		if err := only(b, field, "normalizers"); err != nil {
			return nil, err
		}
		return members(b, field, "normalizers", depth, readNormalizer)
	case "NFC":
		return plain(normalForm(false, true)...)
	case "NFD":
		return plain(normalForm(false, false)...)
	case "NFKC":
		return plain(normalForm(true, true)...)
	case "NFKD":
		return plain(normalForm(true, false)...)
	case "Lowercase":
		return plain(lowercase())
	case "StripAccents":
		return plain(without("~combining"))
	case "Nmt":
		return plain(mapped(nmt))
	case "ByteLevel":
		return plain(byteAlphabet())
	case "BertNormalizer":
		return bertNormalizer(b, field)
	case "Strip":
		return strip(b, field)
	case "Prepend":
		return prepend(b, field)
	case "Replace":
		return replace(b, field)
	case "Precompiled":
		return precompiled(b, field)
	}
	return nil, refuse(field+".type", "%q", kind)
}

// mapped replaces code points; changed is false for one that stays.
func mapped(of func(rune) (to string, changed bool)) operation {
	return operation{kind: opMap, args: func(b *blob) []uint32 { return b.replacements(of) }, apply: func(s string) string {
		var out strings.Builder
		for _, r := range s {
			if to, ok := of(r); ok {
				out.WriteString(to)
			} else {
				out.WriteRune(r)
			}
		}
		return out.String()
	}}
}

func lowercase() operation {
	lower := charset.Mapping("lower")
	return mapped(func(r rune) (string, bool) {
		to, ok := lower[r]
		return string(to), ok
	})
}

func without(set string) operation {
	s := charset.Named(set)
	return mapped(func(r rune) (string, bool) { return "", s.Has(r) })
}

func nmt(r rune) (string, bool) {
	switch {
	case r >= 1 && r <= 8, r == 0xb, r >= 0xe && r <= 0x1f, r == 0x7f, r == 0x8f, r == 0x9f:
		return "", true
	case r == 9, r == 0xa, r == 0xc, r == 0xd, r == 0x1680, r >= 0x200b && r <= 0x200f, r == 0x2028, r == 0x2029, r == 0x2581, r == 0xfeff, r == 0xfffd:
		return " ", true
	}
	return "", false
}

// byteRunes are the visible characters that stand for the 256 bytes.
var byteRunes = sync.OnceValue(func() []uint32 {
	list, n := make([]uint32, 256), uint32(256)
	for b := range list {
		if b >= '!' && b <= '~' || b >= 0xa1 && b <= 0xac || b >= 0xae {
			list[b] = uint32(b)
			continue
		}
		list[b] = n
		n++
	}
	return list
})

func byteAlphabet() operation {
	return operation{kind: opBytes, args: func(b *blob) []uint32 { return []uint32{b.put32(byteRunes())} }, apply: func(s string) string {
		var out strings.Builder
		for i := range len(s) {
			out.WriteRune(rune(byteRunes()[s[i]]))
		}
		return out.String()
	}}
}

func bertNormalizer(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type    string `json:"type"`
		Clean   bool   `json:"clean_text"`
		Chinese bool   `json:"handle_chinese_chars"`
		Strip   *bool  `json:"strip_accents"`
		Lower   bool   `json:"lowercase"`
	}{}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	var ops []operation
	if n.Clean {
		other, space := charset.Named("~other"), charset.Named("~space")
		ops = append(ops, mapped(func(r rune) (string, bool) {
			switch {
			case r == '\t' || r == '\n' || r == '\r':
				return " ", true
			case r == utf8.RuneError || other.Has(r):
				return "", true
			}
			return " ", space.Has(r)
		}))
	}
	if n.Chinese {
		ops = append(ops, mapped(func(r rune) (string, bool) { return " " + string(r) + " ", isChinese(r) }))
	}
	strip := n.Lower
	if n.Strip != nil {
		strip = *n.Strip
	}
	if strip {
		ops = append(append(ops, normalForm(false, false)...), without("~nonspacing"))
	}
	if n.Lower {
		ops = append(ops, lowercase())
	}
	return ops, nil
}

// isChinese tells the blocks that BERT's own tokenizer takes for Chinese characters.
func isChinese(r rune) bool {
	for _, b := range [][2]rune{{0x4e00, 0x9fff}, {0x3400, 0x4dbf}, {0x20000, 0x2a6df}, {0x2a700, 0x2b73f}, {0x2b740, 0x2b81f},
		{0x2b920, 0x2ceaf}, {0xf900, 0xfaff}, {0x2f800, 0x2fa1f}} {
		if r >= b[0] && r <= b[1] {
			return true
		}
	}
	return false
}

func strip(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type  string `json:"type"`
		Left  bool   `json:"strip_left"`
		Right bool   `json:"strip_right"`
	}{}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	space := charset.Named("~space")
	return []operation{{kind: opStrip, args: func(b *blob) []uint32 {
		return append([]uint32{flag(n.Left) | flag(n.Right)<<1}, b.wordsAndSpaces()...)
	}, apply: func(s string) string {
		if n.Left {
			s = strings.TrimLeftFunc(s, space.Has)
		}
		if n.Right {
			s = strings.TrimRightFunc(s, space.Has)
		}
		return s
	}}}, nil
}

// When op_prepend prepends.
const (
	prependAlways = iota
	prependUnless
	prependUnlessFirst
)

func prepend(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type    string `json:"type"`
		Prepend string `json:"prepend"`
	}{}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	if len(n.Prepend) > maxReplacement {
		return nil, refuse(field+".prepend", "%d bytes", len(n.Prepend))
	}
	o := prependOp(n.Prepend, prependAlways, "")
	o.apply = func(s string) string {
		if s == "" {
			return s
		}
		return n.Prepend + s
	}
	return []operation{o}, nil
}

func prependOp(s string, when uint32, unless string) operation {
	return operation{kind: opPrepend, args: func(b *blob) []uint32 {
		return slices.Concat(b.text(s), []uint32{when}, b.text(unless))
	}}
}

// pattern is how the file gives what is looked for: one of the two.
type pattern struct {
	String *string `json:"String"`
	Regex  *string `json:"Regex"`
}

func (p pattern) compile(field string) (*regex.Table, error) {
	var t *regex.Table
	var err error
	switch {
	case p.String != nil && p.Regex == nil && *p.String != "":
		t, err = regex.Build(regex.Literal(*p.String))
	case p.Regex != nil && p.String == nil:
		t, err = regex.Compile(*p.Regex)
		field += ".Regex"
	default:
		return nil, refuse(field, "neither a String nor a Regex")
	}
	if err != nil {
		return nil, &TokenizerError{Field: field, Problem: strings.TrimSuffix(err.Error(), ": "+regex.ErrPattern.Error()),
			Way: "a pattern of sets, alternatives, repetitions and looks at one code point can say the same; or " + ownStep}
	}
	return t, nil
}

func replace(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type    string  `json:"type"`
		Pattern pattern `json:"pattern"`
		Content string  `json:"content"`
	}{}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	if len(n.Content) > maxReplacement {
		return nil, refuse(field+".content", "%d bytes", len(n.Content))
	}
	t, err := n.Pattern.compile(field + ".pattern")
	if err != nil {
		return nil, err
	}
	return []operation{replaceOp(t, n.Content)}, nil
}

func replaceOp(t *regex.Table, content string) operation {
	return operation{kind: opReplace, args: func(b *blob) []uint32 {
		return append([]uint32{b.automaton(t)}, b.text(content)...)
	}, apply: func(s string) string {
		var out strings.Builder
		at := 0
		for _, m := range t.Find(s) {
			out.WriteString(s[at:m[0]] + content)
			at = m[1]
		}
		return out.String() + s[at:]
	}}
}

// precompiled reads SentencePiece's character map: a double array over bytes whose values are places in a text of replacements, each up to a zero.
func precompiled(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type string  `json:"type"`
		Map  *string `json:"precompiled_charsmap"`
	}{}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	field += ".precompiled_charsmap"
	if n.Map == nil {
		return nil, refuse(field, "there is none")
	}
	data, err := base64.StdEncoding.DecodeString(*n.Map)
	if err != nil {
		return nil, refuse(field, "%v", err)
	}
	if len(data) < 4 {
		return nil, refuse(field, "%d bytes", len(data))
	}
	size := binary.LittleEndian.Uint32(data)
	if uint64(size) > uint64(len(data)-4) || size%4 != 0 || size == 0 {
		return nil, refuse(field, "a trie of %d bytes in %d", size, len(data))
	}
	units := make([]uint32, size/4)
	for i := range units {
		units[i] = binary.LittleEndian.Uint32(data[4+4*i:])
	}
	texts := string(data[4+size:])
	keys := map[string]string{}
	if err := charsmapKeys(units, texts, keys); err != nil {
		return nil, refuse(field, "%v", err)
	}
	clusters, err := regex.Build(graphemes())
	if err != nil {
		return nil, err
	}
	index := map[string]uint32{}
	var info []uint32
	var replaced []byte
	for _, k := range sortedKeys(keys) {
		index[k] = uint32(len(info) / 2)
		info = append(info, uint32(len(replaced)), uint32(len(keys[k])))
		replaced = append(replaced, keys[k]...)
	}
	return []operation{{kind: opCharsmap, args: func(b *blob) []uint32 {
		t, _ := b.trie(index, "")
		return append(append([]uint32{b.automaton(clusters)}, t[:]...), b.put32(info), b.put(replaced))
	}, apply: func(s string) string { return applyCharsmap(clusters, keys, s) }}}, nil
}

func applyCharsmap(clusters *regex.Table, keys map[string]string, s string) string {
	var out strings.Builder
	shortest := func(s string) (string, bool) {
		for i := 1; i <= len(s); i++ {
			if to, ok := keys[s[:i]]; ok {
				return to, true
			}
		}
		return "", false
	}
	for _, m := range clusters.Find(s) {
		c := s[m[0]:m[1]]
		if to, ok := shortest(c); ok && len(c) < 6 {
			out.WriteString(to)
			continue
		}
		for _, r := range c {
			if to, ok := shortest(string(r)); ok {
				out.WriteString(to)
			} else {
				out.WriteRune(r)
			}
		}
	}
	return out.String()
}

// graphemes is an extended grapheme cluster of Unicode's annex 29, the longest one.
func graphemes() regex.Node {
	g := func(names ...string) regex.Node {
		var list []charset.Set
		for _, n := range names {
			list = append(list, charset.Named("="+n))
		}
		return regex.OneOf(charset.Union(list...))
	}
	any := func(n regex.Node) regex.Node { return regex.Repeat(n, 0) }
	some := func(n regex.Node) regex.Node { return regex.Repeat(n, 1) }
	control := charset.Union(charset.Named("=Control"), charset.Named("=CR"), charset.Named("=LF"))
	joining := g("InCB_Extend", "InCB_Linker")
	core := regex.Alt(
		regex.Cat(g("InCB_Consonant"), some(regex.Cat(any(joining), g("InCB_Linker"), any(joining), g("InCB_Consonant")))),
		regex.Cat(g("Extended_Pictographic"), any(regex.Cat(any(g("Extend")), g("ZWJ"), g("Extended_Pictographic")))),
		regex.Cat(any(g("L")), regex.Alt(
			regex.Cat(some(g("V")), any(g("T"))),
			regex.Cat(g("LV"), any(g("V")), any(g("T"))),
			regex.Cat(g("LVT"), any(g("T"))))),
		some(g("L")), some(g("T")),
		regex.Cat(g("Regional_Indicator"), g("Regional_Indicator")),
		regex.OneOf(control.Negate()))
	return regex.Alt(regex.Cat(g("CR"), g("LF")), regex.OneOf(control),
		regex.Cat(any(g("Prepend")), core, any(g("Extend", "ZWJ", "SpacingMark"))))
}
