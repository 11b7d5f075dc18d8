package steps_test

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/packager/steps"
)

type textCase struct {
	Texts            []string
	IDs, Mask, Types [][]int64
}

// textCases are what testdata/text.py got from the tokenizers library.
func textCases(t *testing.T) (c struct {
	Tiny, Bert []textCase
	Pages      []uint32
}) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "text.json"))
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil || len(c.Tiny) == 0 || len(c.Bert) == 0 {
		t.Fatal(err)
	}
	return c
}

func tokenizerFile(t testing.TB) []byte {
	t.Helper()
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set")
	}
	b, err := os.ReadFile(filepath.Join(dir, "tokenizers", "bert-wordpiece", "tokenizer.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tokenizerModel(t testing.TB, file []byte) *engine.Model {
	t.Helper()
	code, err := steps.Text(file)
	if err != nil {
		t.Fatal(err)
	}
	return load(t, engine.Config{Poison: true, MemoryLimit: 64 << 20}, code, []artifact.Port{port("text", "string")},
		[]artifact.Port{port("ids", "i64"), port("mask", "i64"), port("types", "i64")})
}

func compareText(t *testing.T, file []byte, cases []textCase) {
	t.Helper()
	m := tokenizerModel(t, file)
	for _, c := range cases {
		outs, err := call(t, m, engine.OfStrings(c.Texts))
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range [][][]int64{c.IDs, c.Mask, c.Types} {
			got, err := engine.Values[int64](outs[i])
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(outs[i].Shape, []int64{int64(len(want)), int64(len(want[0]))}) {
				t.Fatalf("shape %v, want %d rows of %d", outs[i].Shape, len(want), len(want[0]))
			}
			for r, w := range want {
				if g := got[r*len(w) : (r+1)*len(w)]; !slices.Equal(g, w) {
					t.Errorf("output %d of %.60q:\n%v, want\n%v", i, c.Texts[r], g, w)
				}
			}
		}
	}
}

func tinyFile(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "text-tiny.json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestTextTiny(t *testing.T) { compareText(t, tinyFile(t), textCases(t).Tiny) }

func TestTextBert(t *testing.T) { compareText(t, tokenizerFile(t), textCases(t).Bert) }

// Each output is i32 where the project says so, with the same numbers.
func TestTextTypes(t *testing.T) {
	for _, types := range [][]string{{"i32"}, {"i32", "i32", "i32"}, {"i64", "i32"}, {"i32", "i64", "i32"}, {"i64", "i64", "i64"}} {
		code, err := steps.Text(tinyFile(t), types...)
		if err != nil {
			t.Fatal(err)
		}
		var outs []artifact.Port
		for i, o := range types {
			outs = append(outs, port([]string{"ids", "mask", "types"}[i], o))
		}
		m := load(t, engine.Config{Poison: true, MemoryLimit: 64 << 20}, code, []artifact.Port{port("text", "string")}, outs)
		for _, c := range textCases(t).Tiny {
			got, err := call(t, m, engine.OfStrings(c.Texts))
			if err != nil {
				t.Fatal(err)
			}
			for i, want := range [][][]int64{c.IDs, c.Mask, c.Types}[:len(types)] {
				var v []int64
				if types[i] == "i32" {
					narrow, err := engine.Values[int32](got[i])
					if err != nil {
						t.Fatal(err)
					}
					for _, n := range narrow {
						v = append(v, int64(n))
					}
				} else if v, err = engine.Values[int64](got[i]); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(v, slices.Concat(want...)) {
					t.Errorf("output %d of %v: %.60q: %v, want %v", i, types, c.Texts, v, want)
				}
			}
		}
	}
	for _, types := range [][]string{{"f32"}, {""}, {"i64", "u32"}, {"i64", "i64", "i64", "i64"}} {
		if _, err := steps.Text(tinyFile(t), types...); err == nil {
			t.Errorf("outputs of %q were made", types)
		}
	}
	wide := []byte(strings.Replace(string(tinyFile(t)), `"pad_id": 0`, `"pad_id": 4294967295`, 1))
	if _, err := steps.Text(wide, "i64", "i32"); err != nil {
		t.Error(err)
	}
	if _, err := steps.Text(wide, "i32"); err == nil {
		t.Error("an id above 2^31 was made an i32")
	}
}

func TestTextErrors(t *testing.T) {
	file := string(tinyFile(t))
	change := func(path string, v any) []byte {
		var doc map[string]any
		if err := json.Unmarshal([]byte(file), &doc); err != nil {
			t.Fatal(err)
		}
		at := doc
		keys := strings.Split(path, ".")
		for _, k := range keys[:len(keys)-1] {
			at = at[k].(map[string]any)
		}
		at[keys[len(keys)-1]] = v
		b, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for path, v := range map[string]any{
		"model.type": "Letters", "model.unk_token": "?", "model.max_input_chars_per_word": 100000, "normalizer.type": "Shout",
		"pre_tokenizer.type": "UnicodeScripts", "post_processor.type": "Frame", "truncation.stride": 30, "truncation.strategy": "OnlySecond",
		"truncation.direction": "Up", "truncation.max_length": 1, "padding.direction": "Up", "padding.strategy": "Most",
	} {
		_, err := steps.Text(change(path, v))
		if !errors.Is(err, steps.ErrTokenizer) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
	m := tokenizerModel(t, change("padding", nil))
	var g *engine.GuestError
	if _, err := call(t, m, engine.OfStrings([]string{"Hello", ""})); !errors.As(err, &g) || g.Code != abi.ErrUser {
		t.Errorf("rows of two lengths: %v", err)
	}
	outs, err := call(t, m, engine.OfStrings([]string{""}))
	if err != nil || !slices.Equal(outs[0].Shape, []int64{1, 2}) {
		t.Errorf("no padding: %v", err)
	}
	if _, err := call(t, m, engine.Of([]int64{1})); err == nil {
		t.Error("numbers were taken for text")
	}
}

// A refusal says where it stands and what can be done.
func TestTextWhere(t *testing.T) {
	const head = "{\n \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0}, \"merges\": []},\n "
	for _, c := range []struct {
		rest, field string
		line, col   int
	}{
		{`"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Shout"}]}}`, "normalizer.normalizers[1].type", 3, 79},
		{`"normalizer": {"type": "NFC", "loud": 1}}`, "normalizer.loud", 3, 40},
		{`"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a)\\1"}, "behavior": "Removed", "invert": false}}`, "pre_tokenizer.pattern.Regex", 3, 58},
		{`"pre_tokenizer": {"type": "Punctuation", "behavior": "Often"}}`, "pre_tokenizer.behavior", 3, 55},
		{`"post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "B", "type_id": 0}}], "pair": [], "special_tokens": {}}}`, "post_processor.single[0]", 3, 62},
		{`"added_tokens": [{"id": 1, "content": "x", "single_word": false, "lstrip": false, "rstrip": false, "normalized": true, "special": false}, 7]}`, "added_tokens", 3, 18},
		{`"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////"}}`, "normalizer.precompiled_charsmap", 3, 64},
		{`"decoder": nul}`, "tokenizer.json", 3, 16},
	} {
		_, err := steps.Text([]byte(head + c.rest))
		var e *steps.TokenizerError
		if !errors.As(err, &e) || e.Field != c.field || e.Line != c.line || e.Col != c.col || e.Way == "" || !errors.Is(err, steps.ErrTokenizer) {
			t.Errorf("%s: %v %+v, want %s at %d:%d", c.rest, err, e, c.field, c.line, c.col)
		}
	}
	_, err := steps.Text([]byte(`{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]}}`))
	if err == nil || !strings.Contains(err.Error(), "model.merges[0]") {
		t.Errorf("%v", err)
	}
	_, err = steps.Text([]byte(`{"model": {"type": "BPE", "dropout": 0.1, "vocab": {"a": 0}, "merges": []}}`))
	if err == nil || !strings.Contains(err.Error(), "model.dropout") {
		t.Errorf("%v", err)
	}
}

func FuzzText(f *testing.F) {
	f.Add(tinyFile(f))
	for _, name := range []string{"llama3", "llama2", "clip", "xlmr", "unigram-bytes", "wordlevel", "bytes-nfkd", "added"} {
		file, _ := trained(f, name)
		f.Add([]byte(file))
	}
	f.Add([]byte(`{"model":{"type":"WordPiece","unk_token":"a","vocab":{"a":0},"continuing_subword_prefix":"","max_input_chars_per_word":9},"pre_tokenizer":{"type":"BertPreTokenizer"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := steps.Text(b); err != nil {
			var e *steps.TokenizerError
			if !errors.As(err, &e) || e.Line < 1 || e.Col < 1 {
				t.Errorf("%v", err)
			}
		}
	})
}
