package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/internal/cli"
	"github.com/waybill-ml/waybill/internal/once"
)

// TestMain lets the scripts run the real program: the test binary is installed as "waybill" and starts cli.Main. The credential
// helper of the tests of access is installed beside it.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"waybill": func() { os.Exit(cli.Main()) }, "docker-credential-waybilltest": credentialHelper})
}

// TestScript runs testdata/script/*.txtar. Each script has a home of its own ($WAYBILL_HOME) and the folder
// $EXAMPLES with the examples of the repository, $BUNDLES with projects that are bundled as they are; cmpenv, exitcode and the like are in scriptCommands.
func TestScript(t *testing.T) {
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	bundles, err := filepath.Abs("../../packager/build/testdata/bundle")
	if err != nil {
		t.Fatal(err)
	}
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatal("no scripts: ", err)
	}
	if once.Passed() { // the rest needs those that start a program that may be absent
		scripts = slices.DeleteFunc(scripts, func(file string) bool {
			b, err := os.ReadFile(file)
			return err == nil && !bytes.Contains(b, []byte("[!exec:"))
		})
	}
	testscript.Run(t, testscript.Params{
		Files:               scripts,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("WAYBILL_HOME", filepath.Join(e.WorkDir, ".waybill"))
			e.Setenv("WAYBILL_PASSWORD", "correct horse battery staple")
			e.Setenv("EXAMPLES", examples)
			e.Setenv("BUNDLES", bundles)
			return nil
		},
		Cmds: scriptCommands(),
		Condition: func(c string) (bool, error) {
			if c != "tools-required" {
				return false, fmt.Errorf("unknown condition %q", c)
			}
			return os.Getenv("WAYBILL_REQUIRE_TOOLS") != "", nil
		},
	})
}
