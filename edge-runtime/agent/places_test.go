package agent

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// shown is a place of a set: a registry in memory as it was at some time.
type shown struct {
	*registry
	absent bool
	spoil  artifact.Digest // this content is given altered
}

func (s *shown) Heads(ctx context.Context, tag string) ([]artifact.Digest, error) {
	if s.absent {
		return nil, carrier.ErrAbsent
	}
	d, err := s.Resolve(ctx, tag)
	return []artifact.Digest{d}, err
}

func (s *shown) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	if s.absent {
		return nil, carrier.ErrAbsent
	}
	r, err := s.registry.Open(ctx, d, offset)
	if err != nil || d.Digest != s.spoil {
		return r, err
	}
	b, err := io.ReadAll(r)
	if len(b) > 0 {
		b[len(b)/2] ^= 1
	}
	return io.NopCloser(newReader(b)), err
}

func newReader(b []byte) io.Reader { return io.LimitReader(&sliceReader{b}, int64(len(b))) }

type sliceReader struct{ b []byte }

func (s *sliceReader) Read(p []byte) (int, error) {
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

// past is a copy of what the registry shows now.
func (w *world) past() *registry {
	r := newRegistry()
	for k, v := range w.reg.tags {
		r.tags[k] = v
	}
	for k, v := range w.reg.blobs {
		r.blobs[k] = v
	}
	return r
}

func set(places ...*shown) *carrier.Set {
	var named []carrier.Named
	for i, p := range places {
		named = append(named, carrier.Named{Name: string(rune('a' + i)), Place: p})
	}
	return carrier.NewSet(carrier.Options{}, named...)
}

// The newest record that any place shows wins, whoever comes first: a frozen mirror hides nothing, and a stick may be newer than
// the network. Old news are no refusal.
func TestNewestPlaceWins(t *testing.T) {
	w := newWorld(t)
	v1, v2, v3 := w.model("1.0 good"), w.model("2.0 good"), w.model("3.0 good")
	w.publish(w.change(v1))
	frozen := &shown{registry: w.past()}
	w.publish(w.change(v2))
	live := &shown{registry: w.past()}
	stick := &shown{registry: newRegistry(), absent: true}
	d := w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = set(frozen, stick, live) })
	if err := d.followers[0].pollAs(t.Context(), atEase); err != nil || d.server.current() != v2.Digest {
		t.Fatalf("a frozen place first: %v", err)
	}
	opens := frozen.opens
	for range 3 {
		if err := d.followers[0].pollAs(t.Context(), atEase); err != nil || d.server.current() != v2.Digest || d.channel().LastRefusal != nil {
			t.Fatalf("old news: %v, %+v", err, d.channel().LastRefusal)
		}
	}
	if n := frozen.opens - opens; n > 2 {
		t.Errorf("an old record is fetched %d times in three polls", n)
	}
	w.publish(w.change(v3))
	stick.registry, stick.absent = w.past(), false
	if err := d.followers[0].pollAs(t.Context(), atEase); err != nil || d.server.current() != v3.Digest {
		t.Fatalf("a newer stick: %v", err)
	}
	stick.absent = true
	serial := d.Store.Doc().Serial
	for range 3 {
		if err := d.followers[0].pollAs(t.Context(), atEase); err != nil || d.server.current() != v3.Digest || d.channel().Seq != 3 {
			t.Fatalf("after the stick was taken out: %v, %+v", err, d.channel().LastRefusal)
		}
	}
	if n := d.Store.Doc().Serial - serial; n > 2 {
		t.Errorf("a stick that is gone costs %d writes in three polls", n)
	}
}

// Whatever one place alters or withholds, another one brings; who altered it is asked last from then on.
func TestBadPlace(t *testing.T) {
	w := newWorld(t)
	target := w.model("1.0 good")
	head := w.publish(w.change(target))
	for name, victim := range map[string]artifact.Digest{
		"the record's manifest": w.reg.tags[channel.Tag("prod")], "the record": head.Bundle, "evidence": head.Record.Evidence[0].Digest,
		"the manifest": target.Digest, "a layer": artifact.DigestOf([]byte("1.0 good")),
	} {
		for _, how := range []string{"altered", "withheld"} {
			t.Run(name+" "+how, func(t *testing.T) {
				bad, good := &shown{registry: w.past()}, &shown{registry: w.past()}
				if how == "altered" {
					bad.spoil = victim
				} else {
					delete(bad.blobs, victim)
				}
				s := set(bad, good)
				d := w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = s })
				if err := d.followers[0].pollAs(t.Context(), atEase); err != nil || d.server.current() != target.Digest {
					t.Fatalf("the first poll: %v", err)
				}
				i := slices.IndexFunc(s.States(), func(x carrier.State) bool { return x.Name == "a" })
				if x := s.States()[i]; how == "altered" && x.After < 4 {
					t.Errorf("who gave other bytes is put back by %d places: %+v", x.After, x)
				}
			})
		}
	}
	// A place that is alone stays wrong: nothing serves, and nothing but the digests said so.
	alone := &shown{registry: w.past(), spoil: artifact.DigestOf([]byte("1.0 good"))}
	d := w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = set(alone) })
	if err := d.followers[0].pollAs(t.Context(), atEase); err == nil || d.server.current() != "" {
		t.Fatalf("altered bytes serve: %v", err)
	}
}

// A device that has only a stick, which is not there, has no failure.
func TestNoPlaceThere(t *testing.T) {
	w := newWorld(t)
	d := w.mustBoot(newDeviceFS(t), func(c *Config) { c.Channels[0].Carrier = set(&shown{registry: newRegistry(), absent: true}) })
	if err := d.followers[0].pollAs(t.Context(), atEase); err != nil {
		t.Error(err)
	}
	if _, err := d.followers[0].places.Look(t.Context(), "x", false); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
