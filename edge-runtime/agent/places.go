package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// Places is a Carrier with several places that bytes may come from. The agent asks all of them what a tag is and takes the
// newest record that it can verify: a place that is frozen hides nothing that another shows, and one that lies is passed over.
type Places interface {
	Carrier
	// Look gives what the places say that a tag is, each answer once, those of better places first. Without any answer
	// errors.Is(err, fs.ErrNotExist) means that all of them have no such tag. insist also asks places that wanted to be left
	// alone for a while.
	Look(ctx context.Context, tag string, insist bool) ([]artifact.Digest, error)
	// Spoiled says that what came for d is not what its digest says. more: another attempt may bring something else.
	Spoiled(d artifact.Digest) (more bool)
}

// single is a Carrier as the only place.
type single struct{ Carrier }

func (s single) Look(ctx context.Context, tag string, _ bool) ([]artifact.Digest, error) {
	d, err := s.Resolve(ctx, tag)
	return []artifact.Digest{d}, err
}

func (single) Spoiled(artifact.Digest) bool { return false }

func placesOf(c Carrier) Places {
	if p, ok := c.(Places); ok {
		return p
	}
	return single{c}
}

// CarrierStatus is what is known of one of several places.
type CarrierStatus struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	After  int    `json:"after,omitempty"` // how many places it is put back for its failures
}

// carriers asks a carrier for the state of its places; nil when it has nothing to tell.
func (f *follower) carriers() []CarrierStatus {
	if c, ok := f.places.(interface{ Carriers() []CarrierStatus }); ok {
		return c.Carriers()
	}
	return nil
}

// sighting is a record's manifest under the channel's tag, with the record's bundle when it was fetched.
type sighting struct {
	tag artifact.Digest
	raw []byte
}

// sightings remember the tags that were refused, so that they are tried again later and later, and those that turned out to
// be older than what is accepted.
type sightings map[artifact.Digest]attempt

type attempt struct {
	tries int
	at    time.Time // not before; on the clock that is never set
	older bool      // it is of no interest as long as the accepted record stands
}

const (
	maxSightings = 64
	maxRest      = 6 * time.Hour // between two tries of a refused record, for intervals shorter than it
)

// rests tells whether a tag is not looked at now.
func (s sightings) rests(tag artifact.Digest) bool {
	a, ok := s[tag]
	return ok && (a.older || time.Now().Before(a.at))
}

// handled notes how the handling of a tag ended. What may work later is tried with the next poll, which comes later itself.
func (s *sightings) handled(tag artifact.Digest, err error, stopped bool, interval time.Duration) {
	if err == nil || stopped || transient(err) && !IsRefused(err) {
		delete(*s, tag)
		return
	}
	a := (*s)[tag]
	a.tries = min(a.tries+1, 7)
	a.at = time.Now().Add(min(interval<<a.tries, max(interval, maxRest)))
	s.put(tag, a)
}

func (s *sightings) put(tag artifact.Digest, a attempt) {
	if *s == nil || len(*s) >= maxSightings {
		*s = sightings{}
	}
	(*s)[tag] = a
}

// choose picks from what the places show the record to take: nil when there is nothing new beside the document's tag and those
// in handled. A single answer is taken as it is; of several the newest that verifies.
func (f *follower) choose(ctx context.Context, tags []artifact.Digest, handled ...artifact.Digest) (*sighting, error) {
	known := false // a place shows what was handled already
	var fresh []artifact.Digest
	for _, t := range tags {
		switch {
		case t == f.state().Tag, slices.Contains(handled, t):
			known = true
		case !f.seen.rests(t):
			fresh = append(fresh, t)
		}
	}
	if len(fresh) == 0 {
		return nil, nil
	}
	// Where a channel has several places, old news are no attack: a stick may be ahead of the network, which catches up.
	several := false
	if s, ok := f.places.(interface{ Several() bool }); ok {
		several = s.Several()
	}
	if len(tags) == 1 && !several {
		return &sighting{tag: fresh[0]}, nil
	}
	type found struct {
		sighting
		r *channel.Record
	}
	var best *found
	var lag []artifact.Digest // behind what is accepted: an old stick, or a place that is frozen
	var errs []error
	for _, t := range fresh {
		raw, err := f.fetchRecord(ctx, t)
		var r *channel.Record
		if err == nil {
			r, _, err = f.verifyRecord(ctx, raw)
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err != nil {
			errs = append(errs, f.dismiss(t, err))
			continue
		}
		c := f.state()
		bundle := artifact.DigestOf(raw)
		behind := r.Generation < c.Generation || r.Generation == c.Generation && (r.Seq < c.Seq || r.Seq == c.Seq && bundle == c.Record && bundle == f.settled)
		if behind {
			lag = append(lag, t)
			if known || several {
				continue // another place shows what runs here, or did
			}
		} else {
			known = true
		}
		if best == nil || r.Generation > best.r.Generation || r.Generation == best.r.Generation && r.Seq > best.r.Seq {
			best = &found{sighting{t, raw}, r}
		}
	}
	if known || several {
		for _, t := range lag {
			f.a.Log.Info("a carrier shows an older record", "channel", f.cfg.Name, "record", string(t))
			f.seen.put(t, attempt{older: true})
		}
	}
	if best == nil {
		return nil, errors.Join(errs...)
	}
	for _, err := range errs {
		f.a.Log.Warn("one of the carriers shows a record that can't be used", "channel", f.cfg.Name, "error", err)
	}
	return &best.sighting, nil
}

// dismiss notes a record that could not be read or verified while others are there.
func (f *follower) dismiss(tag artifact.Digest, err error) error {
	err = fmt.Errorf("the record of channel %s behind %s: %w", f.cfg.Name, tag.Short(), err)
	if !transient(err) {
		err = f.refused(err, state.Note{Record: tag, Reason: clip(err.Error())})
	}
	f.seen.handled(tag, err, false, f.cfg.Interval)
	return err
}
