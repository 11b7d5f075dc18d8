package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ioAtEnd waits until the process has ended, without reaping it, and reads its counters.
func ioAtEnd(pid int) (n ioCount) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != unix.EINTR {
			break
		}
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return n
	}
	for line := range strings.Lines(string(b)) {
		var v int64
		switch k, rest, _ := strings.Cut(line, ":"); k {
		case "rchar":
			_, _ = fmt.Sscan(rest, &v)
			n.read = v
		case "write_bytes":
			_, _ = fmt.Sscan(rest, &v)
			n.wrote = v
		}
	}
	return n
}

func peakRSS(s *os.ProcessState) int64 {
	if r, ok := s.SysUsage().(*syscall.Rusage); ok {
		return r.Maxrss << 10
	}
	return 0
}
