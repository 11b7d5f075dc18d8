package ui

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// Bytes formats a size with decimal units and up to three significant digits: "214 kB", "1.2 MB".
func Bytes(n int64) string {
	if n < 1000 && n > -1000 {
		return fmt.Sprintf("%d B", n)
	}
	v := float64(n)
	for _, u := range []string{"kB", "MB", "GB", "TB", "PB"} {
		v /= 1000
		if math.Abs(v) < 999.5 || u == "PB" {
			if math.Abs(v) < 9.95 {
				return fmt.Sprintf("%.1f %s", v, u)
			}
			return fmt.Sprintf("%.0f %s", v, u)
		}
	}
	return ""
}

// Duration formats a time with one unit below a minute, two above: "640 ns", "0.4 ms", "12 ms", "3.1 s", "4 min 5 s",
// "3 d 4 h".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + Duration(-d)
	case d == 0:
		return "0 s"
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < 100*time.Microsecond:
		return trim(float64(d)/1e3) + " us"
	case d < 100*time.Millisecond:
		return trim(float64(d)/1e6) + " ms"
	case d < time.Minute:
		return trim(d.Seconds()) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

func trim(v float64) string {
	if v < 9.95 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// Count formats an integer with thousands separated by commas.
func Count(n int64) string {
	s := fmt.Sprintf("%d", n)
	neg := strings.HasPrefix(s, "-")
	s = strings.TrimPrefix(s, "-")
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if neg {
		s = "-" + s
	}
	return s
}

// Plural gives "1 file", "3 files".
func Plural(n int, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(int64(n)) + " " + one + "s"
}

// Width is the number of columns of t, escape sequences not counted.
func Width(t string) int {
	n := 0
	for i := 0; i < len(t); {
		if t[i] == 0x1b {
			for i < len(t) && t[i] != 'm' {
				i++
			}
			i++
			continue
		}
		_, w := utf8.DecodeRuneInString(t[i:])
		i += w
		n++
	}
	return n
}

// Table lays rows out in columns separated by two spaces; the last column is not padded. The first row is the header
// when head is true and is dimmed on s.
func Table(s *Stream, head bool, rows [][]string) {
	var w []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(w) {
				w = append(w, 0)
			}
			w[i] = max(w[i], Width(c))
		}
	}
	var b strings.Builder
	for i, r := range rows {
		var l strings.Builder
		for j, c := range r {
			l.WriteString(c)
			if j < len(r)-1 {
				l.WriteString(strings.Repeat(" ", w[j]-Width(c)+2))
			}
		}
		t := strings.TrimRight(l.String(), " ")
		if i == 0 && head {
			t = s.Dim(t)
		}
		b.WriteString(t + "\n")
	}
	_ = s.write(b.String())
}
