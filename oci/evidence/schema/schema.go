// Package schema carries the JSON Schemas (draft 2020-12) of the predicates. They are what other tools validate against;
// Waybill itself reads with strict Go decoders, and a test holds the two together. Rules that a schema can't say, such as
// the order of two times, stand in docs/format.md and in the Parse functions.
package schema

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed *.v1.json
var files embed.FS

// Names lists the schemas: "approval", "channel" and so on, sorted.
func Names() ([]string, error) {
	es, err := files.ReadDir(".")
	if err != nil {
		return nil, fmt.Errorf("list schemas: %w", err)
	}
	var out []string
	for _, e := range es {
		out = append(out, strings.TrimSuffix(e.Name(), ".v1.json"))
	}
	slices.Sort(out)
	return out, nil
}

// Get returns the text of a schema.
func Get(name string) ([]byte, error) {
	b, err := files.ReadFile(name + ".v1.json")
	if err != nil {
		return nil, fmt.Errorf("no schema %q: %w", name, err)
	}
	return b, nil
}
