package gate_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// leaves lists the paths of all values in a JSON object.
func leaves(t *testing.T, raw []byte) [][]any {
	t.Helper()
	var v any
	if err := json.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	var out [][]any
	var walk func(path []any, v any)
	walk = func(path []any, v any) {
		switch x := v.(type) {
		case map[string]any:
			keys := make([]string, 0, len(x))
			for k := range x {
				keys = append(keys, k)
			}
			slices.Sort(keys)
			for _, k := range keys {
				walk(append(slices.Clone(path), k), x[k])
			}
		case []any:
			for i := range x {
				walk(append(slices.Clone(path), i), x[i])
			}
		default:
			out = append(out, path)
		}
	}
	walk(nil, v)
	return out
}

// mutate changes the value at path into another one of the same kind that would still be well-formed.
func mutate(v any, path []any) {
	for len(path) > 1 {
		v = step(v, path[0])
		path = path[1:]
	}
	change := func(x any) any {
		switch t := x.(type) {
		case float64:
			return t + 1
		case bool:
			return !t
		case string:
			if rest, ok := strings.CutPrefix(t, "sha256:"); ok {
				return "sha256:" + rest[1:] + rest[:1]
			}
			if rest, ok := strings.CutPrefix(t, "2026"); ok {
				return "2027" + rest
			}
			return t + "x"
		}
		return "x"
	}
	switch c := v.(type) {
	case map[string]any:
		c[path[0].(string)] = change(c[path[0].(string)])
	case []any:
		c[path[0].(int)] = change(c[path[0].(int)])
	}
}

func step(v, key any) any {
	switch c := v.(type) {
	case map[string]any:
		return c[key.(string)]
	case []any:
		return c[key.(int)]
	}
	return nil
}
