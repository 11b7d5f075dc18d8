// Package regex makes the patterns of a tokenizer.json (Oniguruma syntax) into tables that a small program walks, one look-up for each code
// point. Matches are those of a backtracking engine: the leftmost, and of several from there the one that comes first.
//
// A pattern becomes a program of threads in order of preference, and the table's states are the lists of threads that can be alive at
// once. Assertions about the next code point are decided when it has been read, before it is consumed; those about the last one are part of the state.
package regex

import (
	"encoding/binary"
	"fmt"
	"slices"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/packager/steps/charset"
)

// Matched marks a transition in Next on whose way a match ends, before the code point that is read.
const Matched = 0x8000

// Limits of a table.
const (
	maxProgram = 20000
	maxStates  = 4096
	maxClasses = 255
	maxWork    = 50_000_000
)

// Table is a deterministic automaton. State 0 is the dead one.
type Table struct {
	Pages   []uint16 // for each 256 code points the number of their page in Class
	Class   []byte   // 256 for each page: the class of a code point
	Classes int      // classes of code points; class number Classes is the end of the text
	Start   []uint16 // first state by the class of the code point before; the last one is for the beginning of the text
	Next    []uint16 // [state * (Classes + 1) + class]: the next state, with Matched
}

// Compile makes the table of a pattern. A pattern that can match nothing at all is refused.
func Compile(pattern string) (*Table, error) {
	n, err := Parse(pattern)
	if err != nil {
		return nil, err
	}
	return Build(n)
}

// Literal is the pattern of exactly s.
func Literal(s string) Node {
	var n cat
	for _, r := range s {
		n = append(n, one{charset.Of(r)})
	}
	return n
}

// OneOf is the pattern of one code point of s.
func OneOf(s charset.Set) Node { return one{s} }

type instr struct {
	op     byte // 'c' code point of set x, 'l' assertion x, 's' split x before y, 'm' match
	x, y   int
	target int // behind 'c' and 'l'
}

type builder struct {
	prog  []instr
	sets  []charset.Set
	looks []look // with set replaced by lookSet
	where []int  // the set of each look
	calls int
	err   error
}

func (b *builder) set(s charset.Set) int {
	if i := slices.IndexFunc(b.sets, func(o charset.Set) bool { return slices.Equal(o, s) }); i >= 0 {
		return i
	}
	b.sets = append(b.sets, s)
	return len(b.sets) - 1
}

func (b *builder) add(i instr) int {
	if len(b.prog) >= maxProgram {
		if b.err == nil {
			b.err = fmt.Errorf("the pattern is too long when its repetitions are written out: %w", ErrPattern)
		}
		return 0
	}
	b.prog = append(b.prog, i)
	return len(b.prog) - 1
}

// emit writes n so that it goes on at next, and returns where it begins.
func (b *builder) emit(n Node, next int) int {
	if b.calls++; b.calls > 4*maxProgram && b.err == nil { // repetitions of nothing add no instruction
		b.err = fmt.Errorf("the pattern is too long when its repetitions are written out: %w", ErrPattern)
	}
	if b.err != nil {
		return 0
	}
	switch n := n.(type) {
	case one:
		return b.add(instr{op: 'c', x: b.set(n.set), target: next})
	case look:
		b.looks, b.where = append(b.looks, n), append(b.where, b.set(n.set))
		return b.add(instr{op: 'l', x: len(b.looks) - 1, target: next})
	case cat:
		for _, m := range slices.Backward(n) {
			next = b.emit(m, next)
		}
		return next
	case alt:
		at := b.emit(n[len(n)-1], next)
		for _, m := range slices.Backward(n[:len(n)-1]) {
			at = b.add(instr{op: 's', x: b.emit(m, next), y: at})
		}
		return at
	case loop:
		split := func(body, out int) instr {
			if n.lazy {
				return instr{op: 's', x: out, y: body}
			}
			return instr{op: 's', x: body, y: out}
		}
		if n.max < 0 {
			at := b.add(instr{op: 's'})
			body := b.emit(n.body, at)
			if b.err != nil {
				return 0
			}
			b.prog[at] = split(body, next)
			next = at
		} else {
			out := next
			for range n.max - n.min {
				next = b.add(split(b.emit(n.body, next), out))
			}
		}
		for range n.min {
			next = b.emit(n.body, next)
		}
		return next
	}
	panic("regex: unknown node")
}

// Build makes the table of a tree.
func Build(n Node) (*Table, error) {
	b := &builder{}
	match := b.add(instr{op: 'm'})
	entry := b.emit(n, match)
	if b.err != nil {
		return nil, b.err
	}
	t := &Table{}
	has, err := t.classify(b.sets)
	if err != nil {
		return nil, err
	}
	c := &compiler{builder: b, t: t, has: has, known: map[string]uint16{}, seen: make([]int, len(b.prog))}
	return t, c.run(entry)
}

// classify gives code points that are in the same sets the same class, and returns for each set and class whether it has it.
func (t *Table) classify(sets []charset.Set) ([][]bool, error) {
	cuts := []rune{0, charset.Max + 1}
	for _, s := range sets {
		for _, r := range s {
			cuts = append(cuts, r.Lo, r.Hi+1)
		}
	}
	slices.Sort(cuts)
	cuts = slices.Compact(cuts)
	known := map[string]byte{}
	has := make([][]bool, len(sets))
	flat := make([]byte, charset.Max+1)
	sign := make([]byte, len(sets))
	for i, lo := range cuts[:len(cuts)-1] {
		for j, s := range sets {
			sign[j] = '0'
			if s.Has(lo) {
				sign[j] = '1'
			}
		}
		c, ok := known[string(sign)]
		if !ok {
			if len(known) >= maxClasses {
				return nil, fmt.Errorf("more than %d kinds of code points: %w", maxClasses, ErrPattern)
			}
			c = byte(len(known))
			known[string(sign)] = c
			for j := range sets {
				has[j] = append(has[j], sign[j] == '1')
			}
		}
		for r := lo; r < cuts[i+1]; r++ {
			flat[r] = c
		}
	}
	t.Classes = len(known)
	pages := map[string]uint16{}
	for p := 0; p < len(flat); p += 256 {
		page := string(flat[p : p+256])
		n, ok := pages[page]
		if !ok {
			n = uint16(len(pages))
			pages[page] = n
			t.Class = append(t.Class, page...)
		}
		t.Pages = append(t.Pages, n)
	}
	return has, nil
}

type compiler struct {
	*builder
	t     *Table
	has   [][]bool
	known map[string]uint16
	lists [][]int // of each state: where its threads stand
	prev  []int   // of each state: the class before, or Classes at the beginning; reduced by kind
	kinds []int   // of each class: the first class that no assertion about the last code point tells from it
	seen  []int   // mark of the last closure that came by
	mark  int
	work  int
}

func (c *compiler) run(entry int) error {
	end := c.t.Classes
	for class := range end + 1 {
		kind := class
		for other := range class {
			same := true
			for i, l := range c.looks {
				if !l.ahead && c.holds(i, l, class) != c.holds(i, l, other) {
					same = false
				}
			}
			if same {
				kind = other
				break
			}
		}
		c.kinds = append(c.kinds, kind)
	}
	c.state(nil, 0) // the dead one
	for class := range end + 1 {
		c.t.Start = append(c.t.Start, c.state([]int{entry}, class))
	}
	starts := len(c.lists)
	c.t.Next = make([]uint16, end+1)
	for s := 1; s < len(c.lists); s++ {
		if len(c.lists) > maxStates || c.work > maxWork {
			return fmt.Errorf("the pattern needs more than %d states: %w", maxStates, ErrPattern)
		}
		for class := range end + 1 {
			v := c.step(s, class)
			if s < starts && v&Matched != 0 {
				return fmt.Errorf("the pattern can match nothing at all: %w", ErrPattern)
			}
			c.t.Next = append(c.t.Next, v)
		}
	}
	return nil
}

// state numbers a list of threads behind a code point of class prev.
func (c *compiler) state(list []int, prev int) uint16 {
	if len(list) == 0 && len(c.lists) > 0 {
		return 0
	}
	kind := c.kinds[prev]
	key := binary.LittleEndian.AppendUint32(nil, uint32(kind))
	for _, pc := range list {
		key = binary.LittleEndian.AppendUint32(key, uint32(pc))
	}
	n, ok := c.known[string(key)]
	if !ok {
		n = uint16(len(c.lists))
		c.known[string(key)] = n
		c.lists, c.prev = append(c.lists, list), append(c.prev, kind)
	}
	return n
}

func (c *compiler) holds(i int, l look, class int) bool {
	in := l.edge
	if class < c.t.Classes {
		in = c.has[c.where[i]][class]
	}
	return in != l.no
}

// step is the transition of state s when the next code point is of a class.
func (c *compiler) step(s, class int) uint16 {
	c.mark++
	var stack, next []int
	var v uint16
	for _, pc := range c.lists[s] {
		stack = append(stack[:0], pc)
		for len(stack) > 0 {
			pc := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if c.seen[pc] == c.mark {
				continue
			}
			c.seen[pc] = c.mark
			c.work++
			switch i := c.prog[pc]; i.op {
			case 's':
				stack = append(stack, i.y, i.x)
			case 'l':
				l := c.looks[i.x]
				at := c.prev[s]
				if l.ahead {
					at = class
				}
				if c.holds(i.x, l, at) {
					stack = append(stack, i.target)
				}
			case 'c':
				if class < c.t.Classes && c.has[i.x][class] && !slices.Contains(next, i.target) {
					next = append(next, i.target)
				}
			case 'm': // whatever comes later is less preferred
				v = Matched
				return v | c.state(next, min(class, c.t.Classes-1))
			}
		}
	}
	return v | c.state(next, min(class, c.t.Classes-1))
}

// ClassOf is the class of a code point.
func (t *Table) ClassOf(r rune) int { return int(t.Class[int(t.Pages[r>>8])<<8|int(r&255)]) }

// Find lists the matches in text, which is UTF-8, without overlap from left to right: their beginnings and ends.
func (t *Table) Find(text string) [][2]int {
	var out [][2]int
	before := t.Classes
	for from := 0; from < len(text); {
		state, end, last, lastBefore := t.Start[before], -1, before, before
		for at := from; ; {
			class, n := t.Classes, 0
			if at < len(text) {
				var r rune
				r, n = utf8.DecodeRuneInString(text[at:])
				class = t.ClassOf(r)
			}
			v := t.Next[int(state)*(t.Classes+1)+class]
			if v&Matched != 0 {
				end, lastBefore = at, last
			}
			state = v &^ Matched
			if state == 0 || n == 0 {
				break
			}
			at, last = at+n, class
		}
		if end < 0 {
			r, n := utf8.DecodeRuneInString(text[from:])
			from, before = from+n, t.ClassOf(r)
			continue
		}
		out = append(out, [2]int{from, end})
		from, before = end, lastBefore
	}
	return out
}

// Cat is one pattern behind the other.
func Cat(list ...Node) Node { return cat(list) }

// Alt is the first of list that fits; there must be one.
func Alt(list ...Node) Node { return alt(list) }

// Repeat is n at least min times, as often as possible.
func Repeat(n Node, min int) Node { return loop{body: n, min: min, max: -1} }
