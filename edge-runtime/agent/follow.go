package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// maxRecordBundle bounds the bundle of a record; oci/verify refuses larger ones too.
const maxRecordBundle = 4 * artifact.MaxRecord

// maxWalk bounds how many earlier records, and trust documents, are fetched in one poll.
const maxWalk = 64

// TrustTag is the tag under which a channel's repository carries trust document version n.
func TrustTag(version int) string { return fmt.Sprintf("trust-%d", version) }

// poll looks at the channel once and does what it asks for.
func (f *follower) poll(ctx context.Context) error {
	defer func() { f.report(ctx) }()
	if err := f.converge(ctx); err != nil {
		return err
	}
	ctx, end := f.begin(ctx)
	defer end()
	tags, err := f.places.Look(ctx, channel.Tag(f.cfg.Name), f.hand != atEase)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // a channel without a record yet
	}
	if err != nil {
		return fmt.Errorf("look up channel %s: %w", f.cfg.Name, err)
	}
	s, err := f.choose(ctx, tags)
	if s == nil {
		f.letGo(err)
		return err
	}
	tag, terr := f.takeNewest(ctx, *s)
	f.letGo(terr)
	err = errors.Join(terr, err)
	if p, ok := isPostponed(err); ok {
		f.a.Log.Debug("postponed", "channel", f.cfg.Name, "action", p.action, "reason", p.why)
		err = nil
	}
	f.seen.handled(tag, err, ctx.Err() != nil, f.cfg.Interval)
	return err
}

// take fetches the record behind a tag, accepts it when it follows, and then acts on the accepted one.
func (f *follower) take(ctx context.Context, s sighting) error {
	tag, raw := s.tag, s.raw
	var err error
	if raw == nil && f.last.tag == tag {
		raw = f.last.raw // it was waited with
	}
	if raw == nil {
		raw, err = f.fetchRecord(ctx, tag)
	}
	if err != nil {
		err = fmt.Errorf("fetch the record of channel %s: %w", f.cfg.Name, err)
		if transient(err) {
			return err
		}
		return f.refused(err, state.Note{Record: tag, Reason: clip(err.Error())})
	}
	f.last = sighting{tag, raw}
	r, err := f.accept(ctx, raw)
	if err != nil {
		note := state.Note{Record: artifact.DigestOf(raw), Reason: clip(err.Error())}
		if r != nil {
			note.To, note.Seq = r.Target.Digest, r.Seq
		}
		if transient(err) {
			return err
		}
		return f.refused(err, note)
	}
	return f.act(ctx, r, tag)
}

// fetchRecord reads a record's manifest and its layer 0.
func (f *follower) fetchRecord(ctx context.Context, manifest artifact.Digest) ([]byte, error) {
	raw, err := f.read(ctx, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: manifest}, artifact.MaxManifest)
	if err != nil {
		return nil, err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		return nil, err
	}
	if len(m.Layers) == 0 {
		return nil, errors.New("the record's manifest has no layer")
	}
	return f.read(ctx, m.Layers[0], maxRecordBundle)
}

// read fetches a small piece of content whole: at most max bytes, checked against its digest. Where one place gave something
// else, the next is asked.
func (f *follower) read(ctx context.Context, d artifact.Descriptor, max int64) ([]byte, error) {
	if d.Size > max {
		return nil, fmt.Errorf("%s has %d bytes, the limit is %d", d.Digest.Short(), d.Size, max)
	}
	for {
		b, err := f.readOnce(ctx, d, max)
		if err == nil || !errors.Is(err, state.ErrDigest) && !errors.Is(err, errTooLong) || !f.places.Spoiled(d.Digest) {
			return b, err
		}
	}
}

var errTooLong = errors.New("it is too large")

func (f *follower) readOnce(ctx context.Context, d artifact.Descriptor, max int64) ([]byte, error) {
	r, err := f.places.Open(ctx, d, 0)
	if err != nil {
		return nil, errors.Join(ErrTransient, err)
	}
	defer r.Close()
	var b bytes.Buffer
	n, err := b.ReadFrom(f.a.checks.cut(r, max+1))
	switch {
	case err != nil:
		return nil, errors.Join(ErrTransient, err)
	case n > max:
		return nil, fmt.Errorf("%w: %s has more than %d bytes", errTooLong, d.Digest.Short(), max)
	}
	if got := artifact.DigestOf(b.Bytes()); !f.a.checks.blob(got, d.Digest) {
		return nil, fmt.Errorf("%w: expected %s, received %s", state.ErrDigest, d.Digest, got)
	}
	return b.Bytes(), nil
}

// accept verifies a record, decides whether it follows the accepted one, and makes it durable. A record is accepted
// whether or not its target can be activated: that an older one was seen must never be forgotten. The record is also
// returned with some errors, for the note about it.
func (f *follower) accept(ctx context.Context, raw []byte) (*channel.Record, error) {
	if artifact.DigestOf(raw) != f.state().Record {
		f.a.checks.renew(f, ctx)
	}
	r, ev, err := f.verifyRecord(ctx, raw)
	if err != nil {
		return nil, err
	}
	if err := f.a.checks.proven(f); err != nil {
		return r, err
	}
	if err := f.a.checks.place(r, &f.cfg); err != nil {
		return r, err
	}
	next := &channel.Head{Record: r, Bundle: artifact.DigestOf(raw)}
	prev, err := f.head()
	if err != nil {
		return r, err
	}
	refresher := ev.Role == trust.RoleRefresher
	if refresher && (prev == nil || r.Generation == prev.Record.Generation && r.Seq > prev.Record.Seq+1) {
		// Refreshes repeat a record that this device may have missed: that one comes first.
		if prev, err = f.catchUp(ctx, prev, r); err != nil {
			return r, err
		}
	}
	step, err := f.a.checks.follows(prev, next, refresher)
	if err != nil {
		return r, err
	}
	if step.Kind == channel.Same {
		return r, nil
	}
	if err := f.keepRecord(ctx, raw, r, step); err != nil {
		return r, &notKept{err}
	}
	return r, nil
}

// notKept is why a record that verified and may follow is not on the disk.
type notKept struct{ error }

func (e *notKept) Unwrap() error { return e.error }

// keepRecord makes an accepted record durable.
func (f *follower) keepRecord(ctx context.Context, raw []byte, r *channel.Record, step channel.Step) error {
	f.a.disk.Lock() // a sweep between storing the bytes and naming them would take them away
	defer f.a.disk.Unlock()
	digest, err := f.a.blobs.Put(ctx, raw)
	if err != nil {
		return errors.Join(ErrTransient, err)
	}
	if f.a.idle[f].target != r.Target.Digest {
		delete(f.a.idle, f)
	}
	e := f.entry(KindRecord)
	e.Digest, e.Seq, e.Reason = r.Target.Digest, r.Seq, "record "+digest.Short()
	if r.Rollback != nil {
		e.From, e.Reason = r.Rollback.From, "the channel goes back: "+r.Rollback.Reason
	}
	e.Data = factsOf(r, digest, step.Kind).data()
	events := append([]journal.Entry{e}, f.freezes(f.state().Frozen, r)...)
	for _, a := range step.Alarms {
		al := f.entry(KindAlarm)
		al.Seq, al.Reason = r.Seq, a
		events = append(events, al)
	}
	return f.a.update(func(d *state.Doc) error {
		c := d.Channel(f.cfg.Name)
		if r.Generation < c.Generation || r.Generation == c.Generation && r.Seq < c.Seq {
			return fmt.Errorf("record seq %d of generation %d is below the floor", r.Seq, r.Generation)
		}
		stands(c, step.Kind, r)
		c.Generation, c.Seq, c.Record, c.Expires, c.Frozen = r.Generation, r.Seq, digest, r.Expires, frozenBy(c.Frozen, r)
		c.Crashes = 0
		if c.Waiting != nil && c.Waiting.Slot.Digest != r.Target.Digest {
			c.Waiting = nil
		}
		for q, v := range c.Quarantine {
			if v.Generation != r.Generation || v.Seq < r.Seq {
				delete(c.Quarantine, q)
			}
		}
		f.a.attest(d, r.Issued)
		return nil
	}, events...)
}

// head reads the accepted record back.
func (f *follower) head() (*channel.Head, error) {
	c := f.state()
	if c.Record == "" {
		return nil, nil
	}
	raw, err := f.a.blobs.Read(c.Record, maxRecordBundle)
	if err != nil {
		// Without its bytes the numbers still hold: nothing older is accepted, and nothing at the same seq.
		f.a.Log.Error("the accepted record can't be read", "channel", f.cfg.Name, "error", err)
		return &channel.Head{Record: &channel.Record{Schema: channel.Schema, Channel: f.cfg.Name, Generation: c.Generation, Seq: c.Seq, Env: f.cfg.Env, Expires: c.Expires}, Bundle: c.Record}, nil
	}
	r, err := parseAccepted(raw)
	if err != nil {
		return nil, fmt.Errorf("the accepted record: %w", err)
	}
	return &channel.Head{Record: r, Bundle: c.Record}, nil
}

// catchUp fetches the records before next by their fixed tags, back to the one that a deployer signed, and accepts that.
func (f *follower) catchUp(ctx context.Context, prev *channel.Head, next *channel.Record) (*channel.Head, error) {
	low := int64(0)
	if prev != nil {
		low = prev.Record.Seq
	}
	for seq := next.Seq - 1; seq > low && seq >= next.Seq-int64(f.a.checks.walk); seq-- {
		tags, err := f.places.Look(ctx, channel.SeqTag(f.cfg.Name, seq), false)
		if err != nil {
			return nil, fmt.Errorf("fetch record seq %d: %w", seq, errors.Join(ErrTransient, err))
		}
		var head *channel.Head
		var errs []error
		for _, tag := range tags { // a place that shows something else there keeps nobody from catching up
			var done bool
			if head, done, err = f.earlier(ctx, prev, tag, seq); done {
				break
			}
			errs = append(errs, err)
		}
		switch {
		case len(errs) == len(tags):
			return nil, errors.Join(errs...)
		case head != nil:
			return head, nil
		}
	}
	return prev, nil
}

// earlier fetches the record of an earlier seq behind tag. done tells that it is one, and head is set when a deployer signed it
// and it was accepted.
func (f *follower) earlier(ctx context.Context, prev *channel.Head, tag artifact.Digest, seq int64) (head *channel.Head, done bool, err error) {
	raw, err := f.fetchRecord(ctx, tag)
	if err != nil {
		return nil, false, fmt.Errorf("fetch record seq %d: %w", seq, err)
	}
	r, ev, err := f.verifyRecord(ctx, raw)
	if err != nil {
		return nil, false, fmt.Errorf("record seq %d: %w", seq, err)
	}
	if r.Seq != seq || r.Channel != f.cfg.Name || r.Env != f.cfg.Env || r.Target.Name != f.cfg.Model {
		return nil, false, fmt.Errorf("the tag of record seq %d holds another one", seq)
	}
	if ev.Role == trust.RoleRefresher {
		return nil, true, nil
	}
	head = &channel.Head{Record: r, Bundle: artifact.DigestOf(raw)}
	step, err := f.a.checks.follows(prev, head, false)
	if err != nil {
		return nil, false, fmt.Errorf("record seq %d: %w", seq, err)
	}
	if err := f.keepRecord(ctx, raw, r, step); err != nil {
		return nil, false, err
	}
	return head, true, nil
}

// verifyRecord verifies raw, walking to a newer trust document first when the record was made under one.
func (f *follower) verifyRecord(ctx context.Context, raw []byte) (*channel.Record, *verify.Evidence, error) {
	for range f.a.checks.walk {
		r, ev, err := f.a.checks.record(raw, f.a.Trust(), f.a.now())
		if verify.ReasonOf(err) != verify.TrustBehind && verify.ReasonOf(err) != verify.WrongSigner {
			return r, ev, err
		}
		moved, werr := f.nextTrust(ctx)
		if werr != nil {
			return nil, nil, errors.Join(err, werr)
		}
		if !moved {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("more than %d trust documents to walk at once", f.a.checks.walk)
}

// renewTrust walks to the newest trust document that the carrier has, before anything new is believed: whoever holds a key that was
// revoked names a document that still knows it. What cannot be looked up or does not verify changes nothing, since whoever could
// put it there could as well withhold it; a record that needs a newer document is refused without it.
func (f *follower) renewTrust(ctx context.Context) {
	for range f.a.checks.walk {
		moved, err := f.nextTrust(ctx)
		if err != nil {
			f.a.Log.Warn("a newer trust document can't be used", "channel", f.cfg.Name, "error", err)
		}
		if err != nil || !moved {
			return
		}
	}
}

// nextTrust accepts the trust document that follows the present one, when the carrier has it.
func (f *follower) nextTrust(ctx context.Context) (moved bool, err error) {
	current := f.a.Trust()
	tags, err := f.places.Look(ctx, TrustTag(current.Version+1), false)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look up trust document version %d: %w", current.Version+1, errors.Join(ErrTransient, err))
	}
	var errs []error
	for _, tag := range tags { // a place that shows something else there holds nobody up
		moved, err := f.takeTrust(ctx, current, tag)
		if err == nil {
			return moved, nil
		}
		errs = append(errs, err)
	}
	return false, errors.Join(errs...)
}

func (f *follower) takeTrust(ctx context.Context, current *trust.Document, tag artifact.Digest) (moved bool, err error) {
	raw, err := f.read(ctx, artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: tag}, artifact.MaxManifest)
	if err != nil {
		return false, err
	}
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		return false, err
	}
	if len(m.Layers) == 0 {
		return false, errors.New("the manifest of the trust document has no layer")
	}
	file, err := f.read(ctx, m.Layers[0], artifact.MaxBundle)
	if err != nil {
		return false, err
	}
	next, err := f.a.checks.trust(file, current)
	if err != nil {
		return false, err
	}
	digest, err := next.Digest()
	if err != nil {
		return false, err
	}
	f.a.disk.Lock()
	defer f.a.disk.Unlock()
	blob, err := f.a.blobs.Put(ctx, file)
	if err != nil {
		return false, errors.Join(ErrTransient, err)
	}
	e := journal.Entry{Kind: KindTrust, Digest: digest, Seq: int64(next.Version), Reason: fmt.Sprintf("trust document version %d follows %d", next.Version, current.Version)}
	err = f.a.update(func(d *state.Doc) error {
		switch {
		case d.Trust.Version > next.Version || d.Trust.Version == next.Version && d.Trust.File != "":
			return nil // another channel was faster, or it is on the way to the one that was lost
		case d.Trust.Version == next.Version && d.Trust.Digest != "" && d.Trust.Digest != digest:
			return fmt.Errorf("it is not the trust document version %d that this device had accepted", next.Version)
		}
		d.Trust = state.TrustPin{Version: next.Version, Digest: digest, File: blob}
		d.TimeFloor = later(d.TimeFloor, next.Issued.UTC()) // its roots say until when it may be believed
		return nil
	}, e)
	if err != nil {
		return false, errors.Join(ErrTransient, err)
	}
	f.a.mu.Lock()
	defer f.a.mu.Unlock()
	if f.a.trust.Version < next.Version {
		f.a.trust = next
	}
	return true, nil
}

// act does what the accepted record r asks of this device.
func (f *follower) act(ctx context.Context, r *channel.Record, tag artifact.Digest) error {
	c := f.state()
	done := func() error {
		return f.change(func(c *state.Channel) error { c.Tag, c.Waiting = tag, nil; return nil })
	}
	target := slotOf(r.Target, r.Seq)
	refused := func(err error) error {
		return f.refused(err, state.Note{Record: c.Record, To: target.Digest, Seq: r.Seq, Reason: err.Error()})
	}
	if f.a.denied(target.Digest) {
		return refused(fmt.Errorf("the trust document denies %s", target.Digest.Short()))
	}
	if c.Current != nil && c.Current.Digest == target.Digest && f.live != nil {
		// Nothing to activate; what the record says beside it takes effect.
		return f.change(func(c *state.Channel) error {
			c.Tag = tag
			c.EpochFloor = max(c.EpochFloor, r.EpochFloor)
			c.Raise(target.Digest, target.Epoch)
			c.Pinned, c.Waiting = nil, nil
			return nil
		})
	}
	if f.isHeldBack(target.Digest) {
		return nil // it has its turn after this
	}
	if why := c.Barred(target.Digest, r.Generation, r.Seq); why != "" {
		return done()
	}
	device := channel.Device{ID: f.a.Signer.KeyID(), Class: f.a.cfg.Class, Labels: f.a.cfg.Labels, Floor: c.EpochFloor}
	err := f.a.checks.admit(r, f.a.now(), device)
	known, committed := c.Committed(target.Digest)
	// The factory artifact had no record yet. What can't be served is fetched again, like something new.
	committed = committed && known.Seq > 0 && (f.live != nil || c.Current == nil || c.Current.Digest != target.Digest)
	if errors.Is(err, channel.ErrFrozen) {
		err = f.frozen(r, device, committed)
	}
	switch {
	case errors.Is(err, channel.ErrFrozen):
		f.a.Log.Info("keeping what runs", "channel", f.cfg.Name, "seq", r.Seq, "reason", err)
		return done()
	case (errors.Is(err, channel.ErrAudience) || errors.Is(err, channel.ErrRollout)) && c.Current == nil:
		former, berr := f.before(ctx, r, device)
		if transient(berr) {
			return berr
		}
		if berr != nil {
			return f.refused(berr, state.Note{Record: c.Record, To: target.Digest, Seq: r.Seq, Reason: clip(berr.Error())})
		}
		if former == nil || c.Barred(former.Target.Digest, r.Generation, r.Seq) != "" || f.a.denied(former.Target.Digest) {
			f.a.Log.Info("the record is not for this device, which has nothing yet", "channel", f.cfg.Name, "seq", r.Seq, "reason", err)
			return done()
		}
		r, target = former, slotOf(former.Target, r.Seq)
	case errors.Is(err, channel.ErrAudience), errors.Is(err, channel.ErrRollout):
		f.a.Log.Info("the record is not for this device", "channel", f.cfg.Name, "seq", r.Seq, "reason", err)
		return done()
	case errors.Is(err, channel.ErrExpired) && committed:
		// Going back to what passed here before is no activation.
	case err != nil:
		return refused(err)
	}
	if err := f.held(c); err != nil {
		return err
	}
	if committed {
		target.Committed = known.Committed
	}
	if err := errors.Join(f.window(f.next(target), r, target), f.waits(ctx, target)); err != nil {
		if p, ok := isPostponed(err); ok {
			return f.postpone(r, target, p)
		}
		return err
	}
	return f.activate(ctx, r, target, tag)
}

// held stops activations after too many automatic rollbacks in a short time.
func (f *follower) held(c *state.Channel) error {
	now, n := f.a.now(), 0
	for _, at := range c.Rollbacks {
		// One that was noted while the clock was far ahead is old once the clock is right.
		if now.Sub(at).Abs() < f.a.cfg.RollbackWindow {
			n++
		}
	}
	if n < f.a.cfg.MaxRollbacks {
		return nil
	}
	reason := fmt.Sprintf("%d automatic rollbacks within %s: no further activation until they are that old", n, f.a.cfg.RollbackWindow)
	return errors.Join(fmt.Errorf("%w: %s", ErrTransient, reason), f.refuse(state.Note{Record: c.Record, Reason: reason}))
}

func slotOf(t channel.Target, seq int64) state.Slot {
	return state.Slot{Digest: t.Digest, Size: t.Size, Name: t.Name, Version: t.Version, Epoch: t.Epoch, Seq: seq}
}

// ofChannel tells whether a record is one of this channel, environment and model.
func ofChannel(r *channel.Record, c *Channel) error {
	switch {
	case r.Channel != c.Name:
		return fmt.Errorf("%w: it is of channel %q, this is %q", channel.ErrChannel, r.Channel, c.Name)
	case r.Env != c.Env:
		return fmt.Errorf("the record is for environment %q, this device is in %q", r.Env, c.Env)
	case r.Target.Name != c.Model:
		return fmt.Errorf("the record's target is model %q, this channel serves %q", r.Target.Name, c.Model)
	}
	return nil
}
