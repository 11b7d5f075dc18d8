package edge

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// wishing judges every statement with another trust document or another wish than Open's.
func wishing(wish func(doc *trust.Document, want *verify.Want)) func(*checks) {
	return func(c *checks) {
		c.all = func(raws [][]byte, doc *trust.Document, want verify.Want) ([]verify.Evidence, []verify.Failure) {
			d := *doc
			wish(&d, &want)
			return verify.All(raws, &d, want)
		}
	}
}

// Each attack on Open is refused, and opens a model when the check that it is about is left out: so that check, and no other one,
// keeps it away. What the checks of signatures are made of is tested, and left out, in oci/verify.
func TestOpenAttacks(t *testing.T) {
	day := 24 * time.Hour
	for name, a := range map[string]struct {
		attack func(s *shop) Release
		blind  func(*checks)
		reason verify.Reason // of the refusal; "": not one of verify's
		says   float32       // what the model answers to 2, when it is opened
	}{
		"signed by the trust document that came along": {
			attack: func(s *shop) Release {
				real := s.release().TrustDigest
				evil := verifytest.NewKey(s.t, "evil", trust.RolePublisher)
				s.world.Doc.Keys = append(s.world.Doc.Keys, evil.Entry())
				d, _ := s.pack("Abs", 1, 2)
				s.list(d)
				s.attach(d, evil.Sign(s.t, evidence.TypeRelease, "neg", d.Digest, struct{}{}))
				r := s.release()
				r.TrustDigest = real
				return r
			},
			blind: func(c *checks) {
				c.pinned = func(raw []byte, _ int, _ artifact.Digest) (*trust.Document, error) { return verify.TrustSelf(raw) }
			},
			reason: verify.BadTrust, says: 2,
		},
		"no release": {
			attack: func(s *shop) Release {
				d, _ := s.pack("Abs", 1, 2)
				s.list(d)
				return s.release()
			},
			blind:  func(c *checks) { c.present = func([]verify.Evidence, string) bool { return true } },
			reason: verify.NoBundle, says: 2,
		},
		"evidence that the caller demands is missing": {
			attack: func(s *shop) Release {
				r := s.released("Neg", -1, 2)
				r.Evidence = []string{evidence.TypeVSA}
				return r
			},
			blind:  func(c *checks) { c.present = func([]verify.Evidence, string) bool { return true } },
			reason: verify.WrongPredicate, says: -2,
		},
		"fewer signers than the trust document demands": {
			attack: func(s *shop) Release {
				second := verifytest.NewKey(s.t, "second", trust.RolePublisher)
				s.world.Doc.Keys = append(s.world.Doc.Keys, second.Entry())
				s.world.Doc.Rules = []trust.Rule{{PredicateType: evidence.TypeRelease, Require: 2}}
				return s.released("Neg", -1, 2)
			},
			blind: func(c *checks) {
				c.enough = func([]verify.Evidence, *trust.Document, artifact.Digest, ...string) error { return nil }
			},
			reason: verify.TooFew, says: -2,
		},
		"released under another name": {
			attack: func(s *shop) Release {
				d, _ := s.pack("Abs", 1, 2)
				s.list(d)
				s.attach(d, s.world.Release("other", d.Digest))
				return s.release()
			},
			blind:  func(c *checks) { c.named = func(string, string) bool { return true } },
			reason: verify.WrongSubject, says: 2,
		},
		"the release of another artifact": {
			attack: func(s *shop) Release {
				good, _ := s.pack("Neg", -1, 2)
				evil, _ := s.pack("Abs", 1, 2)
				s.list(evil)
				s.attach(evil, s.world.Release("neg", good.Digest))
				return s.release()
			},
			blind: func(c *checks) {
				c.all = func(raws [][]byte, doc *trust.Document, want verify.Want) (yes []verify.Evidence, no []verify.Failure) {
					_, no = verify.All(raws, doc, want)
					want.Subject = no[0].Subject // of which it speaks, in place of what is opened
					return verify.All(raws, doc, want)
				}
			},
			reason: verify.WrongSubject, says: 2,
		},
		"released by a key of another model": {
			attack: func(s *shop) Release {
				for i := range s.world.Doc.Keys {
					if s.world.Doc.Keys[i].Role == trust.RolePublisher {
						s.world.Doc.Keys[i].Scope.Models = []string{"other"}
					}
				}
				return s.released("Abs", 1, 2)
			},
			blind:  wishing(func(_ *trust.Document, want *verify.Want) { want.AnyScope = true }),
			reason: verify.OutOfScope, says: 2,
		},
		"denied": {
			attack: func(s *shop) Release {
				d, _ := s.pack("Abs", 1, 2)
				s.list(d)
				s.attach(d, s.world.Release("neg", d.Digest))
				s.world.Doc.Denied = []artifact.Digest{d.Digest}
				return s.release()
			},
			blind:  wishing(func(doc *trust.Document, _ *verify.Want) { doc.Denied = nil }),
			reason: verify.Revoked, says: 2,
		},
		"a trust document past its time": {
			attack: func(s *shop) Release {
				r := s.released("Neg", -1, 2)
				late := s.world.Doc.Expires.Add(day)
				r.Now = func() time.Time { return late }
				return r
			},
			blind:  wishing(func(doc *trust.Document, want *verify.Want) { want.Now = doc.Expires.Add(-day) }),
			reason: verify.Expired, says: -2,
		},
		"another manifest under the released digest": {
			attack: func(s *shop) Release {
				r := s.released("Neg", -1, 2)
				evil, _ := s.pack("Abs", 1, 2)
				s.swap(artifact.Digest(r.Digest), evil.Digest)
				return r
			},
			blind: func(c *checks) { // it is hashed as it is read, and once more as it is parsed
				c.same = func(_, _ artifact.Digest) bool { return true }
				c.manifest = func(raw []byte, _ artifact.Digest) (*artifact.Model, error) { return artifact.ParseModel(raw) }
			},
			says: 2,
		},
		"another module and its golden vectors": {
			attack: func(s *shop) Release {
				d, good := s.pack("Neg", -1, 2)
				_, evil := s.pack("Abs", 1, 2)
				s.list(d)
				s.attach(d, s.world.Release("neg", d.Digest))
				for i, l := range good.Layers {
					s.swap(l.Digest, evil.Layers[i].Digest)
				}
				return s.release()
			},
			blind: func(c *checks) { c.same = func(_, _ artifact.Digest) bool { return true } },
			says:  2,
		},
		"a machine that computes something else": {
			attack: func(s *shop) Release { return s.released("Abs", -1, 2) }, // what was promised is not what it does here
			blind:  func(c *checks) { c.probe = func(*Model, context.Context) error { return nil } },
			says:   2,
		},
		"no golden vectors": {
			attack: func(s *shop) Release { return s.released("Abs") },
			blind:  func(c *checks) { c.probe = func(*Model, context.Context) error { return nil } },
			says:   2,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := a.attack(newShop(t))
			if m, err := Open(t.Context(), r); err == nil {
				_ = m.Close(t.Context())
				t.Fatal("it was opened")
			} else if got := verify.ReasonOf(err); got != a.reason {
				t.Errorf("refused as %q, not as %q: %v", got, a.reason, err)
			}
			c := realChecks()
			a.blind(&c)
			m, err := c.open(t.Context(), r)
			if err != nil {
				t.Fatalf("without the check the attack fails all the same: %v", err)
			}
			defer m.Close(t.Context())
			out, err := m.Predict(t.Context(), map[string]Tensor{"x": Of([]float32{2})})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := Values[float32](out["y"]); err != nil || len(v) != 1 || v[0] != a.says {
				t.Errorf("%v, %v: not the model of the attack", v, err)
			}
		})
	}
}

// released packs an artifact and has it released as neg.
func (s *shop) released(op string, promise ...float32) Release {
	s.t.Helper()
	d, _ := s.pack(op, promise...)
	s.list(d)
	s.attach(d, s.world.Release("neg", d.Digest))
	r := s.release()
	r.Digest = string(d.Digest)
	return r
}

// swap puts what lies under the digest with in the place of what lies under d.
func (s *shop) swap(d, with artifact.Digest) {
	s.t.Helper()
	b := must[[]byte](s.t)(os.ReadFile(s.blob(with)))
	if err := os.WriteFile(s.blob(d), b, 0o600); err != nil {
		s.t.Fatalf("%v", err)
	}
}
