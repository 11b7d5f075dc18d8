package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// line is one of several channels of a device: its publisher and its registry.
type line struct {
	*world
	channel, name string
}

// lines gives n channels c1 ... cn with the models m1 ... mn, each in a registry of its own, and what follows them.
func lines(t testing.TB, n int) (*world, []*line, func(*Config)) {
	t.Helper()
	base := newWorld(t)
	var ls []*line
	for i := range n {
		w := *base
		w.reg = newRegistry()
		ls = append(ls, &line{world: &w, channel: fmt.Sprintf("c%d", i+1), name: fmt.Sprintf("m%d", i+1)})
	}
	return base, ls, func(c *Config) {
		proto := c.Channels[0]
		c.Channels = nil
		for _, l := range ls {
			ch := proto
			ch.Name, ch.Model, ch.ResourceURI, ch.Carrier = l.channel, l.name, "waybill:ml/"+l.name, l.reg
			c.Channels = append(c.Channels, ch)
		}
	}
}

// publish makes the line's next record, whose target is an artifact with the module text.
func (l *line) publish(text string) channel.Target {
	l.t.Helper()
	target := l.model(text)
	target.Name, target.Repo = l.name, "ml/"+l.name
	vsa := l.VSA()
	vsa.ResourceURI = "waybill:ml/" + l.name
	vsa.Waybill.Basis = evidence.Basis{Channel: l.channel}
	if l.head != nil {
		vsa.Waybill.Basis = evidence.Basis{Channel: l.channel, Seq: l.head.Record.Seq, Champion: l.head.Record.Target.Digest}
	}
	rel := l.Release(l.name, target.Digest)
	verdict := l.Keys[trust.RoleGate].Sign(l.t, evidence.TypeVSA, l.name, target.Digest, vsa)
	l.reg.put(rel)
	l.reg.put(verdict)
	c := l.Change(target)
	c.Channel = l.channel
	c.Evidence = []channel.EvidenceRef{verifytest.Ref(evidence.TypeRelease, target.Digest, rel), verifytest.Ref(evidence.TypeVSA, target.Digest, verdict)}
	l.world.publish(c)
	return target
}

func (d *device) look(name string) error { return d.follower(name).look(context.Background(), true) }

func (s *fakeServer) serving(name string) artifact.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.names[name]
}

// An update, a failed one and a rollback of one channel change nothing of the others: neither what serves nor their state.
func TestChannelsAreApart(t *testing.T) {
	base, ls, edit := lines(t, 5)
	m := newDeviceFS(t)
	d := base.mustBoot(m, edit)
	for i, l := range ls {
		text := fmt.Sprintf("1.0 good %d", i)
		if i == 4 {
			text = "1.0 good 3" // the same artifact as the channel before
		}
		l.publish(text)
		if err := d.look(l.channel); err != nil {
			t.Fatalf("%s: %v", l.channel, err)
		}
	}
	snapshot := func(but string) string {
		var b strings.Builder
		doc := d.Store.Doc()
		for _, l := range ls {
			if l.channel != but {
				c := doc.Channel(l.channel)
				fmt.Fprintln(&b, l.channel, d.server.serving(l.name), *c.Current, c.Previous, c.Kept, c.Seq, c.Tag)
			}
		}
		return b.String()
	}
	for i, l := range ls {
		before := snapshot(l.channel)
		for n := range 7 { // enough for a sweep to take the oldest
			l.publish(fmt.Sprintf("%d.0 good of %s", n+2, l.channel))
			if err := d.look(l.channel); err != nil {
				t.Fatal(err)
			}
		}
		good := d.server.serving(l.name)
		l.publish(fmt.Sprintf("9.0 wrong %d", i))
		if err := d.look(l.channel); err == nil || d.server.serving(l.name) != good {
			t.Fatalf("a bad update: %v", err)
		}
		if _, err := d.Rollback(t.Context(), l.channel, ""); err != nil {
			t.Fatal(err)
		}
		if after := snapshot(l.channel); after != before {
			t.Errorf("%s changed others:\n%s\n%s", l.channel, before, after)
		}
	}
	// Every artifact that any channel may go back to is whole, and all of it serves again after a restart.
	for _, again := range []*device{d, base.mustBoot(m, edit)} {
		for _, f := range again.followers {
			c := f.state()
			for _, s := range c.Slots() {
				if _, err := f.checkBlobs(t.Context(), s); err != nil {
					t.Errorf("%s: %s: %v", c.Name, s.Version, err)
				}
			}
			if got := again.server.serving(f.cfg.Model); got != c.Current.Digest {
				t.Errorf("%s serves %s, not %s", c.Name, got.Short(), c.Current.Digest.Short())
			}
		}
	}
	verifyJournal(t, base, m, d)
}

// hanging is a carrier that never answers for blobs: only the end of the context ends a call.
type hanging struct {
	*registry
	once  sync.Once
	asked chan struct{}
}

func (h *hanging) Open(ctx context.Context, d artifact.Descriptor, _ int64) (io.ReadCloser, error) {
	if d.MediaType == artifact.MediaTypeManifest {
		return h.registry.Open(ctx, d, 0)
	}
	h.once.Do(func() { close(h.asked) })
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

// While the carrier of one channel hangs, another one updates, and the hanging one can be rolled back by hand.
func TestHangingCarrier(t *testing.T) {
	base, ls, edit := lines(t, 2)
	m := newDeviceFS(t)
	d := base.mustBoot(m, edit)
	for _, l := range ls {
		l.publish("1.0 good " + l.name)
		l.publish("2.0 good " + l.name)
		for range 2 {
			if err := d.look(l.channel); err != nil {
				t.Fatal(err)
			}
		}
	}
	h := &hanging{registry: ls[0].reg, asked: make(chan struct{})}
	d.followers[0].places = placesOf(h)
	ls[0].publish("3.0 good m1")
	v1 := d.server.serving("m1")
	done := make(chan error, 1)
	go func() { done <- d.look("c1") }()
	<-h.asked
	v3 := ls[1].publish("3.0 good m2")
	if err := d.look("c2"); err != nil || d.server.serving("m2") != v3.Digest {
		t.Fatalf("the other channel: %v", err)
	}
	if _, err := d.Rollback(t.Context(), "c1", v1); err == nil || !strings.Contains(err.Error(), "is what runs") {
		t.Fatalf("rollback while the carrier hangs: %v", err)
	}
	if err := <-done; err == nil {
		t.Error("the hanging poll succeeded")
	}
	if d.server.serving("m1") != v1 || d.Store.Doc().Channel("c1").Intent != nil {
		t.Error("half a state is left")
	}
}

// Two channels that want the same bytes at once: one fetches, the other one waits, and goes its own way when that hangs.
func TestSameDigestAtOnce(t *testing.T) {
	base, ls, edit := lines(t, 2)
	m := newDeviceFS(t)
	d := base.mustBoot(m, edit)
	for _, l := range ls {
		l.publish("1.0 same")
	}
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, l := range ls {
		wg.Go(func() { errs[i] = d.look(l.channel) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	if a, b := d.server.serving("m1"), d.server.serving("m2"); a != b || a == "" {
		t.Errorf("serving %s and %s", a.Short(), b.Short())
	}
}

// Downloads of two channels that fit alone and not together: the second one is told, and neither runs the disk full.
func TestRoomForBoth(t *testing.T) {
	base, _, edit := lines(t, 2)
	m := newDeviceFS(t)
	d := base.mustBoot(m, edit, func(c *Config) { c.Reserve = 1 })
	m.SetCapacity(m.Used() + 10000)
	a, b := d.followers[0], d.followers[1]
	big := func(s string, n int64) []artifact.Descriptor {
		return []artifact.Descriptor{{Digest: artifact.DigestOf([]byte(s)), Size: n}}
	}
	if err := a.room(big("a", 6000)); err != nil {
		t.Fatal(err)
	}
	if err := b.room(big("b", 6000)); err == nil || !transient(err) || !strings.Contains(err.Error(), "the download needs 6000 bytes and downloads of other channels 6000 bytes") {
		t.Errorf("both: %v", err)
	}
	b.release()
	a.release()
	if err := b.room(big("b", 6000)); err != nil {
		t.Errorf("alone: %v", err)
	}
}
