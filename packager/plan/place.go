package plan

import (
	"cmp"
	"slices"
)

// Job is a piece of memory to place.
type Job struct {
	Size int64 // a multiple of Align, of Line when it is to begin on a line
	Live []Span
}

// Placement is where the jobs went. Bound is the greatest sum of sizes in use at one step, Peak the first such step.
type Placement struct {
	Offsets []int64
	Size    int64
	Bound   int64
	Peak    int
}

// effort bounds the search for a better layout: pairs of jobs that are looked at.
const effort = 500_000

// Place gives jobs that are in use at one step disjoint addresses. It tries several orders and both rules for choosing a gap, then
// mends the best layout, and stops when it reaches the bound.
func Place(jobs []Job) Placement {
	out := Placement{Offsets: make([]int64, len(jobs))}
	rivals := conflicts(jobs, &out)
	long := make([]int64, len(jobs))
	for i, j := range jobs {
		for _, s := range j.Live {
			long[i] += int64(s.Last - s.First + 1)
		}
	}
	start := func(i int) int {
		if len(jobs[i].Live) == 0 {
			return 0
		}
		return jobs[i].Live[0].First
	}
	desc := func(a, b int64) int { return cmp.Compare(b, a) }
	orders := []func(a, b int) int{
		func(a, b int) int { return cmp.Or(desc(jobs[a].Size, jobs[b].Size), desc(long[a], long[b])) },
		func(a, b int) int { return cmp.Or(desc(jobs[a].Size, jobs[b].Size), cmp.Compare(start(a), start(b))) },
		func(a, b int) int { return desc(jobs[a].Size*long[a], jobs[b].Size*long[b]) },
		func(a, b int) int { return cmp.Or(desc(long[a], long[b]), desc(jobs[a].Size, jobs[b].Size)) },
		func(a, b int) int { return cmp.Or(cmp.Compare(start(a), start(b)), desc(jobs[a].Size, jobs[b].Size)) },
		func(a, b int) int { return cmp.Or(cmp.Compare(start(b), start(a)), desc(jobs[a].Size, jobs[b].Size)) },
	}
	best := int64(-1)
	var bestOrder []int
	try := func(order []int, fit bool) {
		at, size := lay(jobs, rivals, order, fit)
		if best < 0 || size < best {
			best, bestOrder = size, slices.Clone(order)
			copy(out.Offsets, at)
		}
	}
	for _, by := range orders {
		order := make([]int, len(jobs))
		for i := range order {
			order[i] = i
		}
		slices.SortStableFunc(order, by)
		for _, fit := range []bool{true, false} {
			if best != out.Bound {
				try(order, fit)
			}
		}
	}
	// What sticks out on top goes earlier, the rest now and then changes places, and what is no worse is kept.
	pairs := len(jobs)
	for _, r := range rivals {
		pairs += len(r)
	}
	rng := uint64(0x9e3779b97f4a7c15)
	below := func(n int) int {
		rng ^= rng << 13
		rng ^= rng >> 7
		rng ^= rng << 17
		return int(rng % uint64(n))
	}
	now, order := slices.Clone(out.Offsets), slices.Clone(bestOrder)
	for n := effort / max(pairs, 1); n > 0 && best > out.Bound && len(jobs) > 1; n-- {
		var top []int
		for k, i := range order {
			if k > 0 && now[i]+jobs[i].Size >= best {
				top = append(top, k)
			}
		}
		from := 1 + below(len(order)-1)
		if len(top) > 0 && below(4) > 0 {
			from = top[below(len(top))]
		}
		i, to := order[from], below(from)
		next := slices.Insert(slices.Delete(slices.Clone(order), from, from+1), to, i)
		if at, size := lay(jobs, rivals, next, below(2) == 0); size <= best {
			best, order, now = size, next, at
		}
	}
	if best >= 0 {
		copy(out.Offsets, now)
	}
	out.Size = max(best, 0)
	return out
}

// lay places the jobs in order, each into the smallest gap that holds it (fit) or the lowest.
func lay(jobs []Job, rivals [][]int, order []int, fit bool) ([]int64, int64) {
	at := make([]int64, len(jobs))
	done := make([]bool, len(jobs))
	top := int64(0)
	var taken []extent
	for _, i := range order {
		taken = taken[:0]
		for _, r := range rivals[i] {
			if done[r] {
				taken = append(taken, extent{at[r], at[r] + jobs[r].Size})
			}
		}
		slices.SortFunc(taken, func(a, b extent) int { return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To)) })
		size := jobs[i].Size
		align := int64(Align)
		if size >= LineFrom {
			align = Line
		}
		up := func(x int64) int64 { return (x + align - 1) &^ (align - 1) }
		place, gap, free := int64(-1), int64(0), int64(0)
		for _, t := range taken {
			if p := up(free); p+size <= t.From && (place < 0 || fit && t.From-free < gap) {
				place, gap = p, t.From-free
				if !fit {
					break
				}
			}
			free = max(free, t.To)
		}
		if place < 0 {
			place = up(free)
		}
		at[i], done[i] = place, true
		top = max(top, place+size)
	}
	return at, top
}

// extent is a range of addresses, To excluded.
type extent struct{ From, To int64 }

// conflicts lists for each job those in use at one of its steps, and fills in the bound.
func conflicts(jobs []Job, out *Placement) [][]int {
	type event struct{ step, job, kind int } // kind 0 opens, 1 closes behind the step
	var es []event
	for i, j := range jobs {
		for _, s := range j.Live {
			es = append(es, event{s.First, i, 0}, event{s.Last, i, 1})
		}
	}
	slices.SortStableFunc(es, func(a, b event) int { return cmp.Or(cmp.Compare(a.step, b.step), cmp.Compare(a.kind, b.kind)) })
	rivals := make([][]int, len(jobs))
	var live []int
	sum := int64(0)
	for _, e := range es {
		if e.kind == 1 {
			live = slices.DeleteFunc(live, func(x int) bool { return x == e.job })
			sum -= jobs[e.job].Size
			continue
		}
		for _, o := range live {
			rivals[o], rivals[e.job] = append(rivals[o], e.job), append(rivals[e.job], o)
		}
		live = append(live, e.job)
		if sum += jobs[e.job].Size; sum > out.Bound {
			out.Bound, out.Peak = sum, e.step
		}
	}
	for i := range rivals {
		slices.Sort(rivals[i])
		rivals[i] = slices.Compact(rivals[i])
	}
	return rivals
}
