package cli_test

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/internal/once"
)

// TestText packs and runs a tokenizer in front of a transformer: testdata/text.
func TestText(t *testing.T) {
	once.Skip(t)
	dir, err := filepath.Abs(filepath.Join("testdata", "text"))
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/text",
		RequireExplicitExec: true,
		Cmds:                scriptCommands(),
		Setup: func(e *testscript.Env) error {
			e.Setenv("WAYBILL_HOME", filepath.Join(e.WorkDir, ".waybill"))
			e.Setenv("TEXT", dir)
			return nil
		},
	})
}
