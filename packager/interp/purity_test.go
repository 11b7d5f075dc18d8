package interp_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// exactMath lists what the packager may use of package math: bit patterns, and functions that are exact or correctly rounded on
// every architecture. Transcendentals differ between architectures, so a model packed on two machines would differ.
var exactMath = map[string]bool{
	"Float32bits": true, "Float32frombits": true, "Float64bits": true, "Float64frombits": true, "NaN": true, "Inf": true, "IsNaN": true,
	"IsInf": true, "Signbit": true, "Copysign": true, "Sqrt": true, "Floor": true, "Ceil": true, "Trunc": true, "RoundToEven": true, "Abs": true,
	"Mod": true, "Frexp": true, "Ldexp": true, "Max": true, "Min": true, "Nextafter": true, "Nextafter32": true,
	"Pi": true, "Ln10": true, // constants
}

// transcendental finds uses of package math in a Go file that are not in exactMath (constants are fine).
func transcendental(file string, src any) ([]string, error) {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, file, src, 0)
	if err != nil {
		return nil, err
	}
	local := ""
	for _, im := range f.Imports {
		p, _ := strconv.Unquote(im.Path.Value)
		switch p {
		case "math":
			local = "math"
			if im.Name != nil {
				local = im.Name.Name
			}
		case "math/cmplx", "math/rand", "math/rand/v2":
			return []string{p}, nil
		}
	}
	if local == "" {
		return nil, nil
	}
	if local == "." {
		return []string{"import . \"math\""}, nil
	}
	var bad []string
	ast.Inspect(f, func(n ast.Node) bool {
		s, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		if x, ok := s.X.(*ast.Ident); ok && x.Name == local && !exactMath[s.Sel.Name] &&
			!strings.HasPrefix(s.Sel.Name, "Max") && !strings.HasPrefix(s.Sel.Name, "Min") && !strings.HasPrefix(s.Sel.Name, "Smallest") {
			bad = append(bad, fset.Position(s.Pos()).String()+": math."+s.Sel.Name)
		}
		return true
	})
	return bad, nil
}

func TestNoTranscendentals(t *testing.T) {
	files := 0
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		files++
		bad, err := transcendental(path, nil)
		for _, b := range bad {
			t.Errorf("%s: its result depends on the architecture; use the algorithms of docs/numerics.md", b)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 40 {
		t.Errorf("only %d files were looked at", files)
	}
	bad, err := transcendental("x.go", "package x\nimport m \"math\"\nvar a = m.Exp(1) + m.Sqrt(2)")
	if err != nil || len(bad) != 1 {
		t.Errorf("the check finds %v, %v in a file that uses Exp", bad, err)
	}
}
