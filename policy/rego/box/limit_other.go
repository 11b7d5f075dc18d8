//go:build !linux && !darwin

package box

// limitProcess has nothing to set here: the watcher in confine is the only bound on memory.
func limitProcess(int64) {}
