package agent

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/channel"
)

func (w *world) rebuild(fsys fsx.FS) Rebuild {
	ref := w.TrustRef()
	public, err := w.key.Public()
	if err != nil {
		panic(err)
	}
	return Rebuild{
		FS: fsys, Dir: stateDir, Journal: stateDir + "/journal.log", Checker: journalSigner{w.key}, Device: w.key.KeyID(), Public: public,
		TrustFile: w.Trust(), TrustVersion: ref.Version, TrustDigest: ref.Digest,
		Channels: []Channel{{Name: "prod", Env: "prod", Model: "churn"}},
	}
}

// files lists what stands in the state directory under a prefix.
func files(t testing.TB, m fsx.FS, prefix string) (out []string) {
	t.Helper()
	es, err := m.ReadDir(stateDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if strings.HasPrefix(e.Name(), prefix) {
			out = append(out, stateDir+"/"+e.Name())
		}
	}
	return out
}

// spoil flips a bit in the middle of each file.
func spoil(t testing.TB, m fsx.FS, names ...string) {
	t.Helper()
	for _, name := range names {
		raw, err := fsx.ReadFile(m, name, 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 4
		if err := fsx.WriteFileAtomic(m, name, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// lost is a device with two committed artifacts and a third that failed, whose documents are all damaged afterwards.
func lost(t testing.TB) (w *world, m *fsx.Mem, targets [3]channel.Target, before *state.Doc) {
	t.Helper()
	w, m = newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	for i, text := range []string{"1.0 good", "2.0 good", "3.0 slow"} {
		targets[i] = w.model(text)
		w.publish(w.change(targets[i]))
		if err := d.pollOnce(); err != nil && !IsRolledBack(err) {
			t.Fatal(err)
		}
	}
	before = d.Store.Doc()
	spoil(t, m, files(t, m, "state.")...)
	return w, m, targets, before
}

func TestRebuild(t *testing.T) {
	w, m, v, before := lost(t)
	damaged := files(t, m, "state.")
	if _, err := state.Open(m, stateDir); !errors.Is(err, state.ErrDamaged) {
		t.Fatalf("the documents are not damaged: %v", err)
	}
	down := newRegistry()
	down.down = true
	d, err := w.boot(m, down)
	if err != nil {
		t.Fatal(err)
	}
	if d.server.current() != v[1].Digest {
		t.Fatal("what was committed last does not serve")
	}
	was, c := before.Channels["prod"], d.channel()
	if c.Seq != was.Seq || c.Generation != was.Generation || c.Record != was.Record || !c.Expires.Equal(was.Expires) || c.EpochFloor != was.EpochFloor {
		t.Errorf("floors %+v, before %+v", c, was)
	}
	if c.Previous == nil || c.Previous.Digest != v[0].Digest || c.Current.Seq != was.Current.Seq || c.Current.Version != was.Current.Version || c.Current.Size != was.Current.Size {
		t.Errorf("pointers %+v %+v, before %+v %+v", c.Current, c.Previous, was.Current, was.Previous)
	}
	if q, p := c.Quarantine[string(v[2].Digest)], was.Quarantine[string(v[2].Digest)]; q.Seq != p.Seq || q.Generation != p.Generation || q.Reason != p.Reason {
		t.Errorf("quarantine %+v, before %+v", q, p)
	}
	doc := d.Store.Doc()
	if doc.TimeFloor.Before(before.TimeFloor) || doc.Events <= before.Events || doc.Trust.Version != before.Trust.Version {
		t.Errorf("document %+v, before %+v", doc, before)
	}
	if r := d.Status().Rebuilt; r == nil || len(r.Lacking) > 0 || len(r.From) == 0 {
		t.Errorf("the status says %+v", r)
	}
	es, err := d.History(0)
	if err != nil || !slices.ContainsFunc(es, func(e journal.Entry) bool { return e.Kind == KindAlarm && strings.Contains(e.Reason, "rebuilt") }) {
		t.Errorf("no alarm in the journal: %v", err)
	}
	verifyJournal(t, w, m, d)
	again := w.mustBoot(m)
	for _, name := range damaged {
		if _, err := m.Stat(name + ".damaged"); err != nil {
			t.Errorf("a damaged document was not kept: %v", err)
		}
	}
	if err := again.pollOnce(); err != nil || again.server.current() != v[1].Digest {
		t.Errorf("after a poll another one serves: %v", err)
	}
	if _, err := again.Rollback(t.Context(), "", ""); err != nil || again.server.current() != v[0].Digest {
		t.Errorf("rollback: %v", err)
	}
	// The rollback by hand is in the journal too.
	spoil(t, m, files(t, m, "state.0")...)
	third := w.mustBoot(m)
	if c := third.channel(); third.server.current() != v[0].Digest || c.Pinned == nil || c.Pinned.Seq != 3 {
		t.Errorf("a rollback by hand is forgotten: %+v", c)
	}
	v4 := w.model("4.0 good")
	w.publish(w.change(v4))
	if err := third.pollOnce(); err != nil || third.server.current() != v4.Digest {
		t.Errorf("the channel is no longer followed: %v", err)
	}
}

// TestRebuildGone: documents that were removed are no different from damaged ones.
func TestRebuildGone(t *testing.T) {
	w, m, v, _ := lost(t)
	for _, name := range files(t, m, "state.") {
		if err := m.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	d := w.mustBoot(m)
	if c := d.channel(); d.server.current() != v[1].Digest || c.Seq != 3 {
		t.Errorf("state %+v", c)
	}
}

// TestRebuildFaults kills every operation of a rebuild or breaks it in another way, cuts the power, and starts again.
func TestRebuildFaults(t *testing.T) {
	w, base, v, _ := lost(t)
	rng := rand.New(rand.NewPCG(1, 2))
	others := []fsx.Fault{fsx.KillAfter, fsx.EIO, fsx.ENOSPC, fsx.ShortWrite, fsx.LostSync}
	for i, fired := 1, true; fired; i++ {
		for _, kind := range []fsx.Fault{fsx.Kill, others[i%len(others)]} {
			m := base.CrashClone(100, rng)
			f := fsx.NewFaulty(m)
			f.Arm(i, kind)
			_, _, _ = w.rebuild(f).OpenState(w.Now)
			fired = f.Fired() != ""
			d, err := w.boot(m.CrashClone(i%3*50, rng), w.reg)
			if err != nil {
				t.Fatalf("fault %v at %d (%s): %v", kind, i, f.Fired(), err)
			}
			if c := d.channel(); d.server.current() != v[1].Digest || c.Seq != 3 || d.Store.Doc().Rebuilt == nil {
				t.Fatalf("fault %v at %d (%s): %+v", kind, i, f.Fired(), c)
			}
		}
	}
}

// bootDamaged is boot on a device whose journal is put aside.
func (w *world) bootDamaged(m fsx.FS) (*device, error) {
	d, err := w.boot(m, w.reg)
	if errors.Is(err, journal.ErrDamaged) {
		d, err = w.boot(m, w.reg)
	}
	return d, err
}

// cutJournal leaves only the first n lines of the journal.
func cutJournal(t testing.TB, m fsx.FS, n int) {
	t.Helper()
	raw, err := fsx.ReadFile(m, stateDir+"/journal.log", 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(raw, []byte("\n"))
	if err := fsx.WriteFileAtomic(m, stateDir+"/journal.log", bytes.Join(lines[:min(n, len(lines))], nil), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestRebuildNoRollback: whoever damages files and then shows an older record of the channel gets nothing.
func TestRebuildNoRollback(t *testing.T) {
	records := func(t *testing.T, w *world, m fsx.FS, before *state.Doc) string {
		return state.BlobsAt(m, stateDir).Path(before.Channels["prod"].Record)
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, w *world, m fsx.FS, before *state.Doc)
		seq   int64 // that is known at least; 0: nothing is followed
	}{
		"only the documents":          {func(*testing.T, *world, fsx.FS, *state.Doc) {}, 3},
		"the journal cut after a few": {func(t *testing.T, w *world, m fsx.FS, _ *state.Doc) { cutJournal(t, m, 4) }, 3},
		"the journal damaged":         {func(t *testing.T, w *world, m fsx.FS, _ *state.Doc) { spoil(t, m, stateDir+"/journal.log") }, 3},
		"the journal and the report": {func(t *testing.T, w *world, m fsx.FS, _ *state.Doc) {
			cutJournal(t, m, 4)
			_ = m.Remove(stateDir + "/status-prod.json")
		}, 3},
		"the journal and the record": {func(t *testing.T, w *world, m fsx.FS, b *state.Doc) {
			cutJournal(t, m, 4)
			spoil(t, m, records(t, w, m, b))
		}, 3},
		"the record": {func(t *testing.T, w *world, m fsx.FS, b *state.Doc) { spoil(t, m, records(t, w, m, b)) }, 3},
		"journal, record and report": {func(t *testing.T, w *world, m fsx.FS, b *state.Doc) {
			cutJournal(t, m, 0)
			spoil(t, m, records(t, w, m, b))
			_ = m.Remove(stateDir + "/status-prod.json")
		}, 0},
		"journal gone, record reported": {func(t *testing.T, w *world, m fsx.FS, b *state.Doc) { _ = m.Remove(stateDir + "/journal.log") }, 3},
	} {
		for _, mutant := range []bool{false, true} {
			t.Run(name+map[bool]string{true: " without the floors"}[mutant], func(t *testing.T) {
				w, m, v, before := lost(t)
				c.spoil(t, w, m, before)
				r := w.rebuild(m)
				if mutant {
					r.keepFloors = func(c *state.Channel) {
						c.Generation, c.Seq, c.Record, c.Unproven, c.Current, c.Quarantine = 0, 0, "", false, nil, nil
					}
				}
				if _, damage, err := r.OpenState(w.Now); err != nil || damage == nil {
					t.Fatalf("rebuild: %v, %v", damage, err)
				}
				// The channel's tag goes back to what it was at first.
				w.reg.tags[channel.Tag("prod")] = w.reg.tags[channel.SeqTag("prod", 1)]
				d, err := w.bootDamaged(m)
				if err != nil {
					t.Fatal(err)
				}
				perr := d.pollOnce()
				st := d.channel()
				if mutant {
					if st.Seq != 1 || d.server.current() != v[0].Digest {
						t.Fatalf("the attack fails without the floors, so the test proves nothing: %v, %+v", perr, st)
					}
					return
				}
				if perr == nil || !IsRefused(perr) || c.seq == 0 && !errors.Is(perr, ErrUnproven) {
					t.Errorf("the old record is not refused: %v", perr)
				}
				if st.Seq < c.seq || d.server.current() == v[0].Digest {
					t.Errorf("seq %d, serves %s", st.Seq, d.server.current().Short())
				}
				if s := d.server.current(); s != "" && s != v[1].Digest {
					t.Errorf("%s serves", s.Short())
				}
			})
		}
	}
}
