package steps

import (
	"encoding/json"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/packager/steps/charset"
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
	ops, err := readNormalizer([]byte(`{"type":"BertNormalizer","clean_text":true,"handle_chinese_chars":true,"strip_accents":null,"lowercase":true}`), "normalizer", 0)
	if err != nil {
		t.Fatal(err)
	}
	space, punctuation := charset.Named("~space"), charset.Named("~punctuation")
	for p, want := range c.Pages {
		var page []string
		for i := range rune(256) {
			r := rune(p)<<8 | i
			if r >= 0xd800 && r < 0xe000 {
				continue
			}
			var words []string
			word := ""
			for _, x := range normalize(ops, "a"+string(r)+"b") {
				cut := punctuation.Has(x)
				if (cut || space.Has(x)) && word != "" {
					words, word = append(words, word), ""
				}
				if cut {
					words = append(words, string(x))
				} else if !space.Has(x) {
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
