package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// What a device makes of keys that the roots revoked, and of digests that they denied: from the moment that the document which
// says so lies where the device looks.

// revoke publishes the next trust document, in which the key of a role is revoked and another one stands in its place.
func (w *world) revoke(t *testing.T, role trust.Role) {
	t.Helper()
	stolen := w.Keys[role]
	fresh := verifytest.NewKey(t, fmt.Sprintf("%s after %s", role, stolen.Name), role)
	w.Doc = version(t, w.Doc, func(d *trust.Document) {
		d.Keys, d.Revoked = append(d.Keys, fresh.Entry()), append(d.Revoked, stolen.ID)
	})
	w.tag(w.Trust(), TrustTag(w.Doc.Version))
	w.Keys[role] = fresh
}

// deny publishes the next trust document, which denies digests.
func (w *world) deny(t *testing.T, ds ...artifact.Digest) {
	t.Helper()
	w.Doc = version(t, w.Doc, func(d *trust.Document) { d.Denied = append(slices.Clone(d.Denied), ds...) })
	w.tag(w.Trust(), TrustTag(w.Doc.Version))
}

// believeOldTrust leaves out the look for a newer trust document before something new is believed.
func believeOldTrust(a *Agent) { a.checks.renew = func(*follower, context.Context) {} }

// The thief of a key goes on after the roots have revoked it. His record names the document that still knew the key; the device
// looks for a newer one before it believes anything new.
func TestRevokedKeys(t *testing.T) {
	for _, c := range []struct {
		name   string
		revoke func(t *testing.T, w *world, evil artifact.Digest)
		reason string
	}{
		{"the deployer's, which signed the record", func(t *testing.T, w *world, _ artifact.Digest) { w.revoke(t, trust.RoleDeployer) }, "revoked"},
		{"the publisher's, which signed the release", func(t *testing.T, w *world, _ artifact.Digest) { w.revoke(t, trust.RolePublisher) }, "revoked"},
		{"the gate's, which signed the verdict", func(t *testing.T, w *world, _ artifact.Digest) { w.revoke(t, trust.RoleGate) }, "revoked"},
		{"no key, but the artifact is denied", func(t *testing.T, w *world, evil artifact.Digest) { w.deny(t, evil) }, "denies"},
		{"in a document that a later one follows", func(t *testing.T, w *world, _ artifact.Digest) {
			w.revoke(t, trust.RoleDeployer)
			w.revoke(t, trust.RoleGate)
		}, "revoked"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, m, d, v1 := on1(t)
				evil := w.model("6.6 evil")
				r, err := channel.Next(w.head, w.change(evil))
				if err != nil {
					t.Fatal(err)
				}
				before := w.head
				w.push(trust.RoleDeployer, r)
				c.revoke(t, w, evil.Digest)
				if open {
					believeOldTrust(d.Agent)
				}
				err = d.pollOnce()
				if open {
					if err != nil || d.server.current() != evil.Digest {
						t.Errorf("without a look at the newer document the attack fails all the same: %v", err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), c.reason) || d.server.current() != v1.Digest {
					t.Errorf("poll: %v, %s serves", err, d.server.current().Short())
				}
				if d.Trust().Version != w.Doc.Version {
					t.Errorf("the device is at version %d of %d", d.Trust().Version, w.Doc.Version)
				}
				verifyJournal(t, w, m, d)
				// Whoever holds the new keys goes on from what the device accepted.
				w.head = lastAccepted(t, d)
				if w.head.Record.Seq == before.Record.Seq {
					w.head = before
				}
				v2 := w.model("2.0 good")
				w.publish(w.change(v2))
				if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
					t.Errorf("under the new keys: %v", err)
				}
			}
		})
	}
}

// A stolen refresher's key can only keep what stands from ending, and not even that once it is revoked.
func TestRevokedRefresher(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, _, d, _ := on1(t)
		was := d.channel().Expires
		r := *w.head.Record
		r.Seq, r.Prev, r.Issued, r.Expires = r.Seq+1, w.head.Bundle, r.Issued.Add(time.Hour), r.Expires.Add(time.Hour)
		w.push(trust.RoleRefresher, &r)
		w.revoke(t, trust.RoleRefresher)
		if open {
			believeOldTrust(d.Agent)
		}
		err := d.pollOnce()
		longer := d.channel().Expires.After(was)
		switch {
		case open && (err != nil || !longer):
			t.Errorf("without a look at the newer document the record is not extended all the same: %v", err)
		case !open && (err == nil || !strings.Contains(err.Error(), "revoked") || longer):
			t.Errorf("extended %v: %v", longer, err)
		}
	}
}

// A document that cannot be used holds nobody up: not one that strangers signed, not one that is cut off. Who can put it there
// could as well withhold the real one.
func TestPlantedTrustDocument(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, w *world){
		"signed by strangers": func(t *testing.T, w *world) {
			d := version(t, w.Doc, func(d *trust.Document) { d.Revoked = append(d.Revoked, w.Keys[trust.RoleDeployer].ID) })
			w.tag(verifytest.SignTrust(t, d, verifytest.NewKey(t, "mallory", trust.RoleRoot)), TrustTag(2))
		},
		"cut off": func(t *testing.T, w *world) {
			raw := verifytest.SignTrust(t, version(t, w.Doc, nil), w.Keys[trust.RoleRoot])
			w.tag(raw[:len(raw)/2], TrustTag(2))
		},
		"nothing behind its tag": func(_ *testing.T, w *world) { w.reg.tags[TrustTag(2)] = artifact.DigestOf([]byte("nothing")) },
	} {
		t.Run(name, func(t *testing.T) {
			w, _, d, _ := on1(t)
			plant(t, w)
			v2 := w.model("2.0 good")
			w.publish(w.change(v2))
			if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest || d.Trust().Version != 1 {
				t.Errorf("%v, %s serves under version %d", err, d.server.current().Short(), d.Trust().Version)
			}
		})
	}
}

// What runs goes on running when a key of its evidence is revoked, over restarts, and can be gone back to: it passed here when
// the key was good, and a device must not stop for a document. What must go is denied by its digest, or by the epoch floor.
func TestRevokedKeyOfWhatRuns(t *testing.T) {
	w, m, d, v1 := on1(t)
	v2, v3 := w.model("2.0 good"), w.model("3.0 good")
	w.publish(w.change(v2))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	for _, role := range []trust.Role{trust.RolePublisher, trust.RoleGate, trust.RoleDeployer} {
		w.revoke(t, role)
	}
	w.publish(w.change(v3))
	if err := d.pollOnce(); err != nil || d.server.current() != v3.Digest || d.Trust().Version != 4 {
		t.Fatalf("%v, %s serves under version %d", err, d.server.current().Short(), d.Trust().Version)
	}
	if _, err := d.Rollback(t.Context(), "prod", v2.Digest); err != nil || d.server.current() != v2.Digest {
		t.Fatalf("back to what the revoked keys released: %v", err)
	}
	d = w.mustBoot(m)
	if d.server.current() != v2.Digest {
		t.Errorf("after a restart %s serves", d.server.current().Short())
	}
	w.deny(t, v1.Digest, v2.Digest)
	w.publish(w.change(w.model("4.0 good")))
	if err := d.pollOnce(); err != nil {
		t.Fatal(err)
	}
	for _, gone := range []artifact.Digest{v1.Digest, v2.Digest} {
		if _, err := d.Rollback(t.Context(), "prod", gone); err == nil {
			t.Errorf("back to %s, which is denied", gone.Short())
		}
	}
}

// A person at the device, or whoever reached the socket, orders a rollback to what must not serve any more. Each row tells the
// check that refuses, and leaves it out.
func TestRollbackByHandAttacks(t *testing.T) {
	floor := func(t *testing.T, d *device, edit func(c *state.Channel)) {
		t.Helper()
		if err := d.Store.Update(func(s *state.Doc) error { edit(s.Channel("prod")); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name    string
		stage   func(t *testing.T, w *world, d *device, v1 channel.Target) artifact.Digest // gives what is asked for
		reason  string
		without func(t *testing.T, d *device, to artifact.Digest)
	}{
		{"a denied digest", func(t *testing.T, w *world, d *device, v1 channel.Target) artifact.Digest {
			w.deny(t, v1.Digest)
			w.publish(w.change(w.model("3.0 good")))
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			return v1.Digest
		}, "denies", func(_ *testing.T, d *device, _ artifact.Digest) {
			d.checks.denied = func(*trust.Document, artifact.Digest) bool { return false }
		}},
		{"below the security floor", func(t *testing.T, w *world, d *device, v1 channel.Target) artifact.Digest {
			ch := w.change(w.model("3.0 good"))
			ch.Target.Epoch, ch.EpochFloor = 2, 2
			w.publish(ch)
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			return v1.Digest
		}, "security floor", func(t *testing.T, d *device, _ artifact.Digest) {
			floor(t, d, func(c *state.Channel) { c.EpochFloor = 0 })
		}},
		{"what failed its trial", func(t *testing.T, w *world, d *device, _ channel.Target) artifact.Digest {
			bad := w.model("3.0 failing")
			w.publish(w.change(bad))
			if err := d.pollOnce(); err == nil {
				t.Fatal("it was committed")
			}
			if _, err := d.followers[0].fetch(t.Context(), w.head.Record, slotOf(bad, w.head.Record.Seq)); err != nil {
				t.Fatal(err) // its files are here all the same
			}
			return bad.Digest
		}, "never committed", func(t *testing.T, d *device, to artifact.Digest) {
			floor(t, d, func(c *state.Channel) {
				c.Kept = append(c.Kept, state.Slot{Digest: to, Name: "churn", Committed: d.clock.Now()})
			})
		}},
		{"what a record names and nobody ever verified", func(_ *testing.T, w *world, d *device, _ channel.Target) artifact.Digest {
			evil := w.model("6.6 evil")
			for _, raw := range w.reg.blobs {
				if _, err := d.blobs.Put(context.Background(), raw); err != nil {
					w.t.Fatal(err)
				}
			}
			return evil.Digest
		}, "never committed", func(t *testing.T, d *device, to artifact.Digest) {
			floor(t, d, func(c *state.Channel) {
				c.Kept = append(c.Kept, state.Slot{Digest: to, Name: "churn", Committed: d.clock.Now()})
			})
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, m, d, v1 := on1(t)
				w.publish(w.change(w.model("2.0 good")))
				if err := d.pollOnce(); err != nil {
					t.Fatal(err)
				}
				to := c.stage(t, w, d, v1)
				serving := d.server.current()
				if open {
					c.without(t, d, to)
				}
				_, err := d.Rollback(t.Context(), "prod", to)
				switch {
				case open && (err != nil || d.server.current() != to):
					t.Errorf("without the check the rollback fails all the same: %v", err)
				case !open && (err == nil || !strings.Contains(err.Error(), c.reason) || d.server.current() != serving || d.channel().Intent != nil):
					t.Errorf("%v, %s serves", err, d.server.current().Short())
				}
				if !open {
					verifyJournal(t, w, m, d)
				}
			}
		})
	}
}

// A rollback that a restart interrupted goes to what has been denied meanwhile, by a document that came with a new provisioning
// file: it is not carried through.
func TestInterruptedRollbackToDenied(t *testing.T) {
	for _, denied := range []bool{false, true} {
		w, m, d, v1 := on1(t)
		v2 := w.model("2.0 good")
		w.publish(w.change(v2))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		err := d.Store.Update(func(s *state.Doc) error {
			c := s.Channel("prod")
			c.Intent = &state.Intent{Kind: state.Rollback, Step: state.Staged, Candidate: *c.Previous, Target: c.Current, Generation: c.Generation, Seq: c.Seq, Started: d.clock.Now(), Reason: "by hand"}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := v1.Digest
		if denied {
			w.deny(t, v1.Digest)
			want = v2.Digest
		}
		d = w.mustBoot(m)
		if d.server.current() != want || d.channel().Intent != nil {
			t.Errorf("denied %v: %s serves, intent %+v", denied, d.server.current().Short(), d.channel().Intent)
		}
		verifyJournal(t, w, m, d)
	}
}
