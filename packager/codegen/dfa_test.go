package codegen

import (
	"regexp"
	"testing"
	"unicode/utf8"
)

// match walks the tables as the kernel does: the end of the longest match at the start of s[at:], or -1.
func (d *dfa) match(s string, at int) int {
	prev := prevNothing
	if at > 0 {
		switch r, _ := utf8.DecodeLastRuneInString(s[:at]); {
		case r == '\n':
			prev = prevNewline
		case isWord(r):
			prev = prevWord
		default:
			prev = prevOther
		}
	}
	st, best := d.start[prev], -1
	for i := at; ; {
		cls, w := 0, 0
		if i < len(s) {
			var r rune
			r, w = utf8.DecodeRuneInString(s[i:])
			cls = d.classOf(r)
		}
		if d.accept[st*d.classes+cls] != 0 {
			best = i
		}
		if i >= len(s) {
			return best
		}
		if st = int(d.next[st*d.classes+cls]); st == 0 {
			return best
		}
		i += w
	}
}

// FuzzDFA compares the tables with package regexp's leftmost-longest matches.
func FuzzDFA(f *testing.F) {
	for _, p := range []string{`[a-z]+`, `\b\w\w+\b`, `^a|b$`, `(a|ab)(c|bcd)?`, `(?i)straße`, `\p{L}+\d*`, `(?m)^.*$`, `a{2,5}?b*`, `\B-\B`, `.`, ``, `[^\n]x`, `(?s).+\z`} {
		f.Add(p, "The ab-abcd STRASSE straße\naab 42 x\n\nß")
	}
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if len(pattern) > 40 || len(text) > 200 || !utf8.ValidString(text) {
			return
		}
		re, err := regexp.Compile(pattern)
		if err != nil {
			return
		}
		re.Longest()
		d, err := compileDFA(pattern)
		if err != nil {
			return // too many states: refused with a reason
		}
		want := re.FindAllStringIndex(text, -1)
		got := [][]int{}
		for at := 0; at <= len(text); {
			e := d.match(text, at)
			if e > at {
				got = append(got, []int{at, e})
				at = e
				continue
			}
			if at == len(text) {
				break
			}
			_, w := utf8.DecodeRuneInString(text[at:])
			at += w
		}
		i := 0
		for _, w := range want {
			if w[0] == w[1] {
				continue // empty matches are no tokens
			}
			if i >= len(got) || got[i][0] != w[0] || got[i][1] != w[1] {
				t.Fatalf("pattern %q on %q: match %d is %v, want %v", pattern, text, i, got, w)
			}
			i++
		}
		if i != len(got) {
			t.Fatalf("pattern %q on %q: %v, want %v", pattern, text, got, want)
		}
	})
}
