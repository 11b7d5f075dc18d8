package codegen

import (
	"encoding/binary"
	"fmt"
	"regexp/syntax"
	"slices"
	"sort"
	"strings"
	"unicode"

	"github.com/waybill-ml/waybill/packager/codegen/kernel"
)

// A pattern in RE2 syntax becomes a table of states over classes of code points, so that the module only looks up.
// Matches are leftmost-longest: a state is a set of program positions, and priorities between alternatives do not matter.
//
// Assertions (^ $ \b and the like) depend on the characters on both sides. A state therefore holds positions before
// their empty moves, plus the kind of the character in front; the moves are followed once the next class is known. That is why
// acceptance is a table over (state, next class) too.

// Limits of a pattern's tables.
const (
	maxDFAStates = 4096
	maxDFACells  = 1 << 20
)

// Kinds of the character before a position, as kernel.DFAStart orders them.
const (
	prevNothing = iota
	prevNewline
	prevWord
	prevOther
	prevKinds
)

type dfa struct {
	classes int // class 0 is the end of the text
	bounds  []rune
	class   []int // class of [bounds[i], bounds[i+1])
	next    []uint16
	accept  []byte
	start   [prevKinds]int
}

func isWord(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_'
}

// compileDFA builds the tables of a pattern.
func compileDFA(pattern string) (*dfa, error) {
	re, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	d := &dfa{}
	d.split(prog)
	if err := d.build(prog); err != nil {
		return nil, fmt.Errorf("pattern %q: %w", pattern, err)
	}
	return d, nil
}

// split cuts the code points into classes that no instruction and no assertion tells apart.
func (d *dfa) split(prog *syntax.Prog) {
	cut := map[rune]bool{0: true, '\n': true, '\n' + 1: true}
	for _, r := range []rune{'0', '9' + 1, 'A', 'Z' + 1, '_', '_' + 1, 'a', 'z' + 1} {
		cut[r] = true
	}
	for i := range prog.Inst {
		in := &prog.Inst[i]
		switch in.Op {
		case syntax.InstRune, syntax.InstRune1:
			rs := in.Rune
			if len(rs) == 1 {
				// A single rune, perhaps folded: all its case variants.
				r0 := rs[0]
				cut[r0], cut[r0+1] = true, true
				if syntax.Flags(in.Arg)&syntax.FoldCase != 0 {
					for r := unicode.SimpleFold(r0); r != r0; r = unicode.SimpleFold(r) {
						cut[r], cut[r+1] = true, true
					}
				}
				continue
			}
			for j := 0; j+1 < len(rs); j += 2 {
				cut[rs[j]], cut[rs[j+1]+1] = true, true
			}
		}
	}
	for r := range cut {
		if r <= unicode.MaxRune {
			d.bounds = append(d.bounds, r)
		}
	}
	slices.Sort(d.bounds)
	// Ranges that all instructions treat alike share a class.
	keys := map[string]int{}
	d.classes = 1
	for _, r := range d.bounds {
		var k strings.Builder
		for i := range prog.Inst {
			in := &prog.Inst[i]
			if in.Op == syntax.InstRune || in.Op == syntax.InstRune1 || in.Op == syntax.InstRuneAny || in.Op == syntax.InstRuneAnyNotNL {
				if in.MatchRune(r) {
					k.WriteByte('1')
				} else {
					k.WriteByte('0')
				}
			}
		}
		fmt.Fprintf(&k, "%t%t", isWord(r), r == '\n')
		c, ok := keys[k.String()]
		if !ok {
			c = d.classes
			d.classes++
			keys[k.String()] = c
		}
		d.class = append(d.class, c)
	}
}

type dfaState struct {
	insts []uint32 // sorted, before empty moves
	prev  int
}

func (s dfaState) key() string { return fmt.Sprint(s.prev, s.insts) }

func (d *dfa) build(prog *syntax.Prog) error {
	sample := make([]rune, d.classes) // one code point of each class
	for i, c := range d.class {
		if sample[c] == 0 {
			sample[c] = d.bounds[i]
		}
	}
	ids := map[string]int{}
	states := []dfaState{{}} // state 0 is dead
	add := func(s dfaState) (int, error) {
		if len(s.insts) == 0 {
			return 0, nil
		}
		k := s.key()
		if id, ok := ids[k]; ok {
			return id, nil
		}
		if len(states) >= maxDFAStates || (len(states)+1)*d.classes > maxDFACells {
			return 0, fmt.Errorf("more than %d states or %d table cells", maxDFAStates, maxDFACells)
		}
		ids[k] = len(states)
		states = append(states, s)
		return len(states) - 1, nil
	}
	for p := 0; p < prevKinds; p++ {
		id, err := add(dfaState{[]uint32{uint32(prog.Start)}, p})
		if err != nil {
			return err
		}
		d.start[p] = id
	}
	d.next = make([]uint16, d.classes)
	d.accept = make([]byte, d.classes)
	for i := 1; i < len(states); i++ {
		s := states[i]
		for c := 0; c < d.classes; c++ {
			before, after := rune(-1), rune(-1)
			switch s.prev {
			case prevNewline:
				before = '\n'
			case prevWord:
				before = 'a'
			case prevOther:
				before = ' '
			}
			if c > 0 {
				after = sample[c]
			}
			set, match := closure(prog, s.insts, syntax.EmptyOpContext(before, after))
			acc := byte(0)
			if match {
				acc = 1
			}
			d.accept = append(d.accept, acc)
			if c == 0 {
				d.next = append(d.next, 0)
				continue
			}
			step := map[uint32]bool{}
			for _, pc := range set {
				if in := &prog.Inst[pc]; in.MatchRune(after) {
					step[in.Out] = true
				}
			}
			n := dfaState{prev: prevOther}
			for pc := range step {
				n.insts = append(n.insts, pc)
			}
			slices.Sort(n.insts)
			switch {
			case after == '\n':
				n.prev = prevNewline
			case isWord(after):
				n.prev = prevWord
			}
			id, err := add(n)
			if err != nil {
				return err
			}
			d.next = append(d.next, uint16(id))
		}
	}
	return nil
}

// closure follows empty moves that flags allow: the rune instructions reached, and whether the pattern can end here.
func closure(prog *syntax.Prog, from []uint32, flags syntax.EmptyOp) (set []uint32, match bool) {
	seen := map[uint32]bool{}
	stack := append([]uint32(nil), from...)
	for len(stack) > 0 {
		pc := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		if seen[pc] {
			continue
		}
		seen[pc] = true
		in := &prog.Inst[pc]
		switch in.Op {
		case syntax.InstAlt, syntax.InstAltMatch:
			stack = append(stack, in.Out, in.Arg)
		case syntax.InstCapture, syntax.InstNop:
			stack = append(stack, in.Out)
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.Arg)&^flags == 0 {
				stack = append(stack, in.Out)
			}
		case syntax.InstMatch:
			match = true
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			set = append(set, pc)
		}
	}
	slices.Sort(set)
	return set, match
}

// classOf finds the class of a code point.
func (d *dfa) classOf(r rune) int {
	i := sort.Search(len(d.bounds), func(i int) bool { return d.bounds[i] > r })
	return d.class[i-1]
}

// lay puts the tables into the data segment and returns their header.
func (d *dfa) lay(c *compiler) *blob {
	le := binary.LittleEndian
	ascii := make([]byte, 128)
	wide := d.classes > 255
	for i := range ascii {
		if !wide {
			ascii[i] = byte(d.classOf(rune(i)))
		}
	}
	var ranges, next []byte
	for i, r := range d.bounds {
		ranges = le.AppendUint32(ranges, uint32(r))
		ranges = le.AppendUint32(ranges, uint32(d.class[i]))
	}
	for _, n := range d.next {
		next = le.AppendUint16(next, n)
	}
	ba, br, bn, bc := c.blob(ascii, 16), c.blob(ranges, 16), c.blob(next, 16), c.blob(d.accept, 16)
	h := c.blob(make([]byte, kernel.DFASize), 16)
	h.fix = func(b []byte) {
		le.PutUint32(b[kernel.DFAClasses:], uint32(d.classes))
		le.PutUint32(b[kernel.DFAASCII:], ba.addr)
		le.PutUint32(b[kernel.DFARanges:], br.addr)
		le.PutUint32(b[kernel.DFANRanges:], uint32(len(d.bounds)))
		le.PutUint32(b[kernel.DFANext:], bn.addr)
		le.PutUint32(b[kernel.DFAAccept:], bc.addr)
		for i, s := range d.start {
			le.PutUint32(b[kernel.DFAStart+4*i:], uint32(s))
		}
	}
	return h
}
