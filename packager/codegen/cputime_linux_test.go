package codegen_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is the time that this thread has run on a CPU, without what the machine gave to others meanwhile.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
