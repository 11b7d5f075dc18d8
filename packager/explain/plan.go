package explain

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/packager/plan"
)

// ordered gives the values of a plan as they come to life.
func ordered(p *plan.Map) []plan.Value {
	first := func(v plan.Value) int {
		if len(v.Live) == 0 {
			return len(p.Steps)
		}
		return v.Live[0].First
	}
	out := slices.Clone(p.Values)
	slices.SortStableFunc(out, func(a, b plan.Value) int {
		return cmp.Or(cmp.Compare(first(a), first(b)), cmp.Compare(a.Offset, b.Offset))
	})
	return out
}

// ratio is how much more than its bound a plan takes.
func ratio(p *plan.Map) float64 {
	if p.Bound == 0 {
		return 1
	}
	return float64(p.Size) / float64(p.Bound)
}

func node(p *plan.Map, step int) string {
	if step < len(p.Steps) {
		return p.Steps[step]
	}
	return ""
}

// plan writes the memory plan as a table.
func (rep *Report) plan(e *writer) {
	p := rep.Plan
	e.print("\n== memory plan\n%d bytes for %d values, %.3f of the most that is in use at one step: %d bytes at step %d of %d (%q)\n",
		p.Size, len(p.Values), ratio(p), p.Bound, p.Peak, len(p.Steps), node(p, p.Peak))
	if p.Exact {
		e.print("nothing comes from the heap: every call takes the same\n")
	} else {
		e.print("from the heap, as inputs need: %d values, %s\n", len(p.Loose), some(p.Loose))
	}
	e.print("%12s  %12s  %16s  %s\n", "offset", "bytes", "steps", "value")
	for _, v := range ordered(p) {
		over := ""
		if v.Over != "" {
			over = fmt.Sprintf(" over %q", v.Over)
		}
		if v.Turns > 1 {
			over = fmt.Sprintf(" at %d places in turn", v.Turns)
		}
		e.print("%12d  %12d  %16s  %q%s\n", v.Offset, v.Bytes, spans(v.Live), v.Name, over)
	}
}

func spans(live []plan.Span) string {
	var out []string
	for _, s := range live {
		if s.First == s.Last {
			out = append(out, fmt.Sprint(s.First))
		} else {
			out = append(out, fmt.Sprintf("%d..%d", s.First, s.Last))
		}
	}
	return strings.Join(out, ",")
}

// some lists the first names.
func some(names []string) string {
	const most = 8
	list := names[:min(len(names), most)]
	s := fmt.Sprintf("%q", list)
	if len(names) > most {
		s += " ..."
	}
	return s
}

// Size of the plan's picture, in pixels.
const (
	planW, planH = 900, 420
	planHead     = 26
)

var planColours = [...]string{"#7fa8d1", "#a3c585", "#d9b36c", "#c58fb0", "#8cc4bd", "#b7a6d6"}

// planBoxes draws the plan with its corner at x, y: steps to the right, addresses upwards.
func planBoxes(e *writer, p *plan.Map, x, y int) {
	e.print(`<text x="%d" y="%d" font-weight="600" fill="#1c252e">memory plan: %d bytes, %.3f of the bound %d; steps to the right, addresses upwards</text>`+"\n",
		x, y+14, p.Size, ratio(p), p.Bound)
	y += planHead
	e.print(`<rect x="%d" y="%d" width="%d" height="%d" fill="#f6f8fa" stroke="#44525f"/>`+"\n", x, y, planW, planH)
	steps, size := float64(max(len(p.Steps), 1)), float64(max(p.Size, 1))
	for i, v := range ordered(p) {
		for _, s := range v.Live {
			left, right := float64(s.First)/steps*planW, float64(s.Last+1)/steps*planW
			low, high := float64(v.Offset)/size*planH, float64(v.Offset+v.Bytes*int64(max(v.Turns, 1)))/size*planH
			e.print(`<rect x="%.2f" y="%.2f" width="%.2f" height="%.2f" fill="%s" stroke="#44525f" stroke-width="0.3"><title>%s</title></rect>`+"\n",
				float64(x)+left, float64(y)+planH-high, right-left, high-low, planColours[i%len(planColours)],
				escaped(fmt.Sprintf("%s\n%d bytes at %d, steps %s", v.Name, v.Bytes, v.Offset, spans(v.Live))))
		}
	}
}
