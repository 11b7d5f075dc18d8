package lock_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/publish/lock"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// plain is an ordinary registry: SwapTag looks first and then sets, and much may happen in between.
type plain struct {
	*registry.Local
	between func(tag string) // called after the look; may be nil
	after   func(tag string) // called when the tag is set; may be nil
}

func (p plain) SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	now, err := p.Resolve(ctx, tag)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return artifact.Descriptor{}, false, err
	}
	if now.Digest != old {
		return artifact.Descriptor{}, false, diag.Wrap(diag.Failure, store.ErrConflict, "set %s", tag)
	}
	if p.between != nil {
		p.between(tag)
	}
	if err := ctx.Err(); err != nil {
		return artifact.Descriptor{}, false, err
	}
	d, err := p.PushManifest(ctx, b, mediaType, tag)
	if p.after != nil {
		p.after(tag)
	}
	return d, false, err
}

type world struct {
	*verifytest.World
	t *testing.T
	p *registry.Local
}

func newWorld(t *testing.T) *world {
	t.Helper()
	s, err := store.Open(t.Context(), t.TempDir(), store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	l := registry.NewLocal(s, "ml/churn")
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{verifytest.New(t), t, l}
}

type signer struct {
	w *world
	k verifytest.Key
}

func (s signer) KeyID() string { return s.k.ID }

func (s signer) Sign(_ context.Context, st *evidence.Statement) ([]byte, error) {
	payload, err := st.Encode()
	if err != nil {
		return nil, err
	}
	return s.k.SignPayload(s.w.t, payload), nil
}

// step reads the channel and publishes a target on top of what is there.
func (w *world) step(p publish.Place, name string) error {
	st, err := publish.Read(w.t.Context(), p, "prod", w.Doc, w.Now)
	if err != nil {
		return err
	}
	if st.Head != nil && st.Head.Manifest.Digest != st.Tag {
		if err := publish.Complete(w.t.Context(), p, st); err != nil {
			return err
		}
	}
	d := artifact.DigestOf([]byte(name))
	rec, err := channel.Next(st.Prev(), w.Change(verifytest.Target(name, d)))
	if err != nil {
		return err
	}
	_, err = publish.Write(w.t.Context(), p, st, rec, [][]byte{w.Release("churn", d), w.SignVSA(d, w.VSA())}, signer{w, w.Keys[trust.RoleDeployer]}, w.Doc, w.Now)
	return err
}

// chain is the verified history, oldest first.
func (w *world) chain() ([]publish.Entry, error) {
	st, err := publish.Read(w.t.Context(), w.p, "prod", w.Doc, w.Now)
	if err != nil {
		return nil, err
	}
	return publish.History(w.t.Context(), w.p, st, w.Doc, w.Now, 0)
}

// Publishers that all start at once, on a registry that offers nothing: one chain with all their records, and nobody fails.
func TestPublishersUnderALock(t *testing.T) {
	all := backends()
	all["file"] = nil
	for name, open := range all {
		for _, n := range []int{2, many(name)} {
			t.Run(fmt.Sprint(name, n), func(t *testing.T) {
				w := newWorld(t)
				var b backend
				dir := t.TempDir()
				if open != nil {
					b = open(t)
				}
				var wg sync.WaitGroup
				for i := range n {
					var reg lock.Register
					if b != nil {
						reg = b(t)
					}
					wg.Go(func() {
						o := lock.Options{Who: fmt.Sprint("publisher ", i), TTL: 5 * time.Minute, Wait: 9 * time.Minute, Poll: 20 * time.Millisecond}
						var h *lock.Held
						var err error
						if reg == nil {
							h, err = lock.File(t.Context(), dir, "prod", o)
						} else {
							h, err = lock.Acquire(t.Context(), reg, o)
						}
						if err != nil {
							t.Error(err)
							return
						}
						if err := w.step(publish.Guarded(plain{Local: w.p, between: func(string) { runtime.Gosched() }}, h), fmt.Sprintf("%d.0", i)); err != nil {
							t.Error(err)
						}
						if err := h.Release(t.Context()); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				es, err := w.chain()
				if err != nil || len(es) != n {
					t.Fatalf("%d records of %d: %v", len(es), n, err)
				}
			})
		}
	}
}

// Without a lock, on a registry that compares: one publisher wins each number, the others are told, and there is no fork.
func TestPublishersOnAComparingRegistry(t *testing.T) {
	w := newWorld(t)
	const n = 20
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = w.step(w.p, fmt.Sprintf("%d.0", i)) })
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
		} else if !errors.Is(err, store.ErrConflict) {
			t.Error(err)
		}
	}
	es, err := w.chain()
	if err != nil || won == 0 || len(es) < won {
		t.Fatalf("%d won, %d records: %v", won, len(es), err)
	}
}

// forked lets two publishers work at once on a registry that offers nothing, in the one order in which reading back sees
// nothing: each looks before the other writes, and each finds its own record. The records that the moving tag showed come back.
func forked(t *testing.T, w *world, guard func() publish.Guard) (shown []*publish.Entry, errs [2]error) {
	t.Helper()
	if err := w.step(w.p, "0.9"); err != nil {
		t.Fatal(err)
	}
	seqTag, tag := channel.SeqTag("prod", 2), channel.Tag("prod")
	looked, firstDone := make(chan struct{}), make(chan struct{})
	secondDone := make(chan struct{})
	look := func() {
		e, err := publish.Read(t.Context(), w.p, "prod", w.Doc, w.Now)
		if err == nil {
			shown = append(shown, e.Head)
		}
	}
	second := plain{Local: w.p, between: func(at string) {
		if at == seqTag {
			close(looked)
			<-firstDone
		}
	}}
	go func() {
		defer close(secondDone)
		p := publish.Place(second)
		if guard != nil {
			p = publish.Guarded(second, guard())
		}
		errs[1] = w.step(p, "1.b")
	}()
	<-looked
	first := plain{Local: w.p, after: func(at string) {
		if at == tag {
			look()
		}
	}}
	p := publish.Place(first)
	if guard != nil {
		p = publish.Guarded(first, guard())
	}
	errs[0] = w.step(p, "1.a")
	close(firstDone)
	<-secondDone
	look()
	return shown, errs
}

// The mutant without a lock, on a registry that delays. A fork comes to be, and nothing stays hidden: the second publisher's own
// move of the tag is refused, `verify` and devices see other bytes at the same number.
func TestForkWithoutALock(t *testing.T) {
	w := newWorld(t)
	shown, errs := forked(t, w, nil)
	if errs[0] != nil {
		t.Fatal(errs[0])
	}
	if !errors.Is(errs[1], store.ErrConflict) {
		t.Fatalf("the second one was not told: %v", errs[1])
	}
	if len(shown) < 1 || shown[0].Record.Target.Version != "1.a" {
		t.Fatalf("shown %+v", shown)
	}
	// The fixed tag holds the second record, the moving tag the first.
	other, err := publish.Record(t.Context(), w.p, "prod", 2, w.Doc, w.Now)
	if err != nil || other.Record.Target.Version != "1.b" {
		t.Fatalf("no fork came to be: %+v %v", other, err)
	}
	if _, err := channel.Follows(&shown[0].Head, &other.Head, false); !errors.Is(err, channel.ErrFork) {
		t.Errorf("a device takes both: %v", err)
	}
	st, err := publish.Read(t.Context(), w.p, "prod", w.Doc, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := publish.Survey(t.Context(), w.p, st, w.Doc, w.Now, 0)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(fmt.Sprint(publish.Faults(lines)), "forked at seq 2") {
		t.Errorf("verify sees nothing: %v", publish.Faults(lines))
	}
}

// A publisher that slept past its lease, between reading back and moving the tag, while another one took the lock: it stops, and
// the next one finds a whole chain.
func TestLostLockMovesNoTag(t *testing.T) {
	for _, at := range []string{channel.SeqTag("prod", 2), channel.Tag("prod")} {
		t.Run(at, func(t *testing.T) {
			w := newWorld(t)
			if err := w.step(w.p, "0.9"); err != nil {
				t.Fatal(err)
			}
			m := &mem{}
			a := take(t, m, lock.Options{Who: "a", Clock: newTicker()})
			var b *lock.Held
			sleepy := &asleep{Held: a, before: at, wake: func() {
				b = take(t, m, lock.Options{Who: "b", Clock: newTicker(), Wait: 2 * time.Minute})
				if err := w.step(publish.Guarded(plain{Local: w.p}, b), "1.b"); err != nil {
					t.Error(err)
				}
			}}
			err := w.step(sleepy.place(plain{Local: w.p}), "1.a")
			if !errors.Is(err, lock.ErrLost) || !strings.Contains(err.Error(), "to b") {
				t.Fatalf("it went on: %v", err)
			}
			es, err := w.chain()
			if err != nil {
				t.Fatal(err)
			}
			if last := es[0].Record.Target.Version; last != "1.b" {
				t.Errorf("the channel is at %s", last)
			}
			if err := w.step(w.p, "2.0"); err != nil {
				t.Error(err)
			}
			if _, err := w.chain(); err != nil {
				t.Error(err)
			}
		})
	}
}

// asleep is a publisher that sleeps right before it asks whether it still holds its lock for one tag.
type asleep struct {
	*lock.Held
	before string
	wake   func()
}

func (a *asleep) place(p publish.Place) publish.Place {
	return &sleepyPlace{publish.Guarded(p, a.Held), a}
}

type sleepyPlace struct {
	publish.Place
	a *asleep
}

func (p *sleepyPlace) SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	if tag == p.a.before {
		p.a.wake()
	}
	return p.Place.SwapTag(ctx, b, mediaType, tag, old)
}

// A guard's deadline bounds the request: what is under way when the lease ends is called off.
func TestDeadlineOfALease(t *testing.T) {
	w := newWorld(t)
	m := &mem{}
	h := take(t, m, lock.Options{Who: "a", TTL: time.Second})
	if err := w.step(publish.Guarded(deadline{plain{Local: w.p}}, h), "1.0"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	if _, err := w.p.Resolve(t.Context(), channel.Tag("prod")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the tag was set: %v", err)
	}
}

// deadline waits for the end of the context, as a request that hangs.
type deadline struct{ plain }

func (d deadline) SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	<-ctx.Done()
	return d.plain.SwapTag(ctx, b, mediaType, tag, old)
}
