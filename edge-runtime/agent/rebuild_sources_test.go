package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

const reportFile, journalFile = stateDir + "/status-prod.json", stateDir + "/journal.log"

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func overwrite(t testing.TB, m fsx.FS, name, text string) {
	t.Helper()
	must(t, fsx.WriteFileAtomic(m, name, []byte(text), 0o600))
}

// twice is a device that has committed 1.0 and 2.0, with its documents damaged.
func twice(t testing.TB) (w *world, m *fsx.Mem, v1, v2 artifact.Digest) {
	t.Helper()
	w, m = newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	var v [2]artifact.Digest
	for i, text := range []string{"1.0 good", "2.0 good"} {
		target := w.model(text)
		v[i] = target.Digest
		w.publish(w.change(target))
		if err := d.pollOnce(); err != nil {
			t.Fatal(err)
		}
	}
	spoil(t, m, files(t, m, "state.")...)
	return w, m, v[0], v[1]
}

func offNet() *registry {
	r := newRegistry()
	r.down = true
	return r
}

// The journal is lost with the documents: what the signed report names as committed serves, without a network.
func TestRebuildFromReport(t *testing.T) {
	for name, c := range map[string]struct {
		spoil  func(t *testing.T, m fsx.FS)
		serves bool
	}{
		"the journal is damaged from its beginning": {func(t *testing.T, m fsx.FS) { overwrite(t, m, journalFile, "garbage\n{}\n") }, true},
		"the journal is gone":                       {func(t *testing.T, m fsx.FS) { must(t, m.Remove(journalFile)) }, true},
		"journal and report are gone": {func(t *testing.T, m fsx.FS) {
			must(t, errors.Join(m.Remove(journalFile), m.Remove(reportFile)))
		}, false},
	} {
		t.Run(name, func(t *testing.T) {
			w, m, _, v2 := twice(t)
			c.spoil(t, m)
			if _, damage, err := w.rebuild(m).OpenState(w.Now); err != nil || damage == nil {
				t.Fatalf("rebuild: %v, %v", damage, err)
			}
			d, err := w.boot(m, offNet())
			if errors.Is(err, journal.ErrDamaged) {
				d, err = w.boot(m, offNet())
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := d.server.current(); (got == v2) != c.serves || got != v2 && got != "" {
				t.Errorf("serves %q: %+v", got.Short(), d.Status().Rebuilt)
			}
			if ch := d.channel(); ch.Seq != 2 {
				t.Errorf("seq %d", ch.Seq)
			}
			// A second loss has only the new journal, which tells of none of it.
			spoil(t, m, files(t, m, "state.0")...)
			_ = m.Remove(state.BlobsAt(m, stateDir).Path(d.channel().Record))
			_ = m.Remove(reportFile)
			again, err := w.boot(m, w.reg)
			if err != nil {
				t.Fatal(err)
			}
			if err := again.pollOnce(); !errors.Is(err, ErrUnproven) || again.server.current() != "" {
				t.Errorf("with nothing that proves a seq: %v, serves %s", err, again.server.current().Short())
			}
		})
	}
}

// A report with a bit lost, or that another key signed, is none: it would name a seq that never comes. One that the device signed
// counts.
func TestRebuildReportSigned(t *testing.T) {
	for _, key := range []string{"ours", "altered", "another's"} {
		t.Run(key, func(t *testing.T) {
			w, m, _, v2 := twice(t)
			raw, err := fsx.ReadFile(m, reportFile, artifact.MaxBundle)
			must(t, err)
			b, err := evidence.ParseBundle(raw)
			must(t, err)
			payload := []byte(strings.Replace(string(b.DSSEEnvelope.Payload), `"seq":2`, `"seq":9`, 1))
			st, err := evidence.ParseStatement(payload)
			must(t, err)
			other, err := devicekey.Generate(strings.NewReader(strings.Repeat("o", 32)))
			must(t, err)
			switch key {
			case "ours":
				raw, err = w.key.Sign(st)
			case "altered":
				raw, err = evidence.EncodeBundle(w.key.KeyID(), payload, b.DSSEEnvelope.Signatures[0].Sig)
			default:
				raw, err = other.Sign(st)
			}
			must(t, err)
			overwrite(t, m, reportFile, string(raw))
			d := w.mustBoot(m)
			want := int64(2)
			if key == "ours" {
				want = 9
			}
			if c := d.channel(); c.Seq != want || key != "ours" && d.server.current() != v2 {
				t.Errorf("seq %d, want %d; serves %s", c.Seq, want, d.server.current().Short())
			}
		})
	}
}

// Documents and journal were removed and the report was not: the device does not begin anew.
func TestRebuildAllRemoved(t *testing.T) {
	w, m, _, v2 := twice(t)
	for _, f := range append(files(t, m, "state."), journalFile) {
		must(t, m.Remove(f))
	}
	w.reg.tags[channel.Tag("prod")] = w.reg.tags[channel.SeqTag("prod", 1)]
	d := w.mustBoot(m)
	if err := d.pollOnce(); d.channel().Seq != 2 || d.server.current() != v2 {
		t.Errorf("%v: seq %d, serves %s", err, d.channel().Seq, d.server.current().Short())
	}
}

// An old report does not bring back what the newest record's security floor rules out.
func TestRebuildBelowFloor(t *testing.T) {
	for _, floor := range []int64{0, 2} {
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		v1, v2 := w.model("1.0 good"), w.model("2.0 good")
		v1.Epoch, v2.Epoch = 1, 2
		w.publish(w.change(v1))
		must(t, d.pollOnce())
		old, err := fsx.ReadFile(m, reportFile, artifact.MaxBundle)
		must(t, err)
		raw, err := fsx.ReadFile(m, journalFile, 1<<20)
		must(t, err)
		c := w.change(v2)
		c.EpochFloor = floor
		w.publish(c)
		must(t, d.pollOnce())
		if d.server.current() != v2.Digest {
			t.Fatal("2.0 is not committed")
		}
		spoil(t, m, files(t, m, "state.")...)
		overwrite(t, m, reportFile, string(old))
		overwrite(t, m, journalFile, string(raw)) // cut between two lines
		again, err := w.boot(m, offNet())
		if serves := err == nil && again.server.current() == v1.Digest; serves != (floor == 0) {
			t.Errorf("floor %d: 1.0 serves: %v (%v)", floor, serves, err)
		}
	}
}

// A trust document that was accepted and is lost: nothing is followed under the one before it, which still knows the key that was
// revoked, until the channel brings it again.
func TestRebuildTrust(t *testing.T) {
	for _, mutant := range []bool{false, true} {
		w, m := newWorld(t), newDeviceFS(t)
		d := w.mustBoot(m)
		old := w.Doc
		next := version(t, old, nil)
		raw := verifytest.SignTrust(t, next, w.Keys[trust.RoleRoot])
		w.tag(raw, TrustTag(2))
		w.Doc = next
		v3, v4 := w.model("3.0 good"), w.model("4.0 good")
		w.publish(w.change(v3))
		must(t, d.pollOnce())
		if d.Trust().Version != 2 || d.server.current() != v3.Digest {
			t.Fatalf("trust %d", d.Trust().Version)
		}
		file := d.Store.Doc().Trust.File
		spoil(t, m, files(t, m, "state.0")...)

		kept := m.CrashClone(100, rand.New(rand.NewPCG(1, 2)))
		w.Doc = old // what the device was provisioned with
		first, err := w.boot(kept, w.reg)
		must(t, err)
		if first.Trust().Version != 2 || len(first.Status().Rebuilt.Lacking) > 0 || first.server.current() != v3.Digest {
			t.Errorf("with its file: version %d, %+v", first.Trust().Version, first.Status().Rebuilt)
		}

		must(t, m.Remove(state.BlobsAt(m, stateDir).Path(file)))
		trustTag := w.reg.tags[TrustTag(2)]
		delete(w.reg.tags, TrustTag(2))
		w.publish(w.change(v4)) // made under version 1
		again, err := w.boot(m, w.reg)
		must(t, err)
		if again.server.current() != v3.Digest {
			t.Error("what was committed does not serve")
		}
		if mutant {
			again.checks.proven = func(*follower) error { return nil }
		}
		err = again.pollOnce()
		if mutant {
			if err != nil || again.server.current() != v4.Digest {
				t.Fatalf("without the check the record is not followed, so the test proves nothing: %v", err)
			}
			continue
		}
		if !errors.Is(err, ErrUnproven) || again.server.current() != v3.Digest {
			t.Errorf("a record under the trust document before: %v", err)
		}
		w.reg.tags[TrustTag(2)] = trustTag
		third, err := w.boot(m, w.reg) // at once; a poll would wait with the record that was refused
		must(t, err)
		if err := third.pollOnce(); err != nil || third.Trust().Version != 2 || third.server.current() != v4.Digest {
			t.Errorf("after the channel brought it: version %d, %v", third.Trust().Version, err)
		}
	}
}

// A trust document that another channel has written down and not yet put in force is not lost.
func TestProvenWhileTrustChanges(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	d := w.mustBoot(m)
	must(t, d.Store.Update(func(doc *state.Doc) error {
		doc.Trust = state.TrustPin{Version: 2, Digest: noRecord, File: noRecord}
		return nil
	}))
	if err := d.followers[0].proven(); err != nil {
		t.Error(err)
	}
}

// The numbers of a channel that is followed no longer are kept, and nothing of what it served.
func TestRebuildUnfollowed(t *testing.T) {
	w, m, _, _ := twice(t)
	r := w.rebuild(m)
	r.Channels = []Channel{{Name: "other", Env: "prod", Model: "fraud"}}
	store, _, err := r.OpenState(w.Now)
	must(t, err)
	c := store.Doc().Channels["prod"]
	if c == nil || c.Seq != 2 || c.Record == "" || c.Current != nil {
		t.Fatalf("%+v", c)
	}
	if c := store.Doc().Channels["other"]; c == nil || c.Seq != 0 || c.Unproven {
		t.Errorf("a channel that is new: %+v", c)
	}
}

// What a later version wrote is not lost: nothing is rebuilt, nothing is put aside.
func TestRebuildLaterVersion(t *testing.T) {
	w, m, _, _ := twice(t)
	names := files(t, m, "state.")
	const later = `{"schema":"waybill.dev/state/v9"}`
	for _, f := range names {
		overwrite(t, m, f, fmt.Sprintf("%x\n%s", sha256.Sum256([]byte(later)), later))
	}
	if _, _, err := w.rebuild(m).OpenState(w.Now); !errors.Is(err, state.ErrSchema) {
		t.Errorf("%v", err)
	}
	if now := files(t, m, "state."); !slices.Equal(now, names) {
		t.Errorf("%v, before %v", now, names)
	}
}

// A disk that loses its documents again and again does not fill up with them.
func TestRebuildAgainAndAgain(t *testing.T) {
	w, m, _, v2 := twice(t)
	for range 8 {
		d := w.mustBoot(m)
		if d.server.current() != v2 {
			t.Fatal("2.0 does not serve")
		}
		spoil(t, m, slices.DeleteFunc(files(t, m, "state.0"), func(s string) bool { return strings.HasSuffix(s, ".damaged") })...)
	}
	aside := 0
	for _, f := range files(t, m, "state.") {
		if strings.HasSuffix(f, ".damaged") {
			aside++
		}
	}
	if aside < 4 || aside > 10 {
		t.Errorf("%d documents put aside", aside)
	}
}
