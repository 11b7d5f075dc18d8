package strictjson_test

import (
	"testing"

	"github.com/waybill-ml/waybill/internal/strictjson"
)

func TestLocate(t *testing.T) {
	const doc = "{\n  \"a\": 1,\n  \"list\": [\n    {\"b\": \"x\"},\n    {\"b\": \"y\", \"c\": {}}\n  ],\n  \"a\": 2\n}"
	for _, c := range []struct {
		path      string
		line, col int
	}{
		{"list", 3, 3}, {"list[0]", 4, 5}, {"list[1].b", 5, 6}, {"list[1].c", 5, 16}, {"a", 7, 3},
		{"list[1].c.missing", 5, 16}, {"list[7].b", 3, 3}, {"nothing", 0, 0}, {"", 0, 0},
	} {
		line, col, ok := strictjson.Locate([]byte(doc), c.path)
		if line != c.line || col != c.col || ok != (c.line > 0) {
			t.Errorf("%s: %d:%d %v, want %d:%d", c.path, line, col, ok, c.line, c.col)
		}
	}
}

func TestBroken(t *testing.T) {
	for _, c := range []struct {
		doc       string
		line, col int
	}{
		{"{}", 0, 0}, {" [1] \n", 0, 0}, {"{\n \"a\": }", 2, 7}, {"{\"a\":", 1, 6}, {"", 1, 1}, {"{}\n x", 2, 2}, {"{} {}", 1, 4},
	} {
		line, col, ok := strictjson.Broken([]byte(c.doc))
		if line != c.line || col != c.col || ok != (c.line > 0) {
			t.Errorf("%q: %d:%d %v, want %d:%d", c.doc, line, col, ok, c.line, c.col)
		}
	}
}

func FuzzLocate(f *testing.F) {
	f.Add([]byte("{\"a\":[1,{\"b\":2}]}"), "a[1].b")
	f.Add([]byte("[[["), "[0]")
	f.Fuzz(func(t *testing.T, raw []byte, path string) {
		for _, where := range []func() (int, int, bool){
			func() (int, int, bool) { return strictjson.Locate(raw, path) },
			func() (int, int, bool) { return strictjson.Broken(raw) },
		} {
			if line, col, ok := where(); ok && (line < 1 || col < 1) {
				t.Fatalf("%d:%d", line, col)
			}
		}
	})
}
