package jsbundle

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Two builds give the same bytes, and the list names every file.
func TestBuild(t *testing.T) {
	w := example(t)
	a, one := w.bundle(t, Options{})
	_, two := w.bundle(t, Options{})
	n := 0
	err := filepath.WalkDir(one, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		x, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		y, err := os.ReadFile(filepath.Join(two, filepath.Base(p)))
		if err != nil || string(x) != string(y) {
			t.Errorf("%s differs: %v", filepath.Base(p), err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if n != len(a.Files)+1 || n < 15 {
		t.Errorf("%d files, the list has %d", n, len(a.Files))
	}
	b, err := Open(one)
	if err != nil {
		t.Fatal(err)
	}
	if b.Digest != artifact.DigestOf(w.manifest) || b.Name != "churn" || b.WorkerFiles()[0].Path != "worker.mjs" {
		t.Errorf("%+v", b)
	}
	for _, f := range b.WorkerFiles() {
		if f.Kind == Other || f.Path == "node.mjs" || f.Path == "browser.mjs" {
			t.Errorf("the Worker has %s", f.Path)
		}
	}
	if _, err := Build(t.Context(), one, w.manifest, w, Options{}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a folder that is there: %v", err)
	}
}

// Open refuses a folder that was altered: each file in turn.
func TestOpenRefuses(t *testing.T) {
	w := example(t)
	b, dir := w.bundle(t, Options{})
	for _, f := range b.Files {
		p := filepath.Join(dir, f.Path)
		raw, err := os.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		bad := append([]byte{}, raw...)
		bad[len(bad)/2] ^= 1
		if err := os.WriteFile(p, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), f.Path) {
			t.Errorf("%s altered: %v", f.Path, err)
		}
		if err := os.WriteFile(p, append(raw, ' '), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("%s longer: no error", f.Path)
		}
		if err := os.WriteFile(p, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	index := filepath.Join(dir, Index)
	raw, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range [][2]string{{`"model.wasm"`, `"../model.wasm"`}, {`"main": "worker.mjs"`, `"main": "x.mjs"`}, {Schema, "other"}, {`"hosts"`, `"hosts2"`}, {"sha256:", "sha1:"}} {
		if err := os.WriteFile(index, []byte(strings.Replace(string(raw), c[0], c[1], 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir); err == nil {
			t.Errorf("%s for %s: no error", c[1], c[0])
		}
	}
}

// What Workers would not run is refused by name, nothing is left behind, and the other hosts get their bundle.
func TestLimits(t *testing.T) {
	w := example(t)
	for name, l := range map[string]Limits{
		"size":    {1 << 10, 128 << 20, 16 << 20},
		"memory":  {64 << 20, 32 << 20, 16 << 20},
		"startup": {64 << 20, 128 << 20, 100},
	} {
		parent := t.TempDir()
		dir := filepath.Join(parent, "b")
		_, err := Build(t.Context(), dir, w.manifest, w, Options{Limits: l})
		var le *LimitError
		if !errors.As(err, &le) || le.Limit != name || !errors.Is(err, deploy.ErrTooLarge) || le.Have <= le.Max {
			t.Errorf("%s: %v", name, err)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("%s: left behind %v", name, left)
		}
		b, err := Build(t.Context(), dir, w.manifest, w, Options{Limits: l, Hosts: []string{Node, Browser}})
		if err != nil || b.Main != "" || len(b.WorkerFiles()) > 0 {
			t.Errorf("%s, other hosts: %v %+v", name, err, b)
		}
	}
	if _, err := Build(t.Context(), filepath.Join(t.TempDir(), "b"), w.manifest, w, Options{Hosts: []string{"deno"}}); err == nil {
		t.Error("an unknown host: no error")
	}
}

// A limit is the largest that is taken; a byte less, or for memory a page, is refused and says what would do.
func TestLimitsAtTheBoundary(t *testing.T) {
	w := example(t)
	build := func(l Limits) (*Bundle, error) {
		return Build(t.Context(), filepath.Join(t.TempDir(), "b"), w.manifest, w, Options{Limits: l, Hosts: []string{Workers}})
	}
	b, err := build(CloudflareLimits())
	if err != nil {
		t.Fatal(err)
	}
	var size, code int64
	for _, f := range b.WorkerFiles() {
		size += f.Size
		if f.Kind == Wasm {
			code += f.Size
		}
	}
	if size <= code || code == 0 {
		t.Fatalf("%d bytes, %d of them code", size, code)
	}
	for name, c := range map[string]struct {
		at   func(l *Limits) *int64
		need int64
		step int64
	}{
		"size":    {func(l *Limits) *int64 { return &l.Size }, size, 1},
		"startup": {func(l *Limits) *int64 { return &l.Code }, code, 1},
		"memory":  {func(l *Limits) *int64 { return &l.Memory }, (int64(w.iface.Memory.Heap)+int64(w.iface.Memory.Arena)+wasmPage-1)/wasmPage*wasmPage + workerHeap, wasmPage},
	} {
		l := CloudflareLimits()
		*c.at(&l) = c.need
		if _, err := build(l); err != nil {
			t.Errorf("%s of %d: %v", name, c.need, err)
		}
		*c.at(&l) = c.need - c.step
		var le *LimitError
		if _, err := build(l); !errors.As(err, &le) || le.Limit != name || le.Max != c.need-c.step || le.Have <= le.Max || le.Have > c.need {
			t.Errorf("%s of %d, of which %d are needed: %+v", name, c.need-c.step, c.need, le)
		}
	}
}

// The numbers are Cloudflare's.
func TestCloudflareLimits(t *testing.T) {
	if l := CloudflareLimits(); l.Size != 67_108_864 || l.Memory != 134_217_728 {
		t.Errorf("%+v", l)
	}
}

// A blob that is not what the manifest says, or not there, gives no bundle.
func TestBlobs(t *testing.T) {
	w := example(t)
	for d, b := range w.blobs {
		parent := t.TempDir()
		bad := append([]byte{}, b...)
		bad[len(bad)/2] ^= 1
		w.blobs[d] = bad
		if _, err := Build(t.Context(), filepath.Join(parent, "b"), w.manifest, w, Options{}); err == nil {
			t.Errorf("%s altered: no error", d)
		}
		delete(w.blobs, d)
		if _, err := Build(t.Context(), filepath.Join(parent, "b"), w.manifest, w, Options{}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s missing: %v", d, err)
		}
		w.blobs[d] = b
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("left behind %v", left)
		}
	}
}

// An artifact without golden vectors gets no Worker, which nothing could prove; the other hosts, which see the module's bytes, get theirs.
func TestNoVectors(t *testing.T) {
	e := example(t)
	w := &world{blobs: e.blobs, iface: e.iface}
	m, err := artifact.ParseModel(e.manifest)
	if err != nil {
		t.Fatal(err)
	}
	var ls []artifact.Layer
	for _, role := range []artifact.Role{artifact.RoleModule, artifact.RoleInterface} {
		ls = append(ls, m.ByRole(role)...)
	}
	if w.manifest, _, err = artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1.0.0"}}, ls, nil); err != nil {
		t.Fatal(err)
	}
	for _, hosts := range [][]string{nil, {Workers}, {Workers, Node}} {
		parent := t.TempDir()
		if _, err := Build(t.Context(), filepath.Join(parent, "b"), w.manifest, w, Options{Hosts: hosts}); !errors.Is(err, ErrNoVectors) || diag.CodeOf(err) != diag.Unsupported {
			t.Errorf("for %q: %v", hosts, err)
		}
		if left, _ := os.ReadDir(parent); len(left) > 0 {
			t.Errorf("for %q: left behind %v", hosts, left)
		}
	}
	b, err := Build(t.Context(), filepath.Join(t.TempDir(), "b"), w.manifest, w, Options{Hosts: []string{Node, Browser}})
	if err != nil || b.Main != "" {
		t.Fatalf("for the others: %v %+v", err, b)
	}
	for _, f := range b.Files {
		if f.Path == "golden.json" || f.Path == "worker.mjs" || f.Worker && f.Kind == Other {
			t.Errorf("%s is among the files", f.Path)
		}
	}
}
