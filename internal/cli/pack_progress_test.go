package cli

import (
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A pack shows on a terminal how far it is, with and without compiling, up to the last byte, and takes the line away again.
func TestPackProgress(t *testing.T) {
	for dir, label := range map[string]string{"../../examples/breast-cancer/v1": "hashing", "../../packager/build/testdata/bundle/folder": "reading"} {
		abs, err := filepath.Abs(filepath.FromSlash(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			tty   bool
			flags []string
			want  bool
		}{{true, nil, true}, {false, nil, false}, {true, []string{"--quiet"}, false}, {true, []string{"--output", "json"}, false}} {
			env, _, stderr := testEnv(t, map[string]string{"WAYBILL_HOME": t.TempDir(), "NO_COLOR": "1"})
			env.StderrTTY = c.tty
			var mu sync.Mutex
			clock := time.Unix(0, 0)
			env.Now = func() time.Time {
				mu.Lock()
				defer mu.Unlock()
				clock = clock.Add(2 * time.Second)
				return clock
			}
			if code := Run(t.Context(), env, append([]string{"pack", abs, "--dry-run"}, c.flags...)); code != 0 {
				t.Fatalf("%s: exit %d: %s", dir, code, stderr)
			}
			got := stderr.String()
			if !c.want {
				if strings.ContainsAny(got, "\r\x1b") {
					t.Errorf("%s, terminal %t, %v: %q", dir, c.tty, c.flags, got)
				}
				continue
			}
			lines := strings.Split(got, "\r\x1b[2K")
			n := len(lines)
			if n < 3 || !strings.HasPrefix(lines[n-2], "  "+label) || !strings.Contains(lines[n-2], "(100 %)") || !strings.HasSuffix(lines[n-2], "B/s") ||
				strings.Contains(got, "(101 %)") {
				t.Errorf("%s: %q", dir, got)
			}
		}
	}
}
