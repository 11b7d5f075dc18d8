package agent

import (
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
)

// The time of a device. Its clock may stand at 1970 after each start, run wild and be set right again; so it is believed only as
// far as signatures carry it: never before the latest signed time seen (the floor), and whatever it says is never written down
// as a floor. Expiry is late on a device whose clock is behind, and comes early, without harm to what runs, on one whose clock is
// ahead.

// States of the clock in a Status.
const (
	ClockOK     = "ok"
	ClockBehind = "behind floor" // before the latest signed time, which is used instead
	ClockNone   = "no time"      // it was never set: there is no battery behind it
)

// neverSet is before every time that a clock which was set can show: this program is younger.
var neverSet = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)

// clockState names what the clock's reading is worth.
func clockState(clock, floor time.Time) string {
	switch {
	case clock.Before(neverSet):
		return ClockNone
	case clock.Before(floor):
		return ClockBehind
	}
	return ClockOK
}

// now is the clock, or the latest signed time seen when the clock is behind it.
func (a *Agent) now() time.Time {
	return a.checks.time(a.Clock.Now().UTC(), later(a.Store.Doc().TimeFloor, a.Trust().Issued.UTC()))
}

// later is the later of two times.
func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// attest raises the floor to a time that somebody in the trust document signed. A signer whose clock is far ahead must not stop
// every device for good, so a time counts only while the trust document that lets him sign is valid.
func (a *Agent) attest(d *state.Doc, signed time.Time) {
	if signed.Before(a.Trust().Expires) {
		d.TimeFloor = later(d.TimeFloor, signed.UTC())
	}
}
