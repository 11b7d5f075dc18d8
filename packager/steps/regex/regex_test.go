package regex_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/packager/steps/regex"
)

// Every pattern of testdata/patterns.json that is not refused finds what the library finds.
func TestPatterns(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "patterns.json"))
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Texts    []string
		Patterns []struct {
			Pattern string
			Found   [][]string
		}
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	done, refused := 0, map[string]int{}
	for _, p := range c.Patterns {
		table, err := regex.Compile(p.Pattern)
		if errors.Is(err, regex.ErrPattern) {
			why := err.Error()
			if i := strings.Index(why, ": "); strings.HasPrefix(why, "at byte") && i > 0 {
				why = why[i+2:]
			}
			refused[why]++
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		done++
		for i, text := range c.Texts {
			got := []string{}
			for _, m := range table.Find(text) {
				got = append(got, text[m[0]:m[1]])
			}
			if !slices.Equal(got, p.Found[i]) {
				t.Errorf("%s in %q: %q, want %q", p.Pattern, text, got, p.Found[i])
			}
		}
	}
	t.Logf("%d patterns agree; refused: %v", done, refused)
	if done < len(c.Patterns)/2 {
		t.Errorf("only %d of %d patterns are supported: %v", done, len(c.Patterns), refused)
	}
}

func TestRefused(t *testing.T) {
	for _, p := range []string{"", "a*", "(", ")", "[", "[]a]", "a**", `\`, `\p{Nope}`, `\p`, `(a)\1`, `(?=ab)c`, `(?<=ab)c`, "(?i:stop)", "(?i:ß)", "(?x)a", "+a", "a{2000}", "((a{1000}){1000}){1000}", "(((){1000}){1000}){1000}b",
		`\K`, `\R`, `\x{110000}`, `\xff`, "[b-a]", "(?>ab|c)", "(ab)++", `\G`, "\xff", strings.Repeat("(", 300), strings.Repeat("[", 300), "(?:a|b)*a" + strings.Repeat("(?:a|b)", 20)} {
		if _, err := regex.Compile(p); !errors.Is(err, regex.ErrPattern) {
			t.Errorf("%.60q: %v", p, err)
		}
	}
}

func FuzzCompile(f *testing.F) {
	for _, p := range []string{`'s| ?\p{L}+|\s+(?!\S)|\s+`, `(?i:'ll)|[^\r\n\p{L}]?+\p{N}{1,3}`, `[a-c&&[^b]]+$`, `(?<!a)(?:b|c)*?d\b`} {
		f.Add(p, "it's 12 abc\n")
	}
	f.Fuzz(func(t *testing.T, p, text string) {
		table, err := regex.Compile(p)
		if err != nil {
			if !errors.Is(err, regex.ErrPattern) {
				t.Errorf("%v", err)
			}
			return
		}
		if !utf8.ValidString(text) {
			return
		}
		at := 0
		for _, m := range table.Find(text) {
			if m[0] < at || m[1] <= m[0] || !utf8.ValidString(text[m[0]:m[1]]) {
				t.Fatalf("%q in %q: %v behind %d", p, text, m, at)
			}
			at = m[1]
		}
	})
}
