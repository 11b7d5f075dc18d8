package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/frontend/onnx"
	"github.com/waybill-ml/waybill/packager/ir"
)

// operatorsDoc renders docs/operators.md from the tables of the ONNX frontend, of ir and of codegen.
func operatorsDoc() string {
	var b strings.Builder
	b.WriteString("# Operators\n\nGenerated from the compiler's tables by `go generate ./internal/cli`; do not edit.\n\n" +
		"Every operator is converted from each operator set that has it (ONNX 1 to 28, ai.onnx.ml 1 to 5) to the newest form, so one row covers all of them. " +
		"How each one computes, to the bit, is in [numerics.md](numerics.md). A model that needs anything else is refused with the operator, its operator " +
		"set and the node (exit code 5); nothing is skipped or approximated.\n\n## Read from ONNX\n\n")
	known := onnx.Supported()
	var rows []string
	for _, name := range slices.Sorted(maps.Keys(known)) {
		canon := name
		if rest, ok := strings.CutPrefix(name, "ai.onnx.ml."); ok {
			canon = "ml." + rest
		} else if rest, ok := strings.CutPrefix(name, "com.microsoft."); ok {
			canon = "ms." + rest
		}
		note := "rewritten in terms of the operators below"
		if d, ok := ir.Op(canon); ok {
			note = firstSentence(d.Doc)
		}
		rows = append(rows, fmt.Sprintf("| %s | %s |\n", name, cell(note)))
	}
	fmt.Fprintf(&b, "%d operators.\n\n| operator | in short, or its limits |\n|---|---|\n%s", len(rows), strings.Join(rows, ""))
	b.WriteString("\n## Inside\n\nThe canonical operators that models are rewritten to. `?` marks what may be absent, `*` any number.\n\n" +
		"| operator | inputs | outputs | attributes | semantics |\n|---|---|---|---|---|\n")
	for _, name := range ir.OpNames() {
		d, _ := ir.Op(name)
		doc := d.Doc
		if !codegen.Supported(name) {
			doc += " **Not compiled yet.**"
		}
		var attrs []string
		for _, a := range d.Attrs {
			attrs = append(attrs, a.Name)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, paramList(d.Ins), paramList(d.Outs), strings.Join(attrs, " "), cell(doc))
	}
	return b.String()
}

func paramList(ps []ir.Param) string {
	var out []string
	for _, p := range ps {
		s := p.Name
		if p.Variadic {
			s += "*"
		}
		if p.Optional {
			s += "?"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func firstSentence(s string) string {
	if i := strings.Index(s, ". "); i >= 0 {
		s = s[:i+1]
	}
	return s
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
