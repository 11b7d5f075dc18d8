package device

import (
	"testing"
	"time"
)

// What an update took is given back at the next look; what comes back each time is in use and left alone for longer and longer.
func TestTrimmer(t *testing.T) {
	const mb = 1 << 20
	x := trimmer{wait: settle}
	step := func(what string, resident int64, due bool, wait time.Duration) {
		t.Helper()
		if got := x.due(resident); got != due || x.wait != wait {
			t.Errorf("%s: trims %v, then waits %s; want %v, %s", what, got, x.wait, due, wait)
		}
	}
	step("the start", 20*mb, true, trimLook)
	x.low = 12 * mb
	step("nothing happened", 13*mb, false, trimLook)
	step("an update", 22*mb, true, 2*trimLook)
	x.low = 12 * mb
	step("as much again", 16*mb, true, 4*trimLook)
	for range 10 {
		x.due(16 * mb)
	}
	step("always", 16*mb, true, trimPeriod)
	step("it ended", 13*mb, false, trimLook)
	x = trimmer{wait: settle}
	step("a system that does not say", 0, true, trimLook)
	step("again", 0, true, 2*trimLook)
}
