package steps

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// addedToken is found in the text before the model sees it. flags are those of op_added.
type addedToken struct {
	text      string
	id, flags uint32
}

const (
	singleWord = 1 << iota
	leftStrip
	rightStrip
)

// addedTokens reads added_tokens. Ids are given as the library gives them, which may differ from the file: that of the vocabulary if it has the
// text, else the next free one.
func (t *textTable) addedTokens(b json.RawMessage) error {
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
	type entry struct {
		addedToken
		normalized bool
		field      string
	}
	byID := map[uint32]entry{}
	byText := map[string]uint32{}
	greatest, any := uint32(0), false
	for i, a := range list {
		field := fmt.Sprintf("added_tokens[%d]", i)
		if a.Content == "" {
			continue
		}
		if len(a.Content) > maxPiece {
			return refuse(field+".content", "%d bytes (at most %d are)", len(a.Content), maxPiece)
		}
		id, ok := byText[a.Content]
		if !ok {
			id, ok = t.model.ids[a.Content]
		}
		if !ok {
			id = t.model.size
			if any && (greatest >= t.model.size || t.model.size == 0) {
				id = greatest + 1
			}
		}
		e := entry{addedToken{a.Content, id, flag(a.SingleWord)*singleWord | flag(a.LStrip)*leftStrip | flag(a.RStrip)*rightStrip}, a.Normalized, field}
		if a.Normalized {
			e.text = normalize(t.normalizers, a.Content)
		}
		byText[a.Content], byID[id] = id, e
		greatest, any = max(greatest, id), true
	}
	for _, normalized := range []bool{false, true} {
		seen := map[string]bool{}
		var out []addedToken
		for id := range byID {
			e := byID[id]
			if e.normalized != normalized {
				continue
			}
			if seen[e.text] || e.text == "" || len(e.text) > maxPiece {
				return refuse(e.field+".content", "%.40q when normalised: empty, too long, or the same as another token's", e.text)
			}
			seen[e.text] = true
			out = append(out, e.addedToken)
		}
		slices.SortFunc(out, func(a, b addedToken) int { return strings.Compare(a.text, b.text) })
		if normalized {
			t.normal = out
		} else {
			t.raw = out
		}
	}
	return nil
}

type frameToken struct{ id, typ uint32 }

// frame is what stands around a text's own tokens, and their type.
type frame struct {
	before, after []frameToken
	typ           uint32
}

// around puts tokens outside of f.
func (f frame) around(before, after []frameToken) frame {
	return frame{slices.Concat(before, f.before), slices.Concat(f.after, after), f.typ}
}

// typed gives everything in f one type.
func (f frame) typed(typ uint32) frame {
	set := func(list []frameToken) []frameToken {
		list = slices.Clone(list)
		for i := range list {
			list[i].typ = typ
		}
		return list
	}
	return frame{set(f.before), set(f.after), typ}
}

// maxFrame bounds the special tokens of a row.
const maxFrame = 4096

// readPostProcessor puts what a post-processor does to one text around f.
func readPostProcessor(b json.RawMessage, field string, f frame, depth int) (frame, error) {
	if absent(b) {
		return f, nil
	}
	kind, err := kindOf(b, field)
	if err != nil {
		return f, err
	}
	if len(f.before)+len(f.after) > maxFrame {
		return f, refuse(field, "more than %d special tokens", maxFrame)
	}
	switch kind {
	case "ByteLevel": // offsets only
		return f, only(b, field, "add_prefix_space", "trim_offsets", "use_regex")
	case "BertProcessing", "RobertaProcessing":
		return readPairProcessor(b, field, kind, f)
	case "TemplateProcessing":
		return readTemplate(b, field, f)
	case "Sequence":
		if err := only(b, field, "processors"); err != nil {
			return f, err
		}
		_, err := members(b, field, "processors", depth, func(m json.RawMessage, at string, depth int) ([]frame, error) {
			var err error
			f, err = readPostProcessor(m, at, f, depth)
			return nil, err
		})
		return f, err
	}
	return f, refuse(field+".type", "%q", kind)
}

func readPairProcessor(b json.RawMessage, field, kind string, f frame) (frame, error) {
	p := struct {
		Type  string             `json:"type"`
		Sep   [2]json.RawMessage `json:"sep"`
		Cls   [2]json.RawMessage `json:"cls"`
		Trim  bool               `json:"trim_offsets"`
		Space bool               `json:"add_prefix_space"`
	}{}
	if err := strict(b, field, &p); err != nil {
		return f, err
	}
	var cls, sep uint32
	if json.Unmarshal(p.Cls[1], &cls) != nil || json.Unmarshal(p.Sep[1], &sep) != nil {
		return f, refuse(field, "cls and sep are not a token and its id each")
	}
	if kind == "RobertaProcessing" {
		f = f.typed(0)
	}
	return f.around([]frameToken{{cls, 0}}, []frameToken{{sep, 0}}), nil
}

func readTemplate(b json.RawMessage, field string, f frame) (frame, error) {
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
	if err := strict(b, field, &p); err != nil {
		return f, err
	}
	seen := false
	var before, after []frameToken
	for i, s := range p.Single {
		at := fmt.Sprintf("%s.single[%d]", field, i)
		switch {
		case s.Special != nil && s.Sequence == nil:
			tok, ok := p.Special[s.Special.ID]
			if !ok {
				return f, refuse(at, "%q is not among special_tokens", s.Special.ID)
			}
			for _, id := range tok.IDs {
				if t := (frameToken{id, s.Special.Type}); seen {
					after = append(after, t)
				} else {
					before = append(before, t)
				}
			}
		case s.Sequence != nil && s.Special == nil && s.Sequence.ID == "A" && !seen:
			seen, f = true, f.typed(s.Sequence.Type)
		default:
			return f, refuse(at, "something other than special tokens and one sequence A")
		}
	}
	if !seen {
		return f, refuse(field+".single", "no sequence A")
	}
	return f.around(before, after), nil
}

func (t *textTable) truncation(b json.RawMessage) error {
	t.room = none
	if absent(b) {
		return nil
	}
	c := struct {
		Max       int64  `json:"max_length"`
		Strategy  string `json:"strategy"`
		Stride    int64  `json:"stride"` // of the parts that are cut off
		Direction string `json:"direction"`
	}{Direction: "Right"}
	if err := strict(b, "truncation", &c); err != nil {
		return err
	}
	n := int64(len(t.frame.before) + len(t.frame.after))
	switch {
	case c.Strategy != "LongestFirst" && c.Strategy != "OnlyFirst":
		return refuse("truncation.strategy", "%q with one text a row", c.Strategy)
	case c.Direction != "Right" && c.Direction != "Left":
		return refuse("truncation.direction", "%q", c.Direction)
	case c.Max < n || c.Max > 1<<20:
		return refuse("truncation.max_length", "%d with %d special tokens", c.Max, n)
	case c.Stride < 0 || c.Max > n && c.Stride >= c.Max-n:
		return refuse("truncation.stride", "%d with room for %d tokens", c.Stride, c.Max-n)
	}
	t.room, t.cutLeft = uint32(c.Max-n), c.Direction == "Left"
	return nil
}

const (
	padFixed   = 1
	padLongest = 2
)

type padding struct {
	kind, length, multiple, id, typ uint32
	left                            bool
}

func readPadding(b json.RawMessage) (p padding, err error) {
	if absent(b) {
		return p, nil
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
		return p, err
	}
	multiple := int64(0)
	if c.Multiple != nil {
		multiple = *c.Multiple
	}
	switch {
	case c.Direction != "Right" && c.Direction != "Left":
		return p, refuse("padding.direction", "%q", c.Direction)
	case multiple < 0 || multiple > 1<<20:
		return p, refuse("padding.pad_to_multiple_of", "%d", multiple)
	}
	p = padding{kind: padLongest, multiple: uint32(multiple), id: c.ID, typ: c.Type, left: c.Direction == "Left"}
	if string(c.Strategy) == `"BatchLongest"` {
		return p, nil
	}
	fixed := struct {
		Fixed int64 `json:"Fixed"`
	}{-1}
	if err := strict(c.Strategy, "padding.strategy", &fixed); err != nil {
		return p, err
	}
	if fixed.Fixed < 0 || fixed.Fixed > 1<<20 {
		return p, refuse("padding.strategy", "Fixed %d", fixed.Fixed)
	}
	if multiple > 0 {
		fixed.Fixed = (fixed.Fixed + multiple - 1) / multiple * multiple
	}
	p.kind, p.length = padFixed, uint32(fixed.Fixed)
	return p, nil
}
