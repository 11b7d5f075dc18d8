package publish_test

import (
	"bytes"
	"encoding/json"
	"io"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// reset revokes the deployer, names another one and opens the next generation.
func (w *world) reset() {
	fresh := verifytest.NewKey(w.t, "deployer 2", trust.RoleDeployer)
	d := *w.Doc
	d.Version++
	d.Generation++
	d.Keys = append(append([]trust.Key{}, d.Keys...), fresh.Entry())
	d.Revoked = append(append([]string{}, d.Revoked...), w.Keys[trust.RoleDeployer].ID)
	if err := d.Follows(w.Doc); err != nil {
		w.t.Fatal(err)
	}
	w.Doc, w.Keys[trust.RoleDeployer] = &d, fresh
}

// force writes a record that the rules would refuse, as somebody with a stolen key and a registry can.
func (w *world) force(k verifytest.Key, r *channel.Record, tags ...string) {
	w.t.Helper()
	raw := k.Sign(w.t, evidence.TypeChannel, channel.SubjectName(r.Channel), r.Target.Digest, r)
	m := artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeChannel,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: int64(len(artifact.EmptyConfig))},
		Layers: []artifact.Descriptor{{MediaType: artifact.MediaTypeBundle, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}}}
	mb, err := json.Marshal(m)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range [][]byte{[]byte(artifact.EmptyConfig), raw} {
		d := artifact.Descriptor{MediaType: "application/octet-stream", Digest: artifact.DigestOf(b), Size: int64(len(b))}
		if err := w.p.PushBlob(w.t.Context(), d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, tag := range tags {
		old := artifact.Digest("")
		if d, err := w.p.Resolve(w.t.Context(), tag); err == nil {
			old = d.Digest
		}
		if _, _, err := w.p.SwapTag(w.t.Context(), mb, artifact.MediaTypeManifest, tag, old); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) publishIn(st *publish.State, version string, d artifact.Digest) *publish.Result {
	w.t.Helper()
	c := w.Change(verifytest.Target(version, d))
	c.Generation = w.Doc.Generation
	r, err := channel.Next(st.Prev(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := publish.Write(w.t.Context(), w.p, st, r, [][]byte{w.Release("churn", d), w.SignVSA(d, w.VSA())}, w.key(trust.RoleDeployer), w.Doc, w.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func TestNewGeneration(t *testing.T) {
	w := newWorld(t)
	w.publish("1.0", digestA)
	last := w.publish("2.0", digestB)
	// The key is revoked: the channel's state is not known any more, and that is said with the way on.
	revoked := *w.Doc
	revoked.Version, revoked.Revoked = 2, []string{w.Keys[trust.RoleDeployer].ID}
	if _, err := publish.Read(t.Context(), w.p, "prod", &revoked, w.Now); diag.CodeOf(err) != diag.Verification || verify.ReasonOf(err) != verify.Revoked {
		t.Fatalf("revoked: %v", err)
	}
	w.reset()
	st := w.read()
	if st.Head != nil || st.Past == nil || st.Past.Seq != 2 || st.Past.Generation != 1 || st.Tag != last.Manifest.Digest {
		t.Fatalf("%+v %+v", st, st.Past)
	}
	if b, err := publish.Bases(t.Context(), w.p, st, "prod", w.Doc, w.Now); err != nil || len(b) != 1 || b[0] != (evidence.Basis{Channel: "prod"}) {
		t.Errorf("basis %v %v", b, err)
	}
	res := w.publishIn(st, "2.0", digestB)
	if r := res.Record; r.Seq != 3 || r.Generation != 2 || r.Prev != last.Bundle || len(r.Keep) != 0 {
		t.Errorf("%+v", r)
	}
	st = w.read()
	if st.Head == nil || st.Past != nil || st.Head.Bundle != res.Bundle || st.Tag != res.Manifest.Digest {
		t.Fatalf("%+v", st)
	}
	next := w.publishIn(st, "1.0", digestA)
	if r := next.Record; r.Seq != 4 || len(r.Keep) != 1 {
		t.Errorf("%+v", r)
	}
	h, err := publish.History(t.Context(), w.p, w.read(), w.Doc, w.Now, 0)
	if err != nil || len(h) != 2 {
		t.Errorf("history: %d records, %v", len(h), err)
	}
}

// A stolen key jumped far ahead before it was revoked: going on from there would lose the devices that did not see it.
func TestNewGenerationAfterAJump(t *testing.T) {
	w := newWorld(t)
	one := w.publish("1.0", digestA)
	two := w.publish("2.0", digestB)
	thief := w.Keys[trust.RoleDeployer]
	far := *two.Record
	far.Seq, far.Prev = channel.MaxJump+2, two.Bundle
	w.force(thief, &far, channel.SeqTag("prod", far.Seq), channel.Tag("prod"))
	w.reset()
	st := w.read()
	res := w.publishIn(st, "1.0", digestA)
	if res.Record.Seq > channel.MaxJump || res.Record.Seq < 3 {
		t.Fatalf("seq %d", res.Record.Seq)
	}
	for _, prev := range []*channel.Head{nil, &one.Head, &two.Head, {Record: &far, Bundle: digestA}} {
		if _, err := channel.Follows(prev, &res.Head, false); err != nil {
			t.Errorf("a device refuses it: %v", err)
		}
	}
	// Without that care, the next number would be one that a device which saw nothing or little refuses.
	bad := *res.Record
	bad.Seq = far.Seq + 1
	if _, err := channel.Follows(&one.Head, &channel.Head{Record: &bad, Bundle: digestB}, false); err == nil {
		t.Error("the jump would have been followed: the test shows nothing")
	}
	if got := w.read(); got.Head == nil || got.Head.Bundle != res.Bundle {
		t.Errorf("%+v", got)
	}
}
