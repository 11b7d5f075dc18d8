package ui

import (
	"slices"
	"testing"
)

func TestFold(t *testing.T) {
	for in, want := range map[string][]string{
		"":                    {""},
		"  a  b ":             {"a b"},
		"one two three":       {"one two", "three"},
		"abcdefghijklmnop q":  {"abcdefgh", "ijklmnop", "q"},
		"ä ö ü ß é à":         {"ä ö ü ß", "é à"},
		"x abcdefghij":        {"x", "abcdefgh", "ij"},
		"exactly8 12345678 z": {"exactly8", "12345678", "z"},
	} {
		if got := Fold(in, 8); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
