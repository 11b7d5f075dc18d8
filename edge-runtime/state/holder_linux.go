package state

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Holder is the process that owns dir (Lock), as the kernel's list of locks tells. It takes no lock itself, so that looking
// never gets in the way of a start. known is false where that cannot be told; pid 0 with known: nobody.
func Holder(dir string) (pid int, known bool) {
	info, err := os.Stat(filepath.Join(dir, "lock"))
	if err != nil {
		return 0, os.IsNotExist(err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	raw, err := os.ReadFile("/proc/locks")
	if err != nil {
		return 0, false
	}
	return holder(raw, uint64(st.Dev), st.Ino), true
}

// holder finds a flock of (dev, inode) in the text of /proc/locks:
//
//	1: FLOCK  ADVISORY  WRITE 1234 fd:01:5678 0 EOF
func holder(text []byte, dev, inode uint64) int {
	want := fmt.Sprintf("%02x:%02x:%d", (dev>>8)&0xfff|(dev>>32)&^0xfff, dev&0xff|(dev>>12)&^0xff, inode)
	sc := bufio.NewScanner(bytes.NewReader(text))
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) >= 6 && f[1] == "FLOCK" && f[5] == want {
			if pid, err := strconv.Atoi(f[4]); err == nil {
				return pid
			}
		}
	}
	return 0
}
