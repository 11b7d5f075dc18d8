package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/internal/once"
)

// TestTutorial runs every command of docs/tutorial.md with sh, in order, in a folder that holds the example projects. A
// command that fails ends it: the page says what is true.
func TestTutorial(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	if runtime.GOOS == "windows" {
		t.Skip("the tutorial is written for a POSIX shell")
	}
	page, err := os.ReadFile("../../docs/tutorial.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := consoleLines(string(page))
	if len(commands) < 30 {
		t.Fatalf("only %d commands found in the tutorial", len(commands))
	}
	dir := t.TempDir()
	edge := filepath.Join(dir, "bin", "waybill-edge")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", edge, "../../cmd/waybill-edge").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	var sh strings.Builder
	sh.WriteString("set -eu\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n")
	for _, c := range commands {
		fmt.Fprintf(&sh, "echo %s >&2\n%s\n", quote("$ "+c), c)
	}
	script := filepath.Join(dir, "script")
	if err := os.MkdirAll(script, 0o700); err != nil {
		t.Fatal(err)
	}
	txtar := "exec sh tutorial.sh\nstdout 'WHO'\nexists answers.json audit.html\n-- tutorial.sh --\n" + sh.String()
	if err := os.WriteFile(filepath.Join(script, "tutorial.txtar"), []byte(txtar), 0o600); err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: script,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WAYBILL_HOME", filepath.Join(e.WorkDir, ".waybill"))
			e.Setenv("PATH", filepath.Dir(edge)+string(os.PathListSeparator)+e.Getenv("PATH"))
			return os.CopyFS(e.WorkDir, os.DirFS("../../examples/breast-cancer"))
		},
	})
}

// consoleLines gives the commands of the fenced console blocks: what follows "$ ".
func consoleLines(page string) []string {
	var cmds []string
	in := false
	for l := range strings.Lines(page) {
		l = strings.TrimRight(l, "\n")
		switch {
		case strings.HasPrefix(l, "```"):
			in = !in && l == "```console"
		case in && strings.HasPrefix(l, "$ "):
			cmds = append(cmds, l[2:])
		}
	}
	return cmds
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
