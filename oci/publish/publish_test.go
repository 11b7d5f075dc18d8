package publish_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

var (
	digestA = artifact.DigestOf([]byte("model A"))
	digestB = artifact.DigestOf([]byte("model B"))
)

// signer signs as a role of the world.
type signer struct {
	t *testing.T
	k verifytest.Key
}

func (s signer) KeyID() string { return s.k.ID }

func (s signer) Sign(_ context.Context, st *evidence.Statement) ([]byte, error) {
	payload, err := st.Encode()
	if err != nil {
		return nil, err
	}
	return s.k.SignPayload(s.t, payload), nil
}

type world struct {
	*verifytest.World
	t *testing.T
	p *registry.Local
	s *store.Store
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return worldAt(t, t.TempDir())
}

// worldAt is a world whose store lies in dir.
func worldAt(t *testing.T, dir string) *world {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	l := registry.NewLocal(s, "ml/churn")
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{verifytest.New(t), t, l, s}
}

func (w *world) key(r trust.Role) signer { return signer{w.t, w.Keys[r]} }

func (w *world) read() *publish.State {
	w.t.Helper()
	st, err := publish.Read(w.t.Context(), w.p, "prod", w.Doc, w.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	return st
}

// next makes the record for a target on top of st, with its evidence.
func (w *world) next(st *publish.State, version string, d artifact.Digest) (*channel.Record, [][]byte) {
	w.t.Helper()
	var prev *channel.Head
	if st.Head != nil {
		prev = &st.Head.Head
	}
	r, err := channel.Next(prev, w.Change(verifytest.Target(version, d)))
	if err != nil {
		w.t.Fatal(err)
	}
	return r, [][]byte{w.Release("churn", d), w.SignVSA(d, w.VSA())}
}

func (w *world) publish(version string, d artifact.Digest) *publish.Result {
	w.t.Helper()
	st := w.read()
	r, ev := w.next(st, version, d)
	res, err := publish.Write(w.t.Context(), w.p, st, r, ev, w.key(trust.RoleDeployer), w.Doc, w.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	return res
}

func TestWriteAndRead(t *testing.T) {
	w := newWorld(t)
	if st := w.read(); st.Head != nil || st.Tag != "" {
		t.Fatalf("%+v", st)
	}
	one := w.publish("1.0", digestA)
	two := w.publish("2.0", digestB)
	st := w.read()
	if st.Head.Bundle != two.Bundle || st.Tag != two.Manifest.Digest || st.Head.Record.Prev != one.Bundle || st.Head.Role != trust.RoleDeployer {
		t.Errorf("%+v", st.Head)
	}
	es, err := publish.History(t.Context(), w.p, st, w.Doc, w.Now, 0)
	if err != nil || len(es) != 2 || es[1].Bundle != one.Bundle {
		t.Errorf("%v %v", es, err)
	}
	ev, err := publish.Evidence(t.Context(), w.p, st.Head.Record)
	if err != nil || len(ev) != 2 {
		t.Errorf("evidence: %v", err)
	}
	if st, err := publish.Read(t.Context(), w.p, "canary", w.Doc, w.Now); err != nil || st.Head != nil {
		t.Errorf("another channel: %v %v", st, err)
	}
	if _, err := publish.Read(t.Context(), w.p, "Prod.1", w.Doc, w.Now); diag.CodeOf(err) != diag.Usage {
		t.Errorf("bad name: %v", err)
	}
}

// breaking fails the n-th SwapTag, as a publisher that dies there.
type breaking struct {
	*registry.Local
	left int
}

var errDied = errors.New("died")

func (b *breaking) SwapTag(ctx context.Context, m []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	if b.left--; b.left < 0 {
		return artifact.Descriptor{}, false, errDied
	}
	return b.Local.SwapTag(ctx, m, mediaType, tag, old)
}

func TestInterruptedPublication(t *testing.T) {
	w := newWorld(t)
	one := w.publish("1.0", digestA)
	st := w.read()
	r, ev := w.next(st, "2.0", digestB)
	for _, alive := range []int{0, 1} {
		_, err := publish.Write(t.Context(), &breaking{w.p, alive}, st, r, ev, w.key(trust.RoleDeployer), w.Doc, w.Now)
		if !errors.Is(err, errDied) {
			t.Fatal(err)
		}
		d, err := w.p.Resolve(t.Context(), channel.Tag("prod"))
		if err != nil || d.Digest != one.Manifest.Digest {
			t.Fatalf("the channel moved: %v %v", d, err)
		}
		after := w.read()
		if alive == 0 {
			if after.Head.Record.Seq != 1 {
				t.Errorf("nothing was written, head is seq %d", after.Head.Record.Seq)
			}
			continue
		}
		if after.Head.Record.Seq != 2 || after.Tag != one.Manifest.Digest {
			t.Fatalf("the record left behind is not found: %+v", after)
		}
		if err := publish.Complete(t.Context(), w.p, after); err != nil {
			t.Fatal(err)
		}
	}
	if st := w.read(); st.Head.Record.Seq != 2 || st.Tag != st.Head.Manifest.Digest {
		t.Errorf("after Complete: %+v", st)
	}
	if res := w.publish("1.0", digestA); res.Record.Seq != 3 {
		t.Errorf("seq %d", res.Record.Seq)
	}
}

func TestTwoPublishers(t *testing.T) {
	w := newWorld(t)
	w.publish("1.0", digestA)
	st := w.read()
	r, ev := w.next(st, "2.0", digestB)
	w.publish("2.1", digestB)
	_, err := publish.Write(t.Context(), w.p, st, r, ev, w.key(trust.RoleDeployer), w.Doc, w.Now)
	if !errors.Is(err, store.ErrConflict) || !strings.Contains(diag.Render(err), "hint: waybill channel show prod") {
		t.Fatalf("got %v", err)
	}
	if st := w.read(); st.Head.Record.Target.Version != "2.1" || st.Head.Record.Seq != 2 {
		t.Errorf("the first publisher's record is gone: %+v", st.Head.Record)
	}
}

func TestWriteRefuses(t *testing.T) {
	w := newWorld(t)
	w.publish("1.0", digestA)
	st := w.read()
	r, ev := w.next(st, "2.0", digestB)
	stranger := signer{t, verifytest.NewKey(t, "stranger", trust.RoleDeployer)}
	for name, c := range map[string]struct {
		k  signer
		ev [][]byte
		st *publish.State
	}{
		"unknown key":           {stranger, ev, st},
		"refresher changes":     {w.key(trust.RoleRefresher), ev, st},
		"publisher key":         {w.key(trust.RolePublisher), ev, st},
		"other evidence":        {w.key(trust.RoleDeployer), [][]byte{ev[1], ev[0]}, st},
		"evidence missing":      {w.key(trust.RoleDeployer), ev[:1], st},
		"on another state":      {w.key(trust.RoleDeployer), ev, &publish.State{}},
		"on a state since gone": {w.key(trust.RoleDeployer), ev, &publish.State{Head: st.Head, Tag: digestA}},
	} {
		t.Run(name, func(t *testing.T) {
			rec := r
			if name == "on another state" {
				rec, _ = w.next(&publish.State{}, "2.0", digestB)
			}
			if _, err := publish.Write(t.Context(), w.p, c.st, rec, c.ev, c.k, w.Doc, w.Now); err == nil {
				t.Fatal("published")
			}
			d, err := w.p.Resolve(t.Context(), channel.Tag("prod"))
			if err != nil || d.Digest != st.Tag {
				t.Errorf("the channel moved: %v %v", d, err)
			}
		})
	}
}

// A forged record under a channel's tags is an error, never an empty channel and never a head.
func TestReadRefusesForgeries(t *testing.T) {
	w := newWorld(t)
	one := w.publish("1.0", digestA)
	raw, _, err := w.p.Manifest(t.Context(), one.Manifest.Digest)
	if err != nil {
		t.Fatal(err)
	}
	for _, tag := range []string{channel.Tag("canary"), channel.SeqTag("canary", 1), channel.SeqTag("prod", 2)} {
		if _, err := w.p.PushManifest(t.Context(), raw, artifact.MediaTypeManifest, tag); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"canary", "prod"} {
		if st, err := publish.Read(t.Context(), w.p, name, w.Doc, w.Now); diag.CodeOf(err) != diag.Verification {
			t.Errorf("%s: %+v %v", name, st, err)
		}
	}
	untrusted := *w.Doc
	untrusted.Revoked = []string{w.Keys[trust.RoleDeployer].ID}
	if _, err := publish.Record(t.Context(), w.p, "prod", 1, &untrusted, w.Now); verify.ReasonOf(err) != verify.Revoked {
		t.Errorf("revoked deployer: %v", err)
	}
}

func TestHistoryFindsForks(t *testing.T) {
	w := newWorld(t)
	w.publish("1.0", digestA)
	w.publish("2.0", digestB)
	st := w.read()
	// another first record, as well signed, takes the place of the one that seq 2 follows
	r, ev := w.next(&publish.State{}, "1.1", digestA)
	other := newWorld(t)
	res, err := publish.Write(t.Context(), other.p, &publish.State{}, r, ev, w.key(trust.RoleDeployer), w.Doc, w.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Copy(t.Context(), w.p, other.p, string(res.Manifest.Digest), registry.CopyOptions{Tag: channel.SeqTag("prod", 1)}); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.History(t.Context(), w.p, st, w.Doc, w.Now, 0); diag.CodeOf(err) != diag.Verification || !strings.Contains(err.Error(), "forked") {
		t.Errorf("got %v", err)
	}
}

func TestTrustTags(t *testing.T) {
	w := newWorld(t)
	raw := w.Trust()
	for range 2 {
		if err := publish.Trust(t.Context(), w.p, raw, w.Doc); err != nil {
			t.Fatal(err)
		}
	}
	other := *w.Doc
	other.Expires = other.Expires.Add(time.Hour)
	if err := publish.Trust(t.Context(), w.p, verifytest.SignTrust(t, &other, w.Keys[trust.RoleRoot]), &other); diag.CodeOf(err) != diag.Verification {
		t.Errorf("another document of the same version: %v", err)
	}
}

func TestAdmit(t *testing.T) {
	w := newWorld(t)
	need := publish.Need{
		Ref: "reg.example/ml/churn@" + string(digestA), Digest: digestA, Model: "churn", Env: "prod", ResourceURI: "waybill:ml/churn",
		Bases: []evidence.Basis{{Channel: "prod"}},
	}
	release := w.Release("churn", digestA)
	pass := w.SignVSA(digestA, w.VSA())
	verdict := func(f func(*evidence.VSA)) []byte {
		v := w.VSA()
		f(v)
		return w.SignVSA(digestA, v)
	}
	deny := verdict(func(v *evidence.VSA) {
		v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"QUAL-001"}
		v.TimeVerified = v.TimeVerified.Add(time.Minute)
	})
	// Several within one second: the chain decides, whatever the order of their digests.
	second := func(failed bool, prev []byte) []byte {
		return verdict(func(v *evidence.VSA) {
			if failed {
				v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"QUAL-001"}
			}
			v.Waybill.Prev = artifact.DigestOf(prev)
		})
	}
	denyAfter := second(true, pass)
	passAgain := second(false, denyAfter)
	later := func(failed bool, prev []byte, merges ...[]byte) []byte {
		return verdict(func(v *evidence.VSA) {
			if failed {
				v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"QUAL-001"}
			}
			v.TimeVerified, v.Waybill.Prev = v.TimeVerified.Add(2*time.Minute), artifact.DigestOf(prev)
			for _, m := range merges {
				v.Waybill.Merges = append(v.Waybill.Merges, artifact.DigestOf(m))
			}
		})
	}
	hidden := later(false, pass) // the gate did not see denyAfter
	joined := later(false, denyAfter, hidden)
	late := verdict(func(v *evidence.VSA) { v.Waybill.NotAfter = w.Now })
	moved := verdict(func(v *evidence.VSA) { v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: 3, Champion: digestB} })
	for _, c := range []struct {
		name    string
		bundles [][]byte
		change  func(*publish.Need)
		code    diag.Code
	}{
		{"release and verdict", [][]byte{pass, []byte("junk"), release}, nil, diag.OK},
		{"no release", [][]byte{pass}, nil, diag.Verification},
		{"release of another digest", [][]byte{pass, w.Release("churn", digestB)}, nil, diag.Verification},
		{"release signed by the gate", [][]byte{pass, w.Keys[trust.RoleGate].Sign(t, evidence.TypeRelease, "churn", digestA, struct{}{})}, nil, diag.Verification},
		{"one publisher where two are needed", [][]byte{release, release, pass}, func(n *publish.Need) { n.Releases = 2 }, diag.Verification},
		{"no verdict", [][]byte{release}, nil, diag.Denied},
		{"denied", [][]byte{release, deny}, nil, diag.Denied},
		{"a later denial withdraws a pass", [][]byte{release, pass, deny}, nil, diag.Denied},
		{"a denial of the same second", [][]byte{release, pass, denyAfter}, nil, diag.Denied},
		{"a denial of the same second, other order", [][]byte{denyAfter, pass, release}, nil, diag.Denied},
		{"a pass after it", [][]byte{release, pass, denyAfter, passAgain}, nil, diag.OK},
		{"a pass after it, other order", [][]byte{passAgain, denyAfter, release, pass}, nil, diag.OK},
		{"two gates at once", [][]byte{release, pass, second(true, pass), second(false, pass)}, nil, diag.Denied},
		{"a denial that a later pass did not see", [][]byte{release, pass, denyAfter, hidden}, nil, diag.Denied},
		{"a pass that joins them", [][]byte{release, pass, denyAfter, hidden, joined}, nil, diag.OK},
		{"two passes at once", [][]byte{release, pass, hidden, later(false, pass)}, nil, diag.OK},
		{"a denial in the chain was removed", [][]byte{release, pass, passAgain}, nil, diag.Denied},
		{"a joined verdict was removed", [][]byte{release, pass, denyAfter, joined}, nil, diag.Denied},
		{"the first verdict was removed", [][]byte{release, denyAfter, passAgain}, nil, diag.Denied},
		{"a removed denial, for a rollback", [][]byte{release, pass, passAgain}, func(n *publish.Need) { n.Bases, n.Late = nil, true }, diag.Denied},
		{"verdict of another digest", [][]byte{release, w.SignVSA(digestB, w.VSA())}, nil, diag.Denied},
		{"verdict by the publisher", [][]byte{release, w.Keys[trust.RolePublisher].Sign(t, evidence.TypeVSA, "churn", digestA, w.VSA())}, nil, diag.Denied},
		{"verdict for staging", [][]byte{release, verdict(func(v *evidence.VSA) { v.Waybill.Environment = "staging" })}, nil, diag.Denied},
		{"a denial for staging is none for prod", [][]byte{release, pass, verdict(func(v *evidence.VSA) {
			v.VerificationResult, v.VerifiedLevels, v.Waybill.Environment = evidence.Failed, []string{"FAILED"}, "staging"
		})}, nil, diag.OK},
		{"verdict on another resource", [][]byte{release, verdict(func(v *evidence.VSA) { v.ResourceURI = "waybill:ml/fraud" })}, nil, diag.Denied},
		{"policy that the environment does not pin", [][]byte{release, pass}, func(n *publish.Need) { n.Policies = []artifact.Digest{digestB} }, diag.Denied},
		{"the channel has moved past it", [][]byte{release, moved}, nil, diag.Denied},
		{"only refreshed since", [][]byte{release, moved}, func(n *publish.Need) {
			n.Bases = []evidence.Basis{{Channel: "prod", Seq: 4, Champion: digestB}, {Channel: "prod", Seq: 3, Champion: digestB}}
		}, diag.OK},
		{"expired verdict", [][]byte{release, late}, nil, diag.Denied},
		{"expired verdict for a rollback", [][]byte{release, late}, func(n *publish.Need) { n.Bases, n.Late = nil, true }, diag.OK},
		{"verdict from after the rollback", [][]byte{release, moved}, func(n *publish.Need) {
			n.Bases, n.Record = nil, &channel.Record{Channel: "prod", Seq: 3}
		}, diag.Denied},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := need
			if c.change != nil {
				c.change(&n)
			}
			p, err := publish.Admit(c.bundles, w.Doc, n, w.Now)
			if diag.CodeOf(err) != c.code {
				t.Fatalf("got %v (code %d), want code %d", err, diag.CodeOf(err), c.code)
			}
			if err != nil {
				if !strings.Contains(diag.Render(err), "hint: waybill ") {
					t.Errorf("no hint: %s", diag.Render(err))
				}
				return
			}
			if len(p.Refs) != 2 || p.Refs[0].PredicateType != evidence.TypeRelease || p.Refs[1].PredicateType != evidence.TypeVSA ||
				artifact.DigestOf(p.Raw[1]) != p.Refs[1].Digest || p.Verdict == nil {
				t.Errorf("%+v", p.Refs)
			}
		})
	}
}

func TestBases(t *testing.T) {
	w := newWorld(t)
	w.publish("1.0", digestA)
	w.publish("2.0", digestB)
	st := w.read()
	r, err := channel.Extend(&st.Head.Head, w.Now.Add(time.Hour), w.Now.Add(7*24*time.Hour+time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ev, err := publish.Evidence(t.Context(), w.p, st.Head.Record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := publish.Write(t.Context(), w.p, st, r, ev, w.key(trust.RoleRefresher), w.Doc, w.Now); err != nil {
		t.Fatal(err)
	}
	got, err := publish.Bases(t.Context(), w.p, w.read(), "prod", w.Doc, w.Now)
	want := []evidence.Basis{{Channel: "prod", Seq: 3, Champion: digestB}, {Channel: "prod", Seq: 2, Champion: digestB}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v %v", got, err)
	}
}

func TestBundles(t *testing.T) {
	w := newWorld(t)
	raw, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn"}}, []artifact.Layer{
		{Role: artifact.RoleInterface, Path: "interface.json", Digest: digestA, Size: 7},
		{Role: artifact.RoleModule, Path: "model.wasm", Digest: digestB, Size: 7, Target: artifact.TargetAny},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	d := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}
	rel := w.Release("churn", d.Digest)
	if _, err := w.p.Attach(t.Context(), d, rel, evidence.TypeRelease); err != nil {
		t.Fatal(err)
	}
	got, err := publish.Bundles(t.Context(), w.p, d.Digest)
	if err != nil || len(got) != 1 || string(got[0]) != string(rel) {
		t.Errorf("%d bundles, %v", len(got), err)
	}
	if got, err := publish.Bundles(t.Context(), w.p, digestA); err != nil || len(got) != 0 {
		t.Errorf("%d bundles, %v", len(got), err)
	}
	if _, err := publish.Record(t.Context(), w.p, "prod", 1, w.Doc, w.Now); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no record: %v", err)
	}
}
