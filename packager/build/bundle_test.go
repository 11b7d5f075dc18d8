package build_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/store"
	"github.com/waybill-ml/waybill/packager/build"
	"github.com/waybill-ml/waybill/packager/project"
)

const bundles = "testdata/bundle"

func openStore(t *testing.T, references bool) *store.Store {
	t.Helper()
	st, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "store"), store.Options{Create: true, References: references})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	})
	return st
}

func bundle(ctx context.Context, dir string, st build.Store, o build.PackOptions) (*build.Packed, error) {
	p, err := project.Load(dir)
	if err != nil {
		return nil, err
	}
	b, err := build.List(ctx, p)
	if err != nil {
		return nil, err
	}
	return b.Pack(ctx, st, o)
}

func copyBundle(t *testing.T, name string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "somewhere else", name)
	if err := os.CopyFS(dir, os.DirFS(filepath.Join(bundles, name))); err != nil {
		t.Fatal(err)
	}
	return dir
}

// The digests of committed projects: on every system, of every user, at every time.
func golden() map[string]artifact.Digest {
	return map[string]artifact.Digest{
		"gguf":   "sha256:87565afa8f1111fe4a21c94db34dcb6eefa1b3c11206dfe70ed8a433a3c82777",
		"engine": "sha256:ff8e4df9587dcd9779db962e8646b0012d34e7548a10a6df4460ea8b014c8c63",
		"folder": "sha256:1036b99dd29d33d02db20032dc8da1ebb153a3c4192f70417456f365dff7060f",
	}
}

func TestGoldenDigests(t *testing.T) {
	for name, want := range golden() {
		for what, change := range map[string]func(t *testing.T, dir string){
			"as committed": func(*testing.T, string) {},
			"other times, modes and order": func(t *testing.T, dir string) {
				err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					if err := os.Chmod(p, 0o755); err != nil {
						return err
					}
					return os.Chtimes(p, time.Unix(1, 0), time.Unix(86400*365*40, 5))
				})
				if err != nil {
					t.Fatal(err)
				}
			},
			"a project file written on Windows": func(t *testing.T, dir string) {
				f := filepath.Join(dir, project.FileName)
				b, err := os.ReadFile(f)
				if err != nil {
					t.Fatal(err)
				}
				s := strings.ReplaceAll(strings.ReplaceAll(string(b), "model: ", `model: .\`), "\n", "\r\n")
				if err := os.WriteFile(f, []byte(s), 0o600); err != nil {
					t.Fatal(err)
				}
			},
		} {
			dir := copyBundle(t, name)
			change(t, dir)
			for _, st := range []build.Store{build.DryStore{}, openStore(t, false), openStore(t, true)} {
				packed, err := bundle(t.Context(), dir, st, build.PackOptions{})
				if err != nil {
					t.Fatalf("%s, %s: %v", name, what, err)
				}
				if packed.Digest != want {
					t.Errorf("%s, %s: %s, want %s", name, what, packed.Digest, want)
				}
			}
		}
	}
}

// What the manifest and its documents say, read back strictly.
func TestBundleReadsBack(t *testing.T) {
	st := openStore(t, true)
	packed, err := bundle(t.Context(), filepath.Join(bundles, "folder"), st, build.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	raw, _, err := st.Manifest(t.Context(), packed.Digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := artifact.ParseModel(raw)
	if err != nil {
		t.Fatal(err)
	}
	if m.Compiled() || len(m.OnDevice()) != 1 {
		t.Errorf("compiled %t, %d layers for a device", m.Compiled(), len(m.OnDevice()))
	}
	blob := func(d artifact.Descriptor) []byte {
		rc, err := st.Blob(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		b, err := store.ReadAll(rc, d, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	cfg, err := artifact.ParseConfig(blob(m.Manifest.Config), m)
	if err != nil {
		t.Fatal(err)
	}
	if got := cfg.Model; got != (artifact.ModelConfig{Architecture: "llama", Format: "safetensors", ParamSize: "0.1K", Precision: "bfloat16,float32"}) {
		t.Errorf("config %+v", got)
	}
	l, err := m.One(artifact.RoleInterface)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := artifact.ParseBundled(blob(l.Descriptor()), m)
	if err != nil {
		t.Fatal(err)
	}
	if doc.Parameters != 72 || len(doc.Files) != 3 || doc.Files[2].Format != "unknown" || doc.Files[1].Tensors != 2 {
		t.Errorf("interface document %+v", doc)
	}
	var paths []string
	for _, l := range m.Layers {
		paths = append(paths, l.Path+"="+string(l.Role))
	}
	want := "README.md=doc config.json=config empty.txt=config model-00001-of-00002.safetensors=source model-00002-of-00002.safetensors=source " +
		"model.safetensors.index.json=config sub/extra.bin=source tokenizer.json=config waybill.interface.json=interface"
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("layers %s", got)
	}
	// Left-out, forged or exchanged files are noticed.
	other := *doc
	other.Files = doc.Files[:2]
	b, err := artifact.Canonical(other)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.ParseBundled(b, m); err == nil {
		t.Error("a document that leaves a file out was accepted")
	}
}

// mk writes a project of files; a nil content makes none.
func mk(t *testing.T, yaml string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files = cloneWith(files, project.FileName, "name: x\nversion: 1.0.0\nlicense: MIT\ncompile: false\n"+yaml)
	for name, content := range files {
		p := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Skipf("this file system has no such names: %v", err)
		}
	}
	return dir
}

func cloneWith(m map[string]string, k, v string) map[string]string {
	out := map[string]string{k: v}
	for a, b := range m {
		out[a] = b
	}
	return out
}

func index(shards map[string]string) string {
	b, _ := json.Marshal(map[string]any{"weight_map": shards})
	return string(b)
}

const tensorA = "\x37\x00\x00\x00\x00\x00\x00\x00" + `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}} ` + " " + "x"

func TestBundleRefuses(t *testing.T) {
	for _, c := range []struct {
		name, yaml string
		files      map[string]string
		code       diag.Code
		want       string
	}{
		{"pickle", "model: m.bin\n", map[string]string{"m.bin": "\x80\x04N."}, diag.Usage, "m.bin is a Python pickle"},
		{"pickle in a folder", "model: w\n", map[string]string{"w/a.gguf": "x", "w/b/c.dat": "cos\nsystem\n(S'id'\ntR."}, diag.Usage, "w/b/c.dat is a Python pickle"},
		{"pickle as config", "model: m\nconfig: [c.json]\n", map[string]string{"m": "x", "c.json": "\x80\x04N."}, diag.Usage, "c.json is a Python pickle"},
		{"pointer", "model: m\n", map[string]string{"m": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"}, diag.Usage, "Git LFS pointer"},
		{"damaged", "model: m.safetensors\n", map[string]string{"m.safetensors": "\x02\x00\x00\x00\x00\x00\x00\x00{"}, diag.Failure, "m.safetensors is damaged"},
		{"empty folder", "model: w\n", map[string]string{"w/README.md": "x"}, diag.Usage, "has no file of weights"},
		{"hidden only", "model: w\n", map[string]string{"w/.hidden": "x"}, diag.Usage, "has no file of weights"},
		{"case", "model: w\n", map[string]string{"w/A.bin": "x", "w/a.bin": "y"}, diag.Usage, "differ in case only"},
		{"Windows name", "model: w\n", map[string]string{"w/NUL.bin": "x"}, diag.Usage, "Windows reserves"},
		{"forms of Unicode", "model: w\n", map[string]string{"w/caf\u00e9.bin": "x", "w/cafe\u0301.bin": "y"}, diag.Usage, "differ only in how Unicode writes them"},
		{"two places", "model: w\ndocs: [a.md]\n", map[string]string{"w/a.md": "x", "a.md": "y", "w/m": "x"}, diag.Usage, "would both be a.md"},
		{"interface", "model: w\n", map[string]string{"w/m": "x", "w/waybill.interface.json": "{}"}, diag.Usage, "unique path"},
		{"missing shard", "model: m.safetensors.index.json\n", map[string]string{"m.safetensors.index.json": index(map[string]string{"a": "1.safetensors"})}, diag.NotFound, "1.safetensors does not exist"},
		{"shard elsewhere", "model: m.safetensors.index.json\n", map[string]string{"m.safetensors.index.json": index(map[string]string{"a": "../1.safetensors"})}, diag.Usage, "not a relative"},
		{"no index", "model: m.safetensors.index.json\n", map[string]string{"m.safetensors.index.json": "{}"}, diag.Usage, "weight_map is missing"},
		{"tensor elsewhere", "model: m.safetensors.index.json\n", map[string]string{"m.safetensors.index.json": index(map[string]string{"b": "1.safetensors"}), "1.safetensors": tensorA}, diag.Usage, `tensor "b" is in 1.safetensors, which does not have it`},
		{"metrics", "model: m\nmetrics: e.json\n", map[string]string{"m": "x", "e.json": "{}"}, diag.Usage, "metrics: e.json"},
		{"allowed, but not there", "model: m\nallow_pickle: [other]\n", map[string]string{"m": "x", "other": "y"}, diag.Usage, "allow_pickle: other is not packed"},
	} {
		st := openStore(t, true)
		_, err := bundle(t.Context(), mk(t, c.yaml, c.files), st, build.PackOptions{})
		if err == nil || diag.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v (code %d), want %q (code %d)", c.name, err, diag.CodeOf(err), c.want, c.code)
		}
		if es, err := st.Entries(t.Context()); err != nil || len(es) != 0 {
			t.Errorf("%s: %d manifests in the store, %v", c.name, len(es), err)
		}
	}
}

// The same without the refusal: the pickle goes in, and says so.
func TestAllowedPickle(t *testing.T) {
	packed, err := bundle(t.Context(), mk(t, "model: m.bin\nallow_pickle: [m.bin]\n", map[string]string{"m.bin": "\x80\x04N."}), build.DryStore{}, build.PackOptions{})
	if err != nil || packed.Bundled.Files[0].Pickle != "is a Python pickle" || packed.Bundled.Format != "pickle" {
		t.Errorf("%+v, %v", packed, err)
	}
}

// Names in form D, as some file systems give them, make the artifact that form C makes.
func TestUnicodeNames(t *testing.T) {
	var digests []artifact.Digest
	for _, name := range []string{"caf\u00e9.bin", "cafe\u0301.bin"} {
		packed, err := bundle(t.Context(), mk(t, "model: w\n", map[string]string{"w/" + name: "x"}), build.DryStore{}, build.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, packed.Digest)
	}
	if digests[0] != digests[1] {
		t.Errorf("%s and %s", digests[0], digests[1])
	}
}

func TestLinks(t *testing.T) {
	dir := mk(t, "model: w\n", map[string]string{"w/m": "x", "inside": "y"})
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("z"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join("..", "inside"), filepath.Join(dir, "w", "linked")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	packed, err := bundle(t.Context(), dir, build.DryStore{}, build.PackOptions{})
	if err != nil || len(packed.Layers) != 3 {
		t.Errorf("a link inside the project: %v", err)
	}
	for _, to := range []string{outside, "..", "nowhere"} {
		p := filepath.Join(dir, "w", "bad")
		if err := os.Symlink(to, p); err != nil {
			t.Fatal(err)
		}
		if _, err := bundle(t.Context(), dir, build.DryStore{}, build.PackOptions{}); diag.CodeOf(err) != diag.Usage || !strings.Contains(err.Error(), "w/bad") {
			t.Errorf("a link to %s: %v", to, err)
		}
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
}

// A file that changes while it is read is an error, whatever the store does with it.
func TestChangedWhilePacked(t *testing.T) {
	for _, size := range []int64{1000, store.MinReference} {
		for what, change := range map[string]func(p string) error{
			"longer":   func(p string) error { return os.Truncate(p, size+1) },
			"replaced": func(p string) error { return errors.Join(os.Rename(p, p+".old"), os.WriteFile(p, []byte("y"), 0o600)) },
			"gone":     os.Remove,
			"touched":  func(p string) error { return os.Chtimes(p, time.Unix(5, 0), time.Unix(5, 0)) },
		} {
			if runtime.GOOS == "windows" && (what == "replaced" || what == "gone") {
				continue // an open file stays there
			}
			dir := mk(t, "model: m\n", map[string]string{"m": "x"})
			file := filepath.Join(dir, "m")
			if err := os.Truncate(file, size); err != nil {
				t.Fatal(err)
			}
			st := openStore(t, true)
			done := false
			_, err := bundle(t.Context(), dir, st, build.PackOptions{Progress: func(int64) {
				if !done {
					done = true
					if err := change(file); err != nil {
						t.Error(err)
					}
				}
			}})
			if err == nil || !strings.Contains(err.Error(), "was changed") && !strings.Contains(err.Error(), "m: ") && !strings.Contains(err.Error(), "/m") {
				t.Errorf("%s, %d bytes: %v", what, size, err)
			}
			if es, err := st.Entries(t.Context()); err != nil || len(es) != 0 {
				t.Errorf("%s: %d manifests in the store, %v", what, len(es), err)
			}
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	dir := mk(t, "model: w\n", map[string]string{"w/a": "x", "w/b": "y", "w/c": "z"})
	_, err := bundle(ctx, dir, openStore(t, false), build.PackOptions{Progress: func(int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// ioCounters are bytes that this process has read and written through system calls.
func ioCounters(t *testing.T) (read, written int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skipf("the system does not count bytes: %v", err)
	}
	for l := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(l), ": ")
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		switch k {
		case "rchar":
			read = n
		case "wchar":
			written = n
		}
	}
	return read, written
}

// Each byte is read once, and with references or shared blocks none is written again.
func TestReadOnce(t *testing.T) {
	dir := mk(t, "model: w\n", map[string]string{"w/one": "x", "w/two": "x", "w/README.md": strings.Repeat("text\n", 1<<20)})
	const size = int64(store.MinReference)
	for _, f := range []string{"one", "two"} {
		if err := os.Truncate(filepath.Join(dir, "w", f), size); err != nil {
			t.Fatal(err)
		}
	}
	total := 2*size + 5<<20
	st := openStore(t, true)
	r0, w0 := ioCounters(t)
	packed, err := bundle(t.Context(), dir, st, build.PackOptions{})
	r1, w1 := ioCounters(t)
	if err != nil {
		t.Fatal(err)
	}
	if got := r1 - r0; got < total || got > total+1<<20 {
		t.Errorf("read %d bytes of %d", got, total)
	}
	if got := w1 - w0; got > 6<<20 {
		t.Errorf("wrote %d bytes", got)
	}
	// The layer's digest is its diffID and the resource's digest: one hash, used three times.
	raw, _, err := st.Manifest(t.Context(), packed.Digest)
	if err != nil {
		t.Fatal(err)
	}
	m, err := artifact.ParseModel(raw)
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range m.Layers {
		if l.Digest != packed.Layers[i].Digest {
			t.Errorf("%s: %s and %s", l.Path, l.Digest, packed.Layers[i].Digest)
		}
	}
}

// Both documents come out the same every time, and are attached without being evidence.
func TestStatements(t *testing.T) {
	st := openStore(t, true)
	var first []build.Statement
	for i, dir := range []string{filepath.Join(bundles, "folder"), copyBundle(t, "folder")} {
		packed, err := bundle(t.Context(), dir, st, build.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		list, err := packed.Statements(build.Origin{})
		if err != nil {
			t.Fatal(err)
		}
		if err := packed.Attach(t.Context(), st, list); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = list
		} else {
			for j := range list {
				if !bytes.Equal(first[j].Raw, list[j].Raw) {
					t.Errorf("%s differs in another folder", list[j].PredicateType)
				}
			}
			// One that says something else takes the place of the one before.
			now := time.Unix(1700000000, 0)
			if list, err = packed.Statements(build.Origin{Epoch: &now}); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(string(list[1].Raw), `"timestamp":"2023-11-14T22:13:20Z"`) {
				t.Error("SOURCE_DATE_EPOCH is not in the bill of materials")
			}
			if err := packed.Attach(t.Context(), st, list); err != nil {
				t.Fatal(err)
			}
		}
		refs, err := st.Referrers(t.Context(), packed.Digest)
		if err != nil || len(refs) != 2 {
			t.Fatalf("%d referrers, %v", len(refs), err)
		}
		types := map[string]bool{}
		for _, r := range refs {
			raw, _, err := st.Manifest(t.Context(), r.Digest)
			if err != nil {
				t.Fatal(err)
			}
			_, typ, err := artifact.ParseStatementManifest(raw)
			if err != nil {
				t.Fatal(err)
			}
			types[typ] = true
		}
		if !types[evidence.TypeProvenance] || !types[evidence.TypeCycloneDX] {
			t.Errorf("attached %v", types)
		}
	}
}

// ModelPack's own schema accepts the config of what is compiled and of what is not.
func TestConfigSchema(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not here")
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	s, err := c.Compile(filepath.Join(dir, "modelpack-model-spec", "config-schema.json"))
	if err != nil {
		t.Fatal(err)
	}
	check := func(b []byte) error {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		return s.Validate(v)
	}
	st := openStore(t, false)
	var packed []*build.Packed
	for name := range golden() {
		p, err := bundle(t.Context(), filepath.Join(bundles, name), st, build.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		packed = append(packed, p)
	}
	in, m, _ := load(t, example)
	p, err := build.Pack(t.Context(), in, m, nil, st, build.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range append(packed, p) {
		raw, _, err := st.Manifest(t.Context(), p.Digest)
		if err != nil {
			t.Fatal(err)
		}
		x, err := artifact.ParseModel(raw)
		if err != nil {
			t.Fatal(err)
		}
		rc, err := st.Blob(t.Context(), x.Manifest.Config)
		if err != nil {
			t.Fatal(err)
		}
		b, err := store.ReadAll(rc, x.Manifest.Config, artifact.MaxConfig)
		if err != nil {
			t.Fatal(err)
		}
		if err := check(b); err != nil {
			t.Errorf("%s: %v", p.Ref, err)
		}
	}
	bad, err := filepath.Glob(filepath.Join(dir, "modelpack-model-spec", "vectors", "invalid", "*.json"))
	if err != nil || len(bad) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	for _, f := range bad {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if check(b) == nil {
			t.Errorf("%s is accepted", filepath.Base(f))
		}
	}
}
