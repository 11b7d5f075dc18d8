package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// suiteNames are the suites of docs/operators.md; slow ones run only when the table is written.
func suiteNames() []suiteResult {
	return []suiteResult{
		{Name: "onnx-node", What: "the operator tests of the ONNX project"},
		{Name: "onnx-expanded", What: "the same with functions written out"},
		{Name: "onnx-pytorch", What: "models exported from PyTorch's modules and operators"},
		{Name: "onnx-simple", What: "small graphs"},
		{Name: "onnx-node-exotic", What: "operator tests of rare types and training"},
		{Name: "models", What: "real models"},
		{Name: "models-sklearn", What: "pipelines exported from scikit-learn"},
	}
}

// TestSuiteTable keeps suites.json, and so docs/operators.md, true. With WAYBILL_UPDATE=1 it runs every suite and writes the file;
// then run go generate ./internal/cli.
func TestSuiteTable(t *testing.T) {
	root := os.Getenv("WAYBILL_CORPORA")
	if root == "" {
		t.Skip("WAYBILL_CORPORA is not set: the suites are needed")
	}
	update := os.Getenv("WAYBILL_UPDATE") != ""
	var old []suiteResult
	if err := json.Unmarshal(suitesJSON, &old); err != nil {
		t.Fatal(err)
	}
	var all []suiteResult
	for i, s := range suiteNames() {
		if !update && (strings.HasPrefix(s.Name, "models") || i >= len(old)) {
			continue
		}
		e, out, errb := testEnv(t, nil)
		if code := Run(t.Context(), e, []string{"test", "--output", "json", "--suite", filepath.Join(root, s.Name)}); code != 0 && code != 1 && code != 5 {
			t.Fatalf("%s: code %d: %s", s.Name, code, errb)
		}
		var v testJSON
		if err := json.Unmarshal(out.Bytes(), &v); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		s.Passed, s.Failed, s.Unsupported, s.Cases = v.Passed, v.Failed, v.Unsupported, []testCase{}
		for _, c := range v.Cases {
			if c.Status == "passed" {
				continue
			}
			c.Detail = strings.ReplaceAll(c.Detail, "compile "+filepath.Join(root, s.Name, c.Name, "model.onnx")+": ", "")
			c.Detail = strings.ReplaceAll(c.Detail, root, "DIR")
			s.Cases = append(s.Cases, c)
		}
		all = append(all, s)
		if update {
			continue
		}
		got, _ := json.Marshal(s)
		want, _ := json.Marshal(old[i])
		if string(got) != string(want) {
			t.Errorf("suites.json is stale for %s:\n%s\nthe file has\n%s", s.Name, got, want)
		}
	}
	if update {
		b, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("suites.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
