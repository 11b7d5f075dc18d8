package agent

import (
	"sort"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// silentTooLong tells whether it is time for a report though nothing changed.
func (f *follower) silentTooLong() bool {
	every := f.a.cfg.ReportEvery
	return every > 0 && f.hasReported && f.a.Clock.Up()-f.reported >= every
}

// describe adds what people want to know besides what runs: why something else does not.
func (f *follower) describe(s *evidence.Status, c *state.Channel, slot state.Slot) {
	if f.live == nil {
		s.State = StateEmpty
	} else {
		st := f.a.Server.Stats(f.cfg.Model)
		s.Version = slot.Version
		s.Health = &evidence.StatusHealth{Requests: st.Requests, Errors: st.Errors, P50: int64(st.P50), P99: int64(st.P99)}
	}
	wall, floor := f.a.Clock.Now(), f.a.Store.Doc().TimeFloor
	s.Clock = &evidence.StatusClock{OK: !wall.Before(floor), Floor: floor.UTC()}
	if c.Record != "" {
		expires := c.Expires.UTC()
		s.Expires, s.Stale = &expires, !f.a.now().Before(c.Expires)
	}
	s.Pinned = c.Pinned != nil
	s.Rollback, s.Refusal = reason(c.LastRollback), reason(c.LastRefusal)
	if w := c.Waiting; w != nil {
		s.Waiting = &evidence.StatusWaiting{Digest: w.Slot.Digest, Version: w.Slot.Version, Action: w.Action, Since: w.Since.UTC(), Reason: w.Reason}
		if why := f.waitWhy.Load(); why != nil {
			s.Waiting.Reason = *why
		}
	}
	for _, d := range sorted(c.Quarantine) {
		q := c.Quarantine[d]
		s.Quarantine = append(s.Quarantine, evidence.StatusQuarantine{Digest: artifact.Digest(d), Seq: q.Seq, At: q.At.UTC(), Reason: q.Reason})
	}
	sort.Slice(s.Quarantine, func(i, j int) bool { // the newest first; no digest is there twice
		a, b := s.Quarantine[i], s.Quarantine[j]
		return a.At.After(b.At) || a.At.Equal(b.At) && a.Digest < b.Digest
	})
	s.Quarantine = s.Quarantine[:min(len(s.Quarantine), evidence.MaxStatusQuarantine)]
}

// reason is a note of the state as reports tell it.
func reason(n *state.Note) *evidence.StatusNote {
	if n == nil {
		return nil
	}
	return &evidence.StatusNote{At: n.At.UTC().Truncate(time.Second), From: n.From, To: n.To, Seq: n.Seq, Record: n.Record, Reason: n.Reason}
}
