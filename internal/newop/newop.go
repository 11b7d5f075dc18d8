// Command newop scaffolds an operator: a row in every table that knows operators, and one file per layer. What it writes
// compiles, refuses every model that uses the operator with the layer that is missing, and comes with a test that fails until
// all layers are written. It is started with make new-op OP=Name in the root of the repository.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: newop NAME, an ONNX operator like HardTanh")
	}
	files, err := scaffold(".", os.Args[1])
	if err != nil {
		log.Fatal("new-op: ", err)
	}
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := os.WriteFile(filepath.FromSlash(name), files[name], 0o644); err != nil {
			log.Fatal("new-op: ", err)
		}
		fmt.Println(name)
	}
	fmt.Printf("fill these in, the rule in docs/numerics.md first; go test ./packager/codegen -run Test%sExact says what is missing\n", os.Args[1])
}

// row is a line added to an existing file in front of the only occurrence of mark, or behind it.
type row struct{ file, mark, line string }

// scaffold gives the new and the changed files of the repository at root by their slash-separated paths. It changes nothing.
func scaffold(root, name string) (map[string][]byte, error) {
	if !regexp.MustCompile(`^[A-Z][A-Za-z0-9]*$`).MatchString(name) {
		return nil, fmt.Errorf("%q is not the name of an operator: a capital letter, then letters and digits", name)
	}
	if err := unknown(root, name); err != nil {
		return nil, err
	}
	fill := strings.NewReplacer("OP", name)
	out := map[string][]byte{}
	for path, text := range templates() {
		path = strings.ReplaceAll(path, "OP", strings.ToLower(name))
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(path))); err == nil {
			return nil, fmt.Errorf("%s exists", path)
		}
		out[path] = []byte(fill.Replace(text))
	}
	for _, r := range rows() {
		old, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(r.file)))
		if err != nil {
			return nil, err
		}
		if n := bytes.Count(old, []byte(r.mark)); n != 1 {
			return nil, fmt.Errorf("%s: the place for the new row, %q, occurs %d times", r.file, r.mark, n)
		}
		out[r.file] = bytes.Replace(old, []byte(r.mark), []byte(fill.Replace(r.line)+r.mark), 1)
	}
	return out, nil
}

// unknown makes sure that neither the table nor the frontend has the operator.
func unknown(root, name string) error {
	for _, dir := range []string{"packager/ir", "packager/frontend/onnx"} {
		files, err := filepath.Glob(filepath.Join(root, filepath.FromSlash(dir), "*.go"))
		if err != nil {
			return err
		}
		if len(files) == 0 {
			return fmt.Errorf("no Go files in %s: run it in the root of the repository", dir)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if !strings.HasSuffix(f, "_test.go") && bytes.Contains(b, []byte(`"`+name+`"`)) {
				return fmt.Errorf("%s has %q already", f, name)
			}
		}
	}
	return nil
}

func rows() []row {
	return []row{
		{"packager/ir/ops.go", "\t} {\n\t\tfor i := range fam {", "\t\topsOP(),\n"},
		{"packager/frontend/onnx/table.go", "\tadd(\"ai.onnx.ml.\", knownML, mlPrep())\n", "\tadd(\"\", knownONNX, opsOP())\n"},
		{"packager/interp/run.go", "\t}\n\treturn nil, c.unsupported(\"\")\n", "\tcase \"OP\":\n\t\treturn one(c.evalOP())\n"},
		{"packager/codegen/lower.go", "\t} {\n\t\tfor op, l := range t {", "\t\tloweringOP(),\n"},
		{"docs/numerics.md", "| Cast | section 3.2 |\n", "| OP | to be written |\n"},
	}
}

func templates() map[string]string {
	return map[string]string{
		"packager/ir/ops_OP.go": `package ir

import "errors"

func opsOP() []OpDef {
	return []OpDef{
		// To be written: the semantics where ONNX is loose, all inputs, outputs and attributes of the newest opset.
		{Name: "OP", Doc: "To be written.", Ins: params("X"), Outs: params("Y"), infer: inferOP},
	}
}

// inferOP checks the inputs and sets the types of the outputs, as precise as the inputs allow.
func inferOP(*inferer) error { return errors.New("type inference of OP is not written") }
`,
		"packager/frontend/onnx/OP.go": `package onnx

import "github.com/waybill-ml/waybill/packager/ir"

func opsOP() map[string]handler {
	return map[string]handler{"OP": handleOP}
}

// handleOP turns every opset's form into the newest one.
func handleOP(o *op) []*ir.Value { return o.lacks("the conversion of OP is not written") }
`,
		"packager/interp/OP.go": `package interp

// evalOP computes OP by its row in docs/numerics.md, without regard to speed and sharing no numeric code with codegen.
func (c *call) evalOP() (*tensor, error) {
	return nil, c.unsupported("its reference is not written")
}
`,
		"packager/codegen/lower_OP.go": `package codegen

import (
	"github.com/waybill-ml/waybill/packager/codegen/kernel"
	"github.com/waybill-ml/waybill/packager/ir"
)

func loweringOP() map[string]lowerer {
	return map[string]lowerer{"OP": func(c *compiler, n *ir.Node) error {
		d, err := c.dt(n, n.Ins[0])
		if err != nil {
			return err
		}
		k, err := kernel.OpOP(d)
		if err != nil {
			return unsupported(n, "%v", err)
		}
		c.step(k, c.outs(n), c.ins(n))
		return nil
	}}
}
`,
		"packager/codegen/kernel/OP.go": `package kernel

import "errors"

// OpOP is the kernel of OP for elements of type d: resumable over an outer range, its work charged to the budget.
func OpOP(d DT) (*Kernel, error) { return nil, errors.New("its kernel is not written") }
`,
		"packager/codegen/OP_test.go": `package codegen_test

import (
	"bytes"
	"context"
	"os"
	"testing"

	"github.com/waybill-ml/waybill/packager/interp"
	"github.com/waybill-ml/waybill/packager/ir"
)

func TestOPExact(t *testing.T) {
	doc, err := os.ReadFile("../../docs/numerics.md")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(doc, []byte("| OP | to be written |")) {
		t.Error("docs/numerics.md does not say what OP computes")
	}

	// To be written: an example, and its result worked out by hand.
	x, want := ir.F32s([]int64{2}, []float32{-1, 2}), (*ir.Data)(nil)
	n := &ir.Node{Op: "OP", Name: "op", Attrs: map[string]ir.Attr{}, Ins: []*ir.Value{{Name: "x", Type: x.Type()}}, Outs: []*ir.Value{{Name: "y"}}}
	ir.FillDefaults(n)
	got, err := interp.Eval(context.Background(), n, []*ir.Data{x})
	switch {
	case err != nil:
		t.Errorf("reference: %v", err)
	case want == nil:
		t.Error("the result worked out by hand is missing")
	case !bytes.Equal(got[0].Bytes, want.Bytes):
		t.Errorf("reference: %v, by hand %v", got[0], want)
	}

	// To be written: empty tensors, rank 0, NaN, attributes, and each element type; the compiled form must give the reference's bits.
	r := rng(1)
	for _, static := range []bool{false, true} {
		opCase{"plain", "OP", nil, []*ir.Data{r.tensor(ir.F32, 3, 5)}, 1, static}.run(t)
	}
}
`,
	}
}
