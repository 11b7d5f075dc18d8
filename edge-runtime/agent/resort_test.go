package agent

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// dies tells whether do ended the process, which panics stand for.
func dies(do func()) (died bool) {
	defer func() { died = recover() != nil }()
	do()
	return false
}

// killers panics while one of the victims is loaded, and counts loads of them.
type killers struct {
	*fakeRuntime
	mu      sync.Mutex
	victims map[artifact.Digest]bool
	loads   map[artifact.Digest]int
	onLoad  func(artifact.Digest) error // in place of the panic
}

func newKillers(victims ...artifact.Digest) *killers {
	k := &killers{fakeRuntime: &fakeRuntime{}, victims: map[artifact.Digest]bool{}, loads: map[artifact.Digest]int{}}
	for _, v := range victims {
		k.victims[v] = true
	}
	return k
}

func (k *killers) Load(ctx context.Context, b Bundle) (Model, error) {
	k.mu.Lock()
	kill := k.victims[b.Slot.Digest]
	k.loads[b.Slot.Digest]++
	k.mu.Unlock()
	if kill && k.onLoad == nil {
		panic("the process dies here")
	}
	if kill {
		if err := k.onLoad(b.Slot.Digest); err != nil {
			return nil, err
		}
	}
	return k.fakeRuntime.Load(ctx, b)
}

// alone is a device that has committed one artifact and nothing else.
func alone(t *testing.T) (*world, *fsx.Mem, artifact.Digest) {
	t.Helper()
	w, m := newWorld(t), newDeviceFS(t)
	v1 := w.model("1.0 good")
	w.publish(w.change(v1))
	if err := w.mustBoot(m).pollOnce(); err != nil {
		t.Fatal(err)
	}
	return w, m, v1.Digest
}

// dieTimes has the process die n times while it starts.
func dieTimes(t *testing.T, w *world, m *fsx.Mem, n int, victims ...artifact.Digest) {
	t.Helper()
	w.runtime = newKillers(victims...)
	for i := range n {
		if !dies(func() { _, _ = w.boot(m, w.reg) }) {
			t.Fatalf("start %d did not load it", i+1)
		}
	}
	w.runtime = nil
}

// Three power cuts in the middle of starts look like an artifact that kills. The only one that a device has serves all the same,
// in the start itself, without a network and without a poll.
func TestOnlyArtifactServes(t *testing.T) {
	for deaths := range 4 {
		w, m, v1 := alone(t)
		w.reg.down = true
		dieTimes(t, w, m, deaths, v1)
		d, err := w.boot(m, w.reg)
		if err != nil || d.server.current() != v1 {
			t.Fatalf("after %d deaths: %v, %q serves", deaths, err, d.server.current())
		}
		if flagged := strings.Contains(kinds(t, d), KindAlarm); flagged != (deaths == 3) {
			t.Errorf("after %d deaths: journal %s", deaths, kinds(t, d))
		}
		if c := d.channel(); len(c.Loading) != 0 && deaths > 1 {
			t.Errorf("after %d deaths it counts still: %v", deaths, c.Loading)
		}
		verifyJournal(t, w, m, d)
		// What is over is over: the next start is like any other.
		if again := w.mustBoot(m); again.server.current() != v1 {
			t.Errorf("after %d deaths and a good start it does not serve", deaths)
		}
	}
}

// A device that has something else does not load what killed it.
func TestKillerGivesWay(t *testing.T) {
	w, m, v1 := alone(t)
	v2 := w.model("2.0 good")
	w.publish(w.change(v2))
	if err := w.mustBoot(m).pollOnce(); err != nil {
		t.Fatal(err)
	}
	w.reg.down = true
	dieTimes(t, w, m, 3, v2.Digest)
	k := newKillers(v2.Digest)
	w.runtime = k
	d := w.mustBoot(m)
	if d.server.current() != v1 || k.loads[v2.Digest] != 0 {
		t.Errorf("%q serves, the other was loaded %d times", d.server.current(), k.loads[v2.Digest])
	}
	// Both kill: the one with fewer deaths comes first.
	w.runtime = nil
	dieTimes(t, w, m, 3, v1)
	d = w.mustBoot(m)
	if d.server.current() != v1 {
		t.Errorf("%q serves", d.server.current())
	}
}

// A killer in one channel is not held against what another channel loads before it.
func TestKillerOfAnotherChannel(t *testing.T) {
	base, ls, edit := lines(t, 2)
	m := newDeviceFS(t)
	d := base.mustBoot(m, edit)
	for _, l := range ls {
		for _, v := range []string{"1.0 good ", "2.0 good "} {
			l.publish(v + l.name)
			if err := d.look(l.channel); err != nil {
				t.Fatal(err)
			}
		}
	}
	good, killer := d.Store.Doc().Channel("c1").Current.Digest, d.Store.Doc().Channel("c2").Current.Digest
	for n := 1; ; n++ {
		base.runtime = newKillers(killer)
		var again *device
		if dies(func() { again = base.mustBoot(m, edit) }) {
			if n > 3 {
				t.Fatalf("%d deaths", n)
			}
			continue
		}
		if got := again.server.serving("m1"); got != good {
			t.Errorf("channel 1 left its artifact for the death of another: %q", got)
		}
		if got := again.server.serving("m2"); got == killer || got == "" {
			t.Errorf("channel 2 serves %q", got)
		}
		return
	}
}

// What the channel has come by since is asked for before the killer is loaded again, in the start and in every later poll.
func TestRecordRescues(t *testing.T) {
	for _, deaths := range []int{3, 4, 6} {
		synctest.Test(t, func(t *testing.T) {
			w, m, v1 := alone(t)
			w.reg.down = true
			for n := range deaths {
				if n > 3 { // later ones wait for their time
					c := w.dieLater(t, m, v1)
					m = c
					continue
				}
				dieTimes(t, w, m, 1, v1)
			}
			w.reg.down = false
			v2 := w.model("2.0 good")
			w.publish(w.change(v2))
			k := newKillers(v1)
			w.runtime = k
			if deaths == 3 && !dies(func() { // without the look
				_, _ = w.boot(m.CrashClone(100, nil), w.reg, func(c *Config) { c.LookFirst = -1 })
			}) {
				t.Error("the killer is not loaded when nobody looks at the channel: the test proves nothing")
			}
			clear(k.loads)
			d, err := w.boot(m, w.reg)
			if err == nil || d.server.current() != "" {
				t.Fatalf("%v, %q serves", err, d.server.current())
			}
			start := time.Now()
			stop := d.loops(t)
			defer stop()
			for d.server.current() == "" && time.Since(start) < time.Hour {
				time.Sleep(time.Millisecond)
			}
			if took := time.Since(start); d.server.current() != v2.Digest || k.loads[v1] != 0 || took > time.Second {
				t.Errorf("after %d deaths: %q serves after %s, the killer was loaded %d times", deaths, d.server.current(), took, k.loads[v1])
			}
		})
	}
}

// loops runs the agent's loops until stop.
func (d *device) loops(t *testing.T) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	return func() {
		cancel()
		<-done
	}
}

// dieLater runs a device until it loads victim, and gives its disk as a power cut at that moment leaves it.
func (w *world) dieLater(t *testing.T, m *fsx.Mem, victim artifact.Digest) (left *fsx.Mem) {
	t.Helper()
	k := newKillers(victim)
	died := make(chan *fsx.Mem, 1)
	k.onLoad = func(artifact.Digest) error {
		died <- m.CrashClone(0, rand.New(rand.NewPCG(1, 1)))
		return errors.New("dead")
	}
	w.runtime = k
	defer func() { w.runtime = nil }()
	d, _ := w.boot(m, w.reg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	defer func() {
		cancel()
		<-done
	}()
	select {
	case left = <-died:
	case <-time.After(time.Hour):
		t.Fatal("it is never loaded again")
	}
	return left
}

// A killer that nothing replaces is loaded again and again, later and later up to a bound, over restarts and whatever the clock on
// the wall says; once it no longer kills, it serves.
func TestKillerIsTriedLaterAndLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, v1 := alone(t)
		w.reg.down = true
		dieTimes(t, w, m, 4, v1)
		now := w.Now
		var waits []time.Duration
		for n := range 14 {
			w.Now = now.AddDate([]int{0, 50, -50}[n%3], 0, 0)
			start := time.Now()
			m = w.dieLater(t, m, v1)
			waits = append(waits, time.Since(start))
		}
		w.Now = now
		for i, got := range waits {
			want := min(5*time.Second<<i, 15*time.Minute)
			if got < want*3/4 || got > want*5/4 {
				t.Errorf("death %d: loaded %s after the start, want %s", i+1, got, want)
			}
		}
		t.Logf("waits %v", waits)
		d, err := w.boot(m, w.reg)
		if err == nil || !strings.Contains(err.Error(), "is loaded again in") {
			t.Errorf("start: %v", err)
		}
		stop := d.loops(t)
		defer stop()
		time.Sleep(20 * time.Minute)
		if d.server.current() != v1 || len(d.channel().Loading) != 0 {
			t.Errorf("%q serves, %v", d.server.current(), d.channel().Loading)
		}
	})
}

// While it waits nobody else loads it either: neither a rollback by hand nor a record that names it; a person who wants it now does.
func TestHeldIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, v1 := alone(t)
		dieTimes(t, w, m, 4, v1)
		k := newKillers(v1)
		w.runtime = k
		d, _ := w.boot(m, w.reg)
		if _, err := d.Rollback(t.Context(), "", ""); !errors.Is(err, ErrNoTarget) {
			t.Errorf("rollback: %v", err)
		}
		for range 3 {
			if err := d.pollOnce(); err == nil || !strings.Contains(err.Error(), "loaded again in") || ofPoll(err) != nil {
				t.Errorf("poll: %v", err)
			}
		}
		if s := d.Status().Channels[0]; s.Deadly[v1] != 4 || !s.AgainAt.After(w.Now) {
			t.Errorf("status: %v, again %s", s.Deadly, s.AgainAt)
		}
		if k.loads[v1] != 0 {
			t.Errorf("it was loaded %d times", k.loads[v1])
		}
		delete(k.victims, v1)
		if err := d.followers[0].pollAs(t.Context(), urgent); err != nil || d.server.current() != v1 {
			t.Errorf("now: %v", err)
		}
		if s := d.Status().Channels[0]; s.Deadly != nil || !s.AgainAt.IsZero() {
			t.Errorf("status of what serves: %v, again %s", s.Deadly, s.AgainAt)
		}
	})
}

// mute is a carrier that never answers, and takes no notice when it is told to stop.
type mute struct {
	*registry
	gone chan struct{}
}

func (c mute) Resolve(context.Context, string) (artifact.Digest, error) {
	<-c.gone
	return "", errors.New("gone")
}

// A carrier that hangs costs five seconds, and the only artifact serves.
func TestLastResortBesideAHangingCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, v1 := alone(t)
		w.reg.down = true
		dieTimes(t, w, m, 3, v1)
		c := mute{w.reg, make(chan struct{})}
		defer close(c.gone)
		start := time.Now()
		d, err := w.boot(m, w.reg, func(cfg *Config) { cfg.Channels[0].Carrier = c })
		if took := time.Since(start); err != nil || d.server.current() != v1 || took != 5*time.Second {
			t.Errorf("%v after %s", err, took)
		}
	})
}

// dripping gives one blob a byte a second.
type dripping struct {
	*registry
	of artifact.Digest
}

func (c dripping) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r, err := c.registry.Open(ctx, d, offset)
	if err != nil || d.Digest != c.of {
		return r, err
	}
	return &drops{r, ctx}, nil
}

type drops struct {
	io.ReadCloser
	ctx context.Context
}

func (r *drops) Read(p []byte) (int, error) {
	select {
	case <-time.After(time.Second):
		return r.ReadCloser.Read(p[:1])
	case <-r.ctx.Done():
		return 0, r.ctx.Err()
	}
}

// A rescue that takes long to download does not keep the device from serving: after five minutes the held artifact is loaded, and
// the download goes on.
func TestSlowRescue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, m, v1 := alone(t)
		dieTimes(t, w, m, 2, v1)
		text := "2.0 good " + strings.Repeat("x", 600) // ten minutes
		v2 := w.model(text)
		w.publish(w.change(v2))
		c := dripping{w.reg, artifact.DigestOf([]byte(text))}
		slow := func(cfg *Config) { cfg.Channels[0].Carrier = c }
		if !dies(func() { w.runtime = newKillers(v1); _, _ = w.boot(m, w.reg, slow) }) {
			t.Fatal("no death")
		}
		w.runtime = nil
		d, err := w.boot(m, w.reg, slow)
		if err == nil {
			t.Fatal("it was loaded before the channel's")
		}
		stop := d.loops(t)
		defer stop()
		time.Sleep(rescueTime - time.Second)
		if got := d.server.current(); got != "" {
			t.Errorf("%q serves", got)
		}
		time.Sleep(2 * time.Second)
		if got := d.server.current(); got != v1 {
			t.Errorf("after five minutes %q serves", got)
		}
		time.Sleep(15 * time.Minute)
		if got := d.server.current(); got != v2.Digest {
			t.Errorf("in the end %q serves: %v", got, d.channel().LastRefusal)
		}
	})
}

// A held artifact whose load ends with an error is broken, no killer: it is fetched anew at once.
func TestHeldAndBroken(t *testing.T) {
	w, m, v1 := alone(t)
	dieTimes(t, w, m, 3, v1)
	if err := fsx.WriteFileAtomic(m, stateDir+"/blobs/sha256/"+artifact.DigestOf([]byte("1.0 good")).Hex(), []byte("1.0 evil"), 0o400); err != nil {
		t.Fatal(err)
	}
	d, err := w.boot(m, w.reg)
	if err == nil || d.server.current() != "" || len(d.channel().Loading) != 0 {
		t.Fatalf("%v, %+v", err, d.channel().Loading)
	}
	if err := d.pollOnce(); err != nil || d.server.current() != v1 {
		t.Errorf("fetched anew: %v", err)
	}
}
