//go:build linux || darwin

package box

import "syscall"

// headroom is what the kernel's bound leaves above the watcher's: stacks of threads, and what the runtime maps ahead.
const headroom = 256 << 20

// limitProcess sets what the kernel enforces. On Linux RLIMIT_DATA counts private writable memory, which is what Go's heap
// is; RLIMIT_AS would count the address space that the runtime only reserves. Elsewhere the kernel does not count mapped memory
// here, and the watcher is the bound. No core file is written in any case. Failure to set a limit leaves the watcher.
func limitProcess(bytes int64) {
	set := func(what int, n uint64) {
		var cur syscall.Rlimit
		if syscall.Getrlimit(what, &cur) == nil && n < cur.Max {
			_ = syscall.Setrlimit(what, &syscall.Rlimit{Cur: n, Max: n})
		}
	}
	set(syscall.RLIMIT_DATA, uint64(bytes)+headroom)
	set(syscall.RLIMIT_CORE, 0)
}
