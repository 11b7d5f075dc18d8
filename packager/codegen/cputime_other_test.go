//go:build !linux

package codegen_test

import "time"

var started = time.Now()

// threadTime is the clock on the wall: measure on a machine that does nothing else.
func threadTime() time.Duration { return time.Since(started) }
