package strictjson_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/strictjson"
)

type inner struct {
	A string `json:"a"`
}

type doc struct {
	inner
	Name string            `json:"name"`
	N    int64             `json:"n,omitempty"`
	List []inner           `json:"list"`
	Map  map[string]string `json:"map"`
	At   time.Time         `json:"at"`
	Raw  json.RawMessage   `json:"raw,omitempty"`
	Ptr  *inner            `json:"ptr,omitempty"`
}

const good = `{"a":"x","name":"n","n":1,"list":[{"a":"1"}],"map":{"Q":"r","q":"s"},"at":"2026-01-01T00:00:00Z","raw":{"Z":null},"ptr":{"a":"2"}}`

func TestDecode(t *testing.T) {
	var d doc
	if err := strictjson.Decode([]byte(good), &d); err != nil {
		t.Fatal(err)
	}
	if d.Name != "n" || d.List[0].A != "1" || d.Map["q"] != "s" || d.Ptr.A != "2" || string(d.Raw) != `{"Z":null}` {
		t.Errorf("%+v", d)
	}
	for _, c := range []struct{ name, from, to, says string }{
		{"unknown key", `"n":1`, `"m":1`, "m: unknown key"},
		{"other case", `"name"`, `"Name"`, `spelled "name"`},
		{"key twice", `"n":1`, `"n":1,"n":2`, "n: key given twice"},
		{"key twice deep in raw", `{"Z":null}`, `{"Z":1,"Z":2}`, "given twice"},
		{"missing", `"name":"n",`, ``, "name: missing"},
		{"missing in a list", `[{"a":"1"}]`, `[{}]`, "list[0].a: missing"},
		{"null", `"n":1`, `"n":null`, "n: null"},
		{"null list", `[{"a":"1"}]`, `null`, "list: null"},
		{"list as object", `[{"a":"1"}]`, `{}`, "list: not a list"},
		{"object as list", `{"Q":"r","q":"s"}`, `[]`, "map: not an object"},
		{"number as string", `"n":1`, `"n":"1"`, "cannot unmarshal"},
		{"fraction", `"n":1`, `"n":1.5`, "cannot unmarshal"},
		{"bad time", `2026-01-01T00`, `2026-01-41T00`, "parsing time"},
		{"trailing value", `"ptr":{"a":"2"}}`, `"ptr":{"a":"2"}}{}`, "more data"},
		{"truncated", `"ptr":{"a":"2"}}`, `"ptr":{"a"`, "unexpected EOF"},
		{"not UTF-8", `"name":"n"`, "\"name\":\"\xff\"", "UTF-8"},
		{"too deep", `{"Z":null}`, strings.Repeat("[", 100) + strings.Repeat("]", 100), "deeper"},
	} {
		t.Run(c.name, func(t *testing.T) {
			text := strings.Replace(good, c.from, c.to, 1)
			if text == good {
				t.Fatal("the case changes nothing")
			}
			if err := strictjson.Decode([]byte(text), new(doc)); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %q", err, c.says)
			}
		})
	}
}

func TestDecodeOpen(t *testing.T) {
	text := strings.Replace(good, `"n":1`, `"https://example.com/x":1`, 1)
	if err := strictjson.DecodeOpen([]byte(text), new(doc)); err != nil {
		t.Error(err)
	}
	if err := strictjson.DecodeOpen([]byte(strings.Replace(good, `"n":1`, `"N":1`, 1)), new(doc)); err == nil {
		t.Error("a known key in another case passed")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(good))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var d doc
		if strictjson.Decode(raw, &d) == nil && !json.Valid(raw) {
			t.Error("accepted what is no JSON")
		}
	})
}
