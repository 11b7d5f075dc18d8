package device

import (
	"context"
	"runtime/debug"
	"time"
)

// settle is how long after the start, and how often then, memory is given back.
const (
	settle     = time.Second
	trimPeriod = 10 * time.Minute
)

// trim gives back what the start and loading models took: garbage of the heap, and pages of the program's own file that were needed
// once. It returns when ctx ends.
func trim(ctx context.Context) {
	wait := settle
	for {
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		}
		debug.FreeOSMemory()
		dropText()
		wait = trimPeriod
	}
}
