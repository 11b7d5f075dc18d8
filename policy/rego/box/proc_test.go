package box_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// none sees to it that no child is left, running or dead.
func none(t *testing.T) {
	t.Helper()
	me := os.Getpid()
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it ended
		}
		// pid (comm) state ppid: comm may hold spaces and brackets.
		s := string(b)
		i := strings.LastIndex(s, ") ")
		if i < 0 {
			continue
		}
		fields := strings.Fields(s[i+2:])
		if len(fields) > 1 && fields[1] == itoa(me) {
			t.Errorf("child left: %s", strings.TrimSpace(s))
		}
	}
}

func itoa(n int) string { return strconv.Itoa(n) }
