package agent

import (
	"fmt"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/channel"
)

// window says whether an update may go on now; a no is a *postponed. Going back is never held up: neither to what passed here
// before, nor by a record that says so, nor away from what the trust document denies, nor out of a state in which nothing serves
// any more.
func (f *follower) window(action deviceinput.Action, r *channel.Record, target state.Slot) error {
	w := f.cfg.Windows
	if w.Always() || f.hand == urgent || !target.Committed.IsZero() || r.Rollback != nil || action == deviceinput.Download && f.cfg.Downloads {
		return nil
	}
	if c := f.state().Current; c != nil && (f.a.denied(c.Digest) || f.live == nil) {
		return nil // away from what must not or cannot serve
	}
	if why := w.Closed(); why != "" {
		return &postponed{action, fmt.Sprintf("no maintenance window (%s) can open: %s", w, why)}
	}
	now, known := f.wall()
	if !known {
		if f.cfg.Clockless {
			return nil
		}
		return &postponed{action, fmt.Sprintf("the clock of this device (%s) is behind the latest signed time, so nobody can tell whether a maintenance window (%s) is open", now.Format(time.RFC3339), w)}
	}
	if w.Open(now) {
		return nil
	}
	opens, closes := w.Next(now)
	f.opens = opening{opens.Sub(now), closes.Sub(opens)}
	return &postponed{action, fmt.Sprintf("until a maintenance window opens at %s (%s)", opens.Format(time.RFC3339), w)}
}

// wall is the clock on the wall, and whether it can be right: not before the latest time that somebody signed.
func (f *follower) wall() (now time.Time, known bool) {
	now = f.a.Clock.Now()
	return now, !now.Before(f.a.Store.Doc().TimeFloor) && !now.Before(f.a.Trust().Issued)
}

// next is what the device would do about target.
func (f *follower) next(target state.Slot) deviceinput.Action {
	if m, err := f.manifest(target); err == nil && !f.missing(m) {
		return deviceinput.Activate
	}
	return deviceinput.Download
}
