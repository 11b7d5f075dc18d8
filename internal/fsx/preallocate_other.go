//go:build !linux

package fsx

import "os"

// Preallocate makes f size bytes long; the room is not reserved here.
func Preallocate(f *os.File, size int64) error { return f.Truncate(size) }
