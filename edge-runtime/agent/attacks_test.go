package agent

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// attack is one row of the threat table: what the attacker puts into the registry of a device that runs v1 at seq 2, the
// reason with which it is refused, and the check without which it succeeds.
type attack struct {
	name    string
	stage   func(w *world, d *device, evil channel.Target)
	reason  string
	without func(a *Agent)
}

// forged parses a record without looking at its signature.
func forged(raw []byte, _ *trust.Document, _ time.Time) (*channel.Record, *verify.Evidence, error) {
	r, err := parseAccepted(raw)
	return r, &verify.Evidence{Role: trust.RoleDeployer}, err
}

func attackTable(t *testing.T) []attack {
	noFollows := func(a *Agent) {
		a.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
			return channel.Step{Kind: channel.Update}, nil
		}
	}
	noRecord := func(a *Agent) { a.checks.record = forged }
	noAdmit := func(a *Agent) { a.checks.admit = func(*channel.Record, time.Time, channel.Device) error { return nil } }
	noBundle := func(a *Agent) {
		a.checks.bundle = func([]byte, *trust.Document, verify.Want) (*verify.Evidence, error) { return nil, nil }
	}
	noVSA := func(a *Agent) {
		a.checks.vsa = func([]byte, *trust.Document, verify.VSAWant) (*evidence.VSA, *verify.Evidence, error) {
			return nil, nil, nil
		}
	}
	// next is a well-formed record for the target at the next seq, to be spoiled.
	next := func(w *world, c channel.Change) *channel.Record {
		r, err := channel.Next(w.head, c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	// pinned publishes a record whose evidence of one type is replaced.
	pinned := func(w *world, c channel.Change, typ string, bundle []byte) {
		w.reg.put(bundle)
		for i, e := range c.Evidence {
			if e.PredicateType == typ {
				c.Evidence[i] = verifytest.Ref(typ, e.Subject, bundle)
			}
		}
		w.push(trust.RoleDeployer, next(w, c))
	}
	verdict := func(edit func(v *evidence.VSA)) func(*world, *device, channel.Target) {
		return func(w *world, _ *device, evil channel.Target) {
			v := w.VSA()
			v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: w.head.Record.Seq, Champion: w.head.Record.Target.Digest}
			edit(v)
			pinned(w, w.change(evil), evidence.TypeVSA, w.SignVSA(evil.Digest, v))
		}
	}
	return []attack{
		{"a fork: other bytes at the accepted seq", func(w *world, _ *device, evil channel.Target) {
			r := next(w, w.change(evil))
			r.Seq, r.Prev = w.head.Record.Seq, w.head.Record.Prev
			for i, e := range r.Evidence {
				if e.PredicateType == evidence.TypeVSA { // reached in time for that seq
					v := w.VSA()
					b := w.SignVSA(evil.Digest, v)
					w.reg.put(b)
					r.Evidence[i] = verifytest.Ref(e.PredicateType, evil.Digest, b)
				}
			}
			w.push(trust.RoleDeployer, r)
		}, "other bytes at the same seq", noFollows},
		{"fast-forward: a seq far ahead", func(w *world, _ *device, evil channel.Target) {
			r := next(w, w.change(evil))
			r.Seq += channel.MaxJump + 1
			w.push(trust.RoleDeployer, r)
		}, "seq jumps too far", noFollows},
		{"a refresher's key brings another target", func(w *world, _ *device, evil channel.Target) {
			w.push(trust.RoleRefresher, next(w, w.change(evil)))
		}, "refresher may only extend", noFollows},
		{"a record signed by the publisher", func(w *world, _ *device, evil channel.Target) {
			w.push(trust.RolePublisher, next(w, w.change(evil)))
		}, "wrong-role", noRecord},
		{"a record signed by a stranger", func(w *world, _ *device, evil channel.Target) {
			w.Keys[trust.RoleDeployer] = verifytest.NewKey(t, "mallory", trust.RoleDeployer)
			w.push(trust.RoleDeployer, next(w, w.change(evil)))
		}, "wrong-signer", noRecord},
		{"a record altered after signing", func(w *world, _ *device, evil channel.Target) {
			r := next(w, w.change(evil))
			_, raw := w.SignRecord(trust.RoleDeployer, r)
			r.Target.Version = "6.7"
			_, other := w.SignRecord(trust.RoleDeployer, r)
			var b, o evidence.Bundle
			if json.Unmarshal(raw, &b) != nil || json.Unmarshal(other, &o) != nil {
				t.Fatal("bundle")
			}
			id, err := b.KeyID()
			if err != nil {
				t.Fatal(err)
			}
			mixed, err := evidence.EncodeBundle(id, o.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig)
			if err != nil {
				t.Fatal(err)
			}
			w.tag(mixed, channel.Tag("prod"))
		}, "altered", noRecord},
		{"an expired record", func(w *world, d *device, evil channel.Target) {
			w.push(trust.RoleDeployer, next(w, w.change(evil)))
			d.clock.advance(8 * 24 * time.Hour)
		}, "record has expired", noAdmit},
		{"a clock set back revives an expired record", func(w *world, d *device, evil channel.Target) {
			// The device has seen a signed time after the expiry; then its clock loses days.
			c := w.change(w.model("1.0 good"))
			c.Issued, c.Expires = w.Now.Add(20*24*time.Hour), w.Now.Add(27*24*time.Hour)
			w.publish(c)
			d.clock.advance(20 * 24 * time.Hour)
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			d.clock.advance(-15 * 24 * time.Hour)
			w.push(trust.RoleDeployer, next(w, w.change(evil)))
		}, "record has expired", func(a *Agent) { a.checks.time = func(clock, _ time.Time) time.Time { return clock } }},
		{"a clock set back revives an expired verdict", func(w *world, d *device, evil channel.Target) {
			c := w.change(w.model("1.0 good"))
			c.Issued, c.Expires = w.Now.Add(20*24*time.Hour), w.Now.Add(27*24*time.Hour)
			w.publish(c)
			d.clock.advance(20 * 24 * time.Hour)
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			d.clock.advance(-19 * 24 * time.Hour)
			v := w.VSA()
			v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: w.head.Record.Seq, Champion: w.head.Record.Target.Digest}
			v.Waybill.NotAfter = w.Now.Add(10 * 24 * time.Hour)
			ch := w.change(evil)
			ch.Issued, ch.Expires = w.Now.Add(20*24*time.Hour), w.Now.Add(28*24*time.Hour)
			pinned(w, ch, evidence.TypeVSA, w.SignVSA(evil.Digest, v))
		}, "the verdict was valid until", func(a *Agent) { a.checks.time = func(clock, _ time.Time) time.Time { return clock } }},
		{"a target below the epoch floor", func(w *world, d *device, evil channel.Target) {
			c := w.change(w.model("1.5 good"))
			c.Target.Epoch, c.EpochFloor = 2, 2
			w.publish(c)
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			w.push(trust.RoleDeployer, next(w, w.change(evil)))
		}, "below the security floor", noAdmit},
		{"a release signed by the evaluator", func(w *world, _ *device, evil channel.Target) {
			b := w.Keys[trust.RoleEvaluator].Sign(t, evidence.TypeRelease, "churn", evil.Digest, struct{}{})
			pinned(w, w.change(evil), evidence.TypeRelease, b)
		}, "wrong-role", noBundle},
		{"the release of another digest", func(w *world, _ *device, evil channel.Target) {
			pinned(w, w.change(evil), evidence.TypeRelease, w.Release("churn", w.head.Record.Target.Digest))
		}, "wrong-subject", noBundle},
		{"a verdict for staging", verdict(func(v *evidence.VSA) { v.Waybill.Environment = "staging" }), "environment staging", noVSA},
		{"a verdict for other devices", verdict(func(v *evidence.VSA) { v.Waybill.DeviceClasses = []string{"edge-xl"} }), "device classes edge-xl", noVSA},
		{"a verdict under a policy that is not pinned", verdict(func(v *evidence.VSA) {
			v.Waybill.PolicyDigest = artifact.DigestOf([]byte("lax"))
			v.Policy.Digest = map[string]string{"sha256": v.Waybill.PolicyDigest.Hex()}
		}), "not one of the 1 pinned", noVSA},
		{"a denial", verdict(func(v *evidence.VSA) {
			v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"QUAL-002"}
		}), "FAILED", noVSA},
		{"a verdict past its time", verdict(func(v *evidence.VSA) {
			v.TimeVerified, v.Waybill.NotAfter = v.TimeVerified.Add(-48*time.Hour), v.TimeVerified.Add(-24*time.Hour)
		}), "expired", noVSA},
		{"a verdict on another model", verdict(func(v *evidence.VSA) { v.ResourceURI = "waybill:ml/fraud" }), "waybill:ml/fraud", noVSA},
		{"a verdict reached for another channel", verdict(func(v *evidence.VSA) { v.Waybill.Basis.Channel = "canary" }), "canary", noVSA},
		{"the registry serves other bytes for the record", func(w *world, _ *device, evil channel.Target) {
			head := w.push(trust.RoleDeployer, next(w, w.change(evil)))
			r := *head.Record
			r.Target.Version = "6.7"
			_, raw := w.SignRecord(trust.RoleDeployer, &r)
			w.reg.blobs[head.Bundle] = raw
		}, "content does not match its digest", func(a *Agent) {
			a.checks.blob = func(artifact.Digest, artifact.Digest) bool { return true }
		}},
	}
}

func TestAttacks(t *testing.T) {
	for _, at := range slices.Concat(attackTable(t), stolenKeys(t), otherPlaces(t)) {
		t.Run(at.name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, m := newWorld(t), newDeviceFS(t)
				d := w.mustBoot(m)
				good := w.model("1.0 good")
				for range 2 { // seq 2, so that an older record exists
					w.publish(w.change(good))
					if err := d.pollOnce(); err != nil {
						t.Fatal(err)
					}
				}
				if open {
					at.without(d.Agent)
				}
				evil := w.model("6.6 evil")
				at.stage(w, d, evil)
				serving := d.server.current()
				seq := d.channel().Seq
				err := d.pollOnce()
				if open {
					if err != nil || d.server.current() != evil.Digest {
						t.Errorf("without the check the attack fails all the same: %v", err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), at.reason) {
					t.Errorf("poll: %v, want %q", err, at.reason)
				}
				c := d.channel()
				if d.server.current() != serving || c.Current.Digest != serving || c.Seq < seq || c.Intent != nil {
					t.Errorf("after the attack %s serves, state %+v", d.server.current().Short(), c)
				}
				if c.LastRefusal == nil || !strings.Contains(c.LastRefusal.Reason, at.reason) {
					t.Errorf("refusal %+v", c.LastRefusal)
				}
				n := d.Journal.Head().Entries
				if err := d.pollOnce(); err == nil || d.Journal.Head().Entries != n {
					t.Errorf("the same refusal again: %v, %d more journal entries", err, d.Journal.Head().Entries-n)
				}
				verifyJournal(t, w, m, d)
				// A good record gets through afterwards.
				fix := newWorld(t)
				w.Keys = fix.Keys
				w.head = lastAccepted(t, d)
				d.clock.mu.Lock()
				d.clock.now = w.Now
				d.clock.mu.Unlock()
				ch := w.change(w.model("7.0 good"))
				ch.Target.Epoch, ch.EpochFloor = 9, 0
				ch.Issued, ch.Expires = w.Now.Add(time.Hour), w.Now.Add(29*24*time.Hour)
				w.publish(ch)
				if err := d.pollOnce(); err != nil {
					t.Errorf("a good record after the attack: %v", err)
				}
			}
		})
	}
}

// lastAccepted is the record that the device holds: a publisher goes on from there.
func lastAccepted(t *testing.T, d *device) *channel.Head {
	t.Helper()
	h, err := d.followers[0].head()
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// The replay of an older record, while the device runs a newer one: the committed past of the channel is no present.
func TestReplay(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		v1, v2 := w.model("1.0 good"), w.model("2.0 good")
		w.publish(w.change(v1))
		old := w.reg.tags[channel.Tag("prod")]
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		w.publish(w.change(v2))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
		w.reg.tags[channel.Tag("prod")] = old
		f := d.followers[0]
		if open {
			d.checks.follows = func(*channel.Head, *channel.Head, bool) (channel.Step, error) {
				return channel.Step{Kind: channel.Same}, nil // "whatever is signed is news"
			}
		}
		err := d.pollOnce()
		switch {
		case open && (err != nil || d.server.current() != v1.Digest):
			t.Errorf("without the check the replay fails all the same: %v", err)
		case !open && (err == nil || !strings.Contains(err.Error(), "older than the one accepted") || d.server.current() != v2.Digest):
			t.Errorf("replay: %v", err)
		}
		// The floor is kept twice: the document refuses to go down even when Follows is wrong.
		if got := f.state().Seq; got != 2 {
			t.Errorf("seq fell to %d", got)
		}
	}
}

// Altered, truncated and endless layers never reach the runtime.
func TestAlteredLayers(t *testing.T) {
	for name, edit := range map[string]func([]byte) []byte{
		"one byte":  func(b []byte) []byte { c := append([]byte{}, b...); c[3] ^= 1; return c },
		"truncated": func(b []byte) []byte { return b[:len(b)-1] },
		"shifted":   func(b []byte) []byte { return append([]byte{'x'}, b...) },
		"empty":     func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			w, m := newWorld(t), newDeviceFS(t)
			d := w.mustBoot(m)
			v1, v2 := w.model("1.0 good"), w.model("2.0 good")
			w.publish(w.change(v1))
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			w.publish(w.change(v2))
			module := artifact.DigestOf([]byte("2.0 good"))
			whole := w.reg.blobs[module]
			w.reg.blobs[module] = edit(whole)
			opened := d.runtime.opened
			for range 3 {
				if err := d.pollOnce(); err == nil || d.server.current() != v1.Digest || d.runtime.opened != opened {
					t.Fatalf("poll: %v", err)
				}
			}
			w.reg.blobs[module] = whole
			// A partial file that the attack left may cost one more try.
			_ = d.pollOnce()
			if err := d.pollOnce(); err != nil || d.server.current() != v2.Digest {
				t.Errorf("after the registry healed: %v", err)
			}
		})
	}
}
