package lint

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// node is what a JSON Schema says about one value, as far as the analysis uses it.
type node struct {
	types    []string
	props    map[string]*node
	required map[string]bool
	closed   bool  // no other properties
	other    *node // schema of other properties, nil when unknown
	items    *node
	enum     []any // allowed values; nil: any
}

// parseSchema reads a schema; nil gives nil, of which nothing is known.
func parseSchema(b []byte) (*node, error) {
	if b == nil {
		return nil, nil
	}
	var root map[string]any
	if err := json.Unmarshal(b, &root); err != nil {
		return nil, fmt.Errorf("schema of the input: %w", err)
	}
	seen := map[string]*node{}
	var conv func(v any) *node
	conv = func(v any) *node {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		if ref, ok := m["$ref"].(string); ok {
			if n, ok := seen[ref]; ok {
				return n
			}
			at := any(root)
			for _, seg := range strings.Split(strings.TrimPrefix(strings.TrimPrefix(ref, "#"), "/"), "/") {
				o, _ := at.(map[string]any)
				at = o[seg]
			}
			n := &node{}
			seen[ref] = n
			if c := conv(at); c != nil {
				*n = *c
			}
			return n
		}
		n := &node{props: map[string]*node{}, required: map[string]bool{}}
		switch t := m["type"].(type) {
		case string:
			n.types = []string{t}
		case []any:
			for _, x := range t {
				if s, ok := x.(string); ok {
					n.types = append(n.types, s)
				}
			}
		}
		if e, ok := m["enum"].([]any); ok {
			n.enum = e
		}
		if c, ok := m["const"]; ok {
			n.enum = []any{c}
		}
		if ps, ok := m["properties"].(map[string]any); ok {
			for k, p := range ps {
				if c := conv(p); c != nil {
					n.props[k] = c
				} else {
					n.props[k] = &node{}
				}
			}
		}
		if rs, ok := m["required"].([]any); ok {
			for _, r := range rs {
				if s, ok := r.(string); ok {
					n.required[s] = true
				}
			}
		}
		switch a := m["additionalProperties"].(type) {
		case bool:
			n.closed = !a
		case map[string]any:
			n.other = conv(a)
		}
		n.items = conv(m["items"])
		return n
	}
	return conv(root), nil
}

// child is the value below a fixed key; sure says that it cannot be missing.
func (n *node) child(key string) (c *node, sure bool) {
	if n == nil {
		return nil, false
	}
	// A required key is there only where the value is an object for certain.
	sure = n.required[key] && slices.Equal(n.types, []string{"object"})
	if p, ok := n.props[key]; ok {
		return p, sure
	}
	return n.other, sure
}

// never tells that a closed object has no such key.
func (n *node) never(key string) bool {
	if n == nil || !n.closed {
		return false
	}
	_, ok := n.props[key]
	return !ok
}

// element is a value met while going through n.
func (n *node) element() *node {
	if n == nil {
		return nil
	}
	if n.items != nil {
		return n.items
	}
	return n.other
}

func (n *node) is(t string) bool { return n != nil && len(n.types) == 1 && n.types[0] == t }

// admits tells whether a literal may be a value of n.
func (n *node) admits(v any) bool {
	if n == nil {
		return true
	}
	if n.enum != nil {
		return slices.Contains(n.enum, v)
	}
	if len(n.types) == 0 {
		return true
	}
	kind := ""
	switch v.(type) {
	case string:
		kind = "string"
	case bool:
		kind = "boolean"
	case nil:
		kind = "null"
	case float64:
		return slices.Contains(n.types, "number") || slices.Contains(n.types, "integer")
	default:
		return true
	}
	return slices.Contains(n.types, kind)
}
