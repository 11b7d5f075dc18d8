package deptest

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	testName   = regexp.MustCompile(`\b(?:Test|Fuzz)[A-Z][A-Za-z0-9]*\b`)
	testFunc   = regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)\(`)
	scriptName = regexp.MustCompile(`\b[a-z0-9_]+\.txtar\b`)
	testFile   = regexp.MustCompile(`\b[a-z0-9_]+_test\.go\b`)
	packageRef = regexp.MustCompile("`((?:cmd|edge-runtime|internal|oci|packager|policy|deploy|audit)(?:/[a-z0-9-]+)+)`")
)

// threats is what the documents name, and what there is.
type threats struct {
	tests map[string][]string // directories by test
	files map[string]bool     // base names of scripts and test files
}

// problems are what is wrong with the tables of a document: a test that is nowhere, or in none of the packages that its row names;
// a script or file that is not there; a row of a table with tests whose last column says nothing.
func (x threats) problems(doc string) (out []string, named int) {
	columns := 0
	for i, l := range strings.Split(doc, "\n") {
		bad := func(format string, args ...any) {
			out = append(out, fmt.Sprintf("line %d: %s", i+1, fmt.Sprintf(format, args...)))
		}
		row := strings.HasPrefix(l, "|")
		if !row {
			columns = 0
		}
		cells := strings.Split(strings.Trim(strings.TrimSpace(l), "|"), " | ")
		switch {
		case !row || strings.HasPrefix(l, "|---"):
		case columns == 0:
			columns = len(cells)
		case len(cells) != columns:
			bad("%d columns, the table has %d", len(cells), columns)
		case slices.ContainsFunc(cells, func(c string) bool { return strings.TrimSpace(c) == "" }):
			bad("an empty cell")
		}
		var packages []string
		for _, m := range packageRef.FindAllStringSubmatch(l, -1) {
			packages = append(packages, m[1])
		}
		// Where a row names no package for a test, it is one of these.
		packages = append(packages, "edge-runtime/agent", "oci/verify", "internal/cli")
		for _, name := range testName.FindAllString(l, -1) {
			named++
			dirs := x.tests[name]
			if len(dirs) == 0 {
				bad("there is no test %s", name)
				continue
			}
			within := func(d string) bool {
				return slices.ContainsFunc(packages, func(p string) bool {
					return d == p || strings.HasPrefix(d, p+"/") || path.Base(d) == path.Base(p) || strings.HasSuffix(d, "/"+path.Base(p))
				})
			}
			if row && !slices.ContainsFunc(dirs, within) {
				bad("%s is in %s, none of which the row names", name, strings.Join(dirs, ", "))
			}
		}
		for _, name := range append(scriptName.FindAllString(l, -1), testFile.FindAllString(l, -1)...) {
			named++
			if !x.files[name] {
				bad("there is no %s", name)
			}
		}
	}
	return out, named
}

// The threat model names a test for each attack: every one of them exists, in a package that its row names.
func TestThreatModelNamesRealTests(t *testing.T) {
	const root = "../.."
	x := threats{tests: map[string][]string{}, files: map[string]bool{}}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if p != root && strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case strings.HasSuffix(d.Name(), ".txtar"):
			x.files[d.Name()] = true
		case strings.HasSuffix(d.Name(), "_test.go"):
			x.files[d.Name()] = true
			raw, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(root, filepath.Dir(p))
			if err != nil {
				return err
			}
			for _, m := range testFunc.FindAllStringSubmatch(string(raw), -1) {
				x.tests[m[1]] = append(x.tests[m[1]], filepath.ToSlash(rel))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(root, "docs", "threat-model.md"))
	if err != nil {
		t.Fatal(err)
	}
	doc := strings.ReplaceAll(string(raw), "\r\n", "\n")
	problems, named := x.problems(doc)
	for _, p := range problems {
		t.Errorf("docs/threat-model.md: %s", p)
	}
	if named < 200 {
		t.Errorf("only %d tests are named: the document was not read as it should be", named)
	}
	// The guard itself: a name that is nowhere, one in a wrong package, a row that lacks its last column.
	for spoilt, want := range map[string]string{
		strings.Replace(doc, "TestReplayAfterExpiry", "TestReplayAfterExpiryy", 1):                "there is no test TestReplayAfterExpiryy",
		strings.Replace(doc, "`oci/fleet` TestReportAttacks", "`oci/trust` TestReportAttacks", 1): "none of which the row names",
		doc + "\n| attack | test | left out |\n|---|---|---|\n| a | TestReplay |\n":               "2 columns, the table has 3",
		doc + "\n| attack | test | left out |\n|---|---|---|\n| a | TestReplay |   |\n":           "an empty cell",
		strings.Replace(doc, "denial.txtar", "denied.txtar", 1):                                   "there is no denied.txtar",
	} {
		got, _ := x.problems(spoilt)
		if !slices.ContainsFunc(got, func(p string) bool { return strings.Contains(p, want) }) {
			t.Errorf("a document with a mistake passes: want %q, got %q", want, got)
		}
	}
}
