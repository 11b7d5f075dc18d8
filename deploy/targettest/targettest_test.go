package targettest

import (
	"strings"
	"testing"
)

// The suite passes targets without defects, with canaries and without, with architectures and without.
func TestBox(t *testing.T)         { Run(t, boxHarness(defects{})) }
func TestBoxNoCanary(t *testing.T) { Run(t, boxHarness(defects{noCanary: true})) }

func TestBoxPortable(t *testing.T) { Run(t, boxHarness(defects{portable: true})) }

// TestMutants puts a defect into the target, one at a time, and expects the suite to find it, in the part that is about it.
func TestMutants(t *testing.T) {
	for _, m := range []struct {
		name string
		d    defects
		part string
		says string // a part of one of the problems
	}{
		{"takes tags", defects{tags: true}, "digest", "a tag"},
		{"switches before the revision is healthy", defects{early: true}, "refusals", "never got healthy"},
		{"does not wait for health at all", defects{hasty: true}, "refusals", "error <nil>"},
		{"leaves half of the traffic nowhere when the new one fails", defects{half: true}, "refusals", "50%"},
		{"switches without a precondition", defects{noMatch: true}, "interleaved", "serves, want release 4"},
		{"does not compare the plan's revision", defects{blind: true, noMatch: true}, "stale", "the second Apply"},
		{"takes a lost race for a success", defects{lenient: true}, "interleaved", ""},
		{"names the lost race wrongly", defects{wrongConflict: true}, "interleaved", ""},
		{"does not retry", defects{noRetry: true}, "faults", "instead of asking again"},
		{"does not know throttling", defects{no429: true}, "faults", "instead of asking again"},
		{"quotes the platform with the credentials in it", defects{quotes: true}, "faults", "gives a credential away"},
		{"logs the credentials", defects{logs: true}, "status", "logs a credential"},
		{"makes a new revision each time", defects{duplicates: true}, "idempotent", ""},
		{"always finds something to do", defects{again: true}, "idempotent", "Plan of what serves"},
		{"rolls back to the oldest", defects{oldest: true}, "rollback", "want release 2"},
		{"forgets what served before", defects{forgetful: true}, "rollback", ""},
		{"does not look at settings", defects{noDrift: true}, "drift", "does not show the drift"},
		{"does not name a missing permission", defects{unnamed: true}, "credentials", "lack a permission"},
		{"takes the traffic away before it gives it", defects{gap: true}, "faults", ""},
		{"changes something in Plan", defects{planWrites: true}, "plan", "changes the platform"},
		{"tells no ids", defects{noIDs: true}, "outcome", "no ids"},
		{"does not tell the image", defects{noImage: true}, "outcome", "says that image"},
		{"gives a canary everything", defects{wholeCanary: true}, "canary", "the canary"},
		{"gives everything where it has no canaries", defects{wholeCanary: true, noCanary: true}, "canary", "Apply with a weight"},
		{"does not hear that the caller gave up", defects{deaf: true}, "cancelled", "context canceled"},
		{"says that it rolled back to what is gone", defects{pretends: true}, "deleted", "error <nil>"},
		{"serves what has the label instead of the code", defects{label: true}, "plan", ""},
		{"takes any architecture", defects{anyArch: true}, "architecture", ""},
		{"takes any architecture where there are none", defects{portable: true, anyArch: true}, "architecture", "a release for arm64 and amd64"},
		{"claims to have no architectures", defects{claims: true}, "architecture", "a release for amd64"},
	} {
		t.Run(strings.ReplaceAll(m.name, " ", "-"), func(t *testing.T) {
			for _, p := range parts() {
				if p.name != m.part {
					continue
				}
				found := problems(t, boxHarness(m.d), p)
				if len(found) == 0 {
					t.Fatalf("the part %s finds nothing", p.name)
				}
				if !strings.Contains(strings.Join(found, "\n"), m.says) {
					t.Errorf("the part %s says\n%s\nwhich is not about %q", p.name, strings.Join(found, "\n"), m.says)
				}
				t.Logf("%s: %s", p.name, found[0])
				return
			}
			t.Fatalf("the suite has no part %s", m.part)
		})
	}
}
