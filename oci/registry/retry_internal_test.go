package registry

import (
	"net/http"
	"testing"
	"time"
)

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	date := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	for _, c := range []struct {
		after, date string
		want        time.Duration
		ok          bool
	}{
		{"", "", 0, false},
		{"0", "", 0, true},
		{"120", "", 2 * time.Minute, true},
		{"-1", "", 0, false},
		{"1.5", "", 0, false},
		{"soon", "", 0, false},
		{"99999999999999999999999", "", 100 * 365 * 24 * time.Hour, true},
		{date(90 * time.Second), "", 90 * time.Second, true},
		{date(-90 * time.Second), "", 0, true},
		{date(90 * time.Second), date(60 * time.Second), 30 * time.Second, true}, // the server's clock is ahead
		{now.Add(time.Minute).Format(time.RFC850), "", time.Minute, true},
		{now.Add(time.Minute).Format(time.RFC3339), "", 0, false},
	} {
		h := http.Header{}
		if c.after != "" {
			h.Set("Retry-After", c.after)
		}
		if c.date != "" {
			h.Set("Date", c.date)
		}
		if got, ok := retryAfter(h, now); got != c.want || ok != c.ok {
			t.Errorf("Retry-After %q, Date %q: %v, %v; want %v, %v", c.after, c.date, got, ok, c.want, c.ok)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"", "0", "120", "99999999999999999999", "Sun, 01 Mar 2026 12:00:00 GMT", "Sunday, 01-Mar-26 12:00:00 GMT", "-5", "1e9"} {
		f.Add(s, "Sun, 01 Mar 2026 11:00:00 GMT")
	}
	f.Fuzz(func(t *testing.T, after, date string) {
		d, ok := retryAfter(http.Header{"Retry-After": {after}, "Date": {date}}, time.Now())
		if d < 0 || d > 100*365*24*time.Hour || !ok && d != 0 {
			t.Fatalf("%v, %v", d, ok)
		}
	})
}

func TestBackoff(t *testing.T) {
	p := RetryPolicy{Attempts: 1000, Wait: time.Second, MaxWait: 30 * time.Second}
	for attempt, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 6: 30 * time.Second, 64: 30 * time.Second, 999: 30 * time.Second} {
		for range 20 {
			if d := p.backoff(attempt); d < most/2 || d > most {
				t.Errorf("attempt %d: %v, want between %v and %v", attempt, d, most/2, most)
			}
		}
	}
	if d := (RetryPolicy{Attempts: 3}).backoff(2); d != 0 {
		t.Error(d)
	}
}

func TestParseContentRange(t *testing.T) {
	for s, want := range map[string][3]int64{
		"bytes 0-0/1": {0, 1, 1}, "bytes 5-9/10": {5, 10, 10}, "Bytes 5-9/*": {5, 10, -1}, "bytes 0-99/100": {0, 100, 100},
	} {
		a, b, n, ok := parseContentRange(s)
		if !ok || [3]int64{a, b, n} != want {
			t.Errorf("%q: %d %d %d %v", s, a, b, n, ok)
		}
	}
	for _, s := range []string{"", "bytes", "bytes 1-2", "bytes 2-1/5", "bytes 0-5/5", "bytes */5", "bytes -1-2/5", "bytes 0-1/-5", "bytes 0-1/5 ", "items 0-1/5",
		"bytes 0--1/5", "bytes +0-1/5", "bytes 0-99999999999999999999/*", "bytes 0x0-1/5", "bytes 0-1/ 5", "bytes  0-1/5"} {
		if a, b, n, ok := parseContentRange(s); ok {
			t.Errorf("%q: %d %d %d", s, a, b, n)
		}
	}
}

func FuzzParseContentRange(f *testing.F) {
	for _, s := range []string{"bytes 0-0/1", "bytes 5-9/*", "bytes */10", "bytes 9-5/10", "bytes 0-99999999999999999999/*", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		first, end, total, ok := parseContentRange(s)
		if ok && (first < 0 || end <= first || total < -1 || total >= 0 && end > total) {
			t.Fatalf("%q: %d %d %d", s, first, end, total)
		}
	})
}

func TestStrongETag(t *testing.T) {
	for s, want := range map[string]string{`"a"`: `"a"`, `""`: `""`, `W/"a"`: "", `a`: "", ``: "", `"`: "", `"a"b"`: "", "\"a\r\nX: y\"": ""} {
		if got := strongETag(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
