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
		"ONNX's operator sets 1 to 28, ai.onnx.ml 1 to 5, and the operators of com.microsoft that ONNX Runtime's optimisers and quantisers write. Each row lists the " +
		"operator sets that changed the operator; every one of these forms is converted to the newest, so models of all sets in between work too. " +
		"Element types are those that the specification gives each operator, as far as the operators inside (below) take them: floats of 16, 32 and 64 bits, integers of 8 to 64 bits, bool " +
		"and strings compute; floats of 8 bits and fewer and integers of 2 and 4 bits are stored, moved, converted, quantised and dequantised. " +
		"How each one computes, to the bit, is in [numerics.md](numerics.md). A model that needs anything else is refused with the operator, its operator " +
		"set and the node (exit code 5); nothing is skipped or approximated.\n\n## Read from ONNX\n\n")
	known, versions := onnx.Supported(), onnx.Versions()
	refused := onnx.Refused()
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
		if why := refused[name]; why != "" {
			note = "**refused**: " + why
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s |\n", name, versionList(versions[name]), cell(note)))
	}
	fmt.Fprintf(&b, "%d operators, and %d that are known and refused. Of the specification's own operators only these are missing: %s. Dropout that really trains ends "+
		"with an error of the run, because it draws random numbers.\n\n| operator | operator sets | in short, or its limits |\n|---|---|---|\n%s",
		len(rows)-len(refused), len(refused), strings.Join(onnx.Missing(), ", "), strings.Join(rows, ""))
	b.WriteString(suitesDoc())
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

func versionList(v []int64) string {
	out := make([]string, len(v))
	for i, x := range v {
		out[i] = fmt.Sprint(x)
	}
	return strings.Join(out, " ")
}
