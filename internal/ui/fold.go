package ui

import (
	"strings"
	"unicode/utf8"
)

// Fold breaks text at spaces into lines of at most width columns, and a word that is longer than a line anywhere. There is
// always a line.
func Fold(s string, width int) []string {
	var out []string
	line := ""
	for _, w := range strings.Fields(s) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(w) > width {
			out = append(out, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
		for utf8.RuneCountInString(line) > width {
			rs := []rune(line)
			out = append(out, string(rs[:width]))
			line = string(rs[width:])
		}
	}
	if line != "" || out == nil {
		out = append(out, line)
	}
	return out
}
