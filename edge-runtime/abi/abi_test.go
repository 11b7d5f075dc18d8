package abi

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

// TestDocument compares every exported constant with the tables of docs/abi.md, both ways.
func TestDocument(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "abi.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := map[string]string{}
	for _, m := range regexp.MustCompile("`([A-Z][A-Za-z0-9]*)` \\| (\"[^\"]*\"|[0-9]+) ").FindAllStringSubmatch(string(text), -1) {
		if old, dup := doc[m[1]]; dup && old != m[2] {
			t.Errorf("docs/abi.md gives %s twice", m[1])
		}
		doc[m[1]] = m[2]
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "abi.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	pkg, err := new(types.Config).Check("abi", fset, []*ast.File{f}, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok || !c.Exported() {
			continue
		}
		seen++
		want := c.Val().ExactString()
		if c.Val().Kind() == constant.Int {
			want = c.Val().String()
		}
		if doc[name] != want {
			t.Errorf("%s is %s, docs/abi.md says %q", name, want, doc[name])
		}
		delete(doc, name)
	}
	if seen < 60 {
		t.Errorf("only %d constants found", seen)
	}
	for name := range doc {
		t.Errorf("docs/abi.md has %s, the package does not", name)
	}
}
