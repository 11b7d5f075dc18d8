package verify

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// device is all that a device verifies before it takes a new model.
type device struct {
	w                           *verifytest.World
	doc                         *trust.Document
	trust, record, release, vsa []byte
	manifest                    []byte
	digest, pinned              artifact.Digest
}

// newDevice signs with Ed25519, or with ECDSA P-256, which is what keys generate makes.
func newDevice(t testing.TB, ec bool) *device {
	t.Helper()
	w := verifytest.New(t)
	manifest, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1.0"}}, []artifact.Layer{
		{Role: artifact.RoleInterface, Path: "interface.json", Digest: digestA, Size: 10},
		{Role: artifact.RoleModule, Path: "model.wasm", Digest: digestB, Size: 10, Target: artifact.TargetAny},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	digest := artifact.DigestOf(manifest)
	keys := map[trust.Role]*ecdsa.PrivateKey{}
	ids := map[trust.Role]string{}
	if ec {
		for i := range w.Doc.Keys {
			k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			pub, err := trust.EncodePublic(&k.PublicKey)
			if err != nil {
				t.Fatal(err)
			}
			_, id, err := trust.ParsePublic(pub)
			if err != nil {
				t.Fatal(err)
			}
			e := &w.Doc.Keys[i]
			e.ID, e.Public, keys[e.Role], ids[e.Role] = id, string(pub), k, id
		}
	}
	again := func(r trust.Role, raw []byte) []byte {
		if !ec {
			return raw
		}
		b, err := evidence.ParseBundle(bytes.TrimSpace(raw))
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(evidence.PAE(evidence.PayloadType, b.DSSEEnvelope.Payload))
		sig, err := ecdsa.SignASN1(rand.Reader, keys[r], h[:])
		if err != nil {
			t.Fatal(err)
		}
		out, err := evidence.EncodeBundle(ids[r], b.DSSEEnvelope.Payload, sig)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	d := &device{w: w, doc: w.Doc, manifest: manifest, digest: digest}
	d.trust = again(trust.RoleRoot, w.Trust())
	d.pinned = w.TrustRef().Digest
	d.release, d.vsa = again(trust.RolePublisher, w.Release("churn", digest)), again(trust.RoleGate, w.SignVSA(digest, w.VSA()))
	c := w.Change(verifytest.Target("1.0", digest))
	c.Evidence = []channel.EvidenceRef{verifytest.Ref(evidence.TypeRelease, digest, d.release), verifytest.Ref(evidence.TypeVSA, digest, d.vsa)}
	r, err := channel.Next(nil, c)
	if err != nil {
		t.Fatal(err)
	}
	_, raw := w.SignRecord(trust.RoleDeployer, r)
	d.record = again(trust.RoleDeployer, raw)
	return d
}

// artifact verifies everything, with the trust document when it is new.
func (d *device) artifact(withTrust bool) error {
	doc := d.doc
	if withTrust {
		var err error
		if doc, err = TrustPinned(d.trust, 1, d.pinned); err != nil {
			return err
		}
	}
	rec, _, err := Record(d.record, doc, d.w.Now)
	if err != nil {
		return err
	}
	if _, err := channel.Follows(nil, &channel.Head{Record: rec, Bundle: artifact.DigestOf(d.record)}, false); err != nil {
		return err
	}
	for i, raw := range [][]byte{d.release, d.vsa} {
		if artifact.DigestOf(raw) != rec.Evidence[i].Digest {
			return errors.New("the record pins other evidence")
		}
	}
	e, err := Bundle(d.release, doc, Want{PredicateType: evidence.TypeRelease, Role: trust.RolePublisher, Subject: rec.Target.Digest, Model: rec.Target.Name, Now: d.w.Now})
	if err != nil {
		return err
	}
	if err := Enough([]Evidence{*e}, doc, rec.Target.Digest, evidence.TypeRelease); err != nil {
		return err
	}
	if _, _, err := VSA(d.vsa, doc, VSAWant{Subject: rec.Target.Digest, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", DeviceClass: "edge-s", Now: d.w.Now, Record: rec}); err != nil {
		return err
	}
	_, err = Manifest(d.manifest, rec.Target.Digest)
	return err
}

// verdict is the admission of the verdict alone, as the agent asks for it.
func (d *device) verdict(rec *channel.Record) error {
	_, _, err := VSA(d.vsa, d.doc, VSAWant{Subject: d.digest, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", DeviceClass: "edge-s", Now: d.w.Now, Record: rec})
	return err
}

// percentiles runs do as often as b asks and reports what half and 99 in 100 of the runs took.
func percentiles(b *testing.B, do func() error) {
	b.Helper()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

// The admission of a verdict: signature, signer, verifier, digest, resource, result, environment, class, levels, policy, time
// and basis.
func BenchmarkVerdict(b *testing.B) {
	for _, c := range []struct {
		name string
		ec   bool
	}{{"ed25519", false}, {"p256", true}} {
		b.Run(c.name, func(b *testing.B) {
			d := newDevice(b, c.ec)
			rec, _, err := Record(d.record, d.doc, d.w.Now)
			if err != nil {
				b.Fatal(err)
			}
			percentiles(b, func() error { return d.verdict(rec) })
		})
	}
}

// What a device verifies for one artifact: record, release, verdict and manifest, and the trust document before them.
func BenchmarkArtifact(b *testing.B) {
	for _, c := range []struct {
		name      string
		ec, trust bool
	}{{"ed25519", false, false}, {"ed25519-trust", false, true}, {"p256", true, false}, {"p256-trust", true, true}} {
		b.Run(c.name, func(b *testing.B) {
			d := newDevice(b, c.ec)
			percentiles(b, func() error { return d.artifact(c.trust) })
		})
	}
}

// The benchmark measures what verifies: a byte changed anywhere in what it reads is refused.
func TestDeviceVerifiesAll(t *testing.T) {
	d := newDevice(t, true)
	if err := d.artifact(true); err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{"trust": d.trust, "record": d.record, "release": d.release, "vsa": d.vsa, "manifest": d.manifest} {
		for _, at := range []int{len(raw) / 3, len(raw) / 2} {
			raw[at] ^= 1
			if err := d.artifact(true); err == nil {
				t.Errorf("%s: byte %d changed and it verifies", name, at)
			}
			raw[at] ^= 1
		}
	}
}
