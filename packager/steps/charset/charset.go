// Package charset has sets of code points and what the tokenizers library takes each code point for: unicode.txt, made by
// testdata/unicode.py from the library itself. Nothing depends on the Unicode version of the Go toolchain, except simple case folding.
package charset

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
)

//go:embed unicode.txt
var source string

// Max is the greatest code point.
const Max = 0x10ffff

// Range is the code points Lo to Hi, both included.
type Range struct{ Lo, Hi rune }

// Set is a set of code points: ranges that rise and do not touch.
type Set []Range

// Of is the set of some code points.
func Of(runes ...rune) Set {
	s := make(Set, len(runes))
	for i, r := range runes {
		s[i] = Range{r, r}
	}
	return Union(s)
}

// Union is what any of list has; their ranges may lie in any order.
func Union(list ...Set) Set {
	all := slices.Concat(list...)
	slices.SortFunc(all, func(a, b Range) int { return int(a.Lo - b.Lo) })
	var out Set
	for _, r := range all {
		if n := len(out); n > 0 && r.Lo <= out[n-1].Hi+1 {
			out[n-1].Hi = max(out[n-1].Hi, r.Hi)
		} else {
			out = append(out, r)
		}
	}
	return out
}

// Negate is every other code point.
func (s Set) Negate() Set {
	var out Set
	at := rune(0)
	for _, r := range s {
		if r.Lo > at {
			out = append(out, Range{at, r.Lo - 1})
		}
		at = r.Hi + 1
	}
	if at <= Max {
		out = append(out, Range{at, Max})
	}
	return out
}

// Intersect is what both have.
func (s Set) Intersect(o Set) Set { return Union(s.Negate(), o.Negate()).Negate() }

// Has tells whether r is in s.
func (s Set) Has(r rune) bool {
	i, found := slices.BinarySearchFunc(s, r, func(x Range, r rune) int { return int(x.Lo - r) })
	return found || i > 0 && r <= s[i-1].Hi
}

// Fold adds the simple case variants of every member.
func (s Set) Fold() Set {
	out := []Set{s}
	for _, r := range s {
		for c := r.Lo; c <= r.Hi; c++ {
			for f := unicode.SimpleFold(c); f != c; f = unicode.SimpleFold(f) {
				if !s.Has(f) {
					out = append(out, Set{{f, f}})
				}
			}
		}
	}
	return Union(out...)
}

type tables struct {
	sets map[string]Set
	maps map[string]map[rune][]rune
}

var loaded = sync.OnceValue(func() tables { return parse(source) })

// Named is a set of unicode.txt: a property of the patterns' engine by its own name, or, behind ~, one of the library's own questions (word, space,
// numeric, punctuation, other, nonspacing, combining), or, behind =, a grapheme cluster property. It panics for a name that is not there.
func Named(name string) Set {
	s, ok := loaded().sets[name]
	if !ok {
		panic("charset: no set " + name)
	}
	return s
}

// Mapping is a map of unicode.txt: lower, canonical, compatible (where it differs from canonical), class, composed. Neither form has Hangul.
// The caller must not change it.
func Mapping(name string) map[rune][]rune {
	m, ok := loaded().maps[name]
	if !ok {
		panic("charset: no map " + name)
	}
	return m
}

// Class is what [:name:] means to the patterns' engine; it differs from Property for punct alone, which has the symbols too.
func Class(name string) (s Set, ok bool) {
	if strings.EqualFold(name, "punct") {
		return Union(category("P"), category("S")), true
	}
	return Property(name)
}

// Property is what \p{name} means to the patterns' engine; ok is false for a name that is not known here.
func Property(name string) (s Set, ok bool) {
	name = strings.ToLower(strings.NewReplacer(" ", "", "_", "", "-", "").Replace(name))
	ascii := Set{{0, 0x7f}}
	switch name {
	case "any":
		return Set{{0, Max}}, true
	case "ascii":
		return ascii, true
	case "alpha":
		return Named("Alphabetic"), true
	case "alnum":
		return Union(Named("Alphabetic"), Named("Nd")), true
	case "blank":
		return Union(Named("Zs"), Of('\t')), true
	case "cntrl":
		return Named("Cc"), true
	case "digit":
		return Named("Nd"), true
	case "lower":
		return Named("Lowercase"), true
	case "upper":
		return Named("Uppercase"), true
	case "space", "whitespace":
		return Named("White_Space"), true
	case "punct":
		return category("P"), true
	case "xdigit":
		return Set{{'0', '9'}, {'A', 'F'}, {'a', 'f'}}, true
	case "cn", "unassigned":
		return Union(category("L"), category("M"), category("N"), category("P"), category("S"), category("Z"), Named("Cc"), Named("Cf"),
			Named("Co"), Set{{0xd800, 0xdfff}}).Negate(), true
	case "cs", "surrogate":
		return Set{{0xd800, 0xdfff}}, true
	case "c", "other":
		return Union(category("L"), category("M"), category("N"), category("P"), category("S"), category("Z")).Negate(), true
	}
	if short, ok := longNames[name]; ok {
		name = short
	}
	if len(name) == 1 && strings.Contains("lmnpsz", name) {
		return category(strings.ToUpper(name)), true
	}
	for key, s := range loaded().sets {
		if key[0] != '~' && key[0] != '=' && strings.ToLower(strings.ReplaceAll(key, "_", "")) == name {
			return s, true
		}
	}
	return nil, false
}

var longNames = map[string]string{
	"letter": "l", "mark": "m", "combiningmark": "m", "number": "n", "punctuation": "p", "symbol": "s", "separator": "z",
	"uppercaseletter": "lu", "lowercaseletter": "ll", "titlecaseletter": "lt", "modifierletter": "lm", "otherletter": "lo",
	"nonspacingmark": "mn", "spacingmark": "mc", "enclosingmark": "me", "decimalnumber": "nd", "letternumber": "nl", "othernumber": "no",
	"connectorpunctuation": "pc", "dashpunctuation": "pd", "openpunctuation": "ps", "closepunctuation": "pe", "initialpunctuation": "pi",
	"finalpunctuation": "pf", "otherpunctuation": "po", "mathsymbol": "sm", "currencysymbol": "sc", "modifiersymbol": "sk", "othersymbol": "so",
	"spaceseparator": "zs", "lineseparator": "zl", "paragraphseparator": "zp", "control": "cc", "format": "cf", "privateuse": "co",
}

// category is the union of the categories whose names begin with first.
func category(first string) Set {
	var list []Set
	for key, s := range loaded().sets {
		if len(key) == 2 && key[:1] == first {
			list = append(list, s)
		}
	}
	return Union(list...)
}

func parse(text string) tables {
	t := tables{map[string]Set{}, map[string]map[rune][]rune{}}
	kind, name, at := "", "", rune(0)
	hex := func(s string) rune {
		v, err := strconv.ParseUint(s, 16, 32)
		if err != nil {
			panic("charset: unicode.txt: " + err.Error())
		}
		return rune(v)
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if f[0] == "set" || f[0] == "map" {
			kind, name, at = f[0], f[1], 0
			if kind == "set" {
				t.sets[name] = nil
			} else {
				t.maps[name] = map[rune][]rune{}
			}
			continue
		}
		for _, x := range f {
			if kind == "set" {
				gap, more, _ := strings.Cut(x, ".")
				lo := at + hex(gap)
				hi := lo
				if more != "" {
					hi += hex(more)
				}
				t.sets[name] = append(t.sets[name], Range{lo, hi})
				at = hi + 1
				continue
			}
			gap, to, _ := strings.Cut(x, "=")
			at += hex(gap)
			v := []rune{}
			for _, c := range strings.Split(to, ".") {
				if c != "" {
					v = append(v, hex(c))
				}
			}
			t.maps[name][at] = v
		}
	}
	return t
}
