package agent

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// What is planted where a device begins: roots of the attacker, a factory artifact that is none, the state of another device.

// A trust document that the attacker's own roots signed brings keys for every role, and with them everything else is in order.
func TestTrustTakenOver(t *testing.T) {
	for name, sign := range map[string]func(t *testing.T, w *world, d *trust.Document, mallory verifytest.Key) []byte{
		"signed by the new root alone": func(t *testing.T, _ *world, d *trust.Document, mallory verifytest.Key) []byte {
			return verifytest.SignTrust(t, d, mallory)
		},
		"signed by another role's key": func(t *testing.T, w *world, d *trust.Document, mallory verifytest.Key) []byte {
			return verifytest.SignTrust(t, d, mallory, w.Keys[trust.RolePublisher])
		},
		"under the old root's name": func(t *testing.T, w *world, d *trust.Document, mallory verifytest.Key) []byte {
			forged := w.Keys[trust.RoleRoot]
			forged.Priv = mallory.Priv
			return verifytest.SignTrust(t, d, mallory, forged)
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, open := range []bool{false, true} {
				w, _, d, v1 := on1(t)
				mallory := verifytest.NewKey(t, "mallory's root", trust.RoleRoot)
				keys := map[trust.Role]verifytest.Key{}
				w.Doc = version(t, w.Doc, func(d *trust.Document) {
					d.Keys = append(d.Keys, mallory.Entry())
					for _, role := range []trust.Role{trust.RoleDeployer, trust.RolePublisher, trust.RoleGate} {
						k := verifytest.NewKey(t, "mallory's "+string(role), role)
						d.Keys = append(d.Keys, k.Entry())
						keys[role] = k
					}
				})
				w.tag(sign(t, w, w.Doc, mallory), TrustTag(2))
				maps.Copy(w.Keys, keys)
				evil := w.model("6.6 evil")
				w.publish(w.change(evil))
				if open {
					d.checks.trust = func(raw []byte, _ *trust.Document) (*trust.Document, error) {
						first, _, _ := bytes.Cut(raw, []byte("\n"))
						b, err := evidence.ParseBundle(first)
						if err != nil {
							return nil, err
						}
						s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
						if err != nil {
							return nil, err
						}
						return trust.Parse(s.Predicate)
					}
				}
				err := d.pollOnce()
				switch {
				case open && (err != nil || d.server.current() != evil.Digest):
					t.Errorf("without the roots' signatures the attack fails all the same: %v", err)
				case !open && (verify.ReasonOf(err) == "" || d.server.current() != v1.Digest || d.Trust().Version != 1):
					t.Errorf("%v, %s serves under version %d", err, d.server.current().Short(), d.Trust().Version)
				}
			}
		})
	}
}

// The factory artifact lies in an image that others made: it needs the release of a publisher and its own bytes, and is not denied.
func TestFactoryAttacks(t *testing.T) {
	for want, c := range map[string]struct {
		edit    func(w *world, f *Factory)
		without func(a *Agent)
	}{
		"the trust document denies it": {func(w *world, f *Factory) {
			doc := *w.Doc
			doc.Denied = []artifact.Digest{f.Digest}
			w.Doc = &doc
		}, func(a *Agent) {
			a.checks.denied = func(*trust.Document, artifact.Digest) bool { return false }
			noEvidence(a) // what is denied has no valid evidence either
		}},
		"wrong-subject": {func(w *world, f *Factory) {
			f.Releases = []artifact.Digest{f.Source.(*registry).put(w.Release("churn", artifact.DigestOf([]byte("other"))))}
		}, noEvidence},
		"wrong-role": {func(w *world, f *Factory) {
			b := w.Keys[trust.RoleDeployer].Sign(w.t, evidence.TypeRelease, "churn", f.Digest, struct{}{})
			f.Releases = []artifact.Digest{f.Source.(*registry).put(b)}
		}, noEvidence},
		"content does not match its digest": {func(_ *world, f *Factory) {
			f.Source.(*registry).blobs[artifact.DigestOf([]byte("0.1 good"))] = []byte("0.1 evil")
		}, believeDownloads},
	} {
		t.Run(want, func(t *testing.T) {
			w := newWorld(t)
			fac := w.factory("0.1 good")
			c.edit(w, &fac)
			d, err := w.boot(newDeviceFS(t), w.reg, withFactory(fac))
			if err == nil || !strings.Contains(err.Error(), want) || d.server.current() != "" {
				t.Fatalf("%v, %s serves", err, d.server.current().Short())
			}
			c.without(d.Agent)
			_ = d.pollOnce()
			if d.server.current() != fac.Digest {
				t.Errorf("without the check it is refused all the same: %+v", d.channel().LastRefusal)
			}
		})
	}
}

// The state of one device on another: a copied disk with another key is not taken for its own. One that nobody marked would be.
func TestStateOfAnotherDevice(t *testing.T) {
	for _, open := range []bool{false, true} {
		w, m, d, _ := on1(t)
		if d.Store.Doc().Device == "" {
			t.Fatal("the document does not say whose it is")
		}
		if open {
			if err := d.Store.Update(func(s *state.Doc) error { s.Device = ""; return nil }); err != nil {
				t.Fatal(err)
			}
		}
		key, err := devicekey.Generate(strings.NewReader(strings.Repeat("x", 32)))
		if err != nil {
			t.Fatal(err)
		}
		w.key = key
		_, err = w.boot(m, w.reg)
		if refused := err != nil && strings.Contains(err.Error(), "the state belongs to device"); refused == open {
			t.Errorf("unmarked %v: %v", open, err)
		}
	}
}
