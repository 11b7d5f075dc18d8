package engine

import (
	"context"
	"runtime"
	"strings"
	"time"
)

// The host's own share of a call must not hold up the process either: between two resumes, and between pieces of what it
// copies, it lets other goroutines run (timers and tickers fire there, and a garbage collection can begin) and looks at
// the deadline.

// chunk is what is copied in one go: a fraction of a millisecond, also where the pages are touched for the first time.
const chunk = 1 << 20

// everyStrings is how many strings are handled in one go.
const everyStrings = 1 << 14

// stopped says that the caller's context ended while the host worked.
type stopped struct{ cause error }

// Error implements error.
func (s *stopped) Error() string { return s.cause.Error() }

// Unwrap gives the cause.
func (s *stopped) Unwrap() error { return s.cause }

// breather returns a function that yields and then tells, by a *stopped, whether the call must end: with its context, or at until,
// unless that is zero. It compares the clock with both itself: where every core is busy the context's timer comes late.
func breather(ctx context.Context, until time.Time) func() error {
	deadline, timed := ctx.Deadline()
	over := error(context.DeadlineExceeded)
	if !until.IsZero() && (!timed || !until.After(deadline)) {
		deadline, timed, over = until, true, ErrTimeLimit
	}
	return func() error {
		runtime.Gosched()
		if ctx.Err() != nil {
			return &stopped{context.Cause(ctx)}
		}
		if timed && !time.Now().Before(deadline) {
			return &stopped{over}
		}
		return nil
	}
}

// copyChunks copies src to dst, which is at least as long, and breathes between chunks; a nil breathe does not.
func copyChunks(breathe func() error, dst, src []byte) error {
	for breathe != nil && len(src) > chunk {
		copy(dst, src[:chunk])
		dst, src = dst[chunk:], src[chunk:]
		if err := breathe(); err != nil {
			return err
		}
	}
	copy(dst, src)
	return nil
}

// cloneChunks is a copy of b.
func cloneChunks(breathe func() error, b []byte) ([]byte, error) {
	if len(b) <= chunk {
		return append(make([]byte, 0, len(b)), b...), nil
	}
	out := make([]byte, len(b))
	return out, copyChunks(breathe, out, b)
}

// textChunks is b as a string.
func textChunks(breathe func() error, b []byte) (string, error) {
	if breathe == nil || len(b) <= chunk {
		return string(b), nil
	}
	var s strings.Builder
	s.Grow(len(b))
	for len(b) > 0 {
		n := min(len(b), chunk)
		s.Write(b[:n])
		b = b[n:]
		if err := breathe(); err != nil {
			return "", err
		}
	}
	return s.String(), nil
}
