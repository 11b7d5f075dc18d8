package engine

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// lateContext has a deadline in the past that no timer has noticed yet, as happens where every core is busy.
type lateContext struct{ context.Context }

func (lateContext) Deadline() (time.Time, bool) { return time.Now().Add(-time.Second), true }

func TestBreatherLooksAtTheClock(t *testing.T) {
	if err := breather(t.Context(), time.Time{})(); err != nil {
		t.Errorf("without a deadline: %v", err)
	}
	if err := breather(t.Context(), time.Now().Add(-time.Second))(); !errors.Is(err, ErrTimeLimit) {
		t.Errorf("behind the limit of the call: %v", err)
	}
	if err := breather(lateContext{t.Context()}, time.Now().Add(time.Hour))(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind the deadline: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("why")
	cancel(why)
	var s *stopped
	if err := breather(ctx, time.Time{})(); !errors.Is(err, why) || !errors.As(err, &s) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestChunksAreCopiesThatStop(t *testing.T) {
	src := make([]byte, 2*chunk+123)
	for i := range src {
		src[i] = byte(rand.Uint32())
	}
	never := func() error { return nil }
	for _, n := range []int{0, 1, chunk, chunk + 1, len(src)} {
		dst := make([]byte, n)
		if err := copyChunks(never, dst, src[:n]); err != nil || !bytes.Equal(dst, src[:n]) {
			t.Errorf("copy of %d bytes: %v", n, err)
		}
		b, err := cloneChunks(never, src[:n])
		if err != nil || !bytes.Equal(b, src[:n]) {
			t.Errorf("clone of %d bytes: %v", n, err)
		}
		s, err := textChunks(never, src[:n])
		if err != nil || s != string(src[:n]) {
			t.Errorf("text of %d bytes: %v", n, err)
		}
	}
	stop := errors.New("stop")
	calls := 0
	once := func() error { calls++; return stop }
	if err := copyChunks(once, make([]byte, len(src)), src); !errors.Is(err, stop) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if _, err := textChunks(once, src); !errors.Is(err, stop) || calls != 2 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

// TestEndlessModuleIsLeft runs a module that never ends, with a deadline that no timer reports and with a cancellation.
func TestEndlessModuleIsLeft(t *testing.T) {
	e, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close(t.Context()) }()
	code := variant(con(0), con(1), con(0)) // resume answers more, for ever
	m, err := e.Load(t.Context(), code, WeightsSource{}, vectorIface(code))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Run(lateContext{t.Context()}, []Tensor{Of(ramp(3))}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("behind the deadline: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := m.Run(ctx, []Tensor{Of(ramp(3))}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
