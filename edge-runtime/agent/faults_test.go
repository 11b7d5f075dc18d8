package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// The fault harness. One run is: a scenario from its durable start, one operation of the file system that goes wrong, perhaps
// some more work in the same process, a power cut, perhaps another fault in the middle of the recovery, a restart, and
// then every invariant of faults_check_test.go. What a run does follows from its faultRun alone, so each can be repeated.

// faultRun is one run. Its String is what WAYBILL_FAULT_ONLY takes.
type faultRun struct {
	scenario string
	at       int       // number of the operation, from 1; 0: none
	kind     fsx.Fault //
	cut      fsx.Cut   // what the power cut leaves
	again    int       // number of the operation during the recovery that fails too; 0: none
	stay     int       // polls in the process that met the fault, before the power cut
	seed     uint64
}

func (r faultRun) String() string {
	how := strconv.Itoa(r.cut.Percent)
	if r.cut.InOrder {
		how += "o"
	}
	if r.cut.Zeros {
		how += "z"
	}
	if r.cut.Sector > 512 {
		how += "k"
	}
	return fmt.Sprintf("%s/%d/%s/%s/%d/%d/%d", r.scenario, r.at, r.kind, how, r.again, r.stay, r.seed)
}

// parseFaultRun reads scenario/at/kind/percent[/again[/stay[/seed]]].
func parseFaultRun(s string) (r faultRun, err error) {
	p := strings.Split(s, "/")
	if len(p) < 4 {
		return r, fmt.Errorf("%q is not scenario/at/kind/percent", s)
	}
	r.scenario, r.seed = p[0], 1
	for _, k := range append(fsx.Faults(), fsx.NoFault) {
		if k.String() == p[2] {
			r.kind = k
		}
	}
	if r.kind.String() != p[2] {
		return r, fmt.Errorf("no fault is called %q", p[2])
	}
	how := strings.TrimRight(p[3], "ozk")
	r.cut.InOrder, r.cut.Zeros = strings.Contains(p[3], "o"), strings.Contains(p[3], "z")
	if strings.Contains(p[3], "k") {
		r.cut.Sector = 4096
	}
	num := func(s string, to *int) {
		if n, nerr := strconv.Atoi(s); nerr == nil {
			*to = n
		} else {
			err = errors.Join(err, nerr)
		}
	}
	num(p[1], &r.at)
	num(how, &r.cut.Percent)
	if len(p) > 4 {
		num(p[4], &r.again)
	}
	if len(p) > 5 {
		num(p[5], &r.stay)
	}
	if len(p) > 6 {
		n, nerr := strconv.ParseUint(p[6], 10, 64)
		r.seed, err = n, errors.Join(err, nerr)
	}
	return r, err
}

// plan spreads n runs over scenarios, operations and kinds. Four of five are single faults, in an order that visits every
// (scenario, operation, kind) before one comes twice; the fifth has a second fault during the recovery.
type plan struct {
	scenarios []*scenario
	kinds     []fsx.Fault
	seed      uint64
	points    int // of all scenarios and kinds
}

func newPlan(ss []*scenario, seed uint64) plan {
	return planOf(ss, fsx.Faults(), seed)
}

func planOf(ss []*scenario, kinds []fsx.Fault, seed uint64) plan {
	p := plan{scenarios: ss, kinds: kinds, seed: seed}
	for _, s := range ss {
		p.points += s.ops * len(kinds)
	}
	return p
}

func (p plan) run(i int) (*scenario, faultRun) {
	seed := p.seed<<32 + uint64(i)
	rng := rand.New(rand.NewPCG(seed, 11))
	double := i%5 == 4
	n := i / 5 * 4
	if !double {
		n += i % 5
	}
	if double {
		n = rng.IntN(p.points)
	} else {
		// A prime reaches every point; ten thousand runs of one seed go on where those of the seed before ended.
		n = int((uint64(n) + (p.seed-1)*8000) * 1_000_003 % uint64(p.points))
	}
	kinds := p.kinds
	var s *scenario
	for _, s = range p.scenarios {
		if n < s.ops*len(kinds) {
			break
		}
		n -= s.ops * len(kinds)
	}
	r := faultRun{scenario: s.name, at: n/len(kinds) + 1, kind: kinds[n%len(kinds)], seed: seed}
	if double {
		r.again = rng.IntN(80) + 1
	}
	if rng.IntN(3) == 0 {
		r.stay = rng.IntN(3) + 1
	}
	switch rng.IntN(7) {
	case 0, 1:
		r.cut.Percent = 0
	case 2:
		r.cut.Percent = 100
	case 3:
		r.cut = fsx.Cut{Percent: 50, Sector: 4096}
	case 4:
		r.cut = fsx.Cut{Percent: 50, InOrder: true}
	case 5:
		r.cut = fsx.Cut{Percent: 50, Zeros: true}
	default:
		r.cut.Percent = rng.IntN(101)
	}
	return s, r
}

// each does runs 0 to n-1, several at once, and calls done with each, one at a time and in no order, until it returns false.
func (p plan) each(ctx context.Context, n int, mu mutant, done func(i int, r faultRun, out outcome) bool) {
	var wg sync.WaitGroup
	var lock sync.Mutex
	next, stop := 0, false
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				lock.Lock()
				i := next
				next++
				if stop || i >= n {
					lock.Unlock()
					return
				}
				lock.Unlock()
				s, r := p.run(i)
				out := s.run(ctx, r, mu)
				lock.Lock()
				stop = stop || !done(i, r, out)
				lock.Unlock()
			}
		})
	}
	wg.Wait()
}

func faultEnv(t *testing.T, name string, or int) int {
	v := os.Getenv(name)
	if v == "" {
		return or
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number above 0", name, v)
	}
	return n
}

// TestHarness lets every operation of the file system go wrong in every scenario and checks the invariants.
// WAYBILL_FAULT_RUNS is the number of runs, WAYBILL_FAULT_SEED another choice of them, WAYBILL_FAULT_SCENARIOS a list of the only
// scenarios, WAYBILL_FAULT_ONLY one run by the name that a violation is printed with.
//
// The package withstand runs it, so that its sum is the last line of a test run.
func TestHarness(t *testing.T) {
	if os.Getenv("WAYBILL_FAULT_HARNESS") == "" {
		t.Skip("go test ./edge-runtime/withstand runs it")
	}
	runs, seed := faultEnv(t, "WAYBILL_FAULT_RUNS", 300), faultEnv(t, "WAYBILL_FAULT_SEED", 1)
	ss := allScenarios(t)
	if names := os.Getenv("WAYBILL_FAULT_SCENARIOS"); names != "" {
		ss = slices.DeleteFunc(slices.Clone(ss), func(s *scenario) bool { return !slices.Contains(strings.Split(names, ","), s.name) })
		if len(ss) == 0 {
			t.Fatalf("WAYBILL_FAULT_SCENARIOS: no scenario is called %q", names)
		}
	}
	p := newPlan(ss, uint64(seed))
	if only := os.Getenv("WAYBILL_FAULT_ONLY"); only != "" {
		r, err := parseFaultRun(only)
		if err != nil {
			t.Fatalf("WAYBILL_FAULT_ONLY: %v", err)
		}
		i := slices.IndexFunc(ss, func(s *scenario) bool { return s.name == r.scenario })
		if i < 0 {
			t.Fatalf("WAYBILL_FAULT_ONLY: no scenario is called %q", r.scenario)
		}
		out := ss[i].run(t.Context(), r, mutant{})
		t.Logf("%s: failed operation: %s", r, out.fired)
		for _, v := range out.violations {
			t.Error(v)
		}
		faultLine(1, len(out.violations))
		return
	}
	m := newMeasures(ss)
	began := time.Now()
	p.each(t.Context(), runs, mutant{}, func(_ int, r faultRun, out outcome) bool {
		m.add(r, out)
		if n := m.violations; n > 0 && n <= 20 {
			for _, v := range out.violations {
				t.Errorf("%s (%s)\n    repeat with WAYBILL_FAULT_ONLY='%s'", v, out.fired, r)
			}
		}
		if m.runs%progress == 0 {
			t.Logf("%d runs, %d violations, %s", m.runs, m.violations, time.Since(began).Round(time.Second))
		}
		return true
	})
	t.Logf("seed %d: %d scenarios, %d of %d points (an operation and a kind of fault), %s", seed, len(ss), len(m.points), p.points, time.Since(began).Round(time.Second))
	t.Log(m)
	faultLine(m.runs, m.violations)
}

// progress is how many runs there are between two lines that say how far it is.
const progress = 5000

// faultTotal is what the last line of the test run says.
var faultTotal struct{ runs, violations int }

func faultLine(runs, violations int) {
	faultTotal.runs += runs
	faultTotal.violations += violations
}

// TestMain prints the sum of the fault runs last.
func TestMain(m *testing.M) {
	if dir := os.Getenv("WAYBILL_POWER_CHILD"); dir != "" {
		os.Exit(powerChild(context.Background(), dir))
	}
	code := m.Run()
	if faultTotal.runs > 0 {
		fmt.Printf("faults: %d runs, %d violations\n", faultTotal.runs, faultTotal.violations)
	}
	os.Exit(code)
}

// Each run can be repeated by its name, and the plan covers every point once before any twice.
func TestFaultPlan(t *testing.T) {
	ss := []*scenario{{name: "a", ops: 7}, {name: "b-c", ops: 4}}
	p := newPlan(ss, 3)
	seen := map[string]int{}
	for i := range p.points * 5 / 4 {
		_, r := p.run(i)
		back, err := parseFaultRun(r.String())
		if err != nil || back != r {
			t.Fatalf("%s reads back as %s, %v", r, back, err)
		}
		if r.again == 0 {
			seen[fmt.Sprint(r.scenario, r.at, r.kind)]++
		}
	}
	if len(seen) != p.points {
		t.Errorf("%d of %d points", len(seen), p.points)
	}
	for _, bad := range []string{"", "a/1/EIO", "a/x/EIO/0", "a/1/nothing/0", "a/1/EIO/0/0/0/x"} {
		if _, err := parseFaultRun(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
