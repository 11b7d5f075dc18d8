package steps

import (
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every code point is replaced and classed as the tokenizers library does it.
func TestTextCodePoints(t *testing.T) {
	var c struct{ Pages []uint32 }
	b, err := os.ReadFile(filepath.Join("testdata", "text.json"))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || len(c.Pages) != 0x1100 {
		t.Fatal(err)
	}
	class, err := normalizer([]byte(`{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}`))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range c.Pages {
		var page []string
		for i := range rune(256) {
			r := rune(p)<<8 | i
			if r >= 0xd800 && r < 0xe000 {
				continue
			}
			s, _ := class(r)
			if len(s) > 31 {
				t.Errorf("U+%04X becomes %d bytes", r, len(s))
			}
			var words []string
			word := ""
			for _, x := range "a" + s + "b" {
				_, k := class(x)
				if k != 0 && word != "" {
					words, word = append(words, word), ""
				}
				if k == classPunct {
					words = append(words, string(x))
				} else if k == 0 {
					word += string(x)
				}
			}
			page = append(page, strings.Join(append(words, word), "\x1f"))
		}
		if crc32.ChecksumIEEE([]byte(strings.Join(page, "\x1e"))) != want {
			t.Errorf("U+%04X to U+%04X differ", p<<8, p<<8|255)
		}
	}
}
