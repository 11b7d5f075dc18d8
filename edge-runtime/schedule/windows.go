package schedule

import (
	"fmt"
	"strings"
	"time"
)

// Windows are the times of a week at which a device may change what it runs, on the wall clock of a place. The zero Windows
// are always open.
type Windows struct {
	spans []span
	zone  *time.Location
	never string // why none of them opens; "": they do
}

// span is one line: on each of the days from a minute to another; over midnight when the end is not later, and then it
// belongs to the day on which it begins.
type span struct {
	days     [7]bool
	from, to int // minutes of the day, to at most 24:00
	text     string
}

const (
	dayMinutes  = 24 * 60
	weekMinutes = 7 * dayMinutes
	maxWindows  = 64
)

// ParseWindows reads lines such as "Mon-Fri 02:00-05:00", "Sat,Sun 00:00-24:00" and, for every day, "22:00-04:00". None means
// always. zone is where the clock hangs; nil is UTC.
func ParseWindows(lines []string, zone *time.Location) (Windows, error) {
	if zone == nil {
		zone = time.UTC
	}
	w := Windows{zone: zone}
	if len(lines) > maxWindows {
		return w, fmt.Errorf("%d windows, at most %d", len(lines), maxWindows)
	}
	for _, l := range lines {
		s, err := parseSpan(l)
		if err != nil {
			return w, fmt.Errorf("window %q: %w", l, err)
		}
		w.spans = append(w.spans, s)
	}
	return w, nil
}

func parseSpan(line string) (span, error) {
	s := span{text: strings.Join(strings.Fields(line), " ")}
	days, hours, ok := strings.Cut(s.text, " ")
	if !ok {
		days, hours = "Mon-Sun", days
	}
	for part := range strings.SplitSeq(days, ",") {
		a, b, isRange := strings.Cut(part, "-")
		first, err := weekday(a)
		if err != nil {
			return s, err
		}
		last := first
		if isRange {
			if last, err = weekday(b); err != nil {
				return s, err
			}
		}
		for d := first; ; d = (d + 1) % 7 {
			s.days[d] = true
			if d == last {
				break
			}
		}
	}
	a, b, ok := strings.Cut(hours, "-")
	if !ok {
		return s, fmt.Errorf("%q is no time span such as 02:00-05:00", hours)
	}
	var err error
	if s.from, err = minute(a); err != nil {
		return s, err
	}
	if s.to, err = minute(b); err != nil {
		return s, err
	}
	switch {
	case s.from == dayMinutes:
		return s, fmt.Errorf("it begins at 24:00: write 00:00 of the next day")
	case s.from == s.to:
		return s, fmt.Errorf("it ends when it begins: write 00:00-24:00 for a whole day")
	}
	return s, nil
}

func weekday(s string) (int, error) {
	for d := range 7 {
		if name := time.Weekday(d).String(); strings.EqualFold(s, name) || strings.EqualFold(s, name[:3]) {
			return d, nil
		}
	}
	return 0, fmt.Errorf("%q is no day: write Mon, Tue, Wed, Thu, Fri, Sat or Sun", s)
}

// minute reads HH:MM, up to 24:00.
func minute(s string) (int, error) {
	bad := fmt.Errorf("%q is no time of day such as 02:00", s)
	if len(s) != 5 || s[2] != ':' {
		return 0, bad
	}
	n := [2]int{}
	for i, at := range []int{0, 3} {
		x, y := s[at]-'0', s[at+1]-'0'
		if x > 9 || y > 9 {
			return 0, bad
		}
		n[i] = int(x)*10 + int(y)
	}
	if m := n[0]*60 + n[1]; n[1] < 60 && m <= dayMinutes {
		return m, nil
	}
	return 0, bad
}

// Never are the same windows for a device that cannot tell the time of their place: none opens, and why says the reason. Where there
// are no windows there is nothing to close.
func (w Windows) Never(why string) Windows {
	w.never = why
	return w
}

// Closed tells why no window ever opens; "" when they open.
func (w Windows) Closed() string {
	if w.Always() {
		return ""
	}
	return w.never
}

// Always tells that there is nothing to wait for.
func (w Windows) Always() bool { return len(w.spans) == 0 }

// Open tells whether t lies in a window. The clock on the wall decides: an hour that a change to summer time leaves out is in
// no window, and one that comes twice is in its window both times.
func (w Windows) Open(t time.Time) bool {
	if w.Always() {
		return true
	}
	if w.never != "" {
		return false
	}
	t = t.In(w.zone)
	day, m := int(t.Weekday()), t.Hour()*60+t.Minute()
	for _, s := range w.spans {
		if s.from < s.to {
			if s.days[day] && s.from <= m && m < s.to {
				return true
			}
			continue
		}
		if s.days[day] && m >= s.from || s.days[(day+6)%7] && m < s.to {
			return true
		}
	}
	return false
}

// Next is when the next window opens after t, or t when one is open, and when that window closes; for windows without an end
// a week later. Both lie on whole minutes apart from t itself.
func (w Windows) Next(t time.Time) (opens, closes time.Time) {
	opens = t
	if !w.Open(t) {
		opens = t.Truncate(time.Minute).Add(time.Minute)
		// A change of the clock can leave one occurrence out, never two in a row.
		for n := 0; n < 2*weekMinutes && !w.Open(opens); n++ {
			opens = opens.Add(time.Minute)
		}
	}
	closes = opens.Truncate(time.Minute).Add(time.Minute)
	for n := 1; n < weekMinutes && w.Open(closes); n++ {
		closes = closes.Add(time.Minute)
	}
	return opens, closes
}

// String lists the windows for people.
func (w Windows) String() string {
	if w.Always() {
		return "always"
	}
	var out []string
	for _, s := range w.spans {
		out = append(out, s.text)
	}
	if w.never != "" {
		return strings.Join(out, ", ")
	}
	return strings.Join(out, ", ") + " " + w.zone.String()
}
