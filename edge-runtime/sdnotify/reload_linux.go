package sdnotify

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Reload are the lines that begin a reload; Ready ends it.
func Reload() []string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return []string{Reloading}
	}
	return []string{Reloading, fmt.Sprintf("MONOTONIC_USEC=%d", t.Nano()/1000)}
}
