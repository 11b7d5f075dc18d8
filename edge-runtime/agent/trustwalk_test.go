package agent

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// version makes trust document version n from the one before it.
func version(t testing.TB, was *trust.Document, change func(*trust.Document)) *trust.Document {
	t.Helper()
	d := *was
	d.Version, d.Issued = was.Version+1, was.Issued.Add(time.Hour)
	d.Keys, d.Revoked = slices.Clone(was.Keys), slices.Clone(was.Revoked)
	if change != nil {
		change(&d)
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	return &d
}

// A device that was provisioned with version 1 meets a channel of version 4: it walks every version, over an expired one and
// two rotations of the root, and stops where the chain is broken.
func TestTrustWalkOverVersions(t *testing.T) {
	rootB := verifytest.NewKey(t, "root B", trust.RoleRoot)
	rootC := verifytest.NewKey(t, "root C", trust.RoleRoot)
	mallory := verifytest.NewKey(t, "mallory", trust.RoleRoot)
	type chain struct {
		docs []*trust.Document
		raw  [][]byte
	}
	// honest: 2 adds root B and raises the threshold, 3 (expired by now) revokes root A for root C, 4 renames nothing but the time.
	honest := func(w *world) chain {
		rootA := w.Keys[trust.RoleRoot]
		d1 := w.Doc
		d2 := version(t, d1, func(d *trust.Document) { d.Keys = append(d.Keys, rootB.Entry()); d.Threshold = 2 })
		d3 := version(t, d2, func(d *trust.Document) {
			d.Keys = append(d.Keys, rootC.Entry())
			d.Revoked = append(d.Revoked, rootA.ID)
			d.Expires = w.Now.Add(-time.Hour)
		})
		d4 := version(t, d3, func(d *trust.Document) { d.Expires = d1.Expires })
		return chain{[]*trust.Document{d1, d2, d3, d4}, [][]byte{
			verifytest.SignTrust(t, d1, rootA), verifytest.SignTrust(t, d2, rootA, rootB),
			verifytest.SignTrust(t, d3, rootA, rootB, rootC), verifytest.SignTrust(t, d4, rootB, rootC)}}
	}
	for _, c := range []struct {
		name  string
		spoil func(w *world, c *chain)
		stops int // the version that the device ends with
		says  string
	}{
		{"every version", nil, 4, ""},
		{"a version is missing", func(_ *world, c *chain) { c.raw[2] = nil }, 2, ""},
		{"a version is skipped", func(_ *world, c *chain) { c.raw[1] = c.raw[2] }, 1, "it does not follow version 1"},
		{"signed by the old threshold only", func(w *world, c *chain) {
			c.raw[2] = verifytest.SignTrust(t, c.docs[2], w.Keys[trust.RoleRoot], rootB)
		}, 2, "1 of the 2 root signatures that its own threshold needs"},
		{"signed by the new threshold only", func(_ *world, c *chain) {
			c.raw[2] = verifytest.SignTrust(t, c.docs[2], rootB, rootC)
		}, 2, "1 of the 2 root signatures that version 2's threshold needs"},
		{"signed by one of the old and one of the new", func(w *world, c *chain) {
			c.raw[2] = verifytest.SignTrust(t, c.docs[2], w.Keys[trust.RoleRoot], rootC)
		}, 2, "1 of the 2"},
		{"signed by strangers", func(_ *world, c *chain) { c.raw[1] = verifytest.SignTrust(t, c.docs[1], mallory, rootC) }, 1, "0 of the 1"},
		{"the roots change hands without the old ones", func(w *world, c *chain) {
			d := version(t, c.docs[0], func(d *trust.Document) { d.Keys = append(d.Keys, mallory.Entry()) })
			c.raw[1] = verifytest.SignTrust(t, d, mallory)
		}, 1, "0 of the 1"},
		{"a revoked root comes back", func(w *world, c *chain) {
			d := version(t, c.docs[2], func(d *trust.Document) { d.Revoked, d.Expires = []string{}, c.docs[0].Expires })
			c.raw[3] = verifytest.SignTrust(t, d, rootB, rootC)
		}, 3, "was revoked and is trusted again"},
		{"a generation is skipped", func(w *world, c *chain) {
			d := version(t, c.docs[0], func(d *trust.Document) { d.Generation = 3 })
			c.raw[1] = verifytest.SignTrust(t, d, w.Keys[trust.RoleRoot])
		}, 1, "generation 3 does not follow 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, m := newWorld(t), newDeviceFS(t)
			d := w.mustBoot(m)
			v1, v2 := w.model("1.0 good"), w.model("2.0 good")
			w.publish(w.change(v1))
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			ch := honest(w)
			if c.spoil != nil {
				c.spoil(w, &ch)
			}
			for i, raw := range ch.raw {
				if i > 0 && raw != nil {
					w.tag(raw, TrustTag(i+1))
				}
			}
			w.Doc = ch.docs[3]
			w.publish(w.change(v2))
			err := d.pollOnce()
			if got := d.Trust().Version; got != c.stops {
				t.Errorf("the device ends with version %d, want %d (%v)", got, c.stops, err)
			}
			if c.stops == 4 {
				if err != nil || d.server.current() != v2.Digest {
					t.Errorf("%v, serving %s", err, d.server.current().Short())
				}
				return
			}
			if verify.ReasonOf(err) == "" || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
			if d.server.current() != v1.Digest {
				t.Error("the device left the model that it had")
			}
		})
	}
}

// The roots open a new generation after the deployer's key was revoked: the device follows it, and the old generation, with
// however high a number, is past.
func TestNewGeneration(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	v1, v2, v3 := w.model("1.0 good"), w.model("2.0 good"), w.model("3.0 good")
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	old, stolen := w.head, w.Keys[trust.RoleDeployer]
	fresh := verifytest.NewKey(t, "deployer 2", trust.RoleDeployer)
	before := w.Doc
	w.Doc = version(t, before, func(d *trust.Document) {
		d.Keys = append(d.Keys, fresh.Entry())
		d.Revoked, d.Generation = append(d.Revoked, stolen.ID), 2
	})
	w.tag(verifytest.SignTrust(t, w.Doc, w.Keys[trust.RoleRoot]), TrustTag(2))
	w.Keys[trust.RoleDeployer] = fresh
	c := w.change(v2)
	c.Generation = 2
	w.publish(c)
	if w.head.Record.Seq != old.Record.Seq+1 || len(w.head.Record.Keep) != 0 {
		t.Fatalf("the first record of the generation: seq %d, keep %v", w.head.Record.Seq, w.head.Record.Keep)
	}
	if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest || d.channel().Generation != 2 {
		t.Fatalf("new generation: %v, serving %s in generation %d", err, d.server.current().Short(), d.channel().Generation)
	}
	// The thief signs on in the closed generation, under the trust document that knew the key.
	now := w.Doc
	w.Doc, w.Keys[trust.RoleDeployer], w.head = before, stolen, old
	for range 3 {
		w.publish(w.change(v3))
	}
	w.Doc = now
	if err := d.pollOnce(); verify.ReasonOf(err) != verify.PastGeneration || d.server.current() != v2.Digest {
		t.Errorf("a record of the closed generation: %v, serving %s", err, d.server.current().Short())
	}
}

// A newer trust document gives the deployer this channel: the device finds it although the record does not verify under the
// one that it has.
func TestTrustWalkForScope(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	scoped := func(channels ...string) func(*trust.Document) {
		return func(d *trust.Document) {
			for i := range d.Keys {
				if d.Keys[i].Role == trust.RoleDeployer {
					d.Keys[i].Scope.Channels = channels
				}
			}
		}
	}
	scoped("staging")(w.Doc)
	d := w.mustBoot(m)
	v1 := w.model("1.0 good")
	next := *w.Doc
	next.Keys = slices.Clone(w.Doc.Keys)
	w.publish(w.change(v1))
	if err := d.pollOnce(); verify.ReasonOf(err) != verify.OutOfScope {
		t.Fatalf("under version 1: %v", err)
	}
	w.Doc = version(t, &next, scoped("staging", "prod"))
	w.tag(w.Trust(), TrustTag(2))
	w.head = nil
	w.publish(w.change(v1))
	if err := d.pollOnce(); err != nil || d.Trust().Version != 2 || d.server.current() != v1.Digest {
		t.Errorf("%v, trust version %d", err, d.Trust().Version)
	}
}
