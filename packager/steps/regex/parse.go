package regex

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/packager/steps/charset"
)

// ErrPattern is behind every error of Compile.
var ErrPattern = errors.New("pattern not supported")

// Node is a pattern as a tree: one of the types below.
type Node any

type (
	one  struct{ set charset.Set }
	cat  []Node
	alt  []Node
	loop struct {
		body     Node
		min, max int // max < 0: without end
		lazy     bool
	}
	// look is an assertion about the code point behind (ahead: the next one, else the last one). edge: that there is none counts as a member.
	look struct {
		set             charset.Set
		ahead, edge, no bool
	}
)

const (
	maxRepeat = 1000
	maxDepth  = 200
)

type parser struct {
	src   string
	at    int
	depth int
	fold  bool // (?i)
	dots  bool // (?m), Oniguruma's word for: a dot matches a newline
}

func (p *parser) fail(at int, format string, args ...any) error {
	return fmt.Errorf("at byte %d: %s: %w", at, fmt.Sprintf(format, args...), ErrPattern)
}

func (p *parser) more() bool { return p.at < len(p.src) }

func (p *parser) peek(s string) bool { return strings.HasPrefix(p.src[p.at:], s) }

func (p *parser) accept(s string) bool {
	if p.peek(s) {
		p.at += len(s)
		return true
	}
	return false
}

func (p *parser) rune() rune {
	r, n := utf8.DecodeRuneInString(p.src[p.at:])
	p.at += n
	return r
}

// Parse reads a pattern of the Oniguruma syntax. What cannot become a table is refused: back references, calls, and looks at more than one code point.
func Parse(src string) (Node, error) {
	if !utf8.ValidString(src) {
		return nil, fmt.Errorf("not UTF-8: %w", ErrPattern)
	}
	p := &parser{src: src}
	n, err := p.alternatives()
	if err == nil && p.more() {
		err = p.fail(p.at, "%q without an opening parenthesis", p.src[p.at:p.at+1])
	}
	return n, err
}

func (p *parser) alternatives() (Node, error) {
	p.depth++
	defer func() { p.depth-- }()
	if p.depth > maxDepth {
		return nil, p.fail(p.at, "parentheses are nested more than %d deep", maxDepth)
	}
	var list alt
	for {
		n, err := p.sequence()
		if err != nil {
			return nil, err
		}
		list = append(list, n)
		if !p.accept("|") {
			break
		}
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return list, nil
}

func (p *parser) sequence() (Node, error) {
	var list cat
	text := "" // the literal code points in a row, for multi-character case folding
	for p.more() && !p.peek("|") && !p.peek(")") {
		from := p.at
		n, err := p.atom()
		if err != nil {
			return nil, err
		}
		if p.fold {
			if r, size := utf8.DecodeRuneInString(p.src[from:p.at]); size == p.at-from {
				text += string(unicode.ToLower(r))
			} else {
				text = ""
			}
			for _, s := range []string{"ss", "st", "ff", "fi", "fl"} {
				if strings.HasSuffix(text, s) {
					return nil, p.fail(from, "%q regardless of case also means one ligature", s)
				}
			}
		}
		if n, err = p.repeats(n, from); err != nil {
			return nil, err
		}
		list = append(list, n)
	}
	if len(list) == 1 {
		return list[0], nil
	}
	return list, nil
}

// repeats reads the quantifiers behind n.
func (p *parser) repeats(n Node, from int) (Node, error) {
	for p.more() {
		min, max, interval := 0, -1, false
		at := p.at
		switch {
		case p.accept("*"):
		case p.accept("+"):
			min = 1
		case p.accept("?"):
			max = 1
		case p.peek("{"):
			var ok bool
			if min, max, ok = p.interval(); !ok {
				return n, nil // a literal brace
			}
			interval = true
		default:
			return n, nil
		}
		if _, assertion := n.(look); assertion {
			return nil, p.fail(from, "a repeated assertion")
		}
		if min > maxRepeat || max > maxRepeat || max >= 0 && max < min {
			return nil, p.fail(at, "a repetition of %d to %d (at most %d is done)", min, max, maxRepeat)
		}
		switch {
		case interval && min == max && p.accept("?"):
			n = loop{body: loop{body: n, min: min, max: max}, max: 1} // Oniguruma: {n}? may be left out
		case p.accept("?"):
			n = loop{n, min, max, true}
		case !interval && p.accept("+"):
			var err error
			if n, err = p.possessive(n, min, max, from); err != nil {
				return nil, err
			}
		default:
			n = loop{n, min, max, false}
		}
	}
	return n, nil
}

// possessive is a loop that gives nothing back, for a body of one code point: as many as there are.
func (p *parser) possessive(n Node, min, max, from int) (Node, error) {
	s, ok := n.(one)
	if !ok {
		return nil, p.fail(from, "a possessive repetition of more than one code point")
	}
	none := look{set: s.set, ahead: true, no: true}
	if max == 1 {
		return alt{s, none}, nil
	}
	return cat{loop{body: s, min: min, max: max}, none}, nil
}

func (p *parser) interval() (min, max int, ok bool) {
	end := strings.IndexByte(p.src[p.at:], '}')
	if end < 0 {
		return 0, 0, false
	}
	low, high, two := strings.Cut(p.src[p.at+1:p.at+end], ",")
	number := func(s string) (int, bool) {
		v, err := strconv.ParseUint(s, 10, 24)
		return int(v), err == nil
	}
	a, okA := number(low)
	b, okB := number(high)
	switch {
	case !two && okA:
		b = a
	case two && okA && high == "":
		b = -1
	case two && low == "" && okB:
		a = 0
	case two && okA && okB:
	default:
		return 0, 0, false
	}
	p.at += end + 1
	return a, b, true
}

func (p *parser) atom() (Node, error) {
	at := p.at
	switch {
	case p.peek("("):
		return p.group()
	case p.peek("["):
		s, err := p.class()
		if err == nil && p.fold {
			s = s.Fold()
		}
		return one{s}, err
	case p.accept("."):
		if p.dots {
			return one{charset.Set{{Lo: 0, Hi: charset.Max}}}, nil
		}
		return one{charset.Of('\n').Negate()}, nil
	case p.accept("^"):
		return look{set: charset.Of('\n'), edge: true}, nil
	case p.accept("$"):
		return look{set: charset.Of('\n'), edge: true, ahead: true}, nil
	case p.peek("*"), p.peek("+"), p.peek("?"):
		return nil, p.fail(at, "nothing to repeat")
	case p.peek("\\"):
		return p.escape()
	}
	return p.literal(p.rune(), at)
}

// literal is one code point.
func (p *parser) literal(r rune, at int) (Node, error) {
	s := charset.Of(r)
	if p.fold {
		if strings.ContainsRune("ßẞŉǰΐΰև", r) || r >= 0x1e96 && r <= 0x1e9a || r >= 0x1f50 && r <= 0x1fff || r >= 0xfb00 && r <= 0xfb17 {
			return nil, p.fail(at, "%q regardless of case also means several code points", r)
		}
		s = s.Fold()
	}
	return one{s}, nil
}

func (p *parser) group() (Node, error) {
	at := p.at
	p.at++
	fold, dots := p.fold, p.dots
	var kind string
	if p.accept("?") {
		for _, k := range []string{":", "=", "!", "<=", "<!", ">"} {
			if p.accept(k) {
				kind = k
				break
			}
		}
		switch {
		case kind != "":
		case p.accept("<"):
			end := strings.IndexByte(p.src[p.at:], '>')
			if end < 0 {
				return nil, p.fail(at, "a group without a name")
			}
			p.at += end + 1
		case p.accept("#"):
			end := strings.IndexByte(p.src[p.at:], ')')
			if end < 0 {
				return nil, p.fail(at, "a comment without an end")
			}
			p.at += end + 1
			return cat{}, nil
		default:
			on := true
			for p.more() && !p.peek(")") && !p.peek(":") {
				switch c := p.rune(); c {
				case '-':
					on = false
				case 'i':
					p.fold = on
				case 'm':
					p.dots = on
				default:
					return nil, p.fail(at, "the option %q", c)
				}
			}
			if p.accept(")") { // up to the end of the group around it
				n, err := p.alternatives()
				p.fold, p.dots = fold, dots
				return n, err
			}
			if !p.accept(":") {
				return nil, p.fail(at, "a group without an end")
			}
		}
	}
	n, err := p.alternatives()
	if err != nil {
		return nil, err
	}
	if !p.accept(")") {
		return nil, p.fail(at, "a group without an end")
	}
	p.fold, p.dots = fold, dots
	switch kind {
	case "=", "!", "<=", "<!":
		set, edge, ok := single(n, kind[0] != '<')
		if !ok {
			return nil, p.fail(at, "looking at more than one code point in (?%s...)", kind)
		}
		return look{set: set, edge: edge, ahead: kind[0] != '<', no: strings.HasSuffix(kind, "!")}, nil
	case ">":
		switch b := n.(type) {
		case one:
		case loop:
			if b.lazy || b.max >= 0 && b.max != 1 {
				return nil, p.fail(at, "this atomic group")
			}
			return p.possessive(b.body, b.min, b.max, at)
		default:
			return nil, p.fail(at, "an atomic group of more than one code point")
		}
	}
	return n, nil
}

// single is what an assertion about n asks of one code point; edge: that there is none is enough too.
func single(n Node, ahead bool) (s charset.Set, edge, ok bool) {
	switch n := n.(type) {
	case one:
		return n.set, false, true
	case look:
		return n.set, n.edge, n.ahead == ahead && !n.no
	case loop:
		b, isOne := n.body.(one)
		if isOne && n.min == 1 {
			return b.set, false, true
		}
	case alt:
		for _, a := range n {
			as, ae, aok := single(a, ahead)
			if !aok {
				return nil, false, false
			}
			s, edge = charset.Union(s, as), edge || ae
		}
		return s, edge, true
	}
	return nil, false, false
}

// shorthand is \s, \d, \w, \h and their opposites.
func shorthand(c byte) (charset.Set, bool) {
	var s charset.Set
	switch c | 0x20 {
	case 's':
		s = charset.Named("White_Space")
	case 'd':
		s = charset.Named("Nd")
	case 'w':
		s = charset.Named("Word")
	case 'h':
		s, _ = charset.Property("xdigit")
	default:
		return nil, false
	}
	if c < 'a' {
		s = s.Negate()
	}
	return s, true
}

// loneWord is \w outside of brackets: the engine then takes the superscript digits and fractions of Latin-1 for words too.
func loneWord() charset.Set {
	return charset.Union(charset.Named("Word"), charset.Of('\u00b2', '\u00b3', '\u00b9', '\u00bc', '\u00bd', '\u00be'))
}

func (p *parser) escape() (Node, error) {
	at := p.at
	if at+1 >= len(p.src) {
		return nil, p.fail(at, "a backslash at the end")
	}
	switch c := p.src[at+1]; c {
	case 'A':
		p.at += 2
		return look{edge: true}, nil
	case 'z':
		p.at += 2
		return look{edge: true, ahead: true}, nil
	case 'b', 'B':
		p.at += 2
		w := loneWord()
		is := func(ahead, no bool) look { return look{set: w, ahead: ahead, no: no} }
		if c == 'b' {
			return alt{cat{is(false, false), is(true, true)}, cat{is(false, true), is(true, false)}}, nil
		}
		return alt{cat{is(false, false), is(true, false)}, cat{is(false, true), is(true, true)}}, nil
	}
	s, r, err := p.escaped()
	if err != nil {
		return nil, err
	}
	switch p.src[at+1] {
	case 'w':
		return one{loneWord()}, nil
	case 'W':
		return one{loneWord().Negate()}, nil
	}
	if s != nil {
		return one{s}, nil
	}
	return p.literal(r, at)
}

// escaped reads an escape that may stand in a class too: a set, or one code point.
func (p *parser) escaped() (charset.Set, rune, error) {
	at := p.at
	p.at++
	if !p.more() {
		return nil, 0, p.fail(at, "a backslash at the end")
	}
	c := p.src[p.at]
	if s, ok := shorthand(c); ok {
		p.at++
		return s, 0, nil
	}
	switch c {
	case 'p', 'P':
		end := strings.IndexByte(p.src[at:], '}')
		if !strings.HasPrefix(p.src[at+2:], "{") || end < 0 {
			return nil, 0, p.fail(at, `a property without {name}`)
		}
		name, not := strings.CutPrefix(p.src[at+3:at+end], "^")
		p.at = at + end + 1
		s, ok := charset.Property(name)
		if !ok {
			return nil, 0, p.fail(at, "the property %q", name)
		}
		if not != (c == 'P') {
			s = s.Negate()
		}
		return s, 0, nil
	case 'x', 'u':
		p.at++
		digits := ""
		if p.peek("{") && c == 'x' {
			end := strings.IndexByte(p.src[p.at:], '}')
			if end < 0 {
				return nil, 0, p.fail(at, "an escape without an end")
			}
			digits = p.src[p.at+1 : p.at+end]
			p.at += end + 1
		} else {
			n := map[byte]int{'x': 2, 'u': 4}[c]
			if p.at+n > len(p.src) {
				return nil, 0, p.fail(at, "an escape without an end")
			}
			digits = p.src[p.at : p.at+n]
			p.at += n
		}
		v, err := strconv.ParseUint(digits, 16, 32)
		if err != nil || v > charset.Max || c == 'x' && len(digits) == 2 && v > 0x7f {
			return nil, 0, p.fail(at, "the code point %q", digits)
		}
		return nil, rune(v), nil
	}
	if i := strings.IndexByte("ntrfvae", c); i >= 0 {
		p.at++
		return nil, rune("\n\t\r\f\v\a\x1b"[i]), nil
	}
	if c < 0x80 && (unicode.IsLetter(rune(c)) || unicode.IsDigit(rune(c))) {
		return nil, 0, p.fail(at, `\%c`, c)
	}
	return nil, p.rune(), nil
}

// class reads a bracket expression with nested ones and intersections.
func (p *parser) class() (charset.Set, error) {
	p.depth++
	defer func() { p.depth-- }()
	at := p.at
	p.at++
	if p.depth > maxDepth {
		return nil, p.fail(at, "brackets are nested more than %d deep", maxDepth)
	}
	not := p.accept("^")
	if p.peek("]") {
		return nil, p.fail(p.at, `"]" directly behind "[" (write \])`)
	}
	var all, part charset.Set
	first := true
	meet := func() {
		if first {
			all, first = part, false
		} else {
			all = all.Intersect(part)
		}
		part = nil
	}
	for {
		from := p.at
		switch {
		case !p.more():
			return nil, p.fail(at, "a bracket without an end")
		case p.accept("]"):
			meet()
			if not {
				all = all.Negate()
			}
			return all, nil
		case p.accept("&&"):
			meet()
			continue
		case p.peek("[:"):
			if end := strings.Index(p.src[p.at:], ":]"); end > 0 {
				name, no := strings.CutPrefix(p.src[p.at+2:p.at+end], "^")
				s, ok := charset.Class(name)
				if !ok {
					return nil, p.fail(from, "the class %q", name)
				}
				if no {
					s = s.Negate()
				}
				part = charset.Union(part, s)
				p.at += end + 2
				continue
			}
			fallthrough
		case p.peek("["):
			s, err := p.class()
			if err != nil {
				return nil, err
			}
			part = charset.Union(part, s)
			continue
		}
		s, lo, err := p.member()
		if err != nil {
			return nil, err
		}
		if s != nil {
			part = charset.Union(part, s)
			continue
		}
		hi := lo
		if p.peek("-") && p.at+1 < len(p.src) && p.src[p.at+1] != ']' {
			p.at++
			if p.peek("[") {
				return nil, p.fail(from, "a range up to a class")
			}
			if s, hi, err = p.member(); err != nil {
				return nil, err
			}
			if s != nil || hi < lo {
				return nil, p.fail(from, "the range %q", p.src[from:p.at])
			}
		}
		part = charset.Union(part, charset.Set{{Lo: lo, Hi: hi}})
	}
}

func (p *parser) member() (charset.Set, rune, error) {
	if p.peek("\\") {
		if strings.HasPrefix(p.src[p.at:], `\b`) {
			p.at += 2
			return nil, '\b', nil
		}
		return p.escaped()
	}
	if !p.more() {
		return nil, 0, p.fail(p.at, "a bracket without an end")
	}
	return nil, p.rune(), nil
}
