package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Factory is the artifact that a device is delivered with: what serves before the first record, and the last resort when nothing
// else on the device can be served. Whoever provisioned the device pins it, with the release that proves where it is from.
//
// Serving it is going back, no activation: no record, no verdict, no expiry is asked for. What still holds: its digest, the
// release by publishers of the trust document in force, denied digests, the epoch floor, and the golden vectors.
type Factory struct {
	Digest   artifact.Digest   // of the manifest; "": there is none
	Releases []artifact.Digest // bundles that release it
	Epoch    int64
	Source   Source // where it is copied from, once
}

// Source gives content by digest, from offset on.
type Source interface {
	Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error)
}

// factory brings the factory artifact onto the device when it is not there, lets it go when the configuration no longer names it,
// and serves it when nothing else does. The caller holds f.mu.
func (f *follower) factory(ctx context.Context) error {
	want := f.cfg.Factory
	c := f.state()
	if want.Digest == "" {
		if c.Factory == nil {
			return nil
		}
		e := f.about(KindFactory, *c.Factory, 0, "the configuration names none any more")
		return f.change(func(c *state.Channel) error { c.Factory = nil; return nil }, e)
	}
	here := c.Factory != nil && c.Factory.Digest == want.Digest
	if here && f.live != nil {
		return nil
	}
	err := f.takeFactory(ctx, false)
	if err == nil || ctx.Err() != nil || transient(err) {
		return err
	}
	return f.refused(err, state.Note{To: want.Digest, Reason: clip(err.Error())})
}

// takeFactory copies the artifact into the store, proves it here and makes that durable; nothing refers to it before. When
// nothing serves it becomes what does. One that ended the process again and again is left alone unless it is the last resort.
func (f *follower) takeFactory(ctx context.Context, last bool) error {
	defer f.release()
	want, c := f.cfg.Factory, f.state()
	fail := func(err error) error { return fmt.Errorf("factory artifact %s: %w", want.Digest.Short(), err) }
	switch tries := c.FactoryTries; {
	case f.a.denied(want.Digest):
		return fail(errors.New("the trust document denies it"))
	case want.Epoch < c.EpochFloor:
		return fail(fmt.Errorf("it has epoch %d, below the security floor %d of this device", want.Epoch, c.EpochFloor))
	case !last && tries != nil && tries.Digest == want.Digest && tries.Crashes >= f.a.cfg.MaxCrashes:
		return fail(&heldError{tries.Crashes})
	case !last && c.Loading[want.Digest] >= f.a.deadly():
		return fail(&heldError{c.Loading[want.Digest] + 1})
	}
	slot, err := f.copyFactory(ctx)
	if err != nil {
		return fail(err)
	}
	// A restart that finds this count was in the middle of loading it.
	err = f.change(func(c *state.Channel) error {
		if c.FactoryTries == nil || c.FactoryTries.Digest != want.Digest {
			c.FactoryTries = &state.Tries{Digest: want.Digest}
		}
		t := *c.FactoryTries
		t.Crashes++
		c.FactoryTries = &t
		return nil
	})
	if err != nil {
		return fail(err)
	}
	l, err := f.load(ctx, slot, false)
	if err != nil {
		err = fail(err)
		return errors.Join(err, f.change(func(c *state.Channel) error { c.FactoryTries = nil; return nil }))
	}
	now := f.a.now().Truncate(time.Second)
	slot.Committed, slot.Proof = now, l.slot.Proof
	l.slot = slot
	serves := f.live == nil
	if serves {
		if err := f.serve(l); err != nil {
			return errors.Join(fail(err), l.model.Close(ctx))
		}
	} else {
		defer func() {
			if err := l.model.Close(ctx); err != nil {
				f.a.Log.Warn("close the factory artifact", "error", err)
			}
		}()
	}
	return f.change(func(c *state.Channel) error {
		c.Factory, c.FactoryTries = &slot, nil
		if !serves {
			return nil
		}
		before := c.Current
		promote(c, slot, now, nil)
		c.Previous, c.Kept = nil, nil // each of them was tried
		c.Tag = ""                    // what the channel names is activated anew
		if before != nil && before.Digest != slot.Digest {
			c.LastRollback = &state.Note{At: now, From: before.Digest, To: slot.Digest, Seq: c.Seq, Reason: "nothing else on this device can be served"}
		}
		return nil
	}, f.factoryEvents(c, slot, serves)...)
}

func (f *follower) factoryEvents(c *state.Channel, slot state.Slot, serves bool) []journal.Entry {
	var out []journal.Entry
	if c.Factory == nil || c.Factory.Digest != slot.Digest {
		out = append(out, f.about(KindFactory, slot, 0, "it is on the device"+slot.Proof.String()))
		out[0].Data = facts{Target: &slot, Factory: true}.data()
	}
	if !serves {
		return out
	}
	e := f.about(KindFactory, slot, 0, "it serves: nothing was activated before")
	if c.Current != nil {
		e = f.about(KindFallback, slot, c.Seq, "nothing else on this device can be served")
		e.From = c.Current.Digest
	}
	e.Data = facts{Target: &slot}.data()
	f.unsent = true
	return append(out, e)
}

// copyFactory brings release, manifest and files into the store, each byte hashed, and verifies them as far as going back asks.
func (f *follower) copyFactory(ctx context.Context) (state.Slot, error) {
	want := f.cfg.Factory
	slot := state.Slot{Digest: want.Digest, Name: f.cfg.Model, Epoch: want.Epoch}
	doc := f.a.Trust()
	var proven []verify.Evidence
	for _, d := range want.Releases {
		raw, err := f.readFactory(ctx, artifact.Descriptor{MediaType: artifact.MediaTypeBundle, Digest: d}, artifact.MaxBundle)
		if err != nil {
			return slot, fmt.Errorf("release: %w", err)
		}
		ev, err := f.a.checks.bundle(raw, doc, verify.Want{
			PredicateType: evidence.TypeRelease, Role: trust.RolePublisher, Subject: want.Digest, Model: f.cfg.Model, Env: f.cfg.Env, Channel: f.cfg.Name,
			Now: within(f.a.now(), doc), Certificates: f.a.Certificates,
		})
		if err != nil {
			return slot, fmt.Errorf("release: %w", err)
		}
		if ev != nil {
			proven = append(proven, *ev)
		}
	}
	if len(want.Releases) == 0 {
		return slot, errors.New("no release is given for it")
	}
	if err := f.a.checks.enough(proven, doc, want.Digest, evidence.TypeRelease); err != nil {
		return slot, err
	}
	raw, err := f.readFactory(ctx, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: want.Digest}, artifact.MaxManifest)
	if err != nil {
		return slot, fmt.Errorf("manifest: %w", err)
	}
	m, err := f.a.checks.manifest(raw, want.Digest)
	if err != nil {
		return slot, err
	}
	if !m.Compiled() {
		return slot, errors.New("it was bundled as it is (compile: false): it has no module that a device could run")
	}
	slot.Size = int64(len(raw))
	ds := []artifact.Descriptor{{MediaType: artifact.MediaTypeManifest, Digest: want.Digest, Size: slot.Size}}
	for _, l := range deviceLayers(m) {
		ds = append(ds, artifact.Descriptor{MediaType: "application/octet-stream", Digest: l.Digest, Size: l.Size})
	}
	if err := f.room(ds); err != nil {
		return slot, err
	}
	for _, d := range ds {
		if err := f.fetchFrom(ctx, want.Source, d, nil); err != nil {
			return slot, err
		}
	}
	for _, l := range deviceLayers(m) {
		if l.Role == artifact.RoleInterface {
			if i, err := f.iface(l); err == nil {
				slot.Version = i.Version
			}
		}
	}
	return slot, nil
}

// within keeps a trust document's own expiry out of what is asked for going back: a time in which it is valid.
func within(now time.Time, doc *trust.Document) time.Time {
	if last := doc.Expires.Add(-time.Second); now.After(last) {
		now = last
	}
	return later(now, doc.Issued)
}

// readFactory gives a small piece of content from the store or else the source, checked against its digest.
func (f *follower) readFactory(ctx context.Context, d artifact.Descriptor, max int64) ([]byte, error) {
	if raw, err := f.a.blobs.Read(d.Digest, max); err == nil {
		return raw, nil
	}
	r, err := f.cfg.Factory.Source.Open(ctx, d, 0)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	raw, err := io.ReadAll(f.a.checks.cut(r, max+1))
	switch {
	case err != nil:
		return nil, errors.Join(ErrTransient, err)
	case int64(len(raw)) > max:
		return nil, fmt.Errorf("%s is larger than the limit of %d bytes", d.Digest.Short(), max)
	}
	if got := artifact.DigestOf(raw); !f.a.checks.blob(got, d.Digest) {
		return nil, fmt.Errorf("%w: expected %s, read %s", state.ErrDigest, d.Digest, got)
	}
	return raw, nil
}
