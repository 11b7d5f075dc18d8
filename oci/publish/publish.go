// Package publish writes channel records where artifacts live and reads the state of a channel back, verified. One
// publisher at a time: the record's fixed tag is written first and must not exist, is read back, and only then the
// channel's tag moves. A publisher that dies in between leaves a record that the next one finds and continues from.
package publish

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Reader is where artifacts, evidence and channels are read. Missing things wrap fs.ErrNotExist.
type Reader interface {
	Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error)
	Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error)
	Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error)
}

// Place is where a channel is written.
type Place interface {
	Reader
	PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error
	SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (d artifact.Descriptor, atomic bool, err error)
}

// Signer signs statements; a deployer's or a refresher's key.
type Signer interface {
	KeyID() string
	Sign(context.Context, *evidence.Statement) ([]byte, error)
}

// Entry is one verified record of a channel and the manifest that carries it.
type Entry struct {
	channel.Head
	Manifest artifact.Descriptor
	KeyID    string
	KeyName  string
	Role     trust.Role
}

// maxAhead bounds how many records a publisher may have left behind without moving the tag, maxTagless how many are looked
// through when the tag itself is gone.
const (
	maxAhead   = 16
	maxTagless = 4096
)

// State is a channel as it is now. Head is nil for a channel without records of this generation. Tag is the manifest that the
// moving tag names, which is behind Head after an interrupted publication.
type State struct {
	Head *Entry
	Tag  artifact.Digest
	Past *Past // the newest record of a generation before, while there is none of this one
}

// Past is where a closed generation ended. Nothing of it is verified, since its keys may be the reason why it was closed: it
// only keeps the numbers of the next generation apart from the tags that are taken.
type Past struct {
	Channel    string
	Generation int
	Seq        int64
	Bundle     artifact.Digest
}

// Prev is what the next record is made on top of: the head, or the number of the generation before. nil: nothing.
func (st *State) Prev() *channel.Head {
	switch {
	case st.Head != nil:
		return &st.Head.Head
	case st.Past != nil:
		return &channel.Head{Record: &channel.Record{Channel: st.Past.Channel, Generation: st.Past.Generation, Seq: st.Past.Seq}, Bundle: st.Past.Bundle}
	}
	return nil
}

// Read reads the state of a channel and verifies every record that it rests on. An error means that the state is not
// known; it is never an empty channel.
func Read(ctx context.Context, r Reader, name string, doc *trust.Document, now time.Time) (*State, error) {
	if err := channel.ValidName(name); err != nil {
		return nil, diag.Wrap(diag.Usage, err, "channel %q", name)
	}
	st := &State{}
	head, err := read(ctx, r, channel.Tag(name), doc, now)
	switch {
	case verify.ReasonOf(err) == verify.PastGeneration:
		if st.Past, st.Tag, err = past(ctx, r, name); err != nil {
			return nil, err
		}
	case err == nil:
		if head.Record.Channel != name {
			return nil, diag.New(diag.Verification, "tag %s leads to a record of channel %q", channel.Tag(name), head.Record.Channel)
		}
		st.Head, st.Tag = head, head.Manifest.Digest
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	most := maxAhead
	if st.Tag == "" {
		most = maxTagless
	}
	for range most {
		seq := int64(1)
		if p := st.Prev(); p != nil {
			seq = p.Record.Seq + 1
		}
		next, err := Record(ctx, r, name, seq, doc, now)
		if errors.Is(err, fs.ErrNotExist) {
			return st, nil
		}
		if st.Head == nil && st.Past != nil && verify.ReasonOf(err) == verify.PastGeneration {
			st.Past.Seq = seq // left behind by an interrupted publication of the generation before
			continue
		}
		if err != nil {
			return nil, err
		}
		if _, err := channel.Follows(headOf(st.Head), &next.Head, next.Role == trust.RoleRefresher); err != nil {
			return nil, diag.Wrap(diag.Verification, err, "channel %s: seq %d, which stands there unpublished", name, seq)
		}
		st.Head, st.Past = next, nil
	}
	return nil, diag.New(diag.Verification, "channel %s: more than %d records beyond its tag", name, most).
		Line("somebody moved the tag %s back; devices refuse what it shows", channel.Tag(name)).
		Hint("set it to the newest record by hand, for example: crane tag REPO:%s %s", channel.SeqTag(name, st.Prev().Record.Seq), channel.Tag(name))
}

// past reads where the generation before ended. A seq that nobody could have reached honestly, which a stolen key may have
// signed, is not gone on from: devices refuse to follow such a jump. The numbers then begin again at the first power of
// two that is free.
func past(ctx context.Context, r Reader, name string) (*Past, artifact.Digest, error) {
	raw, d, err := layer0(ctx, r, channel.Tag(name), artifact.MediaTypeChannel, 4*artifact.MaxRecord)
	if err != nil {
		return nil, "", err
	}
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil, "", diag.Wrap(diag.Verification, err, "channel %s", name)
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil, "", diag.Wrap(diag.Verification, err, "channel %s", name)
	}
	rec, err := channel.Parse(s.Predicate)
	if err != nil {
		return nil, "", diag.Wrap(diag.Verification, err, "channel %s", name)
	}
	p := &Past{Channel: name, Generation: rec.Generation, Seq: rec.Seq, Bundle: artifact.DigestOf(raw)}
	if rec.Seq < channel.MaxJump/2 {
		return p, d.Digest, nil
	}
	for seq := int64(2); seq < channel.MaxJump; seq *= 2 {
		_, err := r.Resolve(ctx, channel.SeqTag(name, seq))
		if errors.Is(err, fs.ErrNotExist) {
			p.Seq = seq - 1
			return p, d.Digest, nil
		}
		if err != nil {
			return nil, "", err
		}
	}
	return nil, "", diag.New(diag.Verification, "channel %s: no number is free for a record of the new generation", name)
}

// Record reads and verifies one record by its fixed tag.
func Record(ctx context.Context, r Reader, name string, seq int64, doc *trust.Document, now time.Time) (*Entry, error) {
	e, err := read(ctx, r, channel.SeqTag(name, seq), doc, now)
	if err != nil {
		return nil, err
	}
	if e.Record.Channel != name || e.Record.Seq != seq {
		return nil, diag.New(diag.Verification, "tag %s leads to %s seq %d", channel.SeqTag(name, seq), e.Record.Channel, e.Record.Seq)
	}
	return e, nil
}

// History walks a channel from its head to its first record, newest first, at most most records (0: all), checking that
// each follows the one before it. Records that a later trust document no longer accepts end the walk with an error.
func History(ctx context.Context, r Reader, st *State, doc *trust.Document, now time.Time, most int) ([]Entry, error) {
	var out []Entry
	for e := st.Head; e != nil; {
		out = append(out, *e)
		if e.Record.Seq == 1 || len(out) == most {
			break
		}
		prev, err := Record(ctx, r, e.Record.Channel, e.Record.Seq-1, doc, now)
		if verify.ReasonOf(err) == verify.PastGeneration {
			break // the generation began with this record
		}
		if err != nil {
			return out, fmt.Errorf("before seq %d: %w", e.Record.Seq, err)
		}
		if prev.Bundle != e.Record.Prev {
			return out, diag.New(diag.Verification, "channel %s seq %d follows %s, but seq %d is %s: the channel was forked",
				e.Record.Channel, e.Record.Seq, e.Record.Prev.Short(), prev.Record.Seq, prev.Bundle.Short())
		}
		if _, err := channel.Follows(&prev.Head, &e.Head, e.Role == trust.RoleRefresher); err != nil {
			return out, diag.Wrap(diag.Verification, err, "channel %s", e.Record.Channel)
		}
		e = prev
	}
	return out, nil
}

func read(ctx context.Context, r Reader, tag string, doc *trust.Document, now time.Time) (*Entry, error) {
	raw, d, err := layer0(ctx, r, tag, artifact.MediaTypeChannel, 4*artifact.MaxRecord)
	if err != nil {
		return nil, err
	}
	rec, e, err := verify.Record(raw, doc, now)
	if err != nil {
		if verify.ReasonOf(err) == verify.Revoked {
			return nil, diag.Wrap(diag.Verification, err, "tag %s", tag).
				Line("a record that does not count is nothing to go on from; the roots can begin a new generation").
				Hint("waybill trust rotate trust.yaml --reset-channels")
		}
		return nil, fmt.Errorf("tag %s: %w", tag, err)
	}
	return &Entry{
		Head: channel.Head{Record: rec, Bundle: e.Bundle}, Manifest: d, KeyID: e.KeyID, KeyName: e.KeyName, Role: e.Role,
	}, nil
}

// layer0 reads the first layer of the manifest that tag names.
func layer0(ctx context.Context, r Reader, tag, artifactType string, limit int64) ([]byte, artifact.Descriptor, error) {
	d, err := r.Resolve(ctx, tag)
	if err != nil {
		return nil, d, err
	}
	raw, d, err := r.Manifest(ctx, d.Digest)
	if err != nil {
		return nil, d, err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		return nil, d, diag.Wrap(diag.Verification, err, "tag %s", tag)
	}
	if m.ArtifactType != artifactType || len(m.Layers) == 0 || m.Layers[0].Size > limit {
		return nil, d, diag.New(diag.Verification, "tag %s leads to a manifest of type %q, not to a %s with a first layer of at most %d bytes", tag, m.ArtifactType, artifactType, limit)
	}
	b, err := blob(ctx, r, m.Layers[0], limit)
	return b, d, err
}

func blob(ctx context.Context, r Reader, d artifact.Descriptor, limit int64) ([]byte, error) {
	rc, err := r.Blob(ctx, d)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, err
	}
	if artifact.DigestOf(b) != d.Digest {
		return nil, diag.New(diag.Verification, "blob %s has other content", d.Digest)
	}
	return b, nil
}

// Result tells what Write did.
type Result struct {
	Entry
	Raw    []byte // the bundle
	Atomic bool   // the registry compared and moved the tag in one step
}

// Write signs a record made by channel.Next, RollBack or Extend on top of st, verifies it as a device would, and
// publishes it. evidence are the bundles that the record pins; they become layers, so that a copy of the channel's tag
// carries them. Nothing is written before everything has been checked; the moving tag moves last.
func Write(ctx context.Context, p Place, st *State, rec *channel.Record, ev [][]byte, k Signer, doc *trust.Document, now time.Time) (*Result, error) {
	s, err := evidence.NewStatement(evidence.TypeChannel, channel.SubjectName(rec.Channel), rec.Target.Digest, rec)
	if err != nil {
		return nil, err
	}
	raw, err := k.Sign(ctx, s)
	if err != nil {
		return nil, err
	}
	if b, err := evidence.ParseBundle(raw); err != nil || len(b.DSSEEnvelope.Payload) > artifact.MaxRecord {
		return nil, diag.New(diag.Failure, "the channel record is larger than %d bytes", artifact.MaxRecord).Hint("keep fewer targets: --keep 3")
	}
	got, e, err := verify.Record(raw, doc, now)
	if err != nil {
		return nil, fmt.Errorf("the new record: %w", err)
	}
	next := channel.Head{Record: got, Bundle: e.Bundle}
	if _, err := channel.Follows(headOf(st.Head), &next, e.Role == trust.RoleRefresher); err != nil {
		return nil, diag.Wrap(diag.Verification, err, "the new record")
	}
	manifest, err := recordManifest(raw, rec, ev)
	if err != nil {
		return nil, err
	}
	for _, b := range append([][]byte{[]byte(artifact.EmptyConfig), raw}, ev...) {
		if err := pushBlob(ctx, p, b); err != nil {
			return nil, err
		}
	}
	seqTag := channel.SeqTag(rec.Channel, rec.Seq)
	if _, _, err := p.SwapTag(ctx, manifest, artifact.MediaTypeManifest, seqTag, ""); err != nil {
		return nil, busy(err, rec)
	}
	back, err := Record(ctx, p, rec.Channel, rec.Seq, doc, now)
	if err != nil {
		return nil, fmt.Errorf("read back %s: %w", seqTag, err)
	}
	if back.Bundle != next.Bundle {
		return nil, busy(errors.New("other bytes stand under the tag just written"), rec)
	}
	d, atomic, err := p.SwapTag(ctx, manifest, artifact.MediaTypeManifest, channel.Tag(rec.Channel), st.Tag)
	if err != nil {
		return nil, busy(err, rec)
	}
	return &Result{
		Entry: Entry{Head: next, Manifest: d, KeyID: e.KeyID, KeyName: e.KeyName, Role: e.Role}, Raw: raw, Atomic: atomic,
	}, nil
}

// busy explains a tag that another publisher moved. Other failures pass as they are.
func busy(err error, rec *channel.Record) error {
	if diag.CodeOf(err) == diag.Registry || errors.Is(err, context.Canceled) {
		return err
	}
	return diag.Wrap(diag.Failure, err, "channel %s moved while seq %d was being published", rec.Channel, rec.Seq).
		Line("one publisher at a time: nothing that devices follow was changed by this run").
		Hint("waybill channel show %s %s, then gate and publish again", rec.Channel, rec.Target.Repo)
}

// recordManifest carries the record as layer 0 and its evidence as the other layers.
func recordManifest(raw []byte, rec *channel.Record, ev [][]byte) ([]byte, error) {
	if len(ev) != len(rec.Evidence) {
		return nil, fmt.Errorf("the record pins %d bundles, %d were given", len(rec.Evidence), len(ev))
	}
	m := artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeChannel,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: int64(len(artifact.EmptyConfig))},
		Layers: []artifact.Descriptor{{MediaType: artifact.MediaTypeBundle, Digest: artifact.DigestOf(raw), Size: int64(len(raw))}},
	}
	for i, b := range ev {
		if d := artifact.DigestOf(b); d != rec.Evidence[i].Digest {
			return nil, fmt.Errorf("evidence %d is %s, the record pins %s", i, d.Short(), rec.Evidence[i].Digest.Short())
		}
		m.Layers = append(m.Layers, artifact.Descriptor{MediaType: artifact.MediaTypeBundle, Digest: rec.Evidence[i].Digest, Size: rec.Evidence[i].Size})
	}
	return json.Marshal(m)
}

func headOf(e *Entry) *channel.Head {
	if e == nil {
		return nil
	}
	return &e.Head
}

// Complete moves the channel's tag to st.Head, a verified record that an interrupted publication left behind.
func Complete(ctx context.Context, p Place, st *State) error {
	raw, d, err := p.Manifest(ctx, st.Head.Manifest.Digest)
	if err != nil {
		return err
	}
	if _, _, err := p.SwapTag(ctx, raw, d.MediaType, channel.Tag(st.Head.Record.Channel), st.Tag); err != nil {
		return busy(err, st.Head.Record)
	}
	st.Tag = d.Digest
	return nil
}

// Evidence reads the bundles that a record pins.
func Evidence(ctx context.Context, r Reader, rec *channel.Record) ([][]byte, error) {
	var out [][]byte
	for _, e := range rec.Evidence {
		b, err := blob(ctx, r, artifact.Descriptor{MediaType: artifact.MediaTypeBundle, Digest: e.Digest, Size: e.Size}, artifact.MaxBundle)
		if err != nil {
			return nil, fmt.Errorf("evidence %s: %w", e.Digest.Short(), err)
		}
		out = append(out, b)
	}
	return out, nil
}
