package dvc

import (
	"crypto/md5"
	"encoding/hex"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/packager/lineage"
)

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func sum(text string) string { s := md5.Sum([]byte(text)); return hex.EncodeToString(s[:]) }

func dot(name, md5 string) string {
	return "outs:\n- md5: '" + md5 + "'\n  size: 3\n  hash: md5\n  path: " + name + "\n"
}

func read(t *testing.T, m *lineage.Model, name string) (string, error) {
	t.Helper()
	r, err := m.Tree.Open(t.Context(), name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	return string(b), err
}

func TestFile(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "sub", "m.onnx")
	write(t, filepath.Join(dir, ".dvc", "config"), "[core]\n")
	write(t, at+".dvc", dot("m.onnx", sum("one")))
	open := func() *lineage.Model {
		t.Helper()
		for _, name := range []string{at, at + ".dvc"} {
			m, err := Open(t.Context(), name, "dvc:x")
			if err != nil {
				t.Fatal(err)
			}
			if m.Entry != "m.onnx" || m.Name != "m" || m.Document.Path != "m.onnx.dvc" {
				t.Fatalf("%+v", m)
			}
			if name != at {
				return m
			}
		}
		return nil
	}
	_, err := read(t, open(), "m.onnx")
	if diag.CodeOf(err) != diag.NotFound || !strings.Contains(diag.Render(err), "hint: dvc pull m.onnx") {
		t.Errorf("no content: %v", err)
	}
	s := sum("one")
	cached := filepath.Join(dir, ".dvc", "cache", "files", "md5", s[:2], s[2:])
	write(t, cached, "one")
	if got, err := read(t, open(), "m.onnx"); got != "one" || err != nil {
		t.Errorf("from the cache: %q, %v", got, err)
	}
	write(t, cached, "two")
	if _, err := read(t, open(), "m.onnx"); diag.CodeOf(err) != diag.Verification {
		t.Errorf("a damaged cache: %v", err)
	}
	write(t, at, "one")
	if got, err := read(t, open(), "m.onnx"); got != "one" || err != nil {
		t.Errorf("from the tree: %q, %v", got, err)
	}
	write(t, at, "two")
	if _, err := read(t, open(), "m.onnx"); diag.CodeOf(err) != diag.Verification {
		t.Errorf("changed in the tree: %v", err)
	}
	// The content alone would be taken: it is the check that refuses.
	m := open()
	m.Tree.(*tree).md5["m.onnx"] = sum("two")
	if got, err := read(t, m, "m.onnx"); got != "two" || err != nil {
		t.Errorf("with the check satisfied: %q, %v", got, err)
	}
	if err := os.Remove(at); err != nil {
		t.Fatal(err)
	}
	elsewhere := t.TempDir()
	write(t, filepath.Join(elsewhere, "files", "md5", s[:2], s[2:]), "one")
	write(t, filepath.Join(dir, ".dvc", "config.local"), "[cache]\n    dir = "+elsewhere+"\n")
	if got, err := read(t, open(), "m.onnx"); got != "one" || err != nil {
		t.Errorf("from another cache: %q, %v", got, err)
	}
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	put := func(text, suffix string) string {
		s := sum(text)
		write(t, filepath.Join(dir, ".dvc", "cache", "files", "md5", s[:2], s[2:]+suffix), text)
		return s + suffix
	}
	list := put(`[{"md5": "`+put("b", "")+`", "relpath": "x/b"}, {"md5": "`+put("a", "")+`", "relpath": "a"}]`, ".dir")
	write(t, filepath.Join(dir, "d.dvc"), dot("d", list))
	m, err := Open(t.Context(), filepath.Join(dir, "d"), "dvc:d")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(m.Folder, " ") != "d/a d/x/b" {
		t.Errorf("folder %v", m.Folder)
	}
	if got, err := read(t, m, "d/x/b"); got != "b" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	write(t, filepath.Join(dir, ".dvc", "cache", "files", "md5", list[:2], list[2:]), "[]")
	if _, err := Open(t.Context(), filepath.Join(dir, "d"), "dvc:d"); diag.CodeOf(err) != diag.Verification {
		t.Errorf("a damaged manifest: %v", err)
	}
	for _, bad := range []string{`[]`, `{}`, `[{"md5": "x", "relpath": "a"}]`, `[{"md5": "` + sum("a") + `", "relpath": "../a"}]`,
		`[{"md5": "` + sum("a") + `", "relpath": "a"}, {"md5": "` + sum("b") + `", "relpath": "a"}]`} {
		if _, err := parseDir([]byte(bad)); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, ".dvc", "config"), "")
	write(t, filepath.Join(dir, "dvc.lock"), "schema: '2.0'\nstages:\n  train:\n    cmd: python train.py\n    deps:\n    - {path: data.csv, hash: md5, md5: "+sum("data")+
		", size: 4}\n    params:\n      params.yaml:\n        lr: 0.1\n        net: {depth: 3}\n      other.json: {a: b}\n    outs:\n    - {path: out/m.onnx, hash: md5, md5: "+sum("one")+", size: 3}\n")
	write(t, filepath.Join(dir, "out", "m.onnx"), "one")
	m, err := Open(t.Context(), filepath.Join(dir, "out", "m.onnx"), "dvc:x")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Check(); err != nil {
		t.Fatal(err)
	}
	want := []lineage.Fact{{Name: "lr", Value: "0.1"}, {Name: "net.depth", Value: "3"}, {Name: "other.json:a", Value: "b"}}
	if len(m.Params) != 3 || m.Params[0] != want[0] || m.Params[1] != want[1] || m.Params[2] != want[2] {
		t.Errorf("parameters %v", m.Params)
	}
	if len(m.Inputs) != 1 || m.Inputs[0] != (lineage.Input{Name: "data.csv", MD5: sum("data")}) {
		t.Errorf("inputs %v", m.Inputs)
	}
	if got, err := read(t, m, m.Entry); got != "one" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Open(t.Context(), filepath.Join(dir, "out", "other"), "dvc:x"); diag.CodeOf(err) != diag.NotFound {
		t.Errorf("not tracked: %v", err)
	}
}

func TestRefused(t *testing.T) {
	for _, bad := range []string{"", "outs: []", "outs: 3", dot("../x", sum("a")), dot("x", "zz"), strings.Replace(dot("x", sum("a")), "hash: md5", "hash: etag", 1),
		strings.Replace(dot("x", sum("a")), "  hash: md5\n", "", 1)} {
		if _, err := parsePointer([]byte(bad)); err == nil {
			t.Errorf("taken: %s", bad)
		}
	}
}

// TestRealDVC lets DVC itself track a file, a folder and the output of a stage, takes the content out of the working tree, and
// brings it back. WAYBILL_DVC names the program; to install it takes more than a minute, so make nightly has it and CI does not.
func TestRealDVC(t *testing.T) {
	program := os.Getenv("WAYBILL_DVC")
	if program == "" {
		t.Skip("WAYBILL_DVC does not name the program dvc")
	}
	dir, home := t.TempDir(), t.TempDir()
	dvc := func(args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "HOME="+home, "DVC_NO_ANALYTICS=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("dvc %v: %v\n%s", args, err, out)
		}
	}
	dvc("init", "--no-scm")
	write(t, filepath.Join(dir, "m.onnx"), "model")
	write(t, filepath.Join(dir, "d", "x", "b"), "in a folder")
	write(t, filepath.Join(dir, "params.yaml"), "lr: 0.1\n")
	write(t, filepath.Join(dir, "dvc.yaml"), "stages:\n  train:\n    cmd: python3 -c \"open('out','w').write('trained')\"\n    deps: [m.onnx]\n    params: [lr]\n    outs: [out]\n")
	dvc("add", "m.onnx", "d")
	dvc("repro")
	dvc("remote", "add", "-d", "r", filepath.Join(home, "remote"))
	dvc("push")
	all := map[string][2]string{"m.onnx": {"m.onnx", "model"}, "d": {"d/x/b", "in a folder"}, "out": {"out", "trained"}}
	look := func(when string) {
		t.Helper()
		for name, want := range all {
			m, err := Open(t.Context(), filepath.Join(dir, name), "dvc:"+name)
			if err != nil {
				t.Errorf("%s: %s: %v", when, name, err)
				continue
			}
			if got, err := read(t, m, want[0]); got != want[1] || err != nil {
				t.Errorf("%s: %s: %q, %v", when, name, got, err)
			}
			if name == "out" && (len(m.Params) != 1 || len(m.Inputs) != 1) {
				t.Errorf("%s: %+v", when, m.Source)
			}
		}
	}
	look("added")
	for _, name := range []string{"m.onnx", "d", "out"} {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	look("from the cache")
	if err := os.RemoveAll(filepath.Join(dir, ".dvc", "cache")); err != nil {
		t.Fatal(err)
	}
	m, err := Open(t.Context(), filepath.Join(dir, "m.onnx"), "dvc:m.onnx")
	if err == nil {
		_, err = read(t, m, "m.onnx")
	}
	if diag.CodeOf(err) != diag.NotFound || !strings.Contains(diag.Render(err), "hint: dvc pull m.onnx") {
		t.Errorf("nowhere: %v", err)
	}
	dvc("pull", "m.onnx", "d", "out")
	look("pulled, as the hint says")
}

func FuzzPointer(f *testing.F) {
	f.Add([]byte(dot("m.onnx", sum("a"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := parsePointer(b); err == nil && (o.Path == "" || len(o.MD5) < 32) {
			t.Errorf("%+v", o)
		}
	})
}

func FuzzLock(f *testing.F) {
	f.Add([]byte("schema: '2.0'\nstages: {t: {cmd: x, params: {params.yaml: {a: {b: [1]}}}, outs: [{path: out, hash: md5, md5: " + sum("a") + "}]}}"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if _, s, _, err := parseLock(b, "out"); err == nil {
			var list []lineage.Fact
			for file, p := range s.Params {
				flatten(file, p, &list)
			}
		}
	})
}

func FuzzDir(f *testing.F) {
	f.Add([]byte(`[{"md5": "` + sum("a") + `", "relpath": "a/b"}]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseDir(b)
		for _, e := range list {
			if err == nil && (strings.Contains(e.Path, "..") && strings.HasPrefix(e.Path, "../") || len(e.MD5) != 32) {
				t.Errorf("%+v", e)
			}
		}
	})
}
