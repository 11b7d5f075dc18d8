package steps_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

// tokenizerCases is a file of testdata/trained.py: a tokenizer.json (or the path of one) and what the library makes of texts with it.
type tokenizerCases struct {
	File      string
	Tokenizer json.RawMessage
	Cases     []textCase
}

// Every tokenizer of testdata/tokenizers, and of the folder WAYBILL_TOKENIZERS when it is set, gives the library's tokens.
func TestTokenizers(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "tokenizers", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	if dir := os.Getenv("WAYBILL_TOKENIZERS"); dir != "" {
		more, err := filepath.Glob(filepath.Join(dir, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, more...)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var c tokenizerCases
			if err := json.Unmarshal(b, &c); err != nil {
				t.Fatal(err)
			}
			if c.File != "" {
				if c.Tokenizer, err = os.ReadFile(c.File); err != nil {
					t.Fatal(err)
				}
			}
			code, err := steps.Text(c.Tokenizer)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("a module of %d KiB", len(code)>>10)
			m := load(t, engine.Config{Poison: true, MemoryLimit: 256 << 20}, code, []artifact.Port{port("text", "string")},
				[]artifact.Port{port("ids", "i64"), port("mask", "i64"), port("types", "i64")})
			failed := 0
			for _, k := range c.Cases {
				outs, err := call(t, m, engine.OfStrings(k.Texts))
				if err != nil {
					t.Errorf("%.80q: %v", k.Texts, err)
					continue
				}
				for i, want := range [][][]int64{k.IDs, k.Mask, k.Types} {
					if want == nil {
						continue
					}
					got, err := engine.Values[int64](outs[i])
					if err != nil {
						t.Fatal(err)
					}
					if !slices.Equal(got, slices.Concat(want...)) {
						if failed++; failed < 12 {
							at, flat := 0, slices.Concat(want...)
							for at < len(got) && at < len(flat) && got[at] == flat[at] {
								at++
							}
							t.Errorf("output %d of %.300q from %d on:\n%.100v, want\n%.100v", i, k.Texts, at, got[at:], flat[at:])
						}
					}
				}
			}
			if failed > 0 {
				t.Errorf("%d differ of %d", failed, len(c.Cases))
			}
		})
	}
}
