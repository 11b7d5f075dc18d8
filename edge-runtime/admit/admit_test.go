package admit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// work enters, works for d and leaves.
func work(ctx context.Context, g *Gate, name string, d time.Duration) error {
	k, err := g.Enter(ctx, name)
	if err != nil {
		return err
	}
	time.Sleep(d)
	g.Leave(k, true)
	return nil
}

func busy(t *testing.T, err error, reason string) *Busy {
	t.Helper()
	var b *Busy
	if !errors.As(err, &b) || b.Reason != reason {
		t.Fatalf("%v, want Busy for %s", err, reason)
	}
	return b
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(2, 3)
		var wg sync.WaitGroup
		most, now := 0, 0
		var mu sync.Mutex
		for range 5 {
			wg.Go(func() {
				k, err := g.Enter(t.Context(), "m")
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				time.Sleep(time.Second)
				mu.Lock()
				now--
				mu.Unlock()
				g.Leave(k, true)
			})
		}
		synctest.Wait()
		if g.Waiting() != 3 {
			t.Errorf("%d wait", g.Waiting())
		}
		_, err := g.Enter(t.Context(), "m")
		busy(t, err, "queue")
		wg.Wait()
		if most != 2 || g.Waiting() != 0 {
			t.Errorf("%d at once, %d wait", most, g.Waiting())
		}
	})
}

// Who cannot be answered in time is told so at once, not at the deadline.
func TestDeadlineAware(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(1, 100)
		if err := work(t.Context(), g, "m", time.Second); err != nil { // a second is what one takes
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 5 {
			wg.Go(func() {
				if err := work(t.Context(), g, "m", time.Second); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		from := time.Now()
		_, err := g.Enter(ctx, "m")
		if b := busy(t, err, "deadline"); time.Since(from) != 0 || b.RetryAfter < 3*time.Second || b.RetryAfter > 10*time.Second {
			t.Errorf("after %s: %v", time.Since(from), b)
		}
		ctx, cancel2 := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel2()
		if err := work(ctx, g, "m", time.Second); err != nil {
			t.Errorf("there was time enough: %v", err)
		}
		wg.Wait()
	})
}

// Clients that are turned away together are told times that follow the rate of the work, one after the other.
func TestPacing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(2, 4)
		if err := work(t.Context(), g, "m", 100*time.Millisecond); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				if err := work(t.Context(), g, "m", 100*time.Millisecond); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		var told []time.Duration
		for range 40 {
			_, err := g.Enter(t.Context(), "m")
			told = append(told, busy(t, err, "queue").RetryAfter)
		}
		wg.Wait()
		// 4 wait, 2 workers, 0.1 s each: 0.2 s for those, then one every 50 ms, each with up to a quarter more.
		for i, d := range told {
			want := 200*time.Millisecond + time.Duration(i+1)*50*time.Millisecond
			if d < want || d > want+want/4 {
				t.Errorf("client %d is told %s, want %s to %s", i, d, want, want+want/4)
			}
		}
		if slices.Max(told) < 5*slices.Min(told) {
			t.Errorf("all come back at once: %v", told)
		}
		for range 5000 {
			g.mu.Lock()
			b := g.reject("queue")
			g.mu.Unlock()
			if b.RetryAfter > maxRetry+maxRetry/4 {
				t.Fatalf("told %s", b.RetryAfter)
			}
		}
	})
}

// A model that is flooded does not keep another from being answered: they take turns, and the flood loses its place.
func TestFairness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(1, 10)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		lost := 0
		send := func(name string) {
			wg.Go(func() {
				k, err := g.Enter(t.Context(), name)
				mu.Lock()
				if err != nil {
					lost++
				} else {
					order = append(order, name)
				}
				mu.Unlock()
				if err == nil {
					time.Sleep(time.Second)
					g.Leave(k, true)
				}
			})
			synctest.Wait()
		}
		for range 11 {
			send("flood")
		}
		for range 3 {
			send("b")
		}
		wg.Wait()
		if lost != 3 {
			t.Errorf("%d of the flood were turned away for others, want 3", lost)
		}
		if got := fmt.Sprint(order[:7]); got != "[flood flood b flood b flood b]" {
			t.Errorf("order %s", got)
		}
	})
}

// Who goes away while waiting makes room, and never takes a turn along.
func TestLeaveWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(1, 2)
		k, err := g.Enter(t.Context(), "m")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("gone")
		errs := make(chan error, 2)
		for range 2 {
			go func() { _, err := g.Enter(ctx, "m"); errs <- err }()
		}
		synctest.Wait()
		cancel(gone)
		for range 2 {
			if err := <-errs; !errors.Is(err, gone) {
				t.Errorf("%v", err)
			}
		}
		if g.Waiting() != 0 {
			t.Errorf("%d wait", g.Waiting())
		}
		g.Leave(k, false)
		if err := work(t.Context(), g, "n", 0); err != nil {
			t.Error(err)
		}
	})
}

// Under all of it at once no worker is lost.
func TestStorm(t *testing.T) {
	g := New(3, 5)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for k := range 300 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(k%4)*50*time.Microsecond+time.Microsecond)
				if tk, err := g.Enter(ctx, fmt.Sprint(i%3)); err == nil {
					g.Leave(tk, k%2 == 0)
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if g.Waiting() != 0 || len(g.free) != 3 || len(g.turn) != 0 {
		t.Errorf("%d wait, %d free", g.Waiting(), len(g.free))
	}
}

func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(2, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		a, err := g.Enter(ctx, "m")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Enter(ctx, "m"); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			at   time.Duration
			want int
		}{{5 * time.Second, 0}, {20 * time.Second, 2}} {
			time.Sleep(c.at)
			if n, of := g.Stuck(15 * time.Second); n != c.want || of != 2 {
				t.Errorf("after %s more: %d of %d are stuck, want %d", c.at, n, of, c.want)
			}
		}
		g.Leave(a, false)
		if n, _ := g.Stuck(15 * time.Second); n != 1 {
			t.Errorf("%d are stuck after one came back", n)
		}
	})
}

func BenchmarkEnter(b *testing.B) {
	g := New(4, 16)
	b.ReportAllocs()
	for b.Loop() {
		k, err := g.Enter(b.Context(), "m")
		if err != nil {
			b.Fatal(err)
		}
		g.Leave(k, true)
	}
}
