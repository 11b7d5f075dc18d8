package withstand

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// dependOn lets the result of this test depend on what the harness is built from, which happens in a process that go test does not
// see: it keeps a result for as long as the files and folders that the test itself opened are unchanged.
func dependOn(t *testing.T, gotool string) (dirs []string) {
	t.Helper()
	const format = `{{if and (not .Standard) .Module .Module.Main}}{{$d := .Dir}}{{$d}}{{range .EmbedFiles}}
{{$d}}/{{.}}{{end}}{{range .TestEmbedFiles}}
{{$d}}/{{.}}{{end}}{{end}}`
	out, err := exec.CommandContext(t.Context(), gotool, "list", "-deps", "-test", "-f", format, harness).Output()
	if err != nil {
		t.Fatalf("list what the harness is built from: %v", err)
	}
	for p := range strings.Lines(string(out)) {
		p = filepath.FromSlash(strings.TrimSpace(p))
		info, err := os.Stat(p)
		switch {
		case p == "" || os.IsNotExist(err): // what go test makes has no folder
			continue
		case err != nil:
			t.Fatal(err)
		case !info.IsDir():
			continue
		}
		if _, err := os.ReadDir(p); err != nil {
			t.Fatal(err)
		}
		dirs = append(dirs, p)
	}
	mod, err := exec.CommandContext(t.Context(), gotool, "env", "GOMOD").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{"go.mod", "go.sum"} { // the versions of everything else
		if _, err := os.Stat(filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), f)); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []string{"GOFLAGS", "CGO_ENABLED"} {
		os.Getenv(v)
	}
	return dirs
}

func TestDependsOnHarness(t *testing.T) {
	gotool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command is needed to list packages")
	}
	dirs := dependOn(t, gotool)
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	top := filepath.Dir(filepath.Dir(here))
	for _, p := range []string{"edge-runtime/agent", "edge-runtime/state", "edge-runtime/journal", "internal/fsx", "oci/verify"} {
		if !slices.Contains(dirs, filepath.Join(top, filepath.FromSlash(p))) {
			t.Errorf("the result does not depend on %s: %q", p, dirs)
		}
	}
}
