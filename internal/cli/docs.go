package cli

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/policy/input"
)

//go:generate go run ./docsgen ../../docs

// Docs renders the generated pages by file name: cli.md, exit-codes.md, operators.md, rules.md and others. A test fails when docs/ differs.
func Docs() map[string]string {
	table := commands()
	var b strings.Builder
	b.WriteString("# The command line\n\nGenerated from the program by `go generate ./internal/cli`; do not edit.\n\n")
	fence(&b, rootHelp(table))
	var walk func(level []Command, path []string)
	walk = func(level []Command, path []string) {
		for i := range level {
			c := &level[i]
			if c.Hidden {
				continue
			}
			p := append(append([]string{}, path...), c.Name)
			fmt.Fprintf(&b, "\n## waybill %s\n\n", strings.Join(p, " "))
			fence(&b, commandHelp(c, p))
			walk(c.Sub, p)
		}
	}
	walk(table, nil)
	b.WriteString("\n## Environment variables\n\n")
	fence(&b, environmentText(table))

	var x strings.Builder
	x.WriteString("# Exit codes\n\nGenerated from `internal/diag` by `go generate ./internal/cli`; do not edit. ")
	x.WriteString("A code that is not listed means failure.\n\n| code | meaning |\n|---|---|\n")
	for _, c := range diag.Codes() {
		fmt.Fprintf(&x, "| %d | %s |\n", c.Code, c.Meaning)
	}
	return map[string]string{"cli.md": b.String(), "exit-codes.md": x.String(), "operators.md": operatorsDoc(),
		"facts.md": factsDoc(), "rules.md": rulesDoc(), "policy-input.schema.json": string(input.SchemaJSON()),
		"device-input.schema.json": string(deviceinput.SchemaJSON())}
}

func fence(b *strings.Builder, text string) { b.WriteString("```text\n" + text + "```\n") }
