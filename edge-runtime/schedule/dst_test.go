package schedule

import (
	"testing"
	"time"
)

// The nights in which the clocks of Berlin are changed, and the nights around them, as an operator would count them: when the
// window opens and closes, and how long it is open.
func TestNightsInBerlin(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	for _, c := range []struct {
		windows, from string // RFC 3339, UTC
		opens, closes string
		lasts         time.Duration
		what          string
	}{
		{"Sun 01:00-04:00", "2026-03-28T12:00:00Z", "2026-03-29T00:00:00Z", "2026-03-29T02:00:00Z", 2 * time.Hour, "spring: an hour is missing in it"},
		{"Sun 02:00-03:00", "2026-03-28T12:00:00Z", "2026-04-05T00:00:00Z", "2026-04-05T01:00:00Z", time.Hour, "spring: all of it is left out, the next week's counts"},
		{"Sun 02:30-03:30", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z", 30 * time.Minute, "spring: it begins with the hour that is left out"},
		{"Sun 03:00-04:00", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z", "2026-03-29T02:00:00Z", time.Hour, "spring: right after it"},
		{"Sat 22:00-04:00", "2026-03-28T12:00:00Z", "2026-03-28T21:00:00Z", "2026-03-29T02:00:00Z", 5 * time.Hour, "spring, over midnight"},
		{"Sun 01:00-04:00", "2026-10-24T12:00:00Z", "2026-10-24T23:00:00Z", "2026-10-25T03:00:00Z", 4 * time.Hour, "autumn: an hour comes twice"},
		{"Sun 02:00-03:00", "2026-10-24T12:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", 2 * time.Hour, "autumn: just that hour"},
		{"Sun 02:15-02:45", "2026-10-24T12:00:00Z", "2026-10-25T00:15:00Z", "2026-10-25T00:45:00Z", 30 * time.Minute, "autumn: in that hour, the first time"},
		{"Sun 02:15-02:45", "2026-10-25T00:50:00Z", "2026-10-25T01:15:00Z", "2026-10-25T01:45:00Z", 30 * time.Minute, "autumn: in that hour, the second time"},
		{"Sat 22:00-04:00", "2026-10-24T12:00:00Z", "2026-10-24T20:00:00Z", "2026-10-25T03:00:00Z", 7 * time.Hour, "autumn, over midnight"},
		{"Mon-Fri 22:00-04:00", "2026-11-20T12:00:00Z", "2026-11-20T21:00:00Z", "2026-11-21T03:00:00Z", 6 * time.Hour, "Friday's reaches into Saturday"},
		{"Mon-Fri 22:00-04:00", "2026-11-21T03:00:00Z", "2026-11-23T21:00:00Z", "2026-11-24T03:00:00Z", 6 * time.Hour, "Sunday's does not reach into Monday"},
		{"Mon-Fri 22:00-04:00", "2026-11-23T23:30:00Z", "2026-11-23T23:30:00Z", "2026-11-24T03:00:00Z", 210 * time.Minute, "in the middle of it, after midnight"},
		{"Sun 00:00-24:00", "2026-10-24T12:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z", 25 * time.Hour, "a day of 25 hours"},
		{"Sun 00:00-24:00", "2026-03-28T12:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z", 23 * time.Hour, "a day of 23 hours"},
	} {
		w, err := ParseWindows([]string{c.windows}, berlin)
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		opens, closes := w.Next(at)
		if o, cl := opens.UTC().Format(time.RFC3339), closes.UTC().Format(time.RFC3339); o != c.opens || cl != c.closes || closes.Sub(opens) != c.lasts {
			t.Errorf("%s: %s from %s: %s to %s, %s; want %s to %s, %s", c.what, c.windows, c.from, o, cl, closes.Sub(opens), c.opens, c.closes, c.lasts)
		}
		if !w.Open(opens) || w.Open(closes) || !w.Open(closes.Add(-time.Second)) || at != opens && w.Open(opens.Add(-time.Second)) {
			t.Errorf("%s: Open does not agree", c.what)
		}
	}
}
