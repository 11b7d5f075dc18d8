package publish_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/trust"
)

// retag puts a manifest under a tag, whatever stood there.
func (w *world) retag(tag string, d artifact.Digest) {
	w.t.Helper()
	raw, desc, err := w.p.Manifest(w.t.Context(), d)
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.p.PushManifest(w.t.Context(), raw, desc.MediaType, tag); err != nil {
		w.t.Fatal(err)
	}
}

// untag takes a tag away.
func (w *world) untag(tag string) {
	w.t.Helper()
	if _, _, err := w.s.Untag(w.t.Context(), "ml/churn:"+tag); err != nil {
		w.t.Fatal(err)
	}
}

// junk is a manifest of somebody else's.
func (w *world) junk() artifact.Digest {
	w.t.Helper()
	empty := artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: 2}
	raw, err := json.Marshal(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: "application/x-junk", Config: empty, Layers: []artifact.Descriptor{empty}})
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.p.PushBlob(w.t.Context(), empty, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("{}")), nil }); err != nil {
		w.t.Fatal(err)
	}
	d, err := w.p.PushManifest(w.t.Context(), raw, artifact.MediaTypeManifest, "junk")
	if err != nil {
		w.t.Fatal(err)
	}
	return d.Digest
}

func (w *world) survey() []publish.Line {
	w.t.Helper()
	ls, err := publish.Survey(w.t.Context(), w.p, w.read(), w.Doc, w.Now, 0)
	if err != nil {
		w.t.Fatal(err)
	}
	return ls
}

// Whatever was done to the tags of a channel, a survey shows all of it, and the records behind it.
func TestSurvey(t *testing.T) {
	base := t.TempDir()
	whole := worldAt(t, base)
	var at []artifact.Digest
	for i := range 18 {
		at = append(at, whole.publish(fmt.Sprintf("%d.0", i), artifact.DigestOf([]byte{byte(i)})).Manifest.Digest)
	}
	t.Run("far behind", func(t *testing.T) { farBehind(t, base, at[0]) })
	for name, c := range map[string]struct {
		harm    func(w *world, at []artifact.Digest)
		records int
		faults  []string
	}{
		"whole":    {func(*world, []artifact.Digest) {}, 18, nil},
		"one gone": {func(w *world, _ []artifact.Digest) { w.untag("channel-prod.12") }, 17, []string{"seq 12: the record is gone"}},
		"several gone": {func(w *world, _ []artifact.Digest) {
			w.untag("channel-prod.12")
			w.untag("channel-prod.13")
			w.untag("channel-prod.1")
		}, 15, []string{"seq 13: the record is gone", "seq 12: the record is gone", "seq 1: the record is gone"}},
		"head's own tag": {func(w *world, _ []artifact.Digest) { w.untag("channel-prod.18") }, 18, []string{"seq 18: nothing has the tag channel-prod.18"}},
		"moved back":     {func(w *world, at []artifact.Digest) { w.retag("channel-prod", at[12]) }, 18, []string{"seq 18: the tag channel-prod is behind"}},
		"tag gone":       {func(w *world, _ []artifact.Digest) { w.untag("channel-prod") }, 18, []string{"seq 18: the tag channel-prod is gone"}},
		"junk in the middle": {func(w *world, _ []artifact.Digest) { w.retag("channel-prod.7", w.junk()) }, 17,
			[]string{"seq 7: tag channel-prod.7 leads to a manifest of type \"application/x-junk\""}},
		"another record under a number": {func(w *world, at []artifact.Digest) { w.retag("channel-prod.7", at[8]) }, 17, []string{"seq 7: tag channel-prod.7 leads to prod seq 9"}},
		"junk on the head":              {func(w *world, _ []artifact.Digest) { w.retag("channel-prod.18", w.junk()) }, 18, []string{"seq 18: tag channel-prod.18 leads to"}},
		"fork in the middle": {func(w *world, _ []artifact.Digest) { w.fork(10) }, 18,
			[]string{"seq 10: the channel was forked at seq 10: seq 11 follows", "seq 9: the channel was forked at seq 9: seq 10 follows"}},
		"fork of the head":   {func(w *world, _ []artifact.Digest) { w.fork(18) }, 18, []string{"seq 18: the channel was forked at seq 18: channel-prod shows"}},
		"two things at once": {func(w *world, _ []artifact.Digest) { w.fork(18); w.untag("channel-prod.3") }, 17, []string{"forked at seq 18", "seq 3: the record is gone"}},
		"other people's tags": {func(w *world, _ []artifact.Digest) {
			w.retag("channel-prod.99", w.junk())
			w.retag("channel-prod.x", w.junk())
		}, 18, nil},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
				t.Fatal(err)
			}
			w := worldAt(t, dir)
			c.harm(w, at)
			ls := w.survey()
			n := 0
			for _, l := range ls {
				if l.Entry != nil {
					n++
				}
			}
			faults := publish.Faults(ls)
			if n != c.records || len(ls) != 18 || len(faults) != len(c.faults) {
				t.Fatalf("%d records in %d lines, faults %q", n, len(ls), faults)
			}
			for i, f := range c.faults {
				if !strings.Contains(faults[i], f) {
					t.Errorf("fault %q, want %q", faults[i], f)
				}
			}
			// Whatever it is, publishing goes on from it and sets the channel's tag.
			st := w.read()
			if st.Head.Manifest.Digest != st.Tag {
				if err := publish.Complete(t.Context(), w.p, st); err != nil {
					t.Fatal(err)
				}
			}
			if res := w.publish("19.0", digestB); res.Record.Seq != 19 {
				t.Errorf("seq %d", res.Record.Seq)
			}
		})
	}
}

// fork replaces the record under a number by another one that its signer could have made.
func (w *world) fork(seq int64) {
	w.t.Helper()
	e, err := publish.Record(w.t.Context(), w.p, "prod", seq, w.Doc, w.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	r := *e.Record
	r.Prev = artifact.DigestOf([]byte("another past"))
	if seq == 18 {
		r.Prev, r.EpochFloor, r.Env = e.Record.Prev, 0, "other"
	}
	_, raw := w.SignRecord(trust.RoleDeployer, &r)
	m, err := publish.Paper(artifact.MediaTypeChannel, raw)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, b := range [][]byte{raw, []byte(artifact.EmptyConfig)} {
		d := artifact.Descriptor{MediaType: artifact.MediaTypeBundle, Digest: artifact.DigestOf(b), Size: int64(len(b))}
		if err := w.p.PushBlob(w.t.Context(), d, func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(string(b))), nil }); err != nil {
			w.t.Fatal(err)
		}
	}
	if _, err := w.p.PushManifest(w.t.Context(), m, artifact.MediaTypeManifest, channel.SeqTag("prod", seq)); err != nil {
		w.t.Fatal(err)
	}
}

// Every digest that a record names has a tag of its own before devices hear of the record.
func TestHold(t *testing.T) {
	w := newWorld(t)
	var ts []channel.Target
	for i := range 3 {
		raw := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"application/x-%d","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[]}`,
			artifact.MediaTypeManifest, i, artifact.MediaTypeEmpty, artifact.EmptyDigest)
		w.junk() // its config
		d, err := w.p.PushManifest(t.Context(), raw, artifact.MediaTypeManifest, "")
		if err != nil {
			t.Fatal(err)
		}
		ts = append(ts, channel.Target{Version: fmt.Sprint(i), Digest: d.Digest})
	}
	rec := &channel.Record{Target: ts[0], Keep: []channel.Target{ts[1], {Version: "lost", Digest: digestA}, ts[2]}}
	for range 2 { // again changes nothing
		missing, err := publish.Hold(t.Context(), w.p, rec)
		if err != nil || len(missing) != 1 || missing[0].Version != "lost" {
			t.Fatalf("%+v %v", missing, err)
		}
		for _, x := range ts {
			if d, err := w.p.Resolve(t.Context(), publish.KeepTag(x.Digest)); err != nil || d.Digest != x.Digest {
				t.Errorf("%s: %v", x.Version, err)
			}
		}
	}
	if _, err := w.p.Resolve(t.Context(), publish.KeepTag(digestA)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
}

// farBehind: a channel whose tag somebody took far back is no state to go on from without a person's look.
func farBehind(t *testing.T, base string, first artifact.Digest) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(base)); err != nil {
		t.Fatal(err)
	}
	w := worldAt(t, dir)
	w.retag("channel-prod", first)
	_, err := publish.Read(t.Context(), w.p, "prod", w.Doc, w.Now)
	if diag.CodeOf(err) != diag.Verification || !strings.Contains(diag.Render(err), "moved the tag channel-prod back") {
		t.Fatalf("got %v", err)
	}
}
