package input

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
)

// Property is one member of the document, for people.
type Property struct {
	Path    string // "environment.deviceClasses[].name"
	Type    string // "text", "list of sha256 digest", "one of higher, lower"
	Meaning string
}

// node is the part of JSON Schema that schema.json uses.
type node struct {
	Ref         string          `json:"$ref"`
	Type        string          `json:"type"`
	Format      string          `json:"format"`
	Const       string          `json:"const"`
	Description string          `json:"description"`
	Enum        []string        `json:"enum"`
	Properties  map[string]node `json:"properties"`
	Items       *node           `json:"items"`
	Defs        map[string]node `json:"$defs"`
}

// Properties lists every member of the document in the order of the types, by the schema's own descriptions. A shared
// definition, such as a signer, is listed where it is first used and named elsewhere.
func Properties() ([]Property, error) {
	var root node
	if err := json.Unmarshal(schemaJSON, &root); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	w := describer{defs: root.Defs, seen: map[string]bool{}}
	w.object(reflect.TypeFor[Input](), root, "")
	return w.out, nil
}

type describer struct {
	defs map[string]node
	seen map[string]bool
	out  []Property
}

func (w *describer) object(t reflect.Type, n node, at string) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("json")
		p := n.Properties[name]
		path := strings.TrimPrefix(at+"."+name, ".")
		w.out = append(w.out, Property{Path: path, Type: w.text(p), Meaning: p.Description})
		w.below(f.Type, p, path)
	}
}

func (w *describer) below(t reflect.Type, n node, path string) {
	if n.Ref != "" {
		name := strings.TrimPrefix(n.Ref, "#/$defs/")
		d := w.defs[name]
		if d.Type != "object" || w.seen[name] {
			return
		}
		w.seen[name] = true
		n = d
	}
	switch {
	case t.Kind() == reflect.Slice && n.Items != nil:
		w.below(t.Elem(), *n.Items, path+"[]")
	case t.Kind() == reflect.Struct && len(n.Properties) > 0:
		w.object(t, n, path)
	}
}

func (w *describer) text(n node) string {
	switch {
	case n.Ref != "":
		switch name := strings.TrimPrefix(n.Ref, "#/$defs/"); name {
		case "digest":
			return "sha256 digest"
		case "optionalDigest":
			return "sha256 digest or empty"
		case "time":
			return "time"
		case "optionalTime":
			return "time or empty"
		case "knownSigner":
			return "signer"
		default:
			return name
		}
	case n.Const != "":
		return "`" + n.Const + "`"
	case n.Enum != nil:
		words := make([]string, len(n.Enum))
		for i, e := range n.Enum {
			if words[i] = e; e == "" {
				words[i] = "empty"
			}
		}
		return strings.Join(words, ", ")
	case n.Type == "array":
		return "list of " + w.text(*n.Items)
	case n.Type == "string":
		return "text"
	}
	return n.Type
}
