// Package ratelimit paces bytes: one Limiter is shared by all the connections that together may not be faster.
package ratelimit

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limiter lets bytes pass at a steady rate, shared fairly in order of arrival. The nil Limiter lets everything pass.
// It is safe for concurrent use.
type Limiter struct {
	perSecond float64

	mu   sync.Mutex
	free time.Time // when all that was let through until now has passed at the rate
}

// slack is how much unused time is made up for: a reader that was late for a moment does not lose its share.
const slack = 50 * time.Millisecond

// New makes a limiter of that many bytes in a second; nil, which limits nothing, when it is not positive.
func New(bytesPerSecond int64) *Limiter {
	if bytesPerSecond <= 0 {
		return nil
	}
	return &Limiter{perSecond: float64(bytesPerSecond)}
}

// Wait returns when n bytes more may pass, or with ctx's error.
func (l *Limiter) Wait(ctx context.Context, n int) error {
	return sleep(ctx, l.take(n))
}

// take books n bytes and returns how long they have to wait.
func (l *Limiter) take(n int) time.Duration {
	if l == nil || n <= 0 {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if oldest := now.Add(-slack); l.free.Before(oldest) {
		l.free = oldest
	}
	l.free = l.free.Add(time.Duration(float64(n) / l.perSecond * float64(time.Second)))
	return l.free.Sub(now)
}

func sleep(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// Chunk is the most that should be asked of Wait at a time, so that no connection holds the others up for long.
func (l *Limiter) Chunk() int {
	if l == nil {
		return 1 << 30
	}
	return min(max(int(l.perSecond/20), 1), 256<<10)
}

// Reader paces r. A nil Limiter gives r itself.
func (l *Limiter) Reader(ctx context.Context, r io.Reader) io.Reader { return Reader(ctx, r, l) }

// Reader paces r by several limits at once, nil ones left out. They are waited for together, so that the time spent for one
// counts for the others too.
func Reader(ctx context.Context, r io.Reader, limits ...*Limiter) io.Reader {
	limits = slices.DeleteFunc(slices.Clone(limits), func(l *Limiter) bool { return l == nil })
	if len(limits) == 0 {
		return r
	}
	// With smaller pieces than the others a reader would have less than its share of a common limit; with pieces of more than
	// a second it would look dead.
	p, second := &reader{ctx, limits, r, 1}, 1<<30
	for _, l := range limits {
		p.chunk, second = max(p.chunk, l.Chunk()), min(second, max(int(l.perSecond), 1))
	}
	p.chunk = min(p.chunk, second)
	return p
}

type reader struct {
	ctx   context.Context // of one transfer, which this value is
	ls    []*Limiter
	r     io.Reader
	chunk int
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p[:min(len(p), r.chunk)])
	var wait time.Duration
	for _, l := range r.ls {
		wait = max(wait, l.take(n))
	}
	if werr := sleep(r.ctx, wait); werr != nil {
		return n, werr
	}
	return n, err
}

// Parse reads a rate as curl and wget take it: bytes in a second, with K, M or G for 1024, 1024² or 1024³ of them; "0"
// is no limit.
func Parse(s string) (int64, error) {
	num, unit := strings.TrimSpace(s), int64(1)
	if num != "" {
		switch num[len(num)-1] {
		case 'k', 'K':
			unit = 1 << 10
		case 'm', 'M':
			unit = 1 << 20
		case 'g', 'G':
			unit = 1 << 30
		}
		if unit > 1 {
			num = num[:len(num)-1]
		}
	}
	v, err := strconv.ParseFloat(num, 64)
	if err != nil || !(v >= 0) || v*float64(unit) > 1<<50 || v > 0 && v*float64(unit) < 1 {
		return 0, fmt.Errorf("%q is not a rate: write bytes in a second, such as 500K, 10M or 1.5G", s)
	}
	return int64(v * float64(unit)), nil
}
