// Package retry asks a platform again that asks to slow down or that stumbles. Targets whose SDK does this by itself do not need it.
package retry

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/waybill-ml/waybill/deploy"
)

// Policy bounds it. The zero value is the default: 6 attempts, waits that double from 250 ms to at most 8 s, of which a random
// half is taken away, so that several clients do not come back together.
type Policy struct {
	Attempts  int
	Base, Max time.Duration
}

func (p Policy) filled() Policy {
	if p.Attempts <= 0 {
		p.Attempts = 6
	}
	if p.Base <= 0 {
		p.Base = 250 * time.Millisecond
	}
	if p.Max <= 0 {
		p.Max = 8 * time.Second
	}
	return p
}

// later is an error together with the time at which the platform wants to be asked again.
type later struct {
	error
	wait time.Duration
}

func (l later) Unwrap() error { return l.error }

// Later says that the platform wants to be asked again after d at the earliest. Policy.Max bounds that too: who is told to come
// back in an hour is told so, not kept waiting.
func Later(err error, d time.Duration) error { return later{err, d} }

// After reads a Retry-After header, in seconds or as a date; 0 where there is none that can be read.
func After(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.ParseInt(v, 10, 32); err == nil {
		return max(0, time.Duration(s)*time.Second)
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// Do calls f until it succeeds, fails with something other than ErrThrottled and ErrUnavailable, the attempts are used up, or ctx
// ends. The error is f's last one; when ctx ended in a wait, it wraps both. f must be safe to repeat.
func Do(ctx context.Context, p Policy, f func(ctx context.Context) error) error {
	p = p.filled()
	wait := p.Base
	for i := 1; ; i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := f(ctx)
		if err == nil || i == p.Attempts || !(errors.Is(err, deploy.ErrThrottled) || errors.Is(err, deploy.ErrUnavailable)) {
			return err
		}
		d := min(wait, p.Max)
		d -= time.Duration(rand.Int64N(int64(d/2) + 1))
		if l, ok := errors.AsType[later](err); ok {
			if l.wait > p.Max {
				return err
			}
			d = max(d, l.wait)
		}
		t := time.NewTimer(d)
		select {
		case <-ctx.Done():
			t.Stop()
			return errors.Join(ctx.Err(), err)
		case <-t.C:
		}
		wait *= 2
	}
}
