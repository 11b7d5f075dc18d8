package cisteps

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A clone without the content of its Git LFS files is refused with a command; after that command, as it is printed, the model is packed.
func TestRealGitLFS(t *testing.T) {
	w := newWorld(t)
	tool(t, "git")
	tool(t, "git-lfs")
	env := []string{"GIT_CONFIG_GLOBAL=" + os.DevNull, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "GIT_LFS_SKIP_SMUDGE=1",
		"GIT_AUTHOR_NAME=n", "GIT_AUTHOR_EMAIL=n@example.com", "GIT_COMMITTER_NAME=n", "GIT_COMMITTER_EMAIL=n@example.com"}
	for _, k := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"} {
		if os.Getenv(k) != "" {
			t.Skipf("%s is set", k)
		}
	}
	git := func(args ...string) {
		t.Helper()
		if _, log, code := w.exec(env, "git", args...); code != 0 {
			t.Fatalf("git %q: exit code %d\n%s", args, code, log)
		}
	}
	git("init", "-q", "--bare", "hub.git")
	for _, a := range [][]string{{"init", "-q", "-b", "main"}, {"lfs", "install", "--local"}, {"lfs", "track", "*.onnx"}, {"add", "."}, {"commit", "-q", "-m", "model"},
		{"remote", "add", "origin", "file://" + filepath.Join(w.dir, "hub.git")}, {"push", "-q", "origin", "main"}} {
		git(append([]string{"-C", "model"}, a...)...)
	}
	git("clone", "-q", "-b", "main", "file://"+filepath.Join(w.dir, "hub.git"), "clone")
	git("-C", "clone", "lfs", "install", "--local")
	if !strings.HasPrefix(w.file("clone/model.onnx"), "version https://git-lfs") {
		t.Fatal("the clone has no pointer")
	}
	out, log, code := w.exec(env, "waybill", "pack", "clone")
	hint := regexp.MustCompile(`hint: (git lfs pull --include=\S+)`).FindStringSubmatch(log)
	if code != 2 || out != "" || hint == nil {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	if _, log, code := w.exec(env, "bash", "-ec", "cd clone; "+hint[1]); code != 0 {
		t.Fatalf("%s: exit code %d\n%s", hint[1], code, log)
	}
	if out, log, code = w.exec(env, "waybill", "pack", "clone"); code != 0 || !strings.Contains(out, "@sha256:") {
		t.Fatalf("exit code %d\n%s", code, log)
	}
}

// exporter gives a world with a function that runs scripts by WAYBILL_EXPORT_PYTHON, a Python with the frameworks and their converters,
// and one that writes a project's file.
func exporter(t *testing.T) (w *world, run func(script string, args ...string), project func(model, golden string)) {
	t.Helper()
	python := os.Getenv("WAYBILL_EXPORT_PYTHON")
	if python == "" {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("WAYBILL_EXPORT_PYTHON names no Python with scikit-learn, XGBoost and LightGBM")
		}
		t.Skip("WAYBILL_EXPORT_PYTHON names no Python with scikit-learn, XGBoost and LightGBM")
	}
	w = newWorld(t)
	run = func(script string, args ...string) {
		t.Helper()
		p, err := filepath.Abs(script)
		if err != nil {
			t.Fatal(err)
		}
		if _, log, code := w.exec(nil, python, append([]string{"-B", p}, args...)...); code != 0 {
			t.Fatalf("%s: exit code %d\n%s", script, code, log)
		}
	}
	project = func(model, golden string) {
		t.Helper()
		text := "name: trained\nversion: 1.0.0\nlicense: Apache-2.0\nmodel: " + model + "\ngolden: " + golden + "\n"
		if err := os.WriteFile(filepath.Join(w.dir, "waybill.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return w, run, project
}

// The models of XGBoost and LightGBM that the scripts of examples/export make, of what joblib keeps and of the libraries' own files,
// answer as the libraries did.
func TestExportBoosted(t *testing.T) {
	w, run, project := exporter(t)
	run("testdata/train_boosted.py")
	for script, models := range map[string][]string{"xgboost": {"xgboost.joblib", "xgboost.json"}, "lightgbm": {"lightgbm.joblib", "lightgbm.txt"}} {
		for _, model := range models {
			run("../../examples/export/"+script+"_to_onnx.py", model, "model.onnx")
			project("model.onnx", script+"-golden.json")
			out, log, code := w.exec(nil, "waybill", "pack")
			if code != 0 || !strings.Contains(out, "@sha256:") || !strings.Contains(log, "label: equal to the framework's own") {
				t.Errorf("%s: exit code %d\n%s", model, code, log)
			}
		}
	}
	// The answers of the other library are not its own.
	project("model.onnx", "xgboost-golden.json")
	run("../../examples/export/lightgbm_to_onnx.py", "lightgbm.txt", "model.onnx")
	if out, log, code := w.exec(nil, "waybill", "pack"); code == 0 || out != "" {
		t.Errorf("XGBoost's answers are taken for LightGBM's\n%s", log)
	}
}

// The pickle of a scikit-learn model is refused; the script of examples/export turns it into an ONNX model, and that one answers as
// scikit-learn did.
func TestExportScikitLearn(t *testing.T) {
	w, run, project := exporter(t)
	run("testdata/train.py")
	project("model.joblib", "golden.json")
	if out, log, code := w.exec(nil, "waybill", "pack"); code != 2 || out != "" || !strings.Contains(log, "is a Python pickle") {
		t.Errorf("the pickle: exit code %d\n%s", code, log)
	}
	run("../../examples/export/sklearn_to_onnx.py", "model.joblib", "model.onnx")
	project("model.onnx", "golden.json")
	out, log, code := w.exec(nil, "waybill", "pack")
	if code != 0 || !strings.Contains(out, "@sha256:") || !strings.Contains(log, "label: equal to the framework's own") {
		t.Errorf("exit code %d\n%s", code, log)
	}
	// Other answers than scikit-learn's are noticed.
	golden := w.file("golden.json")
	wrong := regexp.MustCompile(`("name": "label".*?"data": \[)[01]`).ReplaceAllString(golden, "${1}7")
	if err := os.WriteFile(filepath.Join(w.dir, "golden.json"), []byte(wrong), 0o600); err != nil || wrong == golden {
		t.Fatal(err)
	}
	if out, log, code := w.exec(nil, "waybill", "pack"); code == 0 || out != "" {
		t.Errorf("a wrong label: exit code %d\n%s", code, log)
	}
}
