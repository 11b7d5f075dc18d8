package device

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resident is how many bytes of this process are in memory; 0: the system does not say.
func resident() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// dropText unmaps the pages of the program's code and constants, which come back from the page cache when they are touched. The
// kernel maps sixteen at a time, so that after the start nearly the whole file counts as resident, though most of it is never
// used again.
func dropText() {
	exe, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return
	}
	defer f.Close()
	for _, m := range cleanMappings(f, exe) {
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, m[0], m[1]-m[0], unix.MADV_DONTNEED)
	}
}

// cleanMappings reads smaps and returns the read-only mappings of the file exe of which no page differs from the file: a page that
// was written before it became read-only, as a dynamic linker does, would be lost. Such pages are anonymous; dirty ones are the file's own.
func cleanMappings(smaps io.Reader, exe string) [][2]uintptr {
	var found [][2]uintptr
	var at [2]uintptr
	open := false
	for s := bufio.NewScanner(smaps); s.Scan(); {
		field := strings.Fields(s.Text())
		if len(field) < 2 {
			continue
		}
		if from, to, ok := strings.Cut(field[0], "-"); ok && !strings.HasSuffix(field[0], ":") {
			a, err1 := strconv.ParseUint(from, 16, 64)
			b, err2 := strconv.ParseUint(to, 16, 64)
			open = err1 == nil && err2 == nil && b > a && len(field) == 6 && field[5] == exe && (field[1] == "r-xp" || field[1] == "r--p")
			if at = [2]uintptr{uintptr(a), uintptr(b)}; open {
				found = append(found, at)
			}
			continue
		}
		if open && (field[0] == "Anonymous:" || field[0] == "Swap:") && field[1] != "0" {
			found, open = found[:len(found)-1], false
		}
	}
	return found
}
