package input

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// The schema and the types say the same: every field is a property, every property is required, every object is closed.
func TestSchemaMatchesTypes(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(SchemaJSON(), &root); err != nil {
		t.Fatal(err)
	}
	defs := root["$defs"].(map[string]any)
	resolve := func(n map[string]any) map[string]any {
		if r, ok := n["$ref"].(string); ok {
			return defs[strings.TrimPrefix(r, "#/$defs/")].(map[string]any)
		}
		return n
	}
	objects := 0
	var walk func(at string, ty reflect.Type, n map[string]any)
	walk = func(at string, ty reflect.Type, n map[string]any) {
		n = resolve(n)
		switch {
		case ty == reflect.TypeFor[time.Time]():
			if n["format"] != "date-time" {
				t.Errorf("%s: a time without its format", at)
			}
		case ty.Kind() == reflect.Struct:
			objects++
			if n["additionalProperties"] != false {
				t.Errorf("%s: not closed", at)
			}
			props := n["properties"].(map[string]any)
			var req, fields []string
			for _, r := range n["required"].([]any) {
				req = append(req, r.(string))
			}
			for i := range ty.NumField() {
				tag := ty.Field(i).Tag.Get("json")
				if tag == "" || strings.Contains(tag, ",") {
					t.Errorf("%s.%s: tag %q; a fact is never left out", at, ty.Field(i).Name, tag)
				}
				fields = append(fields, tag)
				p, ok := props[tag].(map[string]any)
				if !ok {
					t.Errorf("%s/%s: not in the schema", at, tag)
					continue
				}
				walk(at+"/"+tag, ty.Field(i).Type, p)
			}
			slices.Sort(fields)
			slices.Sort(req)
			if !slices.Equal(fields, req) {
				t.Errorf("%s: fields %v, required %v", at, fields, req)
			}
			if len(props) != len(fields) {
				t.Errorf("%s: the schema has %d properties, the type %d fields", at, len(props), len(fields))
			}
		case ty.Kind() == reflect.Slice:
			if n["type"] != "array" {
				t.Errorf("%s: not an array in the schema", at)
			}
			walk(at+"/#", ty.Elem(), n["items"].(map[string]any))
		case ty.Kind() == reflect.Map: // the one open place
			if n["type"] != "object" || at != "/environment/data" {
				t.Errorf("%s: a map is not closed", at)
			}
		default:
			want := map[reflect.Kind]string{reflect.String: "string", reflect.Bool: "boolean", reflect.Int: "integer", reflect.Int64: "integer", reflect.Float64: "number"}[ty.Kind()]
			if n["enum"] == nil && n["const"] == nil && n["type"] != want {
				t.Errorf("%s: type %v, want %s", at, n["type"], want)
			}
		}
	}
	walk("", reflect.TypeFor[Input](), root)
	if objects < 25 {
		t.Errorf("only %d objects were compared", objects)
	}
}

// No list of a normalised document is null, however it was made.
func TestNormalizeLeavesNoNull(t *testing.T) {
	in := Input{Metrics: []Metric{{}}, Approvals: []Approval{{}}, Exceptions: []Exception{{}}, Verdicts: []Verdict{{}}, Champion: Champion{Metrics: []Metric{{}}}}
	in.Build.Modules = []Module{{}}
	in.Provenance, in.Tests, in.Datasets, in.Environment.Builders = []Provenance{{}}, []TestResult{{}}, []Dataset{{}}, []Builder{{}}
	in.Normalize()
	b, err := in.Canonical()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "null") {
		t.Errorf("null in %s", b)
	}
	if back, err := Parse(b); err != nil || !reflect.DeepEqual(back, in) {
		t.Errorf("round trip: %v\n%+v\n%+v", err, back, in)
	}
}

func FuzzParse(f *testing.F) {
	in := New()
	b, err := in.Canonical()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"schema":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		in, err := Parse(b)
		if err != nil {
			return
		}
		in.Normalize()
		c, err := in.Canonical()
		if err != nil {
			return // years that JSON cannot write
		}
		again, err := Parse(c)
		if err != nil {
			t.Fatal(err)
		}
		c2, err := again.Canonical()
		if err != nil || string(c) != string(c2) {
			t.Fatalf("canonical form is not stable: %v", err)
		}
	})
}
