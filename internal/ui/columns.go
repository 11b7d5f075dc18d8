package ui

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// MostColumns is how wide output becomes on any terminal, and where there is none.
const MostColumns = 100

// Columns is the width to print in.
func Columns(w io.Writer) int {
	f, ok := w.(*os.File)
	if !ok {
		return MostColumns
	}
	n, _, err := term.GetSize(int(f.Fd()))
	if err != nil || n <= 0 {
		return MostColumns
	}
	return min(n, MostColumns)
}

// Clip shortens t to n columns.
func Clip(t string, n int) string {
	r := []rune(t)
	if len(r) <= n {
		return t
	}
	if n <= 3 {
		return string(r[:n])
	}
	return string(r[:n-3]) + "..."
}

// Printable makes text of unknown origin one line without control characters.
func Printable(t string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r >= '\u202a' && r <= '\u202e' || r >= '\u2066' && r <= '\u2069' {
			return ' '
		}
		return r
	}, t)
}

// Ago formats a duration as people say it: two units.
func Ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(d/time.Second, 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
