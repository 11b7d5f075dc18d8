package lint_test

import (
	"testing"

	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/lint"
)

// TestLibrary holds the builtin rules to what lint demands, without a suppression.
func TestLibrary(t *testing.T) {
	fs, err := lint.ReadFS(library.FS())
	if err != nil {
		t.Fatal(err)
	}
	got, err := lint.Run(fs, lint.Options{Schema: input.SchemaJSON()})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) > 0 {
		t.Errorf("\n%s", show(got))
	}
}
