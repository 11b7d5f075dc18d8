package device

import (
	"context"
	"runtime/debug"
	"time"
)

const (
	settle     = time.Second      // after the start
	trimLook   = 15 * time.Second // between two looks at how much is resident
	trimPeriod = 10 * time.Minute // between two trims when each finds as much again: it is in use then
	trimSlack  = 2 << 20          // bytes that may come back before it is worth the trouble
)

// trim gives back what the start, loading models and proving them took: garbage of the heap, and pages of the program's own file
// that were needed once. It returns when ctx ends.
func trim(ctx context.Context) {
	t := trimmer{wait: settle}
	for {
		timer := time.NewTimer(t.wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		if t.due(resident()) {
			debug.FreeOSMemory()
			dropText()
			t.low = resident()
		}
	}
}

// trimmer decides when to trim: soon after the resident memory grew, and less and less often where it grows again each time.
type trimmer struct {
	wait time.Duration // until the next look
	low  int64         // bytes that were resident after the last trim
}

// due tells whether to trim with so many bytes resident, 0 where the system does not say, and sets the wait that follows.
func (t *trimmer) due(resident int64) bool {
	if resident != 0 && t.low != 0 && resident <= t.low+trimSlack {
		t.wait = trimLook
		return false
	}
	t.wait = min(max(2*t.wait, trimLook), trimPeriod)
	return true
}
