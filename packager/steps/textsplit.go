package steps

import (
	"encoding/json"

	"github.com/waybill-ml/waybill/packager/steps/charset"
	"github.com/waybill-ml/waybill/packager/steps/regex"
)

// The pattern of GPT-2's tokenizer, which ByteLevel uses.
const gpt2Pattern = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`

// behaviours of op_split, by the names of the file.
func behaviour(name, field string) (uint32, error) {
	for i, n := range []string{"Isolated", "Removed", "Contiguous", "MergedWithPrevious", "MergedWithNext"} {
		if n == name {
			return uint32(i), nil
		}
	}
	return 0, refuse(field, "%q", name)
}

const (
	isolated = iota
	removed
	contiguous
	withPrevious
	withNext
)

// readPreTokenizer reads a pre-tokenizer as operations.
func readPreTokenizer(b json.RawMessage, field string, depth int) ([]operation, error) {
	if absent(b) {
		return nil, nil
	}
	kind, err := kindOf(b, field)
	if err != nil {
		return nil, err
	}
	set := func(s charset.Set, how uint32) ([]operation, error) {
		o, err := splitOp(regex.OneOf(s), how, false)
		return []operation{o}, err
	}
	switch kind {
	case "Sequence":
		if err := only(b, field, "pretokenizers"); err != nil {
			return nil, err
		}
		return members(b, field, "pretokenizers", depth, readPreTokenizer)
	case "BertPreTokenizer":
		spaces, err := set(charset.Named("~space"), removed)
		if err != nil {
			return nil, err
		}
		marks, err := set(charset.Named("~punctuation"), isolated)
		if err != nil {
			return nil, err
		}
		return append(spaces, marks...), only(b, field)
	case "WhitespaceSplit":
		if err := only(b, field); err != nil {
			return nil, err
		}
		return set(charset.Named("~space"), removed)
	case "Whitespace":
		if err := only(b, field); err != nil {
			return nil, err
		}
		word := charset.Named("~word")
		neither := charset.Union(word, charset.Named("~space")).Negate()
		o, err := splitOp(regex.Alt(regex.Repeat(regex.OneOf(word), 1), regex.Repeat(regex.OneOf(neither), 1)), removed, true)
		return []operation{o}, err
	case "Punctuation":
		n := struct {
			Type     string `json:"type"`
			Behavior string `json:"behavior"`
		}{Behavior: "Isolated"}
		if err := strict(b, field, &n); err != nil {
			return nil, err
		}
		how, err := behaviour(n.Behavior, field+".behavior")
		if err != nil {
			return nil, err
		}
		return set(charset.Named("~punctuation"), how)
	case "Digits":
		n := struct {
			Type string `json:"type"`
			Each bool   `json:"individual_digits"`
		}{}
		if err := strict(b, field, &n); err != nil {
			return nil, err
		}
		if n.Each {
			return set(charset.Named("~numeric"), isolated)
		}
		return set(charset.Named("~numeric"), contiguous)
	case "CharDelimiterSplit":
		n := struct {
			Type      string `json:"type"`
			Delimiter string `json:"delimiter"`
		}{}
		if err := strict(b, field, &n); err != nil {
			return nil, err
		}
		r := []rune(n.Delimiter)
		if len(r) != 1 {
			return nil, refuse(field+".delimiter", "%q is not one character", n.Delimiter)
		}
		return set(charset.Of(r[0]), removed)
	case "FixedLength":
		n := struct {
			Type   string `json:"type"`
			Length int64  `json:"length"`
		}{Length: 5}
		if err := strict(b, field, &n); err != nil {
			return nil, err
		}
		if n.Length < 1 || n.Length > 1<<30 {
			return nil, refuse(field+".length", "%d", n.Length)
		}
		return []operation{{kind: opChunk, args: func(*blob) []uint32 { return []uint32{uint32(n.Length)} }}}, nil
	case "Split":
		return split(b, field)
	case "ByteLevel":
		return byteLevel(b, field)
	case "Metaspace":
		return metaspace(b, field)
	}
	return nil, refuse(field+".type", "%q", kind)
}

func splitOp(n regex.Node, how uint32, invert bool) (operation, error) {
	t, err := regex.Build(n)
	if err != nil {
		return operation{}, err
	}
	return splitTable(t, how, invert), nil
}

func splitTable(t *regex.Table, how uint32, invert bool) operation {
	return operation{kind: opSplit, args: func(b *blob) []uint32 { return []uint32{b.automaton(t), how, flag(invert)} }}
}

func split(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type     string  `json:"type"`
		Pattern  pattern `json:"pattern"`
		Behavior string  `json:"behavior"`
		Invert   bool    `json:"invert"`
	}{}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	how, err := behaviour(n.Behavior, field+".behavior")
	if err != nil {
		return nil, err
	}
	t, err := n.Pattern.compile(field + ".pattern")
	if err != nil {
		return nil, err
	}
	return []operation{splitTable(t, how, n.Invert)}, nil
}

func byteLevel(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type  string `json:"type"`
		Space bool   `json:"add_prefix_space"`
		Trim  bool   `json:"trim_offsets"` // offsets are not this step's
		Regex bool   `json:"use_regex"`
	}{Space: true, Regex: true}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	var ops []operation
	if n.Space {
		ops = append(ops, prependOp(" ", prependUnless, " "))
	}
	if n.Regex {
		t, err := regex.Compile(gpt2Pattern)
		if err != nil {
			return nil, err
		}
		ops = append(ops, splitTable(t, isolated, false))
	}
	return append(ops, byteAlphabet()), nil
}

func metaspace(b json.RawMessage, field string) ([]operation, error) {
	n := struct {
		Type        string `json:"type"`
		Replacement string `json:"replacement"`
		Text        string `json:"str_rep"`
		Space       *bool  `json:"add_prefix_space"`
		Scheme      string `json:"prepend_scheme"`
		Split       *bool  `json:"split"`
	}{Scheme: "always"}
	if err := strict(b, field, &n); err != nil {
		return nil, err
	}
	if len([]rune(n.Replacement)) != 1 {
		return nil, refuse(field+".replacement", "%q is not one character", n.Replacement)
	}
	space, err := regex.Build(regex.Literal(" "))
	if err != nil {
		return nil, err
	}
	ops := []operation{replaceOp(space, n.Replacement)}
	if n.Space != nil && !*n.Space {
		n.Scheme = "never"
	}
	switch n.Scheme {
	case "always":
		ops = append(ops, prependOp(n.Replacement, prependUnless, n.Replacement))
	case "first":
		ops = append(ops, prependOp(n.Replacement, prependUnlessFirst, n.Replacement))
	case "never":
	default:
		return nil, refuse(field+".prepend_scheme", "%q", n.Scheme)
	}
	if n.Split == nil || *n.Split {
		o, err := splitOp(regex.Literal(n.Replacement), withNext, false)
		if err != nil {
			return nil, err
		}
		ops = append(ops, o)
	}
	return ops, nil
}
