package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"syscall"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// transient tells failures that say nothing about record or artifact.
func transient(err error) bool {
	var pe *fs.PathError
	return errors.Is(err, ErrTransient) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) ||
		errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &pe)
}

// parseAccepted reads the record in a bundle that was verified before it was stored under its digest.
func parseAccepted(raw []byte) (*channel.Record, error) {
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil, err
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil, err
	}
	return channel.Parse(s.Predicate)
}

// fetch brings everything that the record pins onto the device, each byte hashed as it is written. The evidence comes
// first and is checked at once, so that nothing large is downloaded for what would be refused.
func (f *follower) fetch(ctx context.Context, r *channel.Record, target state.Slot) (m *artifact.Model, err error) {
	defer func() { f.rest(target.Digest, err) }()
	var small []artifact.Descriptor
	for _, e := range r.Evidence {
		small = append(small, artifact.Descriptor{MediaType: artifact.MediaTypeBundle, Digest: e.Digest, Size: e.Size})
	}
	small = append(small, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: target.Digest, Size: target.Size})
	if err := f.room(small); err != nil {
		return nil, err
	}
	for _, d := range small {
		if err := f.fetchOne(ctx, d, nil); err != nil {
			return nil, err
		}
	}
	if err := f.verifyEvidence(r, target); err != nil {
		return nil, err
	}
	if m, err = f.manifest(target); err != nil {
		return nil, err
	}
	var large []artifact.Descriptor
	for _, l := range deviceLayers(m) {
		large = append(large, artifact.Descriptor{MediaType: "application/octet-stream", Digest: l.Digest, Size: l.Size})
	}
	open := func() error { return f.window(deviceinput.Download, r, target) }
	if f.missing(m) {
		if err := errors.Join(open(), f.permitted(ctx, deviceinput.Download, target, m)); err != nil {
			return nil, err
		}
	}
	if err := f.room(large); err != nil {
		return nil, err
	}
	for _, d := range large {
		if err := f.fetchOne(ctx, d, open); err != nil { // a window that closes meanwhile ends it where it is
			return nil, err
		}
	}
	return m, nil
}

// fetchOne brings d into the store while may, where it is given, has no objection.
func (f *follower) fetchOne(ctx context.Context, d artifact.Descriptor, may func() error) error {
	for {
		err := f.fetchFrom(ctx, f.places, d, may)
		if err == nil || !errors.Is(err, state.ErrDigest) || !f.places.Spoiled(d.Digest) {
			return err
		}
	}
}

// fetchFrom brings d from src into the store; what lies there already is hashed again.
func (f *follower) fetchFrom(ctx context.Context, src Source, d artifact.Descriptor, may func() error) error {
	fetch := func() error {
		return f.a.checks.fetch(f.a.blobs, ctx, d.Digest, d.Size, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			r, err := src.Open(ctx, d, offset)
			if err != nil {
				return nil, errors.Join(ErrTransient, err)
			}
			return beating{r, f, may}, nil
		})
	}
	if f.a.blobs.Has(d.Digest, d.Size) {
		err := f.a.checks.rehash(f.a.blobs, ctx, d.Digest, d.Size)
		if err != nil && !errors.Is(err, state.ErrDigest) {
			return err
		}
		if err != nil {
			f.a.Log.Error("a file on this device has changed and is fetched again", "digest", string(d.Digest))
			if err := f.a.blobs.Drop(d.Digest); err != nil {
				return err
			}
		}
	}
	err := fetch()
	if errors.Is(err, syscall.ENOSPC) {
		f.a.disk.Lock()
		freed, serr := f.a.sweep()
		if serr == nil && freed == 0 && len(f.a.idle) > 0 {
			clear(f.a.idle)
			freed, serr = f.a.sweep()
		}
		f.a.disk.Unlock()
		if serr == nil && freed > 0 {
			err = fetch()
		}
	}
	return err
}

// manifest reads the target's manifest from disk, checks it against the digest and parses it.
func (f *follower) manifest(s state.Slot) (*artifact.Model, error) {
	raw, err := f.a.checks.read(f.a.blobs, s.Digest, artifact.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := f.a.checks.manifest(raw, s.Digest)
	if err == nil && !m.Compiled() {
		return nil, fmt.Errorf("%s was bundled as it is (compile: false): it has no module that a device could run", s.Digest)
	}
	return m, err
}

// denied tells whether the trust document in force denies d.
func (a *Agent) denied(d artifact.Digest) bool { return a.checks.denied(a.Trust(), d) }

// deviceLayers are the layers that this runtime needs: those for devices, without the module for browsers.
func deviceLayers(m *artifact.Model) []artifact.Layer {
	var out []artifact.Layer
	for _, l := range m.OnDevice() {
		if l.Role == artifact.RoleModule && l.Target != artifact.TargetAny {
			continue
		}
		out = append(out, l)
	}
	return out
}

// verifyEvidence checks every bundle that the record pins: the release by a publisher, the verdict by a gate for this
// place, and whatever else it names by whoever may say it.
func (f *follower) verifyEvidence(r *channel.Record, target state.Slot) error {
	doc, now := f.a.Trust(), f.a.now()
	releases, verdicts := 0, 0
	var proven []verify.Evidence
	for _, e := range r.Evidence {
		raw, err := f.a.blobs.Read(e.Digest, artifact.MaxBundle)
		if err != nil {
			return err
		}
		want := verify.Want{PredicateType: e.PredicateType, Subject: target.Digest, Model: target.Name, Env: r.Env, Channel: r.Channel, Now: now, Certificates: f.a.Certificates}
		switch e.PredicateType {
		case evidence.TypeRelease:
			want.Role = trust.RolePublisher
			ev, err := f.a.checks.bundle(raw, doc, want)
			if err != nil {
				return fmt.Errorf("release of %s: %w", target.Digest.Short(), err)
			}
			if ev != nil {
				proven = append(proven, *ev)
				if ev.TimeSource.Verified() {
					f.attested = later(f.attested, ev.At)
				}
			}
			releases++
		case evidence.TypeVSA:
			vsa, _, err := f.a.checks.vsa(raw, doc, verify.VSAWant{
				Subject: target.Digest, ResourceURI: f.cfg.ResourceURI, Model: target.Name, Env: f.cfg.Env,
				DeviceClass: f.a.cfg.Class, Now: now, Record: r, Certificates: f.a.Certificates,
			})
			if err != nil {
				return fmt.Errorf("verdict on %s: %w", target.Digest.Short(), err)
			}
			if vsa != nil {
				f.attested = later(f.attested, vsa.TimeVerified)
			}
			verdicts++
		default:
			if _, err := f.a.checks.bundle(raw, doc, want); err != nil {
				return fmt.Errorf("%s of %s: %w", evidence.NameOf(e.PredicateType), target.Digest.Short(), err)
			}
		}
	}
	if releases == 0 || verdicts == 0 {
		return fmt.Errorf("%s has %d releases and %d verdicts", target.Digest.Short(), releases, verdicts)
	}
	return f.a.checks.enough(proven, doc, target.Digest, evidence.TypeRelease)
}

// checkBlobs hashes every file of an artifact on disk again.
func (f *follower) checkBlobs(ctx context.Context, s state.Slot) (*artifact.Model, error) {
	m, err := f.manifest(s)
	if err != nil {
		return nil, err
	}
	for _, l := range deviceLayers(m) {
		if err := f.a.checks.rehash(f.a.blobs, ctx, l.Digest, l.Size); err != nil {
			return nil, fmt.Errorf("layer %s: %w", l.Path, err)
		}
	}
	return m, nil
}

// load makes an artifact on disk ready to serve: its files hashed, its modules loaded, its golden vectors reproduced.
// With measure their figures are taken and judged by the budgets of the trial.
func (f *follower) load(ctx context.Context, s state.Slot, measure bool) (*loaded, error) {
	m, err := f.manifest(s)
	if err != nil {
		return nil, err
	}
	hashed := map[artifact.Digest]bool{} // each file once: a device spends most of its start on that
	model, err := f.a.Runtime.Load(ctx, Bundle{
		Slot: s, Layers: deviceLayers(m), Path: f.a.blobs.Path,
		Read: func(l artifact.Layer) ([]byte, error) {
			hashed[l.Digest] = true
			return f.a.checks.read(f.a.blobs, l.Digest, l.Size)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", s.Digest.Short(), err)
	}
	for _, l := range deviceLayers(m) {
		if hashed[l.Digest] || l.Role == artifact.RoleWeights {
			continue
		}
		if err := f.a.checks.rehash(f.a.blobs, ctx, l.Digest, l.Size); err != nil {
			return nil, errors.Join(fmt.Errorf("layer %s: %w", l.Path, err), model.Close(ctx))
		}
	}
	proof, err := model.Probe(ctx, measure)
	if err == nil && measure {
		err = f.cfg.Trial.proves(proof)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("golden vectors of %s: %w", s.Digest.Short(), err), model.Close(ctx))
	}
	if measure || s.Proof == nil {
		s.Proof = &proof
	}
	return &loaded{slot: s, model: model}, nil
}

// sweep removes blobs that no channel needs. The caller holds a.disk. When a manifest can't be read nothing is removed:
// its layers are not known, and one of them may be the way back.
func (a *Agent) sweep() (int64, error) {
	doc := a.Store.Doc()
	keep := map[artifact.Digest]bool{doc.Trust.File: true}
	for _, ds := range a.claims {
		for _, d := range ds {
			keep[d.Digest] = true
		}
	}
	for _, i := range a.idle {
		for _, d := range i.ds {
			keep[d.Digest] = true
		}
	}
	for _, c := range doc.Channels {
		keep[c.Record] = true
		for _, s := range a.checks.needs(c) {
			keep[s.Digest] = true
			raw, err := a.blobs.Read(s.Digest, artifact.MaxManifest)
			if errors.Is(err, fs.ErrNotExist) && c.Intent != nil && c.Intent.Candidate.Digest == s.Digest {
				continue // not fetched yet
			}
			if err != nil {
				return 0, fmt.Errorf("sweep: manifest %s: %w", s.Digest.Short(), err)
			}
			m, err := verify.Manifest(raw, s.Digest)
			if err != nil {
				return 0, fmt.Errorf("sweep: %w", err)
			}
			for _, l := range deviceLayers(m) {
				keep[l.Digest] = true
			}
		}
		if w := c.Waiting; w != nil { // what was downloaded already; it may be gone without harm
			if raw, err := a.blobs.Read(w.Slot.Digest, artifact.MaxManifest); err == nil {
				if m, err := verify.Manifest(raw, w.Slot.Digest); err == nil {
					keep[w.Slot.Digest] = true
					for _, l := range deviceLayers(m) {
						keep[l.Digest] = true
					}
				}
			}
		}
		if c.Intent != nil {
			for _, b := range c.Intent.Blobs {
				keep[b.Digest] = true
			}
		}
	}
	return a.blobs.Sweep(keep)
}
