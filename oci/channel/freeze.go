package channel

import (
	"errors"
	"time"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/diag"
)

// MaxReason bounds the reason of a freeze, in bytes.
const MaxReason = 1024

// ErrFrozen is a reason of Admit: the channel tells devices to keep what they run.
var ErrFrozen = errors.New("the channel is frozen")

// Freeze says: keep what you run. No device activates anything under a record that has one; what passed on a device before may
// still be gone back to, by a record that rolls back and by hand.
type Freeze struct {
	Reason string `json:"reason"`
}

func (f *Freeze) validate() error {
	switch {
	case f == nil:
		return nil
	case blank(f.Reason):
		return errors.New("freeze.reason is empty")
	case len(f.Reason) > MaxReason || !utf8.ValidString(f.Reason):
		return diag.Errorf("freeze.reason is longer than %d bytes, or no UTF-8", MaxReason)
	}
	return nil
}

// Halt makes the record that freezes the channel as it is: all that prev says, and the freeze. It needs no verdict, since it
// lets nothing happen. trust is the document that it is made under.
func Halt(prev *Head, reason string, issued, expires time.Time, trust TrustRef) (*Record, error) {
	return after(prev, issued, expires, trust, func(r *Record) { r.Freeze = &Freeze{Reason: reason} })
}

// Lift makes the record that ends a freeze and lets devices have the target again, with the evidence that speaks for it now.
func Lift(prev *Head, evidence []EvidenceRef, issued, expires time.Time, trust TrustRef) (*Record, error) {
	if prev.Record.Freeze == nil {
		return nil, diag.Errorf("channel %s is not frozen", prev.Record.Channel)
	}
	return after(prev, issued, expires, trust, func(r *Record) { r.Freeze, r.Evidence = nil, evidence })
}

func after(prev *Head, issued, expires time.Time, trust TrustRef, change func(*Record)) (*Record, error) {
	r := *prev.Record
	r.Seq, r.Prev, r.Trust = prev.Record.Seq+1, prev.Bundle, trust
	r.Issued, r.Expires = issued.UTC().Truncate(time.Millisecond), expires.UTC().Truncate(time.Second)
	change(&r)
	return &r, finish(prev, &r)
}

// halts tells whether n does nothing but freeze p, or freeze it with other words. The trust document may be a newer one.
func halts(p, n *Record) bool {
	if n.Freeze == nil || p.Freeze != nil && *p.Freeze == *n.Freeze {
		return false
	}
	x := *n
	x.Freeze, x.Trust = p.Freeze, p.Trust
	return SameContent(p, &x)
}

// lifts tells whether n does nothing but end the freeze of p; it may pin newer evidence.
func lifts(p, n *Record) bool {
	if p.Freeze == nil || n.Freeze != nil {
		return false
	}
	x := *n
	x.Freeze, x.Trust, x.Evidence = p.Freeze, p.Trust, p.Evidence
	return SameContent(p, &x)
}

// repeats tells whether n only repeats where p went back from: the rollback was checked when p was accepted.
func repeats(p, n *Record) bool {
	return p.Rollback != nil && n.Rollback != nil && *p.Rollback == *n.Rollback && p.Target == n.Target
}
