//go:build !linux

package state

// Holder is the process that owns dir; known is false: this system does not tell.
func Holder(string) (pid int, known bool) { return 0, false }
