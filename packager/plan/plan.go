// Package plan lays the values of a compiled program out in one block of memory before the program runs. It knows nothing of
// operators: it is told which slots each step fills, shares and releases (Program), finds out when each slot's memory is in use
// (live.go) and gives memory that is never in use at one time the same addresses (place.go). All of it is a function of the Program
// alone.
package plan

import "fmt"

// Program is a compiled program as a memory plan sees it. A slot holds a value: memory of its own, or memory that it shares with
// other slots.
type Program struct {
	Slots []Slot
	Steps []Step // run in order but for jumps, the first one first
}

// Slot is a place for a value.
type Slot struct {
	// Bytes is the most that the slot's own memory ever has to hold, at least 1; 0 when that is not known, and the memory then comes
	// from elsewhere.
	Bytes int64
	// Foreign slots hold memory that is not the program's when it starts (inputs).
	Foreign bool
}

// Step is what a step does to slots, in this order.
type Step struct {
	// Keep lists slots whose memory somebody else may hold for good from now on (an element of a list): it cannot be planned.
	Keep []int
	// Make lists slots that get memory of their own, undefined at first, and let go what they held. The step may read its inputs
	// after that.
	Make []int
	// Grow lists slots that go on holding what they hold.
	Grow []int
	// Share lists slots that become another holder of what a slot holds.
	Share []Share
	// Free lists slots that let go what they hold when the step is done.
	Free []int
	// Reuse lists slots over whose memory Make[0] may be laid when nobody needs it after the step: the step reads each element
	// before it writes the one at the same address, and both are of one size.
	Reuse []int
	// Jump is the step that may come next instead of the following one, or NoJump. Ends says that the following one never comes next.
	Jump int
	Ends bool
}

// NoJump in Step.Jump is no jump.
const NoJump = -1

// Foreign as the Src of a Share stands for memory that is not the program's (a constant, an element of a list).
const Foreign = -1

// Share makes Dst a holder of what Src holds, a slot or Foreign. With Copy, Dst gets memory of its own unless all that Src may hold
// is planned.
type Share struct {
	Dst, Src int
	Copy     bool
}

// Span is a range of steps, both ends included.
type Span struct {
	First int `json:"first"`
	Last  int `json:"last"`
}

// Block is the place of one slot's own memory.
type Block struct {
	Slot   int
	Offset int64 // multiple of Align
	Bytes  int64 // what the slot asked for
	Size   int64 // what it takes: Bytes rounded up, Turns times
	// Turns is the number of places that a slot takes in turn, each time it is made: more than 1 when the value of one turn of a loop is
	// still held while the next one is made. The slot is empty whenever it is made.
	Turns int
	Live  []Span
	// Over is the slot whose memory this block is laid over in place, or -1.
	Over int
}

// Plan is the outcome.
type Plan struct {
	// Size is the memory that all blocks together need, in bytes, a multiple of Align.
	Size int64
	// Bound is the greatest sum of the sizes of what is in use at one step: no layout is smaller. Peak is the first such step.
	Bound int64
	Peak  int
	// Blocks are in the order of their slots.
	Blocks []Block
	// Loose are the slots that get memory of their own outside of the plan, in order: of unknown size, held by lists, or with too many
	// values of several turns of a loop held at one time.
	Loose []int
}

// Alignment of blocks: Align for all, Line for those of at least LineFrom bytes.
const (
	Align    = 16
	Line     = 64
	LineFrom = 4096
)

// rounded is what a block of n bytes takes.
func rounded(n int64) int64 {
	if n >= LineFrom {
		return (n + Line - 1) &^ (Line - 1)
	}
	return (max(n, 1) + Align - 1) &^ (Align - 1)
}

// Make plans p. A slot or step out of range is an error in the caller and panics.
func Make(p *Program) *Plan {
	l := analyse(p)
	out := &Plan{Loose: l.loose}
	group := map[int]int{} // slot -> index in jobs
	var jobs []Job
	var of []int
	for s := range p.Slots {
		if !l.planned(s) {
			continue
		}
		group[s] = len(jobs)
		of = append(of, s)
		jobs = append(jobs, Job{Size: rounded(p.Slots[s].Bytes) * int64(l.turns[s]), Live: l.spans[s]})
	}
	over := map[int]int{}
	root := func(j int) int {
		for {
			s, ok := over[of[j]]
			if !ok {
				return j
			}
			j = group[s]
		}
	}
	for _, r := range l.reuses {
		a, okA := group[r.from]
		b, okB := group[r.to]
		if !okA || !okB {
			continue
		}
		a = root(a)
		if _, taken := over[r.to]; taken || a == root(b) || jobs[b].Size > jobs[a].Size || !meetOnlyAt(jobs[a].Live, jobs[b].Live, r.step) {
			continue
		}
		over[r.to] = r.from
		jobs[a].Live = union(jobs[a].Live, jobs[b].Live)
	}
	var roots []int
	var left []Job
	for j := range jobs {
		if _, laid := over[of[j]]; !laid {
			roots = append(roots, j)
			left = append(left, jobs[j])
		}
	}
	at := Place(left)
	offset := map[int]int64{}
	for i, j := range roots {
		offset[j] = at.Offsets[i]
	}
	out.Size, out.Bound, out.Peak = at.Size, at.Bound, at.Peak
	for j, s := range of {
		b := Block{Slot: s, Offset: offset[root(j)], Bytes: p.Slots[s].Bytes, Size: jobs[j].Size, Turns: l.turns[s], Live: l.spans[s], Over: -1}
		if o, laid := over[s]; laid {
			b.Over = o
		}
		out.Blocks = append(out.Blocks, b)
	}
	return out
}

// Check tells whether two blocks that are in use at one step overlap without one being laid over the other, or a block lies
// outside of the plan: an independent, slow look at the outcome.
func (p *Plan) Check() error {
	laid := map[[2]int]bool{}
	for _, b := range p.Blocks {
		if b.Over >= 0 {
			laid[[2]int{b.Slot, b.Over}], laid[[2]int{b.Over, b.Slot}] = true, true
		}
	}
	for i, a := range p.Blocks {
		if a.Offset < 0 || a.Offset%Align != 0 || a.Size < a.Bytes || a.Offset+a.Size > p.Size {
			return fmt.Errorf("slot %d lies at %d to %d of %d", a.Slot, a.Offset, a.Offset+a.Size, p.Size)
		}
		for _, b := range p.Blocks[i+1:] {
			if a.Offset+a.Size <= b.Offset || b.Offset+b.Size <= a.Offset {
				continue
			}
			n := common(a.Live, b.Live)
			if n == 0 || n == 1 && laid[[2]int{a.Slot, b.Slot}] {
				continue
			}
			// Two blocks laid over the same third one meet it one after the other.
			return fmt.Errorf("slots %d and %d are both in use at %d steps and share addresses", a.Slot, b.Slot, n)
		}
	}
	return nil
}

// common counts the steps that two span lists share.
func common(a, b []Span) int {
	n := 0
	for i, j := 0, 0; i < len(a) && j < len(b); {
		lo, hi := max(a[i].First, b[j].First), min(a[i].Last, b[j].Last)
		if lo <= hi {
			n += hi - lo + 1
		}
		if a[i].Last < b[j].Last {
			i++
		} else {
			j++
		}
	}
	return n
}

func meetOnlyAt(a, b []Span, step int) bool {
	return common(a, b) == 1 && common(a, []Span{{step, step}}) == 1 && common(b, []Span{{step, step}}) == 1
}

// union joins two span lists; neighbours become one.
func union(a, b []Span) []Span {
	var out []Span
	for len(a) > 0 || len(b) > 0 {
		var s Span
		if len(b) == 0 || len(a) > 0 && a[0].First <= b[0].First {
			s, a = a[0], a[1:]
		} else {
			s, b = b[0], b[1:]
		}
		if n := len(out); n > 0 && s.First <= out[n-1].Last+1 {
			out[n-1].Last = max(out[n-1].Last, s.Last)
		} else {
			out = append(out, s)
		}
	}
	return out
}
