package schedule

import (
	"strings"
	"testing"
	"time"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	z, err := time.LoadLocation(name)
	if err != nil {
		t.Skipf("this machine has no time zones: %v", err)
	}
	return z
}

func TestOpen(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		windows string
		at      string // 2006-01-02 15:04, in UTC
		zone    *time.Location
		open    bool
	}{
		{"", "2026-11-23 12:00", nil, true},
		{"Mon-Fri 02:00-05:00", "2026-11-23 02:00", nil, true}, // a Monday
		{"Mon-Fri 02:00-05:00", "2026-11-23 01:59", nil, false},
		{"Mon-Fri 02:00-05:00", "2026-11-23 04:59", nil, true},
		{"Mon-Fri 02:00-05:00", "2026-11-23 05:00", nil, false},
		{"Mon-Fri 02:00-05:00", "2026-11-22 03:00", nil, false},
		{"Sat,Sun 00:00-24:00", "2026-11-22 23:59", nil, true},
		{"Sat,Sun 00:00-24:00", "2026-11-23 00:00", nil, false},
		{"Fri-Mon 12:00-13:00", "2026-11-22 12:30", nil, true}, // over the end of the week
		{"Fri-Mon 12:00-13:00", "2026-11-24 12:30", nil, false},
		{"Sun 22:00-04:00", "2026-11-23 03:59", nil, true}, // over midnight: of Sunday
		{"Sun 22:00-04:00", "2026-11-22 03:59", nil, false},
		{"22:00-04:00", "2026-11-22 03:59", nil, true},
		{"monday 02:00-05:00", "2026-11-23 02:30", nil, true},
		{"Mon-Fri 02:00-05:00", "2026-11-23 01:30", berlin, true}, // 02:30 there
		{"Mon 02:00-03:00", "2026-11-23 02:30", berlin, false},
		// Summer time begins: 02:00 to 03:00 does not exist on 29 March 2026.
		{"Sun 02:00-03:00", "2026-03-29 00:59", berlin, false}, // 01:59
		{"Sun 02:00-03:00", "2026-03-29 01:00", berlin, false}, // 03:00
		{"Sun 02:00-05:00", "2026-03-29 01:00", berlin, true},
		// It ends: 02:00 to 03:00 comes twice on 25 October 2026.
		{"Sun 02:00-03:00", "2026-10-25 00:30", berlin, true},
		{"Sun 02:00-03:00", "2026-10-25 01:30", berlin, true},
		{"Sun 02:00-03:00", "2026-10-25 02:00", berlin, false},
	} {
		at, err := time.Parse("2006-01-02 15:04", c.at)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		if c.windows != "" {
			lines = strings.Split(c.windows, ";")
		}
		w, err := ParseWindows(lines, c.zone)
		if err != nil {
			t.Fatal(err)
		}
		if w.Open(at) != c.open {
			t.Errorf("%s at %s (%v): open is %v", c.windows, c.at, c.zone, !c.open)
		}
	}
}

// Next agrees with Open, minute by minute, over the weeks in which clocks change.
func TestNextAgrees(t *testing.T) {
	for _, z := range []*time.Location{time.UTC, zone(t, "Europe/Berlin"), zone(t, "Australia/Lord_Howe"), zone(t, "America/St_Johns")} {
		for _, lines := range [][]string{{"Mon-Fri 02:00-05:00"}, {"Sun 02:15-02:45"}, {"Sat 22:00-04:00", "Wed 12:00-12:01"}, {"00:00-24:00"}, {"Sun 01:30-02:10", "Sun 02:10-02:50"}} {
			w, err := ParseWindows(lines, z)
			if err != nil {
				t.Fatal(err)
			}
			for _, start := range []string{"2026-03-05", "2026-03-26", "2026-04-01", "2026-10-01", "2026-10-23", "2026-10-30"} {
				at, _ := time.Parse("2006-01-02", start)
				opens, closes := w.Next(at)
				if !w.Open(opens) || !opens.After(at.Add(-1)) || !closes.After(opens) || closes.Sub(opens) < 7*24*time.Hour && w.Open(closes) {
					t.Fatalf("%v in %v from %s: %s to %s", lines, z, start, opens, closes)
				}
				for m := at; m.Before(opens); m = m.Add(time.Minute) {
					if w.Open(m) {
						t.Fatalf("%v in %v: open at %s already, not at %s", lines, z, m, opens)
					}
				}
				for m := opens; m.Before(closes) && m.Sub(opens) < 8*24*time.Hour; m = m.Add(time.Minute) {
					if !w.Open(m) {
						t.Fatalf("%v in %v: closed at %s, before %s", lines, z, m, closes)
					}
				}
			}
		}
	}
}

func TestParseWindowsErrors(t *testing.T) {
	for _, l := range []string{"", "Mon", "Mon 2:00-5:00", "Mon 02:00", "Mon 02:00-02:00", "Mon 24:00-05:00", "Mon 02:60-05:00", "Mon 02:00-24:01", "Mo 02:00-05:00", "Mon- 02:00-05:00", "Mon,,Tue 02:00-05:00", "Mon 02:00-05:00 x", "Mon 0a:00-05:00"} {
		if w, err := ParseWindows([]string{l}, nil); err == nil {
			t.Errorf("%q is %v", l, w)
		}
	}
	if _, err := ParseWindows(make([]string, maxWindows+1), nil); err == nil {
		t.Error("any number of windows")
	}
}

func FuzzParseWindows(f *testing.F) {
	for _, s := range []string{"Mon-Fri 02:00-05:00", "Sat,Sun 00:00-24:00", "22:00-04:00", "x", "Mon 99:99-99:99"} {
		f.Add(s, int64(1_700_000_000))
	}
	f.Fuzz(func(t *testing.T, s string, at int64) {
		w, err := ParseWindows([]string{s}, nil)
		if err != nil {
			return
		}
		now := time.Unix(at%4e9, 0)
		opens, closes := w.Next(now)
		if !w.Open(opens) || closes.Before(opens) || opens.Sub(now) > 8*24*time.Hour {
			t.Fatalf("%q from %s: %s to %s", s, now, opens, closes)
		}
	})
}
