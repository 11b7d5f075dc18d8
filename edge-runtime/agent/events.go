package agent

import (
	"errors"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
)

// Kinds of journal entries. They are part of what `waybill-edge history` prints and of status/v1.
const (
	KindStarted     = "started"     // the agent began to run
	KindRecord      = "record"      // a channel record was accepted
	KindAlarm       = "alarm"       // something is accepted that a person should look at
	KindRefused     = "refused"     // a record or what it names was not accepted
	KindFetched     = "fetched"     // everything is here, every digest right
	KindShadow      = "shadow"      // it is compared with what serves, or was
	KindTrial       = "trial"       // it serves on probation
	KindCommitted   = "committed"   // it passed
	KindRolledBack  = "rolled-back" // it did not, or a person went back
	KindQuarantined = "quarantined" // not again under this record
	KindInterrupted = "interrupted" // an activation was cut short and is forgotten
	KindFallback    = "fallback"    // the committed artifact could not be served, another one is
	KindFactory     = "factory"     // the artifact that the device was delivered with
	KindLeft        = "left"        // a channel that is followed no longer, or has another model
	KindFailed      = "failed"      // a try that may work later
	KindTrust       = "trust"       // a newer trust document was accepted
	KindHeld        = "held"        // too many rollbacks: waiting
	KindPostponed   = "postponed"   // the device's own policy does not allow it now
	KindFrozen      = "frozen"      // the channel tells its devices to keep what they run
	KindThawed      = "thawed"      // no longer
	maxOutbox       = 256           //
	checkpointEvery = int64(64)     // entries between signed checkpoints, at most
)

// final are the kinds after which the journal is signed at once.
func final(kind string) bool {
	switch kind {
	case KindCommitted, KindRolledBack, KindRefused, KindFallback, KindTrust:
		return true
	}
	return false
}

// update changes the durable document and, in the same write, notes the events that go with it; they reach the journal
// exactly once, now or after a restart. An error leaves it open whether the change happened (state.Store.Update).
func (a *Agent) update(fn func(*state.Doc) error, events ...journal.Entry) error {
	a.doc.Lock()
	defer a.doc.Unlock()
	at := a.Clock.Now().UTC()
	err := a.Store.Update(func(d *state.Doc) error {
		if err := fn(d); err != nil {
			return err
		}
		d.Device = a.Signer.KeyID()
		d.Journal = a.Journal.Head()
		written := a.Journal.Serial()
		for len(d.Outbox) > 0 && d.Outbox[0].Serial <= written {
			d.Outbox = d.Outbox[1:]
		}
		d.Events = max(d.Events, written) // a number that the journal has would be taken for written
		for _, e := range events {
			d.Events++
			e.Serial = d.Events
			if e.At.IsZero() {
				e.At = at
			}
			d.Outbox = append(d.Outbox, e)
		}
		if n := len(d.Outbox) - maxOutbox; n > 0 { // the journal has been unwritable for long
			a.Log.Error("journal entries are lost", "count", n)
			d.Outbox = d.Outbox[n:]
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, e := range events {
		a.announce(e)
	}
	a.flush()
	return nil
}

// flush writes what the outbox holds into the journal. Failing is logged and made good by the next update: what a device
// serves never depends on its log.
func (a *Agent) flush() {
	written := a.Journal.Serial()
	sign := a.unsigned
	for _, e := range a.Store.Doc().Outbox {
		if e.Serial <= written {
			continue
		}
		head, err := a.Journal.Append(e)
		if errors.Is(err, syscall.ENOSPC) && a.Store.Ballast().Release() {
			head, err = a.Journal.Append(e)
		}
		if err != nil {
			a.Log.Error("the journal can't be written", "error", err)
			a.unsigned = sign
			return
		}
		sign = sign || final(e.Kind) || head.Entries%checkpointEvery == 0
	}
	if sign {
		_, err := a.Journal.Checkpoint(a.Clock.Now())
		if a.unsigned = err != nil; a.unsigned { // the next flush tries again
			a.Log.Error("the journal can't be signed", "error", err)
		}
	}
}

// entry starts an event of a channel.
func (f *follower) entry(kind string) journal.Entry {
	return journal.Entry{Kind: kind, Channel: f.cfg.Name}
}

// about is an event about an artifact.
func (f *follower) about(kind string, s state.Slot, seq int64, reason string) journal.Entry {
	return journal.Entry{Kind: kind, Channel: f.cfg.Name, Digest: s.Digest, Seq: seq, Reason: reason}
}

// change is update of this channel's part.
func (f *follower) change(fn func(*state.Channel) error, events ...journal.Entry) error {
	f.alive()
	return f.a.update(func(d *state.Doc) error { return fn(d.Channel(f.cfg.Name)) }, events...)
}

func (f *follower) state() *state.Channel { return f.a.Store.Doc().Channel(f.cfg.Name) }

// refusal is an error that says: this will not run here, because of what it is.
type refusal struct{ err error }

func (e *refusal) Error() string { return e.err.Error() }
func (e *refusal) Unwrap() error { return e.err }

// IsRefused tells whether err says that a record, its evidence or an artifact was not accepted.
func IsRefused(err error) bool {
	var r *refusal
	return errors.As(err, &r)
}

// refused notes a refusal and gives the error for it.
func (f *follower) refused(err error, note state.Note) error {
	return errors.Join(&refusal{err}, f.refuse(note))
}

// refuse notes a refusal once: the same one again changes nothing.
func (f *follower) refuse(note state.Note) error {
	last := f.state().LastRefusal
	if last != nil && last.Record == note.Record && last.Reason == note.Reason && last.To == note.To {
		return nil
	}
	note.At = f.a.Clock.Now().UTC().Truncate(time.Second)
	e := f.entry(KindRefused)
	e.Digest, e.Seq, e.Reason = note.To, note.Seq, note.Reason
	f.unsent = true
	return f.change(func(c *state.Channel) error { c.LastRefusal = &note; return nil }, e)
}
