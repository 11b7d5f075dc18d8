package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// pulse is a sign of life of one goroutine: until when its silence means nothing. The time is that of the process (monotonic),
// so that a clock that is set neither hides a hang nor makes one up.
type pulse struct{ due atomic.Int64 }

// born is where the time of the process begins.
var born = time.Now()

// expect says that the goroutine goes on within d, or says so again.
func (p *pulse) expect(d time.Duration) { p.due.Store(int64(time.Since(born) + d)) }

// extend is expect for work of any goroutine on the channel: it never brings the time forward.
func (p *pulse) extend(d time.Duration) {
	next := int64(time.Since(born) + d)
	for {
		due := p.due.Load()
		if due >= next || p.due.CompareAndSwap(due, next) {
			return
		}
	}
}

// late is how long the goroutine has been overdue; 0: it is not, or never said anything.
func (p *pulse) late() time.Duration {
	due := time.Duration(p.due.Load())
	if due == 0 {
		return 0
	}
	return max(time.Since(born)-due, 0)
}

// alive says that the follower works: whatever it is at may take Config.Stuck until the next sign.
func (f *follower) alive() { f.beat.extend(f.a.cfg.Stuck) }

// ErrStuck says that a part of the agent has stopped making progress.
var ErrStuck = errors.New("the agent is stuck")

// Alive tells whether every channel is followed: none has been silent for longer than what it was at may take, and the state
// can be read. It returns when ctx ends, at the latest. For a watchdog.
func (a *Agent) Alive(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		a.Status() // takes the locks of state, journal and trust
		for _, f := range a.followers {
			if late := f.beat.late(); late > 0 {
				done <- fmt.Errorf("%w: channel %s has been silent for %s longer than it may", ErrStuck, f.cfg.Name, late.Round(time.Millisecond))
				return
			}
		}
		done <- nil
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: its state can't be read", ErrStuck)
	}
}

// beating gives a sign of life with every read of a download, counts its bytes, and ends it when it may not go on.
type beating struct {
	io.ReadCloser
	f   *follower
	may func() error // nil: it may
}

// Read implements io.Reader.
func (b beating) Read(p []byte) (int, error) {
	if b.may != nil {
		if err := b.may(); err != nil {
			return 0, err
		}
	}
	b.f.alive()
	n, err := b.ReadCloser.Read(p)
	b.f.count.add(func(c *Counts) { c.Bytes += int64(n) })
	if err != nil && !errors.Is(err, io.EOF) {
		err = errors.Join(ErrTransient, err) // what a carrier breaks off says nothing about the content
	}
	return n, err
}
