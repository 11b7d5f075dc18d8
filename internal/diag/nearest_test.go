package diag

import "testing"

func TestNearest(t *testing.T) {
	for in, want := range map[string]string{"psuh": "push", "versoin": "version", "xyz": "", "ver": "version", "p": ""} {
		if got := Nearest(in, []string{"push", "pull", "pack", "version"}); got != want {
			t.Errorf("%s: %q", in, got)
		}
	}
}
