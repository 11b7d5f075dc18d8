// Package lock lets one publisher at a time work on a channel. Where several machines publish, the lock is a lease in a
// register: a small value somewhere that can be compared and swapped in one step. Who holds it says so in the value; who
// finds one that has not changed for as long as its lease lasts may take it over, and needs no clock in common for that.
//
// A lock is a convenience that keeps publishers from failing in turn. That a channel never forks silently does not rest on it:
// publish reads back what it writes, and devices and `channel verify` find a fork.
package lock

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Register holds one small value. Implementations are safe for use by one goroutine; any number of processes may have one on
// the same place.
type Register interface {
	// Load reads the value and its version, which differs for different values; "" when there is none.
	Load(ctx context.Context) (value []byte, version string, err error)
	// Swap writes value where version is in force ("": where there is none) and gives the new version. The error wraps ErrMoved
	// when another version is; it may do so although the value was written, when an answer was lost.
	Swap(ctx context.Context, version string, value []byte) (string, error)
}

// ErrMoved says that the register had another version than the caller believed.
var ErrMoved = errors.New("somebody else was faster")

// ErrLost says that a lock is no longer held.
var ErrLost = errors.New("the lock was lost")

// MaxValue bounds a value, in bytes.
const MaxValue = 4096

// Lengths of leases.
const (
	DefaultTTL = time.Minute
	minTTL     = time.Second
	maxTTL     = 10 * time.Minute
)

// Schema is the value of Holder.Schema.
const Schema = "https://github.com/waybill-ml/waybill/schema/lock/v1"

// Holder is what a lock's value says of who has it.
type Holder struct {
	Schema   string    `json:"schema"`
	ID       string    `json:"id"` // random, of one acquisition; empty: nobody
	Who      string    `json:"who"`
	What     string    `json:"what"`
	Since    time.Time `json:"since"` // by the holder's clock, for people
	TTL      int       `json:"ttl"`   // of the lease, in milliseconds
	Renewals int       `json:"renewals"`
}

// String tells people who it is.
func (h Holder) String() string {
	if h.ID == "" {
		return "somebody whose note cannot be read"
	}
	return fmt.Sprintf("%s since %s (%s, id %s)", h.Who, h.Since.UTC().Format("2006-01-02 15:04:05 UTC"), h.What, h.ID)
}

func (h Holder) ttl() time.Duration {
	d := time.Duration(h.TTL) * time.Millisecond
	if d <= 0 {
		return DefaultTTL
	}
	return min(max(d, minTTL), maxTTL)
}

// Clock is time as a lock sees it; it must go on evenly.
type Clock interface {
	Now() time.Time
	Sleep(ctx context.Context, d time.Duration) error
}

// Options say who asks for a lock, and how long they wait for it.
type Options struct {
	Who, What string
	TTL       time.Duration // of the lease; 0: DefaultTTL
	Wait      time.Duration // for another holder; 0: not at all
	Poll      time.Duration // between looks while waiting; 0: a second
	Steal     string        // the id of a holder whose lock is taken although it may be alive
	Waiting   func(Holder)  // called once before the first wait; may be nil
	Clock     Clock         // nil: the system's
}

// HeldError says that somebody else has the lock.
type HeldError struct {
	Holder Holder
	Free   time.Duration // after that long without a sign of life it is free
}

func (e *HeldError) Error() string { return "the lock is held by " + e.Holder.String() }

// Held is a lock that was taken. It is not safe for concurrent use.
type Held struct {
	me    Holder
	clock Clock
	reg   Register // nil: the lock lives as long as its process
	ver   string
	stop  func() error
}

// Acquire takes the lease in reg, waiting for another holder as long as o allows; then the error is a *HeldError.
func Acquire(ctx context.Context, reg Register, o Options) (*Held, error) {
	me, clock, err := o.holder()
	if err != nil {
		return nil, err
	}
	poll := o.Poll
	if poll <= 0 {
		poll = time.Second
	}
	h := &Held{me: me, clock: clock, reg: reg}
	began := clock.Now()
	var seen string
	var seenAt time.Time
	for {
		value, ver, err := reg.Load(ctx)
		if err != nil {
			return nil, err
		}
		now := clock.Now()
		other, held := decode(value)
		held = held && ver != ""
		if ver != seen {
			seen, seenAt = ver, now
		}
		left := other.ttl() - now.Sub(seenAt)
		switch {
		case held && other.ID == me.ID: // an answer was lost
			h.ver = ver
			return h, nil
		case !held, left <= 0, o.Steal != "" && o.Steal == other.ID:
			h.ver, err = reg.Swap(ctx, ver, h.value())
			if err == nil {
				return h, nil
			}
			if !errors.Is(err, ErrMoved) {
				return nil, err
			}
		case now.Sub(began) >= o.Wait:
			return nil, &HeldError{other, left}
		case o.Waiting != nil:
			o.Waiting(other)
			o.Waiting = nil
		}
		if err := clock.Sleep(ctx, min(poll, max(o.Wait-now.Sub(began), time.Millisecond))); err != nil {
			return nil, err
		}
		if now.Sub(began) > o.Wait+maxTTL {
			return nil, &HeldError{other, left}
		}
	}
}

func (o Options) holder() (Holder, Clock, error) {
	ttl := o.TTL
	if ttl == 0 {
		ttl = DefaultTTL
	}
	if ttl < minTTL || ttl > maxTTL {
		return Holder{}, nil, diag.New(diag.Usage, "a lease of %s is not between %s and %s", ttl, minTTL, maxTTL)
	}
	var id [8]byte
	if _, err := rand.Read(id[:]); err != nil {
		return Holder{}, nil, err
	}
	clock := o.Clock
	if clock == nil {
		clock = systemClock{}
	}
	return Holder{
		Schema: Schema, ID: hex.EncodeToString(id[:]), Who: clip(o.Who), What: clip(o.What),
		Since: clock.Now().UTC().Round(0).Truncate(time.Second), TTL: int(ttl / time.Millisecond),
	}, clock, nil
}

func clip(s string) string { return s[:min(len(s), 200)] }

// decode reads a value; held is false when it says that nobody has the lock. What cannot be read is held by somebody unknown.
func decode(value []byte) (h Holder, held bool) {
	if err := json.Unmarshal(value, &h); err != nil || h.Schema != Schema {
		return Holder{}, true
	}
	return h, h.ID != ""
}

func (h *Held) value() []byte {
	b, err := json.Marshal(h.me)
	if err != nil { // plain data: cannot be
		return nil
	}
	return b
}

// ID is that of this acquisition.
func (h *Held) ID() string { return h.me.ID }

// Still makes sure that the lock is held and renews its lease. What the lock protects must be done by until; the zero time
// means that it has no end. The error wraps ErrLost when somebody else has it: then nothing may be done any more.
func (h *Held) Still(ctx context.Context) (until time.Time, err error) {
	if h.reg == nil {
		return time.Time{}, nil
	}
	for range 3 {
		h.me.Renewals++
		until := h.clock.Now().Add(h.me.ttl())
		ver, err := h.reg.Swap(ctx, h.ver, h.value())
		if err == nil {
			h.ver = ver
			return until.Add(-h.me.ttl() / 4), nil
		}
		if !errors.Is(err, ErrMoved) {
			return time.Time{}, err
		}
		value, ver, err := h.reg.Load(ctx)
		if err != nil {
			return time.Time{}, err
		}
		other, _ := decode(value)
		if other.ID != h.me.ID || ver == "" {
			if ver == "" || other.ID == "" {
				return time.Time{}, fmt.Errorf("%w: it was taken away", ErrLost)
			}
			return time.Time{}, fmt.Errorf("%w to %s", ErrLost, other)
		}
		h.ver = ver // our own renewal, whose answer was lost
	}
	return time.Time{}, fmt.Errorf("%w: it moves all the time", ErrLost)
}

// Release gives the lock back. A lock that was lost is left to whom it belongs now.
func (h *Held) Release(ctx context.Context) error {
	if h.reg == nil {
		return h.stop()
	}
	free := h.me
	free.ID = ""
	b, err := json.Marshal(free)
	if err != nil {
		return err
	}
	if _, err := h.reg.Swap(ctx, h.ver, b); err != nil && !errors.Is(err, ErrMoved) {
		return err
	}
	return nil
}

type systemClock struct{}

func (systemClock) Now() time.Time { return time.Now() }

func (systemClock) Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
