package agent

import (
	"cmp"
	"crypto"
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
// the device key proves; the last report of each channel, which the device key signed. Each of them raises the numbers that never fall and none lowers them, so
// whoever damages some of these files gains nothing below what the others prove. What serves is only what the journal names last as
// committed; where the journal is not whole, only what the last report names too; where it names nothing, what the report does.
type Rebuild struct {
	FS      fsx.FS
	Dir     string // the state directory
	Journal string // path of the journal
	Checker journal.Checker
	Device  string // id of the device key
	Public  []byte // the device key, as PEM
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
		if damage = r.seenBefore(); damage == nil {
			return store, nil, nil
		}
	case errors.Is(err, state.ErrDamaged) && errors.Is(err, state.ErrSchema):
		return nil, nil, err // a later version wrote it: nothing is lost
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

// seenBefore tells what is here of a device that has no state document; nil: nothing was ever decided here.
func (r Rebuild) seenBefore() error {
	es, err := journal.Read(r.FS, r.Journal, 1)
	if err != nil || len(es) > 0 {
		return errors.Join(errors.New("its documents are gone, the journal is there"), err)
	}
	for _, c := range r.Channels {
		if s := r.lastReport(c.Name); s != nil && s.Seq > 0 { // a record was accepted before it
			return fmt.Errorf("its documents and its journal are gone, the report of channel %s is there", c.Name)
		}
	}
	return nil
}

// rebuilding is one rebuild at work.
type rebuilding struct {
	Rebuild
	doc     *state.Doc
	trust   *trust.Document
	blobs   *state.Blobs
	files   []artifact.Digest // small enough for a bundle
	head    journal.Head      // as far as the journal is proved
	whole   bool              // the journal is
	first   bool              // and it has the first entry that was ever made
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
	b.unfollowed(es)
	why := clip(damage.Error())
	b.doc.Rebuilt = &state.Rebuilt{At: now, Why: why, From: b.from, Lacking: b.lacking}
	b.doc.Events++
	reason := "the state was rebuilt: " + why
	for _, l := range b.lacking {
		reason += "; " + l
	}
	b.doc.Outbox = []journal.Entry{{At: now, Kind: KindAlarm, Reason: clip(reason), Serial: b.doc.Events, Data: facts{Lost: !b.first}.data()}}
	return b.doc, nil
}

func (b *rebuilding) lack(format string, args ...any) {
	b.lacking = append(b.lacking, fmt.Sprintf(format, args...))
}

// entries reads what the journal proves.
func (b *rebuilding) entries() ([]journal.Entry, error) {
	var es []journal.Entry
	var report journal.Report
	var damage, err error
	for range 3 { // one wrong read must not cost what the journal proves
		if es, report, damage, err = journal.Proven(b.FS, b.Journal, b.Checker); err == nil && damage == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	b.head, b.whole = report.Head, damage == nil && len(es) > 0
	b.first = b.whole && report.Oldest == 1
	for _, e := range es {
		b.doc.Events = max(b.doc.Events, e.Serial)
		var f facts
		lost := e.Kind == journal.KindDamaged || e.Kind == KindAlarm && len(e.Data) > 0 && decodeFacts(e.Data, &f) == nil && f.Lost
		b.first = b.first && !lost
	}
	if b.whole {
		b.doc.Journal = report.Head
	} else {
		b.lack("the journal is not whole: %v", cmp.Or(damage, errors.New("it has no entry")))
	}
	if n := len(es); n > 0 {
		b.from = append(b.from, fmt.Sprintf("%d journal entries from %d to %d", n, es[0].N, es[n-1].N))
	}
	return es, nil
}

// read gives a small blob; one wrong read must not cost what it proves.
func (b *rebuilding) read(d artifact.Digest, most int64) (raw []byte, err error) {
	for range 3 {
		if raw, err = b.blobs.Read(d, most); err == nil {
			break
		}
	}
	return raw, err
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
			raw, err := b.read(d, artifact.MaxBundle)
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

// lastReport is the report that the device signed last for a channel; nil: none that can be read.
func (r Rebuild) lastReport(name string) *evidence.Status {
	pub, _, err := trust.ParsePublic(r.Public)
	if err != nil {
		return nil
	}
	for range 3 {
		raw, err := fsx.ReadFile(r.FS, filepath.Join(r.Dir, "status-"+name+".json"), artifact.MaxBundle)
		if err != nil {
			continue
		}
		if s := signedStatus(raw, pub); s != nil && s.Channel == name && s.Device == r.Device {
			return s
		}
	}
	return nil
}

// signedStatus reads a report that pub signed. One that a bit of was lost would name a seq that never comes.
func signedStatus(raw []byte, pub crypto.PublicKey) *evidence.Status {
	bundle, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil
	}
	env := bundle.DSSEEnvelope
	if len(env.Signatures) != 1 || !verify.Signature(pub, evidence.PayloadType, env.Payload, env.Signatures[0].Sig) {
		return nil
	}
	st, err := evidence.ParseStatement(env.Payload)
	if err != nil || st.PredicateType != evidence.TypeStatus {
		return nil
	}
	s, err := evidence.ParseStatus(st.Predicate)
	if err != nil {
		return nil
	}
	return s
}

// channel rebuilds one channel.
func (b *rebuilding) channel(cfg Channel, es []journal.Entry, now time.Time) {
	p := b.replayed(cfg.Name, cfg.Model, es)
	c := p.c
	heard, told := c.Seq > 0, c.Seq
	newest := b.newest(&cfg, &p, now)
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
		c.Seq, c.Record, heard = s.Seq, noRecord, true
		c.Generation = max(c.Generation, b.trust.Generation)
	}
	if s != nil && s.Clock != nil {
		p.attest(s.Clock.Floor)
	}
	if d := p.trial; d != "" { // the device went down in its trial, as far as is known
		quarantine(c, d, c.Generation, c.Seq, "the state was lost during the trial", now)
	}
	if cut := !b.whole || c.Seq > told || s != nil && s.Journal.Entries > b.head.Entries; cut || !b.first && c.Current == nil {
		p.uncertain(&cfg, newest, s)
	}
	if !heard && (!b.first || c.Current != nil && c.Current.Seq > 0) {
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

// newest finds the newest record of a channel in the store, and raises the numbers to it. The one that the journal names as accepted
// was verified then; others must verify now.
func (b *rebuilding) newest(cfg *Channel, p *replay, now time.Time) (newest *channel.Record) {
	c := p.c
	for _, d := range b.files {
		raw, err := b.read(d, maxRecordBundle)
		if err != nil {
			continue
		}
		var rec *channel.Record
		accepted := d == c.Record
		if accepted {
			rec, err = parseAccepted(raw)
		} else {
			rec, _, err = verify.Record(raw, b.trust, later(now, b.trust.Issued))
		}
		if err != nil || ofChannel(rec, cfg) != nil {
			continue
		}
		above := rec.Generation > c.Generation || rec.Generation == c.Generation && rec.Seq > c.Seq
		if accepted || above || rec.Generation == c.Generation && rec.Seq == c.Seq && c.Record == noRecord {
			p.accepted(rec.Generation, rec.Seq, d, rec.Expires, rec.Issued)
			newest = rec
		}
	}
	return newest
}

// unfollowed raises the numbers of channels that the journal tells of and the device follows no longer: whoever follows one again is no
// easier to deceive.
func (b *rebuilding) unfollowed(es []journal.Entry) {
	for _, e := range es {
		if e.Kind != KindRecord || e.Channel == "" || b.doc.Channels[e.Channel] != nil {
			continue
		}
		c := b.replayed(e.Channel, "", es).c
		c.Current, c.Previous, c.Factory, c.Kept = nil, nil, nil, nil
	}
}

// here tells whether all files of an artifact are on the device. Their bytes are hashed when it is loaded.
func (b *rebuilding) here(s state.Slot) bool {
	raw, err := b.read(s.Digest, artifact.MaxManifest)
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

// uncertain settles what is committed where the journal may not tell the end of it: what the report names too, or what the report
// names alone where the journal names nothing. The newest record may have been committed since, and its floor with it.
func (p *replay) uncertain(cfg *Channel, newest *channel.Record, s *evidence.Status) {
	c, b := p.c, p.b
	if newest != nil {
		c.EpochFloor = max(c.EpochFloor, newest.EpochFloor)
		for _, t := range append(slices.Clone(newest.Keep), newest.Target) {
			p.seen[t.Digest] = slotOf(t, newest.Seq)
		}
	}
	d := committedBy(s, cfg.Model)
	slot, known := p.seen[d]
	switch {
	case c.Current != nil && c.Current.Digest == d:
	case c.Current != nil:
		b.lack("channel %s: the journal is not whole and nothing confirms that %s is what was committed last: it does not serve", cfg.Name, c.Current.Digest.Short())
		c.Current, c.Previous, c.Kept = nil, nil, nil
	case d == "" || p.left:
	case !known || !b.here(slot):
		b.lack("channel %s: the report names %s, which is not known or not whole: it does not serve", cfg.Name, d.Short())
	default:
		promote(c, slot, s.At.UTC(), nil)
		b.from = append(b.from, fmt.Sprintf("channel %s: the report names %s as committed", cfg.Name, d.Short()))
	}
}

// committedBy is what a report says was committed; "": nothing, or there is none.
func committedBy(s *evidence.Status, model string) artifact.Digest {
	switch {
	case s == nil || s.Model != model:
		return ""
	case s.State == string(state.Trial):
		return s.Previous
	}
	return s.Running
}

// noRecord stands for a record that is lost: none has it, so nothing counts as this one.
var noRecord = artifact.DigestOf(nil)

// replay repeats on c what the journal says was done to it.
type replay struct {
	b     *rebuilding
	c     *state.Channel
	model string
	trial artifact.Digest // on trial, with no end to it yet
	left  bool            // the channel was left, and nothing committed since
	seen  map[artifact.Digest]state.Slot
}

func (b *rebuilding) replayed(name, model string, es []journal.Entry) replay {
	p := replay{b: b, c: b.doc.Channel(name), model: model, seen: map[artifact.Digest]state.Slot{}}
	for _, e := range es {
		if e.Channel == name {
			p.entry(e)
		}
	}
	return p
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
			p.seen[e.Digest] = *f.Target
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
		p.left = true
	case KindCommitted, KindRolledBack, KindFallback, KindFactory:
		p.moved(e, f)
	}
}

// accepted raises the numbers of the channel to those of a record.
func (p *replay) accepted(generation int, seq int64, record artifact.Digest, expires, issued time.Time) {
	c := p.c
	if generation < c.Generation || generation == c.Generation && seq < c.Seq {
		return
	}
	if record == "" {
		record = noRecord
	}
	c.Generation, c.Seq, c.Record, c.Expires = generation, seq, record, expires.UTC()
	p.attest(issued)
}

func (p *replay) attest(at time.Time) {
	if d := p.b.doc; at.Before(p.b.trust.Expires) {
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
	if raw, err := p.b.read(s.Digest, artifact.MaxManifest); s.Size == 0 && err == nil {
		s.Size = int64(len(raw))
	}
	if f.Factory {
		s.Committed = at
		c.Factory = &s
		return
	}
	p.left = false
	if c.Current == nil || c.Current.Digest != s.Digest || e.Kind == KindCommitted {
		promote(c, s, at, nil)
	}
	p.attest(f.Attested)
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
	if have := f.a.Trust().Version; doc.Trust.File == "" && have < doc.Trust.Version {
		return fmt.Errorf("%w: trust document version %d was accepted and is lost, this is version %d", ErrUnproven, doc.Trust.Version, have)
	}
	if c := doc.Channels[f.cfg.Name]; c != nil && c.Unproven {
		return fmt.Errorf("%w: how far channel %s was followed is not known; move %s away to provision the device anew", ErrUnproven, f.cfg.Name, f.a.Store.Dir())
	}
	return nil
}
