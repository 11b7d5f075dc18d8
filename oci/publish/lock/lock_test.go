package lock_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/publish/lock"
)

func moved(err error) bool { return errors.Is(err, lock.ErrMoved) }

// ticker is a clock that goes on when somebody sleeps.
type ticker struct {
	mu      sync.Mutex
	now     time.Time
	onSleep func()
}

func newTicker() *ticker { return &ticker{now: time.Now()} }

func (c *ticker) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *ticker) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.now = c.now.Add(d)
	f := c.onSleep
	c.mu.Unlock()
	if f != nil {
		f()
	}
	return ctx.Err()
}

func take(t *testing.T, r lock.Register, o lock.Options) *lock.Held {
	t.Helper()
	h, err := lock.Acquire(t.Context(), r, o)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The life of a lease on each backend: held, shown, waited for, given back.
func TestLease(t *testing.T) {
	for name, open := range backends() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			clock := newTicker()
			a := take(t, b(t), lock.Options{Who: "ada@ci", What: "publish prod", Clock: clock})
			until, err := a.Still(t.Context())
			if err != nil || !until.After(clock.Now()) || until.Sub(clock.Now()) >= lock.DefaultTTL {
				t.Fatalf("%v %v", until, err)
			}
			var held *lock.HeldError
			if _, err := lock.Acquire(t.Context(), b(t), lock.Options{Who: "bob", Clock: clock}); !errors.As(err, &held) || held.Holder.Who != "ada@ci" || held.Holder.ID != a.ID() {
				t.Fatalf("got %v", err)
			}
			told := ""
			clock.onSleep = sync.OnceFunc(func() {
				if err := a.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
			c := take(t, b(t), lock.Options{Who: "bob", Clock: clock, Wait: time.Minute, Waiting: func(h lock.Holder) { told += h.Who }})
			if told != "ada@ci" {
				t.Errorf("told of %q", told)
			}
			if _, err := a.Still(t.Context()); !errors.Is(err, lock.ErrLost) || !strings.Contains(err.Error(), "bob") {
				t.Errorf("the former holder goes on: %v", err)
			}
			if err := a.Release(t.Context()); err != nil { // which must not take it from the new one
				t.Error(err)
			}
			if _, err := c.Still(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// A holder that died: its lease is over once nobody has seen a change for its length, by the waiter's own clock.
func TestStaleLease(t *testing.T) {
	m := &mem{}
	clock := newTicker()
	dead := take(t, m, lock.Options{Who: "dead", TTL: 30 * time.Second, Clock: newTicker()})
	began := clock.Now()
	h := take(t, m, lock.Options{Who: "next", Clock: clock, Wait: time.Minute})
	if waited := clock.Now().Sub(began); waited < 30*time.Second || waited > 35*time.Second {
		t.Errorf("waited %s", waited)
	}
	if _, err := dead.Still(t.Context()); !errors.Is(err, lock.ErrLost) {
		t.Errorf("the dead one goes on: %v", err)
	}
	// One who renews is never overtaken.
	clock.onSleep = func() {
		if _, err := h.Still(t.Context()); err != nil {
			t.Error(err)
		}
	}
	var held *lock.HeldError
	if _, err := lock.Acquire(t.Context(), m, lock.Options{Who: "third", Clock: clock, Wait: 5 * time.Minute}); !errors.As(err, &held) {
		t.Fatalf("taken from one who lives: %v", err)
	}
}

// A lock of somebody who is known to be gone is taken by naming the very acquisition.
func TestSteal(t *testing.T) {
	m := &mem{}
	a := take(t, m, lock.Options{Who: "a", Clock: newTicker()})
	var held *lock.HeldError
	if _, err := lock.Acquire(t.Context(), m, lock.Options{Who: "b", Clock: newTicker(), Steal: "0123456789abcdef"}); !errors.As(err, &held) {
		t.Fatalf("stolen with another id: %v", err)
	}
	b := take(t, m, lock.Options{Who: "b", Clock: newTicker(), Steal: held.Holder.ID})
	if _, err := a.Still(t.Context()); !errors.Is(err, lock.ErrLost) {
		t.Errorf("%v", err)
	}
	if _, err := b.Still(t.Context()); err != nil {
		t.Error(err)
	}
}

// An answer that was lost and a request that was repeated look like somebody else's doing and are not.
func TestLostAnswers(t *testing.T) {
	m := &mem{}
	m.lose.Store(1)
	h := take(t, m, lock.Options{Who: "a", Clock: newTicker()})
	m.lose.Store(1)
	if _, err := h.Still(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := h.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	take(t, m, lock.Options{Who: "b", Clock: newTicker()})
}

// A value that nobody can read is not free: it is waited for, and then taken.
func TestUnreadableValue(t *testing.T) {
	for _, v := range []string{"", "{}", "garbage", `{"schema":"x"}`, `{"schema":"` + lock.Schema + `","id":"x","ttl":99999999999}`} {
		m := &mem{}
		if _, err := m.Swap(t.Context(), "", []byte(v)); err != nil {
			t.Fatal(err)
		}
		var held *lock.HeldError
		if _, err := lock.Acquire(t.Context(), m, lock.Options{Clock: newTicker()}); !errors.As(err, &held) {
			t.Errorf("%q: %v", v, err)
		}
		take(t, m, lock.Options{Clock: newTicker(), Wait: 11 * time.Minute})
	}
}

// many is how many publishers come at once: git starts a dozen processes for each, and S3 is a program in Python here.
func many(backend string) int {
	if (backend == "git" || backend == "s3") && os.Getenv("WAYBILL_REQUIRE_TOOLS") == "" {
		return 4
	}
	return 20
}

// Twenty at once on the file and on each register: never two at a time, and everybody gets their turn.
func TestTwentyAtOnce(t *testing.T) {
	work := func(t *testing.T, n int, acquire func(lock.Options) (*lock.Held, error)) {
		t.Helper()
		var inside, most, done atomic.Int32
		var wg sync.WaitGroup
		for i := range n {
			wg.Go(func() {
				h, err := acquire(lock.Options{Who: fmt.Sprint(i), TTL: 5 * time.Minute, Wait: 5 * time.Minute, Poll: 10 * time.Millisecond})
				if err != nil {
					t.Error(err)
					return
				}
				if v := inside.Add(1); v > most.Load() {
					most.Store(v)
				}
				if _, err := h.Still(t.Context()); err != nil {
					t.Error(err)
				}
				inside.Add(-1)
				if err := h.Release(t.Context()); err != nil {
					t.Error(err)
				}
				done.Add(1)
			})
		}
		wg.Wait()
		if most.Load() != 1 || done.Load() != int32(n) {
			t.Errorf("%d at once, %d of %d had their turn", most.Load(), done.Load(), n)
		}
	}
	t.Run("file", func(t *testing.T) {
		dir := t.TempDir()
		work(t, 20, func(o lock.Options) (*lock.Held, error) { return lock.File(t.Context(), dir, "prod", o) })
	})
	for name, open := range backends() {
		t.Run(name, func(t *testing.T) {
			b := open(t)
			var mu sync.Mutex
			n := many(name)
			if name == "git" {
				n = min(n, 8) // twenty of them publish in TestPublishersUnderALock
			}
			work(t, n, func(o lock.Options) (*lock.Held, error) {
				mu.Lock()
				r := b(t)
				mu.Unlock()
				return lock.Acquire(t.Context(), r, o)
			})
		})
	}
}

// The file lock holds between processes, tells who has it, and dies with them.
func TestFileBetweenProcesses(t *testing.T) {
	if dir := os.Getenv("WAYBILL_TEST_LOCK_DIR"); dir != "" {
		if _, err := lock.File(t.Context(), dir, "prod", lock.Options{Who: "the other process", What: "test"}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("locked")
		_, _ = io.Copy(io.Discard, os.Stdin) // until it is killed
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFileBetweenProcesses$")
	cmd.Env = append(os.Environ(), "WAYBILL_TEST_LOCK_DIR="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(out)
	for s.Scan() && s.Text() != "locked" {
	}
	var held *lock.HeldError
	if _, err := lock.File(t.Context(), dir, "prod", lock.Options{}); !errors.As(err, &held) || held.Holder.Who != "the other process" {
		t.Errorf("got %v", err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	h, err := lock.File(t.Context(), dir, "prod", lock.Options{Wait: time.Minute})
	if err != nil {
		t.Fatalf("it outlived its process: %v", err)
	}
	if err := h.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	for _, s := range []string{
		"file:/var/lock/waybill", "file:///var/lock", "file:///C:/locks", "file:C:/locks", "registry:", "registry://reg.example:5000/ops/locks",
		"s3://locks", "s3://locks/a/b?region=eu-central-1", "s3://locks/a?endpoint=http://127.0.0.1:9000",
		"git+ssh://git@git.example/ops/locks.git#refs/waybill/locks", "git+https://git.example/locks#refs/x", "git+file:///srv/locks.git#refs/locks",
	} {
		if u, err := lock.Parse(s); err != nil || u.Raw != s || u.Kind == "" {
			t.Errorf("%s: %+v %v", s, u, err)
		}
	}
	for _, s := range []string{
		"", "locks", "file:locks", "file:", "ftp://x/y", "registry:x", "registry://x", "registry://X/UPPER", "s3://", "s3:bucket", "s3://b", "s3://user:pw@locks/x",
		"s3://locks/x?retion=eu", "s3://locks/x?endpoint=minio", "s3://locks/x?region=", "s3://locks/../x y", "git+file:///x", "git+file:///x#main", "git+file:///x#refs/heads/main",
		"git+file:///x#refs/a..b", "git+file:///x#refs/a.lock", "git+ext://sh -c x#refs/l", "git+ssh://-oProxyCommand=x/y#refs/l", "git+https://u:p@h/r#refs/l", "git://h/r#refs/l",
	} {
		if u, err := lock.Parse(s); err == nil {
			t.Errorf("%q is taken for %+v", s, u)
		}
	}
}

func TestName(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range [][2]string{{"ml/churn", "prod"}, {"ml/churn", "canary"}, {"other/churn", "prod"}, {"ml-churn", "prod"}, {"layout", "prod"}, {strings.Repeat("a/", 60) + "b_._c", "x_y-z"}, {"___", "p"}} {
		n := lock.Name(c[0], c[1])
		if seen[n] || len(n) > 110 || strings.ContainsAny(n, "/. ") || strings.HasPrefix(n, "-") {
			t.Errorf("%v: %q", c, n)
		}
		seen[n] = true
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"file:/x", "registry:", "s3://bucket/x?region=y&endpoint=https://e", "git+ssh://git@h/r.git#refs/waybill/locks"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := lock.Parse(s)
		if err != nil {
			return
		}
		if u.Kind == lock.KindGit && (strings.HasPrefix(u.Remote, "-") || strings.HasPrefix(u.Prefix, "-") || !strings.Contains(u.Remote, "://")) {
			t.Errorf("git would take %+v for something else", u)
		}
		if u.Kind == lock.KindFile && u.Path == "" {
			t.Errorf("%q has no folder", s)
		}
	})
}
