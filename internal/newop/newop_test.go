package main

import (
	"encoding/json"
	"go/format"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

func TestScaffold(t *testing.T) {
	files, err := scaffold(root, "FooBar9")
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		want, err := format.Source(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if string(want) != string(b) {
			t.Errorf("%s is not formatted:\n%s", name, want)
		}
	}
	if !strings.Contains(string(files["docs/numerics.md"]), "\n| FooBar9 | to be written |\n") {
		t.Error("no row in docs/numerics.md")
	}
}

// The scaffold compiles, and its test fails with every missing part.
func TestScaffoldFails(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles the code generator's tests")
	}
	files, err := scaffold(root, "FooBar9")
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	tmp := t.TempDir()
	for name, b := range files {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		at := filepath.Join(tmp, strings.ReplaceAll(name, "/", "_"))
		if err := os.WriteFile(at, b, 0o644); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[filepath.Join(dir, filepath.FromSlash(name))] = at
	}
	doc, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(tmp, "overlay.json")
	if err := os.WriteFile(list, doc, 0o644); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		c := exec.Command("go", args...)
		c.Dir = dir
		b, err := c.CombinedOutput()
		return string(b), err
	}
	if out, err := run("build", "-overlay", list, "./packager/..."); err != nil {
		t.Fatalf("the scaffold does not compile: %v\n%s", err, out)
	}
	out, err := run("test", "-overlay", list, "-run", "TestFooBar9Exact", "./packager/codegen")
	if err == nil {
		t.Fatalf("the scaffold's test passes:\n%s", out)
	}
	if !strings.Contains(out, "type inference of FooBar9 is not written") || !strings.Contains(out, "reference: ") {
		t.Errorf("the failure does not say what is missing:\n%s", out)
	}
}

func TestScaffoldRefuses(t *testing.T) {
	for name, want := range map[string]string{"Conv": "already", "Gelu": "already", "foo": "not the name", "../X": "not the name", "": "not the name"} {
		if _, err := scaffold(root, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := scaffold(t.TempDir(), "Foo"); err == nil || !strings.Contains(err.Error(), "root of the repository") {
		t.Errorf("elsewhere: %v", err)
	}
}
