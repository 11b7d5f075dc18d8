package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const tenYears = 10 * 365 * 24 * time.Hour

// Whatever is asked, the wait is positive and bounded: neither a storm nor silence.
func TestNextIsBounded(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	pick := func(ds ...time.Duration) time.Duration { return ds[r.IntN(len(ds))] }
	for range 200_000 {
		d := Device{ID: fmt.Sprint(r.Uint64()), Channel: "prod", Interval: pick(time.Second, time.Minute, 5*time.Minute, time.Hour, 24*time.Hour, 7*24*time.Hour, time.Duration(1+r.Int64N(int64(48*time.Hour))))}
		a := Ask{
			Up:   pick(0, time.Duration(r.Int64N(int64(tenYears))), -time.Duration(r.Int64N(int64(tenYears)))),
			Pace: Pace{Failures: r.IntN(40), Slow: r.IntN(maxSlow + 1)}, RetryAfter: pick(0, time.Second, 2*time.Minute, tenYears, 1<<62, -time.Hour), Random: r.Uint64(),
		}
		if r.IntN(3) == 0 {
			a.Opens, a.For = pick(time.Second, time.Hour, 7*24*time.Hour), pick(time.Minute, 3*time.Hour)
		}
		got := d.Next(a)
		most := max(d.Interval, min(8*d.Interval, maxBackoff))*3/2 + time.Minute
		if a.Pace.Failures == 0 && a.Pace.Slow > 0 {
			most = max(most, min(d.Interval<<a.Pace.Slow, max(d.Interval, maxBackoff))*3/2+time.Minute)
		}
		if a.RetryAfter > 0 {
			most = max(most, d.RetryBound()*3/2+d.Interval)
		}
		if got > most {
			t.Fatalf("%+v %+v: %s, at most %s", d, a, got, most)
		}
		least := min(d.Interval, firstRetry) * 2 / 5
		if a.Opens > 0 {
			least = min(least, a.Opens)
		}
		if got < least {
			t.Fatalf("%+v %+v: %s, at least %s", d, a, got, least)
		}
		if ra := d.bounded(a.RetryAfter); ra > 0 && a.Opens == 0 && got < ra {
			t.Fatalf("%+v %+v: %s is before what the server asked for", d, a, got)
		}
		if d.bounded(a.RetryAfter) > 24*time.Hour && d.Interval < 24*time.Hour {
			t.Fatalf("a server keeps %+v away for %s", d, d.bounded(a.RetryAfter))
		}
	}
}

// The wait grows with failures, and falls back when a poll goes well; rate limits are forgotten one poll at a time.
func TestPace(t *testing.T) {
	d := Device{ID: "a", Channel: "prod", Interval: 5 * time.Minute}
	mean := func(p Pace) time.Duration { return d.Next(Ask{Pace: p, Random: 1 << 63}) }
	var p Pace
	last := time.Duration(0)
	for i := range 8 {
		p = p.After(Failed)
		got := mean(p)
		if got < last || got > 8*d.Interval {
			t.Errorf("after %d failures %s, before %s", i+1, got, last)
		}
		last = got
	}
	if last < 6*d.Interval {
		t.Errorf("after 8 failures the wait is %s", last)
	}
	if p = p.After(Fine); p != (Pace{}) {
		t.Errorf("after a poll that went well: %+v", p)
	}
	for range 5 {
		p = p.After(Limited)
	}
	p = p.After(Fine)
	if slow := mean(p); slow < 3*d.Interval {
		t.Errorf("a device comes back at full speed after 429: %s", slow)
	}
	for range 3 {
		p = p.After(Fine)
	}
	if p != (Pace{}) {
		t.Errorf("still slow: %+v", p)
	}
	long := Device{ID: "a", Interval: 24 * time.Hour}
	if got := long.Next(Ask{Pace: Pace{Failures: 1}, Random: 1 << 63}); got > time.Hour {
		t.Errorf("one failure costs a device that looks daily %s", got)
	}
}

// A wait for a window that is shorter than the interval ends in it.
func TestNextMeetsWindow(t *testing.T) {
	for i := range 1000 {
		d := Device{ID: fmt.Sprint(i), Channel: "prod", Interval: 24 * time.Hour}
		got := d.Next(Ask{Opens: 5 * time.Hour, For: 3 * time.Hour, Random: uint64(i) << 54})
		if got < 5*time.Hour && got < 11*time.Hour || got >= 8*time.Hour && got > 6*time.Hour+90*time.Minute {
			t.Fatalf("device %d looks in %s", i, got)
		}
	}
}

// 20,000 devices that are switched on at the same moment: the load of an hour, counted by seconds.
func TestFleet(t *testing.T) {
	const devices, interval = 20_000, 5 * time.Minute
	r := rand.New(rand.NewPCG(3, 4))
	run := func(name string, fail func(at time.Duration) (Outcome, time.Duration)) (first, later int) {
		const hour = 3600
		var counts [hour]int
		for i := range devices {
			d := Device{ID: fmt.Sprint("device ", i), Channel: "prod", Interval: interval}
			var p Pace
			for at := d.First(Serving); at < time.Hour; {
				counts[at/time.Second]++
				o, retry := fail(at)
				p = p.After(o)
				at += d.Next(Ask{Up: at, Pace: p, RetryAfter: retry, Random: r.Uint64()})
			}
		}
		first, later = slices.Max(counts[:90]), slices.Max(counts[600:])
		total := 0
		for _, n := range counts[600:] {
			total += n
		}
		t.Logf("%s: %d devices, every %s: at most %d requests in a second of the start, %d after ten minutes (mean %.1f)", name, devices, interval, first, later, float64(total)/(hour-600))
		return first, later
	}
	first, later := run("healthy", func(time.Duration) (Outcome, time.Duration) { return Fine, 0 })
	if first > 450 || later > 130 { // 333 and 67 on average
		t.Errorf("%d in a second of the start, %d later", first, later)
	}
	var fresh [10]int
	for i := range devices {
		fresh[Device{ID: fmt.Sprint("device ", i), Channel: "prod", Interval: interval}.First(New)/time.Second]++
	}
	t.Logf("new: at most %d first looks in a second", slices.Max(fresh[:]))
	if slices.Max(fresh[:]) > 2300 {
		t.Errorf("%d new devices look in one second", slices.Max(fresh[:]))
	}
	back := 20 * time.Minute
	_, later = run("503 for 20 minutes", func(at time.Duration) (Outcome, time.Duration) {
		if at < back {
			return Failed, 0
		}
		return Fine, 0
	})
	if later > 150 {
		t.Errorf("%d requests in a second when the server came back", later)
	}
	_, later = run("429 and one date for all", func(at time.Duration) (Outcome, time.Duration) {
		if at < back {
			return Limited, back - at
		}
		return Fine, 0
	})
	if later > 250 {
		t.Errorf("%d requests in a second when the server came back", later)
	}
}

func TestSplayIsEven(t *testing.T) {
	const n, cells = 20_000, 20
	var counts [cells]int
	for i := range n {
		d := Device{ID: fmt.Sprint(i), Channel: "prod", Interval: time.Hour}
		s := d.Splay()
		if s != d.Splay() || s < 0 || s >= time.Hour {
			t.Fatal(s)
		}
		counts[s*cells/time.Hour]++
	}
	if slices.Min(counts[:]) < n/cells*8/10 || slices.Max(counts[:]) > n/cells*12/10 {
		t.Error(counts)
	}
	if (Device{ID: "ab", Channel: "c", Interval: time.Hour}).Splay() == (Device{ID: "a", Channel: "bc", Interval: time.Hour}).Splay() {
		t.Error("id and channel run together")
	}
}

// What ended the process is loaded again later and later, up to a bound, and not by all devices at once.
func TestAgain(t *testing.T) {
	d := Device{ID: "a", Channel: "prod", Interval: time.Minute}
	if d.Again(0) != 0 || d.Again(-1) != 0 {
		t.Error("the first time waits")
	}
	for n := 1; n < 200; n++ {
		want := againMost
		if n < 9 {
			want = min(againFirst<<(n-1), againMost)
		}
		if got := d.Again(n); got < want*3/4 || got > want*5/4 {
			t.Errorf("after %d deaths %s", n, got)
		}
	}
	seen := map[time.Duration]bool{}
	for i := range 100 {
		seen[Device{ID: fmt.Sprint(i), Interval: time.Minute}.Again(3).Truncate(time.Second)] = true
	}
	if len(seen) < 8 {
		t.Errorf("100 devices share %d seconds", len(seen))
	}
	if d.First(Lost) != 0 {
		t.Error("a device that lost what it served waits")
	}
}
