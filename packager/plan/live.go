package plan

import "slices"

// foreign in a set of holds is memory that the plan has no say in.
const foreign int32 = -1

// ages bounds how many generations of a slot's memory may be held at one time: the one made last has age 0. The other numbers in a
// set of holds are ages*slot + age.
const ages = 4

// holds says what each slot may hold, in order.
type holds map[int][]int32

// older turns every generation of s's memory that is held outside of s into the one before.
func (h holds) older(s int) {
	for o, set := range h {
		var out []int32
		for k, x := range set {
			if x == foreign || x/ages != int32(s) || x%ages == ages-1 {
				continue
			}
			if out == nil {
				out = slices.Clone(set)
			}
			out[k] = x + 1
		}
		if out != nil && o != s {
			h[o] = slices.Compact(out)
		}
	}
}

func (h holds) clone() holds {
	out := make(holds, len(h))
	for s, set := range h {
		out[s] = set // sets are never changed in place
	}
	return out
}

// merge adds o's possibilities and tells whether that changed anything.
func (h holds) merge(o holds) bool {
	changed := false
	for s, set := range o {
		have := h[s]
		for _, x := range set {
			if at, ok := slices.BinarySearch(have, x); !ok {
				have = slices.Insert(slices.Clone(have), at, x)
				changed = true
			}
		}
		h[s] = have
	}
	return changed
}

type reuse struct{ step, to, from int }

// lives is what the analysis finds.
type lives struct {
	p      *Program
	bad    []bool // the slot's own memory cannot be planned
	turns  []int  // generations of it that may be held at one time, at least 1
	shared []bool // the slot also becomes a holder of other memory
	full   []bool // some step makes it while it still holds something
	made   []bool // some step makes it
	copied []bool // a Copy needs it
	spans  [][]Span
	reuses []reuse
	loose  []int
}

func (l *lives) planned(s int) bool {
	return l.p.Slots[s].Bytes > 0 && !l.bad[s] && (l.made[s] || l.copied[s])
}

// analyse follows all ways through the program until nothing new is found, then notes when each slot's own memory is held.
func analyse(p *Program) *lives {
	l := &lives{p: p, turns: make([]int, len(p.Slots)), shared: make([]bool, len(p.Slots)), full: make([]bool, len(p.Slots)), bad: make([]bool, len(p.Slots)), made: make([]bool, len(p.Slots)), copied: make([]bool, len(p.Slots)), spans: make([][]Span, len(p.Slots))}
	entry := map[int]holds{} // what may be held on arrival by a jump
	first := holds{}
	for s, x := range p.Slots {
		if x.Foreign {
			first[s] = []int32{foreign}
		}
	}
	for changed := true; changed; {
		changed = false
		l.walk(first, entry, func(i int, _, after holds) {
			if j := p.Steps[i].Jump; j != NoJump {
				if entry[j] == nil {
					entry[j] = holds{}
					changed = true
				}
				if entry[j].merge(after) {
					changed = true
				}
			}
		})
	}
	for s := range l.turns {
		l.turns[s] = 1
	}
	l.walk(first, entry, l.judge)
	for s, n := range l.turns {
		// Only what is made anew and let go in between can take turns.
		if n > ages || n > 1 && (l.full[s] || l.shared[s]) {
			l.bad[s] = true
		}
	}
	// A copy is needed of what is not planned; that may make a slot planned, but no other one unplanned.
	l.walk(first, entry, func(i int, before, _ holds) {
		for _, sh := range p.Steps[i].Share {
			if !sh.Copy {
				continue
			}
			for _, x := range l.source(before, sh.Src) {
				if x == foreign || !l.planned(int(x/ages)) {
					l.copied[sh.Dst] = true
				}
			}
		}
	})
	for s := range p.Slots {
		if (l.made[s] || l.copied[s]) && !l.planned(s) {
			l.loose = append(l.loose, s)
		}
	}
	l.walk(first, entry, l.note)
	return l
}

// walk goes through the steps once in order. see is given the holds before the step and after it; it must not change them.
func (l *lives) walk(first holds, entry map[int]holds, see func(i int, before, after holds)) {
	now, reached := first.clone(), true
	for i := range l.p.Steps {
		if e := entry[i]; e != nil {
			if !reached {
				now = e.clone()
			} else {
				now.merge(e)
			}
			reached = true
		}
		if !reached {
			continue
		}
		before := now.clone()
		st := &l.p.Steps[i]
		for _, s := range st.Make {
			now.older(s)
			now[s] = l.own(s)
		}
		for _, sh := range st.Share {
			set := l.source(before, sh.Src)
			if sh.Copy {
				set = mergeSets(set, l.own(sh.Dst))
			}
			now[sh.Dst] = set
		}
		for _, s := range st.Free {
			delete(now, s)
		}
		see(i, before, now)
		reached = !st.Ends
	}
}

// own is what a slot holds after it was made.
func (l *lives) own(s int) []int32 {
	if l.p.Slots[s].Bytes <= 0 {
		return []int32{foreign}
	}
	return []int32{int32(s) * ages}
}

func (l *lives) source(h holds, src int) []int32 {
	if src == Foreign {
		return []int32{foreign}
	}
	return h[src]
}

func mergeSets(a, b []int32) []int32 {
	h := holds{0: a}
	h.merge(holds{0: b})
	return h[0]
}

// judge finds the memory that cannot be planned, and what has to take turns.
func (l *lives) judge(i int, before, _ holds) {
	st := &l.p.Steps[i]
	for _, s := range st.Keep {
		for _, x := range before[s] {
			if x != foreign {
				l.bad[x/ages] = true
			}
		}
	}
	// others is the age of the oldest memory of s that other slots hold, or -1.
	others := func(s int) int {
		oldest := -1
		for o, set := range before {
			for _, x := range set {
				if o != s && x != foreign && x/ages == int32(s) {
					oldest = max(oldest, int(x%ages))
				}
			}
		}
		return oldest
	}
	for _, s := range st.Make {
		l.made[s] = true
		l.full[s] = l.full[s] || len(before[s]) > 0
		// Another turn of a loop: somebody still holds what the slot was given the last time.
		l.turns[s] = max(l.turns[s], others(s)+2)
	}
	for _, sh := range st.Share {
		l.shared[sh.Dst] = true
		if sh.Copy && others(sh.Dst) >= 0 {
			l.bad[sh.Dst] = true
		}
	}
}

// note marks the step in the life of all memory that is held in it, and what could be laid over what.
func (l *lives) note(i int, before, after holds) {
	st := &l.p.Steps[i]
	mark := func(s int) {
		sp := l.spans[s]
		switch n := len(sp); {
		case n > 0 && sp[n-1].Last == i:
		case n > 0 && sp[n-1].Last == i-1:
			sp[n-1].Last = i
		default:
			l.spans[s] = append(sp, Span{i, i})
		}
	}
	for _, h := range []holds{before, after} {
		for _, set := range h {
			for _, x := range set {
				if x != foreign && l.planned(int(x/ages)) {
					mark(int(x / ages))
				}
			}
		}
	}
	for _, s := range st.Make {
		if l.planned(s) {
			mark(s)
		}
	}
	for _, sh := range st.Share {
		if sh.Copy && l.planned(sh.Dst) && l.copied[sh.Dst] {
			mark(sh.Dst)
		}
	}
	if len(st.Make) == 0 || !l.planned(st.Make[0]) {
		return
	}
	for _, s := range st.Reuse {
		set := before[s]
		if len(set) != 1 || set[0] == foreign || !slices.Contains(st.Free, s) {
			continue
		}
		from := int(set[0] / ages)
		if !l.planned(from) || l.turns[from] > 1 || l.turns[st.Make[0]] > 1 {
			continue
		}
		alone := true
		for o, held := range before {
			if o != s && slices.Contains(held, set[0]) {
				alone = false
			}
		}
		if alone {
			l.reuses = append(l.reuses, reuse{i, st.Make[0], from})
		}
	}
}
