// Package admit decides which request is worked on next: so many at once, so many waiting, models in turn. Who cannot be
// answered in time is told at once when to come back, spaced by the rate at which requests are being answered.
package admit

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Bounds of what Busy tells a client to wait.
const (
	minRetry = 50 * time.Millisecond
	maxRetry = time.Minute
)

// Busy is why a request was turned away.
type Busy struct {
	Reason     string // "queue": no room to wait; "deadline": its turn would come too late
	RetryAfter time.Duration
}

// Error implements error.
func (b *Busy) Error() string {
	why := "too many requests are waiting"
	if b.Reason == "deadline" {
		why = "the requests that are waiting take longer than this one may"
	}
	return fmt.Sprintf("%s; try again in %s", why, b.RetryAfter.Round(10*time.Millisecond))
}

// Gate admits requests. It is safe for concurrent use.
type Gate struct {
	workers, room int

	mu      sync.Mutex
	lanes   map[string]*lane
	turn    []*lane // lanes with waiters, the next one first
	waiting int
	busy    []slot
	free    []int
	horizon time.Time // the time that the next rejected client is told
}

// lane is the queue of one model.
type lane struct {
	name string
	q    []*waiter
	mean time.Duration // of the work, moving; 0 before the first
}

type slot struct {
	since    time.Time // zero when free
	deadline time.Time // zero for none
}

type waiter struct {
	ready chan int // the slot, or -1 when it was evicted
	busy  *Busy    // set before -1
}

// New makes a gate for so many workers at once and so many waiting.
func New(workers, room int) *Gate {
	g := &Gate{workers: workers, room: room, lanes: map[string]*lane{}, busy: make([]slot, workers)}
	for i := range workers {
		g.free = append(g.free, i)
	}
	return g
}

// Ticket is the right to work; give it back with Leave.
type Ticket struct {
	lane *lane
	slot int
}

// Enter waits for a turn of name's. It fails with *Busy, or with the cause of ctx when that ends first. name should be one
// of few: each has a lane for good.
func (g *Gate) Enter(ctx context.Context, name string) (Ticket, error) {
	deadline, _ := ctx.Deadline()
	g.mu.Lock()
	l := g.lanes[name]
	if l == nil {
		l = &lane{name: name}
		g.lanes[name] = l
	}
	if len(g.free) > 0 { // then nobody waits
		i := g.take(deadline)
		g.mu.Unlock()
		return Ticket{l, i}, nil
	}
	if !deadline.IsZero() && g.wait(l)+l.mean > time.Until(deadline) {
		b := g.reject("deadline")
		g.mu.Unlock()
		return Ticket{}, b
	}
	if g.waiting >= g.room && !g.evict(l) {
		b := g.reject("queue")
		g.mu.Unlock()
		return Ticket{}, b
	}
	w := &waiter{ready: make(chan int, 1)}
	if len(l.q) == 0 {
		g.turn = append(g.turn, l)
	}
	l.q = append(l.q, w)
	g.waiting++
	g.mu.Unlock()
	select {
	case i := <-w.ready:
		return g.granted(l, w, i, deadline)
	case <-ctx.Done():
	}
	g.mu.Lock()
	select {
	case i := <-w.ready: // both at once
		g.mu.Unlock()
		if i >= 0 {
			g.leave(i)
		}
	default:
		g.drop(l, w)
		g.mu.Unlock()
	}
	return Ticket{}, context.Cause(ctx)
}

func (g *Gate) granted(l *lane, w *waiter, i int, deadline time.Time) (Ticket, error) {
	if i < 0 {
		return Ticket{}, w.busy
	}
	g.mu.Lock()
	g.busy[i] = slot{time.Now(), deadline}
	g.mu.Unlock()
	return Ticket{l, i}, nil
}

// Leave ends the work. counted tells whether its duration says something about the next one's.
func (g *Gate) Leave(t Ticket, counted bool) {
	if counted {
		g.mu.Lock()
		took := time.Since(g.busy[t.slot].since)
		if t.lane.mean == 0 {
			t.lane.mean = took
		} else {
			t.lane.mean += (took - t.lane.mean) / 16
		}
		g.mu.Unlock()
	}
	g.leave(t.slot)
}

// leave hands slot i to the next waiter, models in turn.
func (g *Gate) leave(i int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.busy[i] = slot{}
	if len(g.turn) == 0 {
		g.free = append(g.free, i)
		return
	}
	l := g.turn[0]
	w := l.q[0]
	l.q[0] = nil
	l.q = l.q[1:]
	g.turn = g.turn[1:]
	if len(l.q) > 0 {
		g.turn = append(g.turn, l)
	}
	g.waiting--
	g.busy[i] = slot{since: time.Now()}
	w.ready <- i
}

// take occupies a free slot. g.mu is held.
func (g *Gate) take(deadline time.Time) int {
	i := g.free[len(g.free)-1]
	g.free = g.free[:len(g.free)-1]
	g.busy[i] = slot{time.Now(), deadline}
	return i
}

// evict makes room for l when another model has more than its share of the queue: the newest of its waiters goes.
func (g *Gate) evict(l *lane) bool {
	if g.room == 0 {
		return false
	}
	longest := l
	for _, o := range g.turn {
		if len(o.q) > len(longest.q) {
			longest = o
		}
	}
	if len(longest.q) <= len(l.q)+1 {
		return false
	}
	w := longest.q[len(longest.q)-1]
	w.busy = g.reject("queue")
	g.drop(longest, w)
	w.ready <- -1
	return true
}

// drop takes w out of l's queue, in which it is. g.mu is held.
func (g *Gate) drop(l *lane, w *waiter) {
	for i, o := range l.q {
		if o == w {
			l.q = append(l.q[:i], l.q[i+1:]...)
			g.waiting--
			break
		}
	}
	if len(l.q) > 0 {
		return
	}
	for i, o := range g.turn {
		if o == l {
			g.turn = append(g.turn[:i], g.turn[i+1:]...)
			return
		}
	}
}

// wait estimates how long a new request of l's would wait. g.mu is held.
func (g *Gate) wait(l *lane) time.Duration {
	own := len(l.q) + 1
	var work time.Duration
	for _, o := range g.turn {
		n := len(o.q)
		if o != l {
			n = min(n, own) // the models take turns
		}
		work += time.Duration(n) * o.mean
	}
	return work / time.Duration(g.workers)
}

// reject makes the answer for a client that is turned away. Those that come after it are told later times, at the rate at
// which requests are answered. g.mu is held.
func (g *Gate) reject(reason string) *Busy {
	var work, most time.Duration
	for _, l := range g.lanes {
		work += time.Duration(len(l.q)) * l.mean
		most = max(most, l.mean)
	}
	now := time.Now()
	from := now.Add(work / time.Duration(g.workers))
	if g.horizon.Before(from) {
		g.horizon = from
	}
	g.horizon = g.horizon.Add(most / time.Duration(g.workers))
	if latest := now.Add(maxRetry); g.horizon.After(latest) {
		g.horizon = latest
	}
	d := max(minRetry, g.horizon.Sub(now))
	return &Busy{reason, d + rand.N(d/4+1)} // jitter: clients that were turned away together do not come back together
}

// Waiting is the number of requests that wait.
func (g *Gate) Waiting() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// Stuck returns how many workers are past their deadline by more than slack, and how many there are. Workers without a deadline
// are never stuck.
func (g *Gate) Stuck(slack time.Duration) (stuck, workers int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	for _, s := range g.busy {
		if !s.since.IsZero() && !s.deadline.IsZero() && now.Sub(s.deadline) > slack {
			stuck++
		}
	}
	return stuck, g.workers
}
