package steps

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

//go:embed text.wasm
var textModule []byte

// ErrTokenizer is behind the error of Text for a tokenizer.json with something that the step does not do.
var ErrTokenizer = errors.New("not supported in a tokenizer.json")

// MaxWord bounds max_input_chars_per_word of a WordPiece model.
const MaxWord = 256

func refuse(field, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", field, fmt.Sprintf(format, args...), ErrTokenizer)
}

type tokenizer struct {
	Version       json.RawMessage `json:"version"`
	Truncation    json.RawMessage `json:"truncation"`
	Padding       json.RawMessage `json:"padding"`
	Added         json.RawMessage `json:"added_tokens"`
	Normalizer    json.RawMessage `json:"normalizer"`
	PreTokenizer  json.RawMessage `json:"pre_tokenizer"`
	PostProcessor json.RawMessage `json:"post_processor"`
	Decoder       json.RawMessage `json:"decoder"` // ids to text: not this step's
	Model         json.RawMessage `json:"model"`
}

type frameToken struct{ id, typ uint32 }

// textTable is what the configuration of src/text.c is made of, in its order.
type textTable struct {
	room, cutLeft, pad, padLength, padMultiple, padLeft, padID, padType uint32
	typ                                                                 uint32
	before, after                                                       []frameToken
	unk, maxChars, longest                                              uint32
	vocab                                                               map[string]uint32
	prefix                                                              string
	added                                                               map[string]uint32
}

// Text tokenises strings (string [N]) as the tokenizer.json of Hugging Face's tokenizers does: see src/text.c. What the step
// does not do is refused with the name of the field, behind ErrTokenizer.
func Text(tokenizerJSON []byte) ([]byte, error) {
	var j tokenizer
	if err := strict(tokenizerJSON, "tokenizer.json", &j); err != nil {
		return nil, err
	}
	t := textTable{}
	var class func(rune) (string, uint32)
	for _, part := range []func() error{
		func() error { return t.model(j.Model) },
		func() (err error) { class, err = normalizer(j.Normalizer); return err },
		func() error { return preTokenizer(j.PreTokenizer) },
		func() error { return t.addedTokens(j.Added) },
		func() error { return t.postProcessor(j.PostProcessor) },
		func() error { return t.truncation(j.Truncation) },
		func() error { return t.padding(j.Padding) },
	} {
		if err := part(); err != nil {
			return nil, err
		}
	}
	return configure(textModule, t.encode(class))
}

// strict reads b, the value of field, into v; a key that v does not have is refused.
func strict(b []byte, field string, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return refuse(field, "%v", err)
	}
	return nil
}

func absent(b json.RawMessage) bool { return len(b) == 0 || string(b) == "null" }

// kindOf is the type of a component.
func kindOf(b json.RawMessage, field string) (string, error) {
	var k struct {
		Type string `json:"type"`
	}
	if absent(b) {
		return "", refuse(field, "there is none")
	}
	if err := json.Unmarshal(b, &k); err != nil {
		return "", refuse(field, "%v", err)
	}
	return k.Type, nil
}

func (t *textTable) model(b json.RawMessage) error {
	kind, err := kindOf(b, "model")
	if err != nil {
		return err
	}
	if kind != "WordPiece" {
		return refuse("model.type", "%q (WordPiece is)", kind)
	}
	m := struct {
		Type     string            `json:"type"`
		Unk      string            `json:"unk_token"`
		Prefix   string            `json:"continuing_subword_prefix"`
		MaxChars int64             `json:"max_input_chars_per_word"`
		Vocab    map[string]uint32 `json:"vocab"`
	}{}
	if err := strict(b, "model", &m); err != nil {
		return err
	}
	unk, ok := m.Vocab[m.Unk]
	switch {
	case !ok:
		return refuse("model.unk_token", "%q is not in the vocabulary", m.Unk)
	case m.MaxChars < 1 || m.MaxChars > MaxWord:
		return refuse("model.max_input_chars_per_word", "%d (1 to %d are)", m.MaxChars, MaxWord)
	case len(m.Vocab) > 1<<22:
		return refuse("model.vocab", "%d entries", len(m.Vocab))
	}
	for w, id := range m.Vocab {
		if id >= 1<<31 {
			return refuse("model.vocab", "id %d", id)
		}
		t.longest = max(t.longest, uint32(len(w)))
	}
	t.vocab, t.prefix, t.unk, t.maxChars = m.Vocab, m.Prefix, unk, uint32(m.MaxChars)
	return nil
}

// Classes of code points in src/text.c.
const (
	classSpace = 1
	classPunct = 2
)

// normalizer returns what a code point becomes and the class that it has in normalised text.
func normalizer(b json.RawMessage) (func(rune) (string, uint32), error) {
	if absent(b) {
		return func(r rune) (string, uint32) { return string(r), bertClass(r) }, nil
	}
	kind, err := kindOf(b, "normalizer")
	if err != nil {
		return nil, err
	}
	if kind != "BertNormalizer" {
		return nil, refuse("normalizer.type", "%q (BertNormalizer is)", kind)
	}
	n := struct {
		Type    string `json:"type"`
		Clean   bool   `json:"clean_text"`
		Chinese bool   `json:"handle_chinese_chars"`
		Strip   *bool  `json:"strip_accents"`
		Lower   bool   `json:"lowercase"`
	}{Clean: true, Chinese: true, Lower: true}
	if err := strict(b, "normalizer", &n); err != nil {
		return nil, err
	}
	strip := n.Lower
	if n.Strip != nil {
		strip = *n.Strip
	}
	return func(r rune) (string, uint32) {
		s := string(r)
		if n.Clean {
			switch {
			case r == '\t' || r == '\n' || r == '\r' || unicode.Is(unicode.White_Space, r) && !unicode.Is(unicode.Cc, r):
				s = " "
			case r == 0 || r == utf8.RuneError || isControl(r):
				s = ""
			}
		}
		if n.Chinese && isChinese(r) {
			s = " " + s + " "
		}
		if strip && !younger(r) {
			s = strings.Map(func(c rune) rune {
				if isMark(c) {
					return -1
				}
				return c
			}, norm.NFD.String(s))
		}
		if n.Lower {
			// The one code point whose lower case is longer than one.
			s = strings.Map(toLower, strings.ReplaceAll(s, "\u0130", "i\u0307"))
		}
		return s, bertClass(r)
	}, nil
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

func bertClass(r rune) uint32 {
	switch {
	case unicode.Is(unicode.White_Space, r):
		return classSpace
	case r >= '!' && r <= '/', r >= ':' && r <= '@', r >= '[' && r <= '`', r >= '{' && r <= '~', isPunct(r):
		return classPunct
	}
	return 0
}

func preTokenizer(b json.RawMessage) error {
	kind, err := kindOf(b, "pre_tokenizer")
	if err == nil && kind != "BertPreTokenizer" {
		err = refuse("pre_tokenizer.type", "%q (BertPreTokenizer is)", kind)
	}
	return err
}

func (t *textTable) addedTokens(b json.RawMessage) error {
	t.added = map[string]uint32{}
	if absent(b) {
		return nil
	}
	var list []struct {
		ID         uint32 `json:"id"`
		Content    string `json:"content"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
		Normalized bool   `json:"normalized"`
		Special    bool   `json:"special"`
	}
	if err := strict(b, "added_tokens", &list); err != nil {
		return err
	}
	for _, a := range list {
		for name, on := range map[string]bool{"single_word": a.SingleWord, "lstrip": a.LStrip, "rstrip": a.RStrip, "normalized": a.Normalized} {
			if on {
				return refuse("added_tokens."+name, "true for %q", a.Content)
			}
		}
		if a.Content == "" || a.ID >= 1<<31 {
			return refuse("added_tokens", "token %q with id %d", a.Content, a.ID)
		}
		t.added[a.Content] = a.ID
	}
	return nil
}

func (t *textTable) postProcessor(b json.RawMessage) error {
	if absent(b) {
		return nil
	}
	kind, err := kindOf(b, "post_processor")
	if err != nil {
		return err
	}
	if kind != "TemplateProcessing" {
		return refuse("post_processor.type", "%q (TemplateProcessing is)", kind)
	}
	type piece struct {
		ID   string `json:"id"`
		Type uint32 `json:"type_id"`
	}
	p := struct {
		Type   string `json:"type"`
		Single []struct {
			Special  *piece `json:"SpecialToken"`
			Sequence *piece `json:"Sequence"`
		} `json:"single"`
		Pair    json.RawMessage `json:"pair"` // the step has one text a row
		Special map[string]struct {
			ID     string   `json:"id"`
			IDs    []uint32 `json:"ids"`
			Tokens []string `json:"tokens"`
		} `json:"special_tokens"`
	}{}
	if err := strict(b, "post_processor", &p); err != nil {
		return err
	}
	seen := false
	for _, s := range p.Single {
		switch {
		case s.Special != nil && s.Sequence == nil:
			tok, ok := p.Special[s.Special.ID]
			if !ok {
				return refuse("post_processor.special_tokens", "%q is missing", s.Special.ID)
			}
			for _, id := range tok.IDs {
				f := frameToken{id, s.Special.Type}
				if seen {
					t.after = append(t.after, f)
				} else {
					t.before = append(t.before, f)
				}
			}
		case s.Sequence != nil && s.Special == nil && s.Sequence.ID == "A" && !seen:
			seen, t.typ = true, s.Sequence.Type
		default:
			return refuse("post_processor.single", "something other than special tokens and one sequence A")
		}
	}
	if !seen {
		return refuse("post_processor.single", "no sequence A")
	}
	return nil
}

func (t *textTable) truncation(b json.RawMessage) error {
	t.room = 1<<32 - 1
	if absent(b) {
		return nil
	}
	c := struct {
		Max       int64  `json:"max_length"`
		Strategy  string `json:"strategy"`
		Stride    int64  `json:"stride"`
		Direction string `json:"direction"`
	}{Direction: "Right"}
	if err := strict(b, "truncation", &c); err != nil {
		return err
	}
	n := int64(len(t.before) + len(t.after))
	switch {
	case c.Strategy != "LongestFirst" && c.Strategy != "OnlyFirst":
		return refuse("truncation.strategy", "%q", c.Strategy)
	case c.Stride != 0:
		return refuse("truncation.stride", "%d", c.Stride)
	case c.Direction != "Right" && c.Direction != "Left":
		return refuse("truncation.direction", "%q", c.Direction)
	case c.Max <= n || c.Max > 1<<20:
		return refuse("truncation.max_length", "%d with %d special tokens", c.Max, n)
	}
	t.room, t.cutLeft = uint32(c.Max-n), flag(c.Direction == "Left")
	return nil
}

func (t *textTable) padding(b json.RawMessage) error {
	if absent(b) {
		return nil
	}
	c := struct {
		Strategy  json.RawMessage `json:"strategy"`
		Direction string          `json:"direction"`
		Multiple  *int64          `json:"pad_to_multiple_of"`
		ID        uint32          `json:"pad_id"`
		Type      uint32          `json:"pad_type_id"`
		Token     string          `json:"pad_token"`
	}{}
	if err := strict(b, "padding", &c); err != nil {
		return err
	}
	multiple := int64(0)
	if c.Multiple != nil {
		multiple = *c.Multiple
	}
	switch {
	case c.Direction != "Right" && c.Direction != "Left":
		return refuse("padding.direction", "%q", c.Direction)
	case multiple < 0 || multiple > 1<<20:
		return refuse("padding.pad_to_multiple_of", "%d", multiple)
	}
	t.padLeft, t.padID, t.padType, t.padMultiple = flag(c.Direction == "Left"), c.ID, c.Type, uint32(multiple)
	if string(c.Strategy) == `"BatchLongest"` {
		t.pad = 2
		return nil
	}
	fixed := struct {
		Fixed int64 `json:"Fixed"`
	}{-1}
	if err := strict(c.Strategy, "padding.strategy", &fixed); err != nil {
		return err
	}
	if fixed.Fixed < 0 || fixed.Fixed > 1<<20 {
		return refuse("padding.strategy", "Fixed %d", fixed.Fixed)
	}
	if multiple > 0 {
		fixed.Fixed = (fixed.Fixed + multiple - 1) / multiple * multiple
	}
	t.pad, t.padLength = 1, uint32(fixed.Fixed)
	return nil
}

func flag(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// encode lays the table out as src/text.c reads it.
func (t *textTable) encode(class func(rune) (string, uint32)) []byte {
	const words = 23 + 8
	var text []byte
	type slot struct{ off, len, id uint32 }
	put := func(s string, mark, id uint32) slot {
		text = append(text, s...)
		return slot{uint32(len(text) - len(s)), uint32(len(s)) | mark, id}
	}
	size := uint32(16)
	for int(size) < 4*len(t.vocab) {
		size *= 2
	}
	table := slices.Repeat([]slot{{id: 1<<32 - 1}}, int(size))
	insert := func(s string, h, mark, id uint32) {
		for i := 0; i < len(s); i++ {
			h = (h ^ uint32(s[i])) * 16777619
		}
		h &= size - 1
		for table[h].id != 1<<32-1 {
			h = (h + 1) & (size - 1)
		}
		table[h] = put(s, mark, id)
	}
	for _, w := range slices.Sorted(maps.Keys(t.vocab)) {
		insert(w, 2166136261, 0, t.vocab[w])
		if rest, ok := strings.CutPrefix(w, t.prefix); ok {
			insert(rest, 2166136261^0x9e3779b9, 1<<31, t.vocab[w])
		}
	}
	names := slices.SortedFunc(maps.Keys(t.added), func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var added []slot
	var first [8]uint32
	for _, a := range names {
		added = append(added, put(a, 0, t.added[a]))
		first[a[0]>>5] |= 1 << (a[0] & 31)
	}
	pages, entries, replaced := codePoints(class)

	le := binary.LittleEndian
	body := []byte{}
	place := func(write func()) uint32 {
		for len(body)%4 != 0 {
			body = append(body, 0)
		}
		at := uint32(len(body) + 4*words)
		write()
		return at
	}
	slots := func(list []slot) func() {
		return func() {
			for _, s := range list {
				body = le.AppendUint32(le.AppendUint32(le.AppendUint32(body, s.off), s.len), s.id)
			}
		}
	}
	frame := place(func() {
		for _, f := range slices.Concat(t.before, t.after) {
			body = le.AppendUint32(le.AppendUint32(body, f.id), f.typ)
		}
	})
	pagesAt := place(func() {
		for _, p := range pages {
			body = le.AppendUint16(body, p)
		}
	})
	entriesAt := place(func() {
		for _, e := range entries {
			body = le.AppendUint32(body, e)
		}
	})
	replacedAt := place(func() { body = append(body, replaced...) })
	slotsAt := place(slots(table))
	addedAt := place(slots(added))
	textAt := place(func() { body = append(body, text...) })
	var head []byte
	for _, v := range append([]uint32{t.room, t.cutLeft, t.pad, t.padLength, t.padMultiple, t.padLeft, t.padID, t.padType,
		t.typ, uint32(len(t.before)), uint32(len(t.after)), t.unk, t.maxChars, t.longest,
		frame, pagesAt, entriesAt, replacedAt, slotsAt, size - 1, textAt, addedAt, uint32(len(added))}, first[:]...) {
		head = le.AppendUint32(head, v)
	}
	return append(head, body...)
}

// codePoints makes the table of two levels: for each 256 code points a page, and in a page for each an entry: bits 0 and 1 the class,
// bit 2 that it is replaced, by bits 3 to 7 bytes from bits 8 on in replaced.
func codePoints(class func(rune) (string, uint32)) (pages []uint16, entries []uint32, replaced []byte) {
	at := map[string]uint32{}
	known := map[[256]uint32]uint16{}
	for p := rune(0); p < 0x1100; p++ {
		var page [256]uint32
		for i := range page {
			r := p<<8 | rune(i)
			if r >= 0xd800 && r < 0xe000 {
				continue
			}
			s, e := class(r)
			if s != string(r) {
				off, ok := at[s]
				if !ok {
					off = uint32(len(replaced))
					at[s] = off
					replaced = append(replaced, s...)
				}
				e |= 4 | uint32(len(s))<<3 | off<<8
			}
			page[i] = e
		}
		n, ok := known[page]
		if !ok {
			n = uint16(len(known))
			known[page] = n
			entries = append(entries, page[:]...)
		}
		pages = append(pages, n)
	}
	return pages, entries, replaced
}
