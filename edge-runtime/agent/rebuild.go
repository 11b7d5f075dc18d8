package agent

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Rebuild puts the durable document together again when every copy of it is lost. What it rests on, the strongest first: trust
// documents and channel records in the blob store, which their signatures prove; the journal, whose chain and signed checkpoints
// the device key proves; the last report of each channel. Each of them raises the numbers that never fall and none lowers them, so
// whoever damages some of these files gains nothing below what the others prove. What serves is only what the journal names last as
// committed, and nothing where the journal is not whole and the last report names something else.
type Rebuild struct {
	FS      fsx.FS
	Dir     string // the state directory
	Journal string // path of the journal
	Checker journal.Checker
	Device  string // id of the device key
	// TrustFile is the provisioned trust document, as in Config.
	TrustFile    []byte
	TrustVersion int
	TrustDigest  artifact.Digest
	Channels     []Channel // Name, Env and Model are used

	keepFloors func(c *state.Channel) // tests lower what was proved, to see the attack succeed
}

// OpenState is state.Open for a device that must serve: when all documents are lost, the state is rebuilt. damage then says what
// was wrong; it is nil when a document could be read, or when the device is new.
func (r Rebuild) OpenState(now time.Time) (store *state.Store, damage error, err error) {
	store, err = state.Open(r.FS, r.Dir)
	switch {
	case err == nil && store.Doc().Serial > 0:
		return store, nil, nil
	case err == nil:
		es, jerr := journal.Read(r.FS, r.Journal, 1)
		if jerr == nil && len(es) == 0 {
			return store, nil, nil // nothing was ever decided here
		}
		damage = errors.Join(errors.New("its documents are gone, the journal is there"), jerr)
	case errors.Is(err, state.ErrDamaged):
		damage = err
	default:
		return nil, nil, err
	}
	doc, err := r.document(damage, now.UTC().Truncate(time.Second))
	if err != nil {
		return nil, damage, errors.Join(damage, fmt.Errorf("rebuild the state: %w", err))
	}
	if err := state.Replace(r.FS, r.Dir, doc); err != nil {
		return nil, damage, errors.Join(damage, err)
	}
	store, err = state.Open(r.FS, r.Dir)
	return store, damage, err
}

// rebuilding is one rebuild at work.
type rebuilding struct {
	Rebuild
	doc     *state.Doc
	trust   *trust.Document
	blobs   *state.Blobs
	files   []artifact.Digest // small enough for a bundle
	whole   bool              // the journal is
	oldest  int64
	from    []string
	lacking []string
}

func (r Rebuild) document(damage error, now time.Time) (*state.Doc, error) {
	b := &rebuilding{Rebuild: r, blobs: state.BlobsAt(r.FS, r.Dir), doc: &state.Doc{Schema: state.Schema, Device: r.Device, Channels: map[string]*state.Channel{}}}
	es, err := b.entries()
	if err != nil {
		return nil, err
	}
	if err := b.list(); err != nil {
		return nil, err
	}
	if err := b.findTrust(es); err != nil {
		return nil, err
	}
	for _, cfg := range r.Channels {
		b.channel(cfg, es, now)
	}
	why := clip(damage.Error())
	b.doc.Rebuilt = &state.Rebuilt{At: now, Why: why, From: b.from, Lacking: b.lacking}
	b.doc.Events++
	reason := "the state was rebuilt: " + why
	for _, l := range b.lacking {
		reason += "; " + l
	}
	b.doc.Outbox = []journal.Entry{{At: now, Kind: KindAlarm, Reason: clip(reason), Serial: b.doc.Events}}
	return b.doc, nil
}

func (b *rebuilding) lack(format string, args ...any) {
	b.lacking = append(b.lacking, fmt.Sprintf(format, args...))
}

// entries reads what the journal proves: those of a chain that holds, up to where it is damaged.
func (b *rebuilding) entries() ([]journal.Entry, error) {
	var report journal.Report
	var err error
	for range 3 { // one wrong read must not cost what the journal proves
		report, err = journal.Verify(b.FS, b.Journal, journal.Head{}, b.Checker)
		if err == nil {
			break
		}
	}
	if err != nil && !errors.Is(err, journal.ErrDamaged) {
		return nil, err
	}
	b.whole, b.oldest = err == nil && report.Head.Entries > 0, report.Oldest
	if err != nil {
		b.lack("the journal is damaged after entry %d", report.Head.Entries)
	}
	all, err := journal.Read(b.FS, b.Journal, 0)
	if err != nil {
		return nil, err
	}
	var out []journal.Entry
	for _, e := range all {
		if n := report.Oldest + int64(len(out)); e.N != n || n > report.Head.Entries {
			break // lines past the chain prove nothing
		}
		out = append(out, e)
		b.doc.Events = max(b.doc.Events, e.Serial)
	}
	if b.whole {
		b.doc.Journal = report.Head
	}
	if len(out) > 0 {
		b.from = append(b.from, fmt.Sprintf("journal entries %d to %d, %d signed", report.Oldest, report.Head.Entries, report.Signed))
	}
	return out, nil
}

// list finds the blobs that may be records or trust documents.
func (b *rebuilding) list() error {
	es, err := b.FS.ReadDir(b.blobs.Dir())
	if err != nil {
		return err
	}
	for _, e := range es {
		d, err := artifact.ParseDigest("sha256:" + e.Name())
		if err != nil {
			continue
		}
		if info, err := e.Info(); err == nil && info.Size() <= artifact.MaxBundle {
			b.files = append(b.files, d)
		}
	}
	return nil
}

// findTrust takes the newest trust document on the device: the provisioned one, those that follow it, or the one that the journal names.
func (b *rebuilding) findTrust(es []journal.Entry) error {
	var err error
	if b.trust, err = verify.TrustPinned(b.TrustFile, b.TrustVersion, b.TrustDigest); err != nil {
		return fmt.Errorf("provisioned trust document: %w", err)
	}
	var pin state.TrustPin
	for _, e := range es {
		if e.Kind == KindTrust && int(e.Seq) > max(pin.Version, b.trust.Version) {
			pin = state.TrustPin{Version: int(e.Seq), Digest: e.Digest}
		}
	}
	for again := true; again; {
		again = false
		for _, d := range b.files {
			raw, err := b.blobs.Read(d, artifact.MaxBundle)
			if err != nil {
				continue
			}
			next, err := verify.TrustBundle(raw, b.trust)
			if err != nil && pin.Version > b.trust.Version {
				next, err = verify.TrustPinned(raw, pin.Version, pin.Digest)
			}
			if err != nil || next.Version <= b.trust.Version {
				continue
			}
			digest, err := next.Digest()
			if err != nil {
				continue
			}
			b.trust, again = next, true
			if next.Version >= pin.Version {
				pin = state.TrustPin{Version: next.Version, Digest: digest, File: d}
			}
		}
	}
	for _, cfg := range b.Channels {
		if s := b.lastReport(cfg.Name); s != nil && s.Trust > max(pin.Version, b.trust.Version) {
			pin = state.TrustPin{Version: s.Trust}
		}
	}
	b.doc.Trust = pin
	b.doc.TimeFloor = b.trust.Issued.UTC()
	if pin.Version > b.trust.Version {
		b.lack("trust document version %d is lost: no record is followed until the channel brings it again", pin.Version)
	} else {
		b.from = append(b.from, fmt.Sprintf("trust document version %d", b.trust.Version))
	}
	return nil
}

// lastReport is the report that the device kept of a channel; nil: none that can be read. Its signature is not looked at: it only
// ever raises a floor, or agrees with the journal.
func (b *rebuilding) lastReport(name string) *evidence.Status {
	raw, err := fsx.ReadFile(b.FS, filepath.Join(b.Dir, "status-"+name+".json"), artifact.MaxBundle)
	if err != nil {
		return nil
	}
	bundle, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil
	}
	st, err := evidence.ParseStatement(bundle.DSSEEnvelope.Payload)
	if err != nil || st.PredicateType != evidence.TypeStatus {
		return nil
	}
	s, err := evidence.ParseStatus(st.Predicate)
	if err != nil || s.Channel != name || s.Device != b.Device {
		return nil
	}
	return s
}

// channel rebuilds one channel.
func (b *rebuilding) channel(cfg Channel, es []journal.Entry, now time.Time) {
	c := b.doc.Channel(cfg.Name)
	p := replay{b: b, c: c, model: cfg.Model}
	for _, e := range es {
		if e.Channel == cfg.Name {
			p.entry(e)
		}
	}
	heard, told := c.Seq > 0, c.Seq
	var newest *channel.Record
	for _, d := range b.files {
		raw, err := b.blobs.Read(d, maxRecordBundle)
		if err != nil {
			continue
		}
		rec, _, err := verify.Record(raw, b.trust, later(now, b.trust.Issued))
		if err != nil || ofChannel(rec, &cfg) != nil {
			continue
		}
		if rec.Generation > c.Generation || rec.Generation == c.Generation && rec.Seq >= c.Seq {
			p.accepted(rec.Generation, rec.Seq, d, rec.Expires, rec.Issued)
			newest = rec
		}
	}
	if newest != nil {
		heard = true
		c.Frozen = frozenBy(nil, newest)
		p.confirms(newest.Target.Digest, newest.Target.Epoch, newest.EpochFloor)
		b.from = append(b.from, fmt.Sprintf("channel %s: record seq %d of generation %d", cfg.Name, newest.Seq, newest.Generation))
	} else if heard {
		b.lack("channel %s: the record seq %d is lost, only a later one is followed", cfg.Name, c.Seq)
	}
	s := b.lastReport(cfg.Name)
	if s != nil && s.Seq > c.Seq {
		b.lack("channel %s: the report tells of seq %d, which nothing else here does: only a later one is followed", cfg.Name, s.Seq)
		c.Seq, c.Record, heard = s.Seq, artifact.DigestOf(nil), true
		c.Generation = max(c.Generation, b.trust.Generation)
	}
	if d := p.trial; d != "" { // the device went down in its trial, as far as is known
		quarantine(c, d, c.Generation, c.Seq, "the state was lost during the trial", now)
	}
	cut := !b.whole || c.Seq > told || s != nil && s.Journal.Entries > b.doc.Journal.Entries
	if cut && c.Current != nil && !named(s, c.Current.Digest) {
		b.lack("channel %s: the journal is not whole and nothing confirms that %s is what was committed last: it does not serve", cfg.Name, c.Current.Digest.Short())
		c.Current, c.Previous, c.Kept = nil, nil, nil
	}
	if !heard && (!b.whole || b.oldest > 1 || c.Current != nil && c.Current.Seq > 0) {
		c.Unproven = true
		b.lack("channel %s: nothing proves how far it was followed: no record is followed", cfg.Name)
	}
	gone := func(s state.Slot) bool { return !b.here(s) }
	if c.Previous != nil && gone(*c.Previous) {
		c.Previous = nil
	}
	c.Kept = slices.DeleteFunc(c.Kept, gone)
	if c.Factory != nil && gone(*c.Factory) {
		c.Factory = nil // it is copied and proved anew
	}
	if b.keepFloors != nil {
		b.keepFloors(c)
	}
}

// named tells whether the last report says that d was what is committed.
func named(s *evidence.Status, d artifact.Digest) bool {
	switch {
	case s == nil:
		return false
	case s.State == string(state.Trial):
		return s.Previous == d
	}
	return s.Running == d
}

// here tells whether all files of an artifact are on the device. Their bytes are hashed when it is loaded.
func (b *rebuilding) here(s state.Slot) bool {
	raw, err := b.blobs.Read(s.Digest, artifact.MaxManifest)
	if err != nil {
		return false
	}
	m, err := verify.Manifest(raw, s.Digest)
	if err != nil {
		return false
	}
	for _, l := range deviceLayers(m) {
		if !b.blobs.Has(l.Digest, l.Size) {
			return false
		}
	}
	return true
}

// replay repeats on c what the journal says was done to it.
type replay struct {
	b     *rebuilding
	c     *state.Channel
	model string
	trial artifact.Digest // on trial, with no end to it yet
}

func (p *replay) entry(e journal.Entry) {
	c := p.c
	var f facts
	if len(e.Data) > 0 && decodeFacts(e.Data, &f) != nil {
		f = facts{}
	}
	if f.Generation == 0 { // an entry of an earlier version: what is signed now can't be of an earlier one
		f.Generation = p.b.trust.Generation
	}
	switch e.Kind {
	case KindRecord:
		if f.Repeats {
			stands(c, channel.Refresh, &channel.Record{Generation: f.Generation, Seq: e.Seq})
		}
		p.accepted(f.Generation, e.Seq, f.Record, f.Expires, f.Issued)
		for q, v := range c.Quarantine {
			if v.Generation != f.Generation || v.Seq < e.Seq {
				delete(c.Quarantine, q)
			}
		}
		if f.Target != nil {
			p.confirms(e.Digest, f.Target.Epoch, f.EpochFloor)
		}
	case KindTrial:
		p.trial = e.Digest
	case KindInterrupted, KindFailed, KindRefused:
		p.trial = ""
	case KindQuarantined:
		p.trial = ""
		quarantine(c, e.Digest, f.Generation, e.Seq, e.Reason, e.At)
	case KindLeft:
		c.Current, c.Previous, c.Factory, c.Kept, p.trial = nil, nil, nil, nil, ""
	case KindCommitted, KindRolledBack, KindFallback, KindFactory:
		p.moved(e, f)
	}
}

// accepted raises the numbers of the channel to those of a record.
func (p *replay) accepted(generation int, seq int64, record artifact.Digest, expires, issued time.Time) {
	c, d := p.c, p.b.doc
	if generation < c.Generation || generation == c.Generation && seq < c.Seq {
		return
	}
	if record == "" {
		record = artifact.DigestOf(nil) // no record has it: nothing counts as this one
	}
	c.Generation, c.Seq, c.Record, c.Expires = generation, seq, record, expires.UTC()
	p.attest(issued, d)
}

func (p *replay) attest(at time.Time, d *state.Doc) {
	if at.Before(p.b.trust.Expires) {
		d.TimeFloor = later(d.TimeFloor, at.UTC())
	}
}

// confirms is what a record does that names the artifact which serves.
func (p *replay) confirms(d artifact.Digest, epoch, floor int64) {
	if c := p.c; c.Current != nil && c.Current.Digest == d {
		c.Raise(d, epoch)
		c.EpochFloor, c.Pinned = max(c.EpochFloor, floor), nil
	}
}

// moved follows the pointer to what is committed. A failed trial names what went on serving.
func (p *replay) moved(e journal.Entry, f facts) {
	c := p.c
	if p.trial == e.Digest || p.trial == e.From {
		p.trial = ""
	}
	if e.Digest == "" || e.Kind == KindFactory && f.Target == nil {
		return
	}
	at := e.At.UTC().Truncate(time.Second)
	var s state.Slot
	switch known, ok := c.Committed(e.Digest); {
	case f.Target != nil && f.Target.Digest == e.Digest:
		s = *f.Target
	case ok:
		s = known
	default: // an entry of an earlier version: it was above the floor of then
		s = state.Slot{Digest: e.Digest, Name: p.model, Epoch: c.EpochFloor, Seq: e.Seq}
	}
	if s.Name != p.model {
		return
	}
	if raw, err := p.b.blobs.Read(s.Digest, artifact.MaxManifest); s.Size == 0 && err == nil {
		s.Size = int64(len(raw))
	}
	if f.Factory {
		s.Committed = at
		c.Factory = &s
		return
	}
	if c.Current == nil || c.Current.Digest != s.Digest || e.Kind == KindCommitted {
		promote(c, s, at, nil)
	}
	p.attest(f.Attested, p.b.doc)
	switch {
	case f.Pinned:
		c.Pinned = &state.Pin{Generation: c.Generation, Seq: c.Seq, At: at}
	case f.Target != nil && (e.Kind == KindCommitted || e.Kind == KindRolledBack):
		c.EpochFloor, c.Pinned = max(c.EpochFloor, f.EpochFloor), nil
	}
	if e.Kind != KindCommitted {
		c.LastRollback = &state.Note{At: at, From: e.From, To: e.Digest, Seq: e.Seq, Reason: e.Reason}
	}
}

// quarantine bars d up to the newest record.
func quarantine(c *state.Channel, d artifact.Digest, generation int, seq int64, reason string, at time.Time) {
	if c.Quarantine == nil {
		c.Quarantine = map[string]state.Quarantine{}
	}
	if generation == c.Generation {
		seq = max(seq, c.Seq)
	}
	c.Quarantine[string(d)] = state.Quarantine{Generation: generation, Seq: seq, Reason: reason, At: at.UTC()}
}

// ErrUnproven says that a rebuilt state does not prove enough to follow a record.
var ErrUnproven = errors.New("the state of this device was rebuilt without what a record must be judged by")

// proven refuses every record while a rebuilt state lacks the trust document in force or the numbers that never fall.
func (f *follower) proven() error {
	doc := f.a.Store.Doc()
	if have := f.a.Trust().Version; have < doc.Trust.Version {
		return fmt.Errorf("%w: trust document version %d was accepted and is lost, this is version %d", ErrUnproven, doc.Trust.Version, have)
	}
	if c := doc.Channels[f.cfg.Name]; c != nil && c.Unproven {
		return fmt.Errorf("%w: how far channel %s was followed is not known; move %s away to provision the device anew", ErrUnproven, f.cfg.Name, f.a.Store.Dir())
	}
	return nil
}
