package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
)

// owner counts who holds it.
type owner struct {
	digest string
	held   atomic.Int64
	closed bool
}

func (o *owner) Digest() string { return o.digest }
func (o *owner) Retain() bool {
	if o.closed {
		return false
	}
	o.held.Add(1)
	return true
}
func (o *owner) Release() {
	if o.held.Add(-1) < 0 {
		panic("released more often than retained")
	}
}

func state(n int64) []engine.Tensor { return []engine.Tensor{engine.Of([]int64{n})} }

func number(t *testing.T, s []engine.Tensor) int64 {
	t.Helper()
	v, err := engine.Values[int64](s[0])
	if err != nil {
		t.Fatal(err)
	}
	return v[0]
}

// ends collects why sessions ended.
type ends struct {
	mu sync.Mutex
	by map[string]int
}

func (e *ends) ended(_, reason string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by == nil {
		e.by = map[string]int{}
	}
	e.by[reason]++
}

func start(t *testing.T, st *Store, id string, o Owner, n int64) {
	t.Helper()
	l, err := st.Start("m", id, o, state(0))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Commit(state(n), false); err != nil {
		t.Fatal(err)
	}
	l.Release()
}

func TestLife(t *testing.T) {
	var e ends
	o := &owner{digest: "a"}
	st := New(Config{Ended: e.ended})
	if _, err := st.Join(t.Context(), "m", "s", o); !errors.Is(err, ErrGone) {
		t.Errorf("a session that was never begun: %v", err)
	}
	start(t, st, "s", o, 1)
	for n := int64(1); n < 10; n++ {
		l, err := st.Join(t.Context(), "m", "s", o)
		if err != nil {
			t.Fatal(err)
		}
		if got := number(t, l.State()); got != n {
			t.Errorf("state %d, want %d", got, n)
		}
		if n == 5 { // a request that fails leaves the state as it was
			l.Release()
			if l, err = st.Join(t.Context(), "m", "s", o); err != nil || number(t, l.State()) != 5 {
				t.Fatal(err)
			}
		}
		if err := l.Commit(state(n+1), n == 9); err != nil {
			t.Fatal(err)
		}
		l.Release()
	}
	if _, err := st.Join(t.Context(), "m", "s", o); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "its client ended it") {
		t.Errorf("after its end: %v", err)
	}
	if _, err := st.Join(t.Context(), "other", "s", o); !errors.Is(err, ErrGone) {
		t.Errorf("another model's session of the same name: %v", err)
	}
	l, err := st.Start("m", "f", o, state(0)) // its first request fails
	if err != nil {
		t.Fatal(err)
	}
	l.Release()
	if _, err := st.Join(t.Context(), "m", "f", o); !errors.Is(err, ErrGone) {
		t.Errorf("after a failed start: %v", err)
	}
	start(t, st, "r", o, 7)
	start(t, st, "r", o, 8)
	if n, b := st.Usage(); n != 1 || b != overhead+16 {
		t.Errorf("%d sessions of %d bytes", n, b)
	}
	st.Close()
	if n, b := st.Usage(); n != 0 || b != 0 || o.held.Load() != 0 {
		t.Errorf("after Close: %d sessions, %d bytes, owner held %d times", n, b, o.held.Load())
	}
	if _, err := st.Start("m", "x", o, state(0)); err == nil {
		t.Error("started after Close")
	}
	if fmt.Sprint(e.by) != "map[closed:1 end:1 failed:1 restart:1]" {
		t.Errorf("ended %v", e.by)
	}
}

func TestLimits(t *testing.T) {
	o := &owner{digest: "a"}
	st := New(Config{Max: 2, MaxBytes: 3 * (overhead + 16)})
	defer st.Close()
	start(t, st, "a", o, 1)
	start(t, st, "b", o, 1)
	if _, err := st.Start("m", "c", o, state(0)); !errors.Is(err, ErrFull) {
		t.Errorf("a third: %v", err)
	}
	l, err := st.Join(t.Context(), "m", "a", o)
	if err != nil {
		t.Fatal(err)
	}
	big := []engine.Tensor{engine.Of(make([]byte, 600))}
	if err := l.Commit(big, false); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a state that grew: %v", err)
	}
	l.Release()
	if l, err = st.Join(t.Context(), "m", "a", o); err != nil || number(t, l.State()) != 1 {
		t.Fatalf("the session should be as it was: %v", err)
	}
	if err := l.Commit(nil, true); err != nil {
		t.Fatal(err)
	}
	l.Release()
	if _, err := st.Start("m", "c", o, big); !errors.Is(err, ErrFull) {
		t.Errorf("no bytes left: %v", err)
	}
	if _, err := st.Start("m", "c", o, []engine.Tensor{engine.Of(make([]byte, 4*overhead))}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("larger than all: %v", err)
	}
	start(t, st, "c", o, 1)
	if _, err := st.Start("m", "d", &owner{closed: true}, state(0)); err == nil {
		t.Error("a closed model got a session")
	}
}

func TestExpiry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var e ends
		o := &owner{digest: "a"}
		st := New(Config{TTL: time.Minute, Ended: e.ended})
		defer st.Close()
		start(t, st, "s", o, 1)
		for range 5 {
			time.Sleep(50 * time.Second)
			l, err := st.Join(t.Context(), "m", "s", o)
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Minute) // a request works on it: it does not expire under it
			if err := l.Commit(state(2), false); err != nil {
				t.Fatal(err)
			}
			l.Release()
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if n, b := st.Usage(); n != 0 || b != 0 || o.held.Load() != 0 || e.by[Expired] != 1 {
			t.Errorf("%d sessions, %d bytes, held %d, ended %v: nobody came to look, and it should have gone by itself", n, b, o.held.Load(), e.by)
		}
		if _, err := st.Join(t.Context(), "m", "s", o); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "nobody asked for 1m0s") {
			t.Errorf("expired: %v", err)
		}
	})
}

// A session stays on its model for the grace, ends then also when it is never idle, and goes on when its model comes back.
func TestReplace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := &owner{digest: "a"}, &owner{digest: "b"}
		st := New(Config{Grace: 10 * time.Second})
		defer st.Close()
		use := func(id string, active, want *owner) error {
			l, err := st.Join(t.Context(), "m", id, active)
			if err != nil {
				return err
			}
			defer l.Release()
			if l.Owner() != Owner(want) {
				t.Errorf("session %s is on %s", id, l.Owner().Digest())
			}
			return l.Commit(state(1), false)
		}
		start(t, st, "idle", a, 1)
		start(t, st, "busy", a, 1)
		start(t, st, "back", a, 1)
		st.Replace("m", "b")
		time.Sleep(5 * time.Second)
		for _, id := range []string{"idle", "busy", "back"} {
			if err := use(id, b, a); err != nil {
				t.Errorf("%s within the grace: %v", id, err)
			}
		}
		l, err := st.Join(t.Context(), "m", "busy", b)
		if err != nil {
			t.Fatal(err)
		}
		waiting := make(chan error)
		go func() { waiting <- use("busy", b, a) }()
		time.Sleep(6 * time.Second) // the grace is over
		if a.held.Load() != 1 {
			t.Errorf("the old model is held %d times, want only by the running request", a.held.Load())
		}
		if err := l.Commit(state(2), false); err != nil {
			t.Fatal(err)
		}
		l.Release()
		if err := <-waiting; !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "replaced") {
			t.Errorf("a request that waited: %v", err)
		}
		if err := use("idle", b, a); !errors.Is(err, ErrGone) || !strings.Contains(err.Error(), "replaced") {
			t.Errorf("after the grace: %v", err)
		}
		if a.held.Load() != 0 {
			t.Errorf("the old model is held %d times", a.held.Load())
		}

		start(t, st, "s", b, 1)
		st.Replace("m", "c")
		time.Sleep(5 * time.Second)
		b2 := &owner{digest: "b"} // the same artifact, loaded again
		st.Replace("m", "b")
		time.Sleep(20 * time.Second)
		if err := use("s", b2, b2); err != nil {
			t.Errorf("its artifact came back: %v", err)
		}
		if b.held.Load() != 0 || b2.held.Load() != 1 {
			t.Errorf("held %d and %d times", b.held.Load(), b2.held.Load())
		}
		st.Replace("m", "") // removed
		time.Sleep(11 * time.Second)
		if n, _ := st.Usage(); n != 0 {
			t.Errorf("%d sessions of a model that was removed", n)
		}
	})
}

// Requests of one session work one at a time, in the order in which they came; who goes away makes room.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := &owner{digest: "a"}
		st := New(Config{Waiting: 5})
		defer st.Close()
		start(t, st, "s", o, 0)
		first, err := st.Join(t.Context(), "m", "s", o)
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		var wg sync.WaitGroup
		left, cancel := context.WithCancel(t.Context())
		for i := range 5 {
			ctx := t.Context()
			if i == 2 {
				ctx = left
			}
			wg.Go(func() {
				l, err := st.Join(ctx, "m", "s", o)
				if i == 2 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("who went away: %v", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i) // only the one whose turn it is writes
				time.Sleep(time.Second)
				if err := l.Commit(state(number(t, l.State())+1), false); err != nil {
					t.Error(err)
				}
				l.Release()
			})
			synctest.Wait()
		}
		if _, err := st.Join(t.Context(), "m", "s", o); !errors.Is(err, ErrFull) {
			t.Errorf("a sixth: %v", err)
		}
		cancel()
		synctest.Wait()
		first.Release()
		wg.Wait()
		if fmt.Sprint(order) != "[0 1 3 4]" {
			t.Errorf("order %v", order)
		}
		l, err := st.Join(t.Context(), "m", "s", o)
		if err != nil || number(t, l.State()) != 4 {
			t.Errorf("state %v %v", l.State(), err)
		}
		l.Release()
	})
}

// Whatever happens at once, nothing is lost or held too long.
func TestStorm(t *testing.T) {
	owners := []*owner{{digest: "a"}, {digest: "b"}, {digest: "c"}}
	st := New(Config{Max: 8, TTL: 2 * time.Millisecond, Grace: time.Millisecond, Waiting: 2})
	var wg sync.WaitGroup
	var active atomic.Int64
	for g := range 8 {
		wg.Go(func() {
			for i := range 500 {
				o := owners[active.Load()]
				id := fmt.Sprint((g*7 + i) % 12)
				var l *Lease
				var err error
				if i%3 == 0 {
					l, err = st.Start("m", id, o, state(0))
				} else {
					l, err = st.Join(t.Context(), "m", id, o)
				}
				if err != nil {
					if !errors.Is(err, ErrGone) && !errors.Is(err, ErrFull) {
						t.Error(err)
					}
					continue
				}
				if i%5 > 0 {
					if err := l.Commit(state(int64(i)), i%11 == 0); err != nil {
						t.Error(err)
					}
				}
				l.Release()
				if i%17 == 0 {
					k := (active.Load() + 1) % 3
					active.Store(k)
					st.Replace("m", owners[k].digest)
				}
			}
		})
	}
	wg.Wait()
	st.Close()
	if n, b := st.Usage(); n != 0 || b != 0 {
		t.Errorf("%d sessions of %d bytes are left", n, b)
	}
	for _, o := range owners {
		if o.held.Load() != 0 {
			t.Errorf("model %s is still held %d times", o.digest, o.held.Load())
		}
	}
}
