// Package schedule says when a device looks at its channels, and when it may change what it runs. It is arithmetic: no
// clock, no I/O, no randomness of its own.
package schedule

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"time"
)

const (
	// startSpread is the time over which devices that were switched on together look for the first time.
	startSpread = time.Minute
	// firstRetry is how long a device with a longer interval waits after the first poll that failed.
	firstRetry = 5 * time.Minute
	// maxBackoff bounds what doubling makes of a wait, for intervals shorter than it.
	maxBackoff = 6 * time.Hour
	maxDouble  = 3 // 8 intervals
	// newSpread is the time over which new devices look for the first time: short, since somebody may stand beside one.
	newSpread = 10 * time.Second
	// againFirst and againMost bound the wait before an artifact is loaded again that ended the process.
	againFirst = 5 * time.Second
	againMost  = 15 * time.Minute
	maxSlow    = 3 // steps of pacing that rate limits add up to
)

// Pace is what a schedule remembers of the polls before. The zero Pace is that of a start.
type Pace struct {
	Failures int // polls in a row that failed
	// Slow is how often the polling was halved because a server limited the rate. Each poll that goes well takes one back, so
	// a fleet does not return at full speed to a server that has just recovered.
	Slow int
}

// Outcome is how a poll went.
type Outcome int

// Outcomes.
const (
	Fine    Outcome = iota
	Failed          // nobody could be asked, or what came was not accepted
	Limited         // a server said: too many requests
)

// After is the pace after a poll.
func (p Pace) After(o Outcome) Pace {
	switch o {
	case Fine:
		return Pace{Slow: max(p.Slow-1, 0)}
	case Limited:
		p.Slow = min(p.Slow+1, maxSlow)
	}
	p.Failures = min(p.Failures+1, 32)
	return p
}

// Device is what spreads the devices of a fleet: who it is, what it follows and how often it looks.
type Device struct {
	ID, Channel string
	Interval    time.Duration // positive
}

// Splay is the place of a device in the interval: in [0, Interval), the same for ever, evenly spread over devices.
func (d Device) Splay() time.Duration { return d.hash("splay", d.Interval) }

func (d Device) hash(what string, n time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	h := sha256.New()
	for _, s := range []string{what, d.ID, d.Channel} {
		h.Write(binary.AppendUvarint(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	hi, _ := bits.Mul64(binary.BigEndian.Uint64(h.Sum(nil)), uint64(n)) // evenly: no remainder is favoured
	return time.Duration(hi)
}

// Service is what a device has to offer when it starts.
type Service int

// Services.
const (
	Serving Service = iota // something serves
	Lost                   // something served once, and nothing does now
	New                    // nothing has ever served
)

// First is how long a device waits after its start before it looks. One that lost what it served looks at once.
func (d Device) First(s Service) time.Duration {
	switch s {
	case Lost:
		return 0
	case New:
		return d.hash("start", min(d.Interval, newSpread))
	}
	return d.hash("start", min(d.Interval, startSpread))
}

// Again is how long a device that serves nothing waits after its start before it loads once more what ended the process so often
// before, which nothing can replace: longer with each death, up to a bound, and not the same for all devices.
func (d Device) Again(deaths int) time.Duration {
	if deaths <= 0 {
		return 0
	}
	wait := againMost
	if deaths < 16 {
		wait = min(againFirst<<(deaths-1), againMost)
	}
	return wait*3/4 + d.hash("again", wait/2)
}

// Ask is what the wait for the next poll follows from. Durations are on a clock that is never set.
type Ask struct {
	Up   time.Duration // since the start of the device's program
	Pace Pace
	// RetryAfter is what a server asked for; 0: nothing.
	RetryAfter time.Duration
	// Opens is the time until a maintenance window opens that an update waits for, and For how long it stays open; 0: no
	// update waits for one.
	Opens, For time.Duration
	Random     uint64 // anew for each call
}

// Next is how long the device waits before it looks again.
func (d Device) Next(a Ask) time.Duration {
	interval := max(d.Interval, time.Millisecond)
	var wait time.Duration
	switch {
	case a.Pace.Failures > 0:
		most := max(interval, min(interval<<maxDouble, maxBackoff))
		wait = most
		if n := max(a.Pace.Failures-1, a.Pace.Slow); n < 20 {
			wait = min(min(interval, firstRetry)<<n, most)
		}
		if a.Pace.Slow > 0 {
			wait = max(wait, min(interval<<a.Pace.Slow, most))
		}
		wait = wait/2 + random(a.Random, wait) // widely, since the others failed at the same moment
	case a.Pace.Slow > 0:
		wait = min(interval<<a.Pace.Slow, max(interval, maxBackoff))
		wait = wait/2 + random(a.Random, wait)
	default:
		// To the device's own place in the interval, which ends what the start has put together. Never sooner than half an
		// interval after the last look, with some jitter against what else happens at fixed times.
		past := (a.Up - d.Splay() + interval/2) % interval
		if past < 0 {
			past += interval
		}
		wait = interval + interval/2 - past
		wait += random(a.Random, interval/10) - interval/20
	}
	if ra := d.bounded(a.RetryAfter); ra > 0 {
		// A date is the same moment for everybody: they come back one after the other.
		wait = max(wait, ra+random(a.Random, min(interval, ra/2+30*time.Second)))
	}
	if a.Opens > 0 {
		// Else a window that is shorter than the interval would be missed.
		at := a.Opens + d.hash("window", min(interval, a.For/2))
		if a.RetryAfter <= 0 || at > wait {
			wait = min(wait, at)
		}
	}
	return max(wait, time.Millisecond)
}

// RetryBound is the most that a server can keep this device away: whoever answers in its place must not silence it for ever.
func (d Device) RetryBound() time.Duration {
	return min(max(time.Hour, 2*d.Interval), max(24*time.Hour, d.Interval))
}

func (d Device) bounded(retryAfter time.Duration) time.Duration {
	return min(max(retryAfter, 0), d.RetryBound())
}

// random maps r evenly to [0, n).
func random(r uint64, n time.Duration) time.Duration {
	if n <= 0 {
		return 0
	}
	hi, _ := bits.Mul64(r, uint64(n))
	return time.Duration(hi)
}
