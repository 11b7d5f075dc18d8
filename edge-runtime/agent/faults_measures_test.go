package agent

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// measures are figures over many runs.
type measures struct {
	runs, violations int
	points           map[string]bool
	rows             map[string]*row // by scenario
	kinds            map[string]int
	found            map[string]int // violations by invariant
	killed, cut      []int64        // bytes of a large file that came twice, after a kill alone and after a power cut
	boots            []time.Duration
}

type row struct{ ops, runs, violations int }

func newMeasures(ss []*scenario) *measures {
	m := &measures{points: map[string]bool{}, rows: map[string]*row{}, kinds: map[string]int{}, found: map[string]int{}}
	for _, s := range ss {
		m.rows[s.name] = &row{ops: s.ops}
	}
	return m
}

func (m *measures) add(r faultRun, out outcome) {
	m.runs++
	m.rows[r.scenario].runs++
	m.kinds[r.kind.String()]++
	m.points[fmt.Sprint(r.scenario, r.at, r.kind)] = true
	m.boots = append(m.boots, out.boot)
	switch {
	case out.large && out.lost:
		m.cut = append(m.cut, out.again)
	case out.large && (r.kind == fsx.Kill || r.kind == fsx.KillAfter):
		m.killed = append(m.killed, out.again)
	}
	m.violations += len(out.violations)
	m.rows[r.scenario].violations += len(out.violations)
	for _, v := range out.violations {
		m.found[v[:2]]++
	}
}

// String is the table of the runs of each scenario, and what they show beside violations.
func (m *measures) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%-40s %10s %8s %10s\n", "scenario", "operations", "runs", "violations")
	for _, name := range slices.Sorted(maps.Keys(m.rows)) {
		r := m.rows[name]
		fmt.Fprintf(&b, "%-40s %10d %8d %10d\n", name, r.ops, r.runs, r.violations)
	}
	for _, name := range slices.Sorted(maps.Keys(m.kinds)) {
		fmt.Fprintf(&b, "%-40s %10s %8d\n", "fault: "+name, "", m.kinds[name])
	}
	for _, name := range slices.Sorted(maps.Keys(m.found)) {
		fmt.Fprintf(&b, "%-40s %10s %8s %10d\n", "broken: "+name, "", "", m.found[name])
	}
	if n := len(m.boots); n > 0 {
		slices.Sort(m.boots)
		fmt.Fprintf(&b, "restart to serving, in memory: p50 %s, p99 %s\n", m.boots[n/2].Round(time.Microsecond), m.boots[n*99/100].Round(time.Microsecond))
	}
	for _, f := range []struct {
		after string
		bytes []int64
	}{{"a kill", m.killed}, {"a power cut", m.cut}} {
		if n := len(f.bytes); n > 0 {
			slices.Sort(f.bytes)
			fmt.Fprintf(&b, "bytes of a file of %d that came twice after %s: p50 %d, p90 %d, most %d, in %d runs\n", largeSize, f.after, f.bytes[n/2], f.bytes[n*9/10], f.bytes[n-1], n)
		}
	}
	return b.String()
}
