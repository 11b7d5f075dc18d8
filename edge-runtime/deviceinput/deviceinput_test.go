package deviceinput_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/deviceinput/deviceinputtest"
)

func schema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(deviceinput.SchemaJSON()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("device-input", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("device-input")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func valid(t testing.TB, s *jsonschema.Schema, raw []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	return s.Validate(v)
}

func TestRoundTrip(t *testing.T) {
	s, r := schema(t), rand.New(rand.NewPCG(1, 2))
	for range 500 {
		d := deviceinputtest.Random(r)
		raw, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if err := valid(t, s, raw); err != nil {
			t.Fatalf("the schema refuses what Encode writes: %v\n%s", err, raw)
		}
		back, err := deviceinput.Parse(raw)
		if err != nil || !reflect.DeepEqual(d, back) {
			t.Fatalf("%v\n%+v\n%+v", err, d, back)
		}
	}
}

// node is a place in a JSON document where a mutation can be made.
type node struct {
	holder any // map[string]any
	key    string
}

func nodes(v any, out []node) []node {
	if m, ok := v.(map[string]any); ok {
		for k, x := range m {
			out = append(out, node{m, k})
			out = nodes(x, out)
		}
	}
	return out
}

// The reader of devices and the published schema accept the same documents: each member dropped, replaced by values of
// other types and at the edges, and each object given a member more.
func TestSameAsSchema(t *testing.T) {
	s, r := schema(t), rand.New(rand.NewPCG(3, 4))
	replace := []string{`null`, `true`, `false`, `0`, `-1`, `1.5`, `1e2`, `101`, `1440`, `9007199254740991`, `9007199254740992`, `1e400`, `""`, `"x"`, `"\u0001"`, `"\u007f"`, `"true"`,
		`[]`, `{}`, `{"known":true}`, `{"known":false}`, `{"known":false,"value":true}`, `"` + strings.Repeat("é", 256) + `"`, `"` + strings.Repeat("é", 257) + `"`, `"waybill.dev/device-input/v2"`, `"monday"`}
	cases, refused := 0, 0
	for range 3 {
		raw, err := deviceinputtest.Random(r).Encode()
		if err != nil {
			t.Fatal(err)
		}
		var doc map[string]any
		count := func() int {
			doc = nil
			if err := json.Unmarshal(raw, &doc); err != nil {
				t.Fatal(err)
			}
			return len(nodes(doc, nil))
		}
		n := count()
		try := func(what string, doc any) {
			t.Helper()
			b, err := json.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			_, ours := deviceinput.Parse(b)
			theirs := valid(t, s, b)
			cases++
			if ours != nil {
				refused++
			}
			if strings.HasSuffix(what, "= 1e2") && ours != nil {
				return // an integer has one spelling here; JSON Schema looks at its value
			}
			if (ours == nil) != (theirs == nil) {
				t.Errorf("%s: ours %v, the schema %v\n%s", what, ours, theirs, b)
			}
		}
		for i := range n {
			pick := func() node { // maps have no order; by path they do
				count()
				all := nodes(doc, nil)
				return all[i%len(all)]
			}
			at := pick()
			delete(at.holder.(map[string]any), at.key)
			try("without "+at.key, doc)
			for _, v := range replace {
				at := pick()
				at.holder.(map[string]any)[at.key] = json.RawMessage(v)
				if v == "1e400" {
					continue
				}
				try(at.key+" = "+v, doc)
			}
			at = pick()
			at.holder.(map[string]any)["extra"] = 1
			try("extra beside "+at.key, doc)
		}
	}
	t.Logf("%d documents, %d refused, by both or neither", cases, refused)
	if cases < 3000 || refused < cases/2 {
		t.Error("too few")
	}
}

func TestParseRefuses(t *testing.T) {
	raw, err := deviceinputtest.Good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "no object": []byte(`[]`), "cut off": raw[:len(raw)/2], "two values": append(bytes.Clone(raw), "{}"...),
		"too large": append(bytes.Clone(raw), bytes.Repeat([]byte(" "), deviceinput.MaxBytes)...),
		"twice":     bytes.Replace(raw, []byte(`"action"`), []byte(`"action": "download", "action"`), 1),
		"case":      bytes.Replace(raw, []byte(`"action"`), []byte(`"Action"`), 1),
	} {
		if _, err := deviceinput.Parse(b); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	d := deviceinputtest.Good()
	d.Device.Labels = nil
	if _, err := d.Encode(); err != nil {
		t.Errorf("no labels: %v", err)
	}
	d.Device.Class = ""
	if _, err := d.Encode(); err == nil {
		t.Error("no class")
	}
}

func FuzzParse(f *testing.F) {
	raw, err := deviceinputtest.Good().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"schema":"waybill.dev/device-input/v1"}`))
	s := schema(f)
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := deviceinput.Parse(raw)
		if err != nil {
			return
		}
		if err := valid(t, s, raw); err != nil {
			t.Fatalf("accepted, and not by the schema: %v", err)
		}
		again, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := deviceinput.Parse(again); err != nil || !reflect.DeepEqual(b, d) {
			t.Fatalf("%v %+v %+v", err, b, d)
		}
	})
}
