package steps

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Models of src/text.h.
const (
	modelWordPiece = iota
	modelBPE
	modelUnigram
	modelWordLevel
)

const (
	fuseUnk    = 1
	wholeWords = 2

	unkNotInVocab = none - 1 // BPE: the text that needs the unknown token fails the call
)

// Limits of a model.
const (
	MaxWord  = 1 << 16 // max_input_chars_per_word of a WordPiece model
	maxVocab = 1 << 22
	maxID    = 1 << 24
	maxPiece = 4096 // bytes of a piece of the vocabulary or of an added token
)

type merges [][4]uint32 // left, right, rank, new

type textModel struct {
	kind, unk, flags, maxChars uint32
	vocab                      map[string]uint32 // what the step looks up
	prefix, suffix             string
	bytes                      []uint32 // of the byte tokens, or nil
	merges                     merges
	scores                     []float64
	unkScore                   float64

	ids  map[string]uint32 // all of the vocabulary
	size uint32
}

func readModel(b json.RawMessage) (textModel, error) {
	kind, err := kindOf(b, "model")
	if err != nil {
		return textModel{}, err
	}
	if kind == "" { // old files leave it out
		var keys map[string]json.RawMessage
		if err := json.Unmarshal(b, &keys); err != nil {
			return textModel{}, refuse("model", "%v", err)
		}
		switch {
		case keys["merges"] != nil:
			kind = "BPE"
		case keys["max_input_chars_per_word"] != nil:
			kind = "WordPiece"
		case len(keys["vocab"]) > 0 && keys["vocab"][0] == '[':
			kind = "Unigram"
		default:
			kind = "WordLevel"
		}
	}
	switch kind {
	case "WordPiece":
		return readWordPiece(b)
	case "BPE":
		return readBPE(b)
	case "Unigram":
		return readUnigram(b)
	case "WordLevel":
		return readWordLevel(b)
	}
	return textModel{}, refuse("model.type", "%q (WordPiece, BPE, Unigram and WordLevel are)", kind)
}

func (m *textModel) setVocab(v map[string]uint32) error {
	if len(v) > maxVocab {
		return refuse("model.vocab", "%d entries (at most %d are)", len(v), maxVocab)
	}
	for w, id := range v {
		if id >= maxID {
			return refuse("model.vocab", "the id %d of %.40q (below %d are)", id, w, maxID)
		}
		if len(w) > maxPiece {
			return refuse("model.vocab", "a piece of %d bytes (at most %d are)", len(w), maxPiece)
		}
	}
	m.vocab, m.ids, m.size = v, v, uint32(len(v))
	return nil
}

func readWordPiece(b json.RawMessage) (t textModel, err error) {
	m := struct {
		Type     string            `json:"type"`
		Unk      string            `json:"unk_token"`
		Prefix   string            `json:"continuing_subword_prefix"`
		MaxChars int64             `json:"max_input_chars_per_word"`
		Vocab    map[string]uint32 `json:"vocab"`
	}{Unk: "[UNK]", Prefix: "##", MaxChars: 100}
	if err := strict(b, "model", &m); err != nil {
		return t, err
	}
	if err := t.setVocab(m.Vocab); err != nil {
		return t, err
	}
	unk, ok := m.Vocab[m.Unk]
	switch {
	case !ok:
		return t, refuse("model.unk_token", "%q is not in the vocabulary", m.Unk)
	case m.MaxChars < 1 || m.MaxChars > MaxWord:
		return t, refuse("model.max_input_chars_per_word", "%d (1 to %d are)", m.MaxChars, MaxWord)
	}
	t.kind, t.prefix, t.unk, t.maxChars = modelWordPiece, m.Prefix, unk, uint32(m.MaxChars)
	return t, nil
}

func readWordLevel(b json.RawMessage) (t textModel, err error) {
	m := struct {
		Type  string            `json:"type"`
		Unk   string            `json:"unk_token"`
		Vocab map[string]uint32 `json:"vocab"`
	}{}
	if err := strict(b, "model", &m); err != nil {
		return t, err
	}
	if err := t.setVocab(m.Vocab); err != nil {
		return t, err
	}
	t.kind, t.unk = modelWordLevel, none
	if id, ok := m.Vocab[m.Unk]; ok {
		t.unk = id
	}
	return t, nil
}

// byteTokens are the ids of <0x00> to <0xFF>, none where one is missing.
func byteTokens(vocab map[string]uint32) []uint32 {
	list := make([]uint32, 256)
	for i := range list {
		list[i] = none
		if id, ok := vocab[fmt.Sprintf("<0x%02X>", i)]; ok {
			list[i] = id
		}
	}
	return list
}

func readBPE(b json.RawMessage) (t textModel, err error) {
	m := struct {
		Type         string            `json:"type"`
		Dropout      *float64          `json:"dropout"`
		Unk          *string           `json:"unk_token"`
		Prefix       *string           `json:"continuing_subword_prefix"`
		Suffix       *string           `json:"end_of_word_suffix"`
		FuseUnk      *bool             `json:"fuse_unk"`
		ByteFallback *bool             `json:"byte_fallback"`
		IgnoreMerges *bool             `json:"ignore_merges"`
		Vocab        map[string]uint32 `json:"vocab"`
		Merges       json.RawMessage   `json:"merges"`
	}{}
	if err := strict(b, "model", &m); err != nil {
		return t, err
	}
	if m.Dropout != nil && *m.Dropout != 0 {
		return t, &TokenizerError{Field: "model.dropout", Problem: fmt.Sprintf("%v: it would give other tokens each time", *m.Dropout),
			Way: "set it to null: it belongs to training"}
	}
	if err := t.setVocab(m.Vocab); err != nil {
		return t, err
	}
	set := func(s *string) string {
		if s == nil {
			return ""
		}
		return *s
	}
	is := func(b *bool) bool { return b != nil && *b }
	t.kind, t.prefix, t.suffix, t.unk = modelBPE, set(m.Prefix), set(m.Suffix), none
	if m.Unk != nil {
		t.unk = unkNotInVocab
		if id, ok := m.Vocab[*m.Unk]; ok {
			t.unk = id
		}
	}
	t.flags = flag(is(m.FuseUnk))*fuseUnk | flag(is(m.IgnoreMerges))*wholeWords
	if is(m.ByteFallback) {
		if t.prefix != "" || t.suffix != "" {
			return t, refuse("model.byte_fallback", "true with a continuing_subword_prefix or end_of_word_suffix")
		}
		t.bytes = byteTokens(m.Vocab)
	}
	if t.merges, err = readMerges(m.Merges, m.Vocab, len(t.prefix)); err != nil {
		return t, err
	}
	if !is(m.IgnoreMerges) { // only what a single character can be is ever looked up
		t.vocab = map[string]uint32{}
		for w, id := range m.Vocab {
			bare := strings.TrimSuffix(w, t.suffix)
			for _, s := range []string{w, bare, strings.TrimPrefix(w, t.prefix), strings.TrimPrefix(bare, t.prefix)} {
				if utf8.RuneCountInString(s) == 1 {
					t.vocab[w] = id
				}
			}
		}
	}
	return t, nil
}

// readMerges reads pairs, or lines as older files have them. A pair that comes twice has its last rank.
func readMerges(b json.RawMessage, vocab map[string]uint32, prefix int) (merges, error) {
	const field = "model.merges"
	var pairs [][]string
	if err := json.Unmarshal(b, &pairs); err != nil {
		var lines []string
		if err := json.Unmarshal(b, &lines); err != nil {
			return nil, refuse(field, "neither a list of pairs nor of lines")
		}
		pairs = nil
		for _, l := range lines {
			if !strings.HasPrefix(l, "#version") {
				pairs = append(pairs, strings.Split(l, " "))
			}
		}
	}
	if len(pairs) > maxVocab {
		return nil, refuse(field, "%d of them (at most %d are)", len(pairs), maxVocab)
	}
	at := map[[2]uint32]int{}
	var list merges
	for i, p := range pairs {
		if len(p) != 2 {
			return nil, refuse(fmt.Sprintf("%s[%d]", field, i), "%d parts instead of two", len(p))
		}
		a, okA := vocab[p[0]]
		c, okC := vocab[p[1]]
		if !okA || !okC || len(p[1]) < prefix {
			return nil, refuse(fmt.Sprintf("%s[%d]", field, i), "%q is not in the vocabulary", p)
		}
		id, ok := vocab[p[0]+p[1][prefix:]]
		if !ok {
			return nil, refuse(fmt.Sprintf("%s[%d]", field, i), "%q makes %q, which is not in the vocabulary", p, p[0]+p[1][prefix:])
		}
		m := [4]uint32{a, c, uint32(i), id}
		if j, ok := at[[2]uint32{a, c}]; ok {
			list[j] = m
			continue
		}
		at[[2]uint32{a, c}] = len(list)
		list = append(list, m)
	}
	slices.SortFunc(list, func(x, y [4]uint32) int { return slices.Compare(x[:2], y[:2]) })
	return list, nil
}

// place writes where the merges of each left side begin, and then all of them.
func (m merges) place(b *blob) (first, numLeft, pairs uint32) {
	if len(m) > 0 {
		numLeft = m[len(m)-1][0] + 1
	}
	starts := make([]uint32, 0, numLeft+1)
	var list []uint32
	for i, x := range m {
		for len(starts) <= int(x[0]) {
			starts = append(starts, uint32(i))
		}
		list = append(list, x[1], x[2], x[3])
	}
	starts = append(starts, uint32(len(m)))
	return b.put32(starts), numLeft, b.put32(list)
}

func readUnigram(b json.RawMessage) (t textModel, err error) {
	m := struct {
		Type         string               `json:"type"`
		Unk          *int64               `json:"unk_id"`
		ByteFallback bool                 `json:"byte_fallback"`
		Vocab        [][2]json.RawMessage `json:"vocab"`
	}{}
	if err := strict(b, "model", &m); err != nil {
		return t, err
	}
	ids := map[string]uint32{}
	least := math.Inf(1)
	for i, v := range m.Vocab {
		field := fmt.Sprintf("model.vocab[%d]", i)
		var piece string
		score, err := serdeFloat(string(v[1]))
		if err == nil {
			err = json.Unmarshal(v[0], &piece)
		}
		if err != nil || piece == "" {
			return t, refuse(field, "not a piece and its score")
		}
		t.scores = append(t.scores, score)
		least = min(least, score)
		ids[piece] = uint32(i)
		if i >= maxVocab {
			return t, refuse("model.vocab", "%d entries (at most %d are)", len(m.Vocab), maxVocab)
		}
	}
	if err := t.setVocab(ids); err != nil {
		return t, err
	}
	t.kind, t.unk, t.unkScore, t.size = modelUnigram, none, least-10, uint32(len(m.Vocab))
	if m.Unk != nil {
		if *m.Unk < 0 || *m.Unk >= int64(len(m.Vocab)) {
			return t, refuse("model.unk_id", "%d with %d pieces", *m.Unk, len(m.Vocab))
		}
		t.unk = uint32(*m.Unk)
	}
	if m.ByteFallback {
		t.bytes = byteTokens(ids)
	}
	return t, nil
}

// serdeFloat reads a JSON number as the library's JSON reader does, which rounds twice when there are many digits: the digits become a
// float64, then that is multiplied or divided by a power of ten.
func serdeFloat(s string) (float64, error) {
	whole, fraction, exponent := s, "", 0
	if i := strings.IndexAny(s, "eE"); i >= 0 {
		v, err := strconv.ParseInt(s[i+1:], 10, 16)
		if err != nil {
			return 0, fmt.Errorf("the exponent of %q: %w", s, err)
		}
		whole, exponent = s[:i], int(v)
	}
	whole, fraction, _ = strings.Cut(whole, ".")
	negative := strings.HasPrefix(whole, "-")
	whole = strings.TrimPrefix(whole, "-")
	digits, dropped := whole+fraction, 0
	for len(digits) > 0 {
		if _, err := strconv.ParseUint(digits, 10, 64); err == nil {
			break
		}
		digits = digits[:len(digits)-1]
		dropped++
	}
	v, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", s)
	}
	f := float64(v)
	exponent += dropped - len(fraction)
	for ; exponent < -308; exponent += 308 {
		f /= 1e308
	}
	power, err := strconv.ParseFloat(fmt.Sprintf("1e%d", max(exponent, -exponent)), 64)
	if err != nil {
		return 0, fmt.Errorf("%q is too large", s)
	}
	if exponent < 0 {
		f /= power
	} else {
		f *= power
	}
	if math.IsInf(f, 0) {
		return 0, fmt.Errorf("%q is too large", s)
	}
	if negative {
		f = -f
	}
	return f, nil
}
