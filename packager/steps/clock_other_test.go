//go:build !linux

package steps_test

import "time"

var began = time.Now()

func clock() time.Duration { return time.Since(began) }
