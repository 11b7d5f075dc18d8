package cli

import (
	"fmt"
	"strings"

	"github.com/waybill-ml/waybill/policy/input"
)

// factsDoc renders docs/facts.md from the schema's descriptions.
func factsDoc() string {
	var b strings.Builder
	b.WriteString(`# The facts that a policy sees

Generated from ` + "`policy/input/schema.json` by `go generate ./internal/cli`" + `; do not edit. The schema itself is [policy-input.schema.json](policy-input.schema.json);
` + "`waybill facts --schema`" + ` prints it, ` + "`waybill facts REF --env ENV`" + ` the document for an artifact, byte for byte as the gate hashes it.

The document is closed: every member is always there, and an empty list says that there is none. All cryptography is done before: what
did not verify stands in ` + "`signatures` or `attestations`" + ` with its reason and nowhere else. A statement counts as a whole or not at all: one with a text of more
than ` + fmt.Sprint(input.MaxText) + ` characters or a list of more than ` + fmt.Sprint(input.MaxItems) + ` entries fails. Sets are sorted, times are UTC and whole seconds, and the input digest of a
verdict is the SHA-256 of the canonical JSON.
`)
	ps, err := input.Properties()
	if err != nil {
		return err.Error() // the schema is part of the program; TestDocsAreFresh sees it
	}
	cell := func(s string) string { return strings.ReplaceAll(s, "|", `\|`) }
	for _, p := range ps {
		if !strings.ContainsAny(p.Path, ".[") {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", p.Path, strings.ReplaceAll(p.Meaning, "<", "&lt;"))
			if p.Type != "object" {
				fmt.Fprintf(&b, "\nType: %s.\n", strings.ReplaceAll(p.Type, "object", "objects"))
			}
			b.WriteString("\n")
			continue
		}
		if strings.HasSuffix(b.String(), "\n\n") {
			b.WriteString("| path | type | meaning |\n|---|---|---|\n")
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.Path, cell(p.Type), cell(strings.ReplaceAll(p.Meaning, "<", "&lt;")))
	}
	return strings.ReplaceAll(b.String(), "\n\n\n", "\n\n")
}
