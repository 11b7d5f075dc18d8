package input

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// Every member is described, every string and list bounded: by a length, a finite pattern, or a list of words. So an
// evaluation of the largest document is bounded too.
func TestSchemaIsBoundedAndDescribed(t *testing.T) {
	var root map[string]any
	if err := json.Unmarshal(SchemaJSON(), &root); err != nil {
		t.Fatal(err)
	}
	members := 0
	var walk func(at string, n map[string]any)
	walk = func(at string, n map[string]any) {
		if n["$ref"] != nil {
			return
		}
		num := func(k string) float64 { v, _ := n[k].(float64); return v }
		switch n["type"] {
		case "string":
			pattern, _ := n["pattern"].(string)
			finite := strings.HasPrefix(pattern, "^") && strings.HasSuffix(pattern, "$") && !strings.ContainsAny(pattern, "*+")
			if max := num("maxLength"); !finite && (max < 1 || max > MaxText) {
				t.Errorf("%s: a string of any length", at)
			}
		case "array":
			if max := num("maxItems"); n["oneOf"] == nil && (max < 1 || max > MaxItems) {
				t.Errorf("%s: a list of any length", at)
			}
			walk(at+"[]", n["items"].(map[string]any))
		case "object":
			props, _ := n["properties"].(map[string]any)
			if props == nil && at != "/environment/data" {
				t.Errorf("%s: an open object", at)
			}
			for k, p := range props {
				members++
				p := p.(map[string]any)
				if d, _ := p["description"].(string); len(d) < 4 || strings.Contains(d, "|") {
					t.Errorf("%s/%s: description %q", at, k, d)
				}
				walk(at+"/"+k, p)
			}
		}
	}
	walk("", root)
	for k, d := range root["$defs"].(map[string]any) {
		walk("#"+k, d.(map[string]any))
	}
	if members < 250 {
		t.Errorf("only %d members", members)
	}
}

func TestProperties(t *testing.T) {
	ps, err := Properties()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range ps {
		if p.Meaning == "" || p.Type == "" {
			t.Errorf("%+v", p)
		}
		got[p.Path] = p.Type
	}
	for path, want := range map[string]string{
		"context.time": "time", "environment.deviceClasses[].name": "text", "signatures[].signer.kind": "key, identity, empty", "metrics[].ci": "list of number",
		"model.baseModels[].digest": "sha256 digest or empty", "verdictChain.heads": "list of sha256 digest", "champion.metrics": "list of metric", "environment.data": "object",
		"provenance[].signer.keyId": "text",
	} {
		if got[path] != want {
			t.Errorf("%s is %q, want %q", path, got[path], want)
		}
	}
	if _, twice := got["champion.metrics[].name"]; twice {
		t.Error("a shared definition is listed twice")
	}
}

func TestFits(t *testing.T) {
	long, edge := strings.Repeat("ä", MaxText+1), strings.Repeat("ä", MaxText)
	type inner struct {
		a []string
		b *string
		c any
	}
	for i, v := range []any{long, []string{"a", long}, inner{a: []string{long}}, inner{b: &long}, &inner{c: long}, make([]int, MaxItems+1), [][]string{{long}}} {
		if Fits(1, v) == nil {
			t.Errorf("%d fits", i)
		}
	}
	for i, v := range []any{edge, []string{edge}, inner{b: &edge}, (*inner)(nil), make([]int, MaxItems), nil, 7, map[string]string{}} {
		if err := Fits(v); err != nil {
			t.Errorf("%d: %v", i, err)
		}
	}
	if err := Fits(Finding{ID: fmt.Sprint(long)}); err == nil || len(err.Error()) > 400 {
		t.Errorf("%v", err)
	}
}
