package cli

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego"
)

// commandLine finds command lines in a text, up to where the sentence, the comment or the next command begins.
var commandLine = regexp.MustCompile("(?:^|[^-./A-Za-z0-9`])(waybill [a-z][^\n;`]*)")

var quoted = regexp.MustCompile(`"[^"]*"`)

// linesIn lists the command lines of a text.
func linesIn(text string) []string {
	var out []string
	for _, m := range commandLine.FindAllStringSubmatch(text, -1) {
		l := quoted.ReplaceAllString(m[1], "TEXT")
		for _, end := range []string{"   ", " #", " (", "), ", ", ", " | ", " && ", " and ", " > ", " < "} {
			l, _, _ = strings.Cut(l, end)
		}
		out = append(out, strings.TrimRight(l, "\"').,:"))
	}
	return out
}

// checkLine tells what keeps a command line from being one: a verb, a flag or a number of arguments that is not there.
func checkLine(line string) error {
	words := strings.Fields(line)[1:]
	level := commands()
	var at *Command
	for len(words) > 0 && len(level) > 0 {
		i := slices.IndexFunc(level, func(c Command) bool { return c.Name == words[0] })
		if i < 0 {
			if at == nil {
				return fmt.Errorf("there is no command %q", words[0])
			}
			break
		}
		at, words = &level[i], words[1:]
		level = at.Sub
	}
	if at == nil {
		return nil
	}
	if at.Run == nil && len(words) > 0 && !strings.HasPrefix(words[0], "-") {
		return fmt.Errorf("%s has no command %q", at.Name, words[0])
	}
	own, global := tableOf(at.Flags), tableOf(globals())
	args := 0
	for i := 0; i < len(words); i++ {
		w := words[i]
		if !strings.HasPrefix(w, "-") || w == "-" {
			if w != "..." && !strings.HasPrefix(w, "[") && !strings.HasPrefix(w, "%") {
				args++
			}
			continue
		}
		name, _, given := strings.Cut(strings.TrimLeft(w, "-"), "=")
		f := own[name]
		if f == nil {
			f = global[name]
		}
		if f == nil {
			return fmt.Errorf("%s has no flag %s", at.Name, w)
		}
		if _, flag := f.(*ucli.BoolFlag); !flag && !given {
			i++
		}
	}
	if at.Run != nil && at.Max >= 0 && args > at.Max {
		return fmt.Errorf("%s takes %d arguments, not %d", at.Name, at.Max, args)
	}
	return nil
}

// Every command that a rule of the builtin policy tells people to run is one.
func TestRemediationsAreCommands(t *testing.T) {
	b, err := library.Default()
	if err != nil {
		t.Fatal(err)
	}
	p, err := rego.Compile(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range p.Rules() {
		for _, l := range linesIn(r.Remediation) {
			n++
			if err := checkLine(l); err != nil {
				t.Errorf("%s: %q: %v", r.ID, l, err)
			}
		}
	}
	if n < 60 {
		t.Errorf("only %d command lines in %d rules", n, len(p.Rules()))
	}
}

// Every command in a hint, a help text or an example is one.
func TestHintsAreCommands(t *testing.T) {
	n := 0
	check := func(where, text string) {
		for _, l := range linesIn(text) {
			n++
			if err := checkLine(l); err != nil {
				t.Errorf("%s: %q: %v", where, l, err)
			}
		}
	}
	var walk func(cs []Command, path string)
	walk = func(cs []Command, path string) {
		for _, c := range cs {
			for _, e := range c.Examples {
				check(path+" "+c.Name, e)
			}
			walk(c.Sub, path+" "+c.Name)
		}
	}
	walk(commands(), "waybill")
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") && p != root) {
			return fs.SkipDir
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_test.go") {
			return nil
		}
		src, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !strings.Contains(string(src), "Hint(") {
			return nil
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, p, src, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(x ast.Node) bool {
			call, ok := x.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			lit, text := call.Args[0].(*ast.BasicLit)
			if ok && text && sel.Sel.Name == "Hint" && lit.Kind == token.STRING {
				s, err := strconv.Unquote(lit.Value)
				if err == nil && strings.HasPrefix(s, "waybill ") && !strings.HasPrefix(s, "waybill %") {
					check(fset.Position(lit.Pos()).String(), s)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n < 300 {
		t.Errorf("only %d command lines", n)
	}
	t.Logf("%d command lines", n)
	if checkLine("waybill evaluate REF") == nil || checkLine("waybill gate REF --nothing") == nil || checkLine("waybill policy nothing") == nil || checkLine("waybill sign a b") == nil {
		t.Error("a command line that does not exist is let through")
	}
}
