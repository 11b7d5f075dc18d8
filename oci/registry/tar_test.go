package registry_test

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

func savedArchive(t testing.TB, src *registry.Local, m model) []byte {
	t.Helper()
	var b bytes.Buffer
	a, err := registry.Save(t.Context(), &b, []registry.SaveItem{{From: src, Target: "1.0", Name: "churn:1.0"}}, registry.SaveOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Artifacts) != 1 || a.Artifacts[0].Digest != m.digest || len(a.Referrers) != 1 {
		t.Fatalf("%+v", a)
	}
	return b.Bytes()
}

func TestSaveLoad(t *testing.T) {
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	b := savedArchive(t, src, m)
	if !bytes.Equal(b, savedArchive(t, src, m)) {
		t.Error("saved twice, other bytes")
	}
	dst := local(t, "churn")
	a, err := registry.Load(t.Context(), bytes.NewReader(b), dst.Store(), "")
	if err != nil || len(a.Artifacts) != 1 || a.Artifacts[0].Ref != "churn:1.0" || len(a.Referrers) != 1 {
		t.Fatalf("%+v %v", a, err)
	}
	m.check(t, dst, "1.0")
	if refs, err := dst.Referrers(t.Context(), m.digest); err != nil || len(refs) != 1 {
		t.Fatalf("%v %v", refs, err)
	}
	if !bytes.Equal(b, savedArchive(t, dst, m)) {
		t.Error("saved after loading, other bytes")
	}
	if _, err := registry.Load(t.Context(), bytes.NewReader(b), dst.Store(), "other:2"); err != nil {
		t.Fatal(err)
	}
	m.check(t, registry.NewLocal(dst.Store(), "other"), "2")

	// The archive, unpacked by any tar, is a layout.
	dir := t.TempDir()
	tr := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		p := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		c, _ := io.ReadAll(tr)
		if err := os.WriteFile(p, c, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r, err := registry.Open(t.Context(), registry.Ref{Kind: registry.KindLayout, Path: dir}, registry.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m.check(t, r, "1.0")
}

func TestLoadRefuses(t *testing.T) {
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	good := savedArchive(t, src, m)
	rewrite := func(f func(h *tar.Header, b []byte) (*tar.Header, []byte)) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		tr := tar.NewReader(bytes.NewReader(good))
		for {
			h, err := tr.Next()
			if err != nil {
				break
			}
			b, _ := io.ReadAll(tr)
			if h, b = f(h, b); h == nil {
				continue
			}
			h.Size = int64(len(b))
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		w.Close()
		return out.Bytes()
	}
	isLayer := func(h *tar.Header) bool { return strings.Contains(h.Name, artifact.DigestOf(m.config).Hex()) }
	for name, c := range map[string]struct {
		b    []byte
		code diag.Code
	}{
		"nothing":   {nil, diag.Failure},
		"no tar":    {bytes.Repeat([]byte("no tar at all "), 100), diag.Failure},
		"truncated": {good[:len(good)/2], diag.Failure},
		"altered": {rewrite(func(h *tar.Header, b []byte) (*tar.Header, []byte) {
			if isLayer(h) {
				b[3] ^= 1
			}
			return h, b
		}), diag.Verification},
		"blob missing": {rewrite(func(h *tar.Header, b []byte) (*tar.Header, []byte) {
			if isLayer(h) {
				return nil, nil
			}
			return h, b
		}), diag.Failure},
		"index missing": {rewrite(func(h *tar.Header, b []byte) (*tar.Header, []byte) {
			if h.Name == "index.json" {
				return nil, nil
			}
			return h, b
		}), diag.Failure},
		"leaves the layout": {rewrite(func(h *tar.Header, b []byte) (*tar.Header, []byte) {
			if isLayer(h) {
				h.Name = "../../evil"
			}
			return h, b
		}), diag.Failure},
		"link": {rewrite(func(h *tar.Header, b []byte) (*tar.Header, []byte) {
			if isLayer(h) {
				h.Typeflag, h.Linkname, b = tar.TypeSymlink, "/etc/passwd", nil
			}
			return h, b
		}), diag.Failure},
	} {
		t.Run(name, func(t *testing.T) {
			dst := local(t, "churn")
			_, err := registry.Load(t.Context(), bytes.NewReader(c.b), dst.Store(), "")
			if err == nil || diag.CodeOf(err) != c.code {
				t.Fatalf("code %d: %v", diag.CodeOf(err), err)
			}
			if tags, err := dst.Tags(t.Context()); err != nil || len(tags) != 0 {
				t.Errorf("a name was set: %v %v", tags, err)
			}
		})
	}
}

func TestParseRef(t *testing.T) {
	hex := strings.Repeat("ab", 32)
	dig := artifact.Digest("sha256:" + hex)
	for in, want := range map[string]registry.Ref{
		"churn":                                 {Kind: registry.KindLocal, Repo: "churn"},
		"churn:1.0":                             {Kind: registry.KindLocal, Repo: "churn", Tag: "1.0"},
		"team/churn:1.0":                        {Kind: registry.KindLocal, Repo: "team/churn", Tag: "1.0"},
		"churn@sha256:" + hex:                   {Kind: registry.KindLocal, Repo: "churn", Digest: dig},
		"churn:1.0@sha256:" + hex:               {Kind: registry.KindLocal, Repo: "churn", Tag: "1.0", Digest: dig},
		"reg.example/ml/churn:1":                {Kind: registry.KindRemote, Host: "reg.example", Repo: "ml/churn", Tag: "1"},
		"localhost/churn":                       {Kind: registry.KindRemote, Host: "localhost", Repo: "churn"},
		"127.0.0.1:5000/ml/churn@sha256:" + hex: {Kind: registry.KindRemote, Host: "127.0.0.1:5000", Repo: "ml/churn", Digest: dig},
		"[::1]:5000/churn:1":                    {Kind: registry.KindRemote, Host: "[::1]:5000", Repo: "churn", Tag: "1"},
		"layout:/a/b":                           {Kind: registry.KindLayout, Path: "/a/b"},
		"layout:./a:1.0":                        {Kind: registry.KindLayout, Path: "./a", Tag: "1.0"},
		`layout:C:\dir`:                         {Kind: registry.KindLayout, Path: `C:\dir`},
		`layout:C:\dir:v1`:                      {Kind: registry.KindLayout, Path: `C:\dir`, Tag: "v1"},
		"layout:dir@sha256:" + hex:              {Kind: registry.KindLayout, Path: "dir", Digest: dig},
	} {
		got, err := registry.ParseRef(in)
		if err != nil || got != want {
			t.Errorf("%s: %+v %v", in, got, err)
		}
		if got.String() != in {
			t.Errorf("%s is written back as %s", in, got)
		}
	}
	for _, in := range []string{"", ":1", "Churn", "churn:", "churn:a b", "churn:-x", "churn@sha256:12", "a//b", "../x", "reg.example/", "reg.example/A",
		"re_g.example/a:1/b", "layout:", "layout::1", "churn:1:2", "churn@md5:1", "-x", "reg.example:x/y", "churn\n", "a\\b"} {
		if got, err := registry.ParseRef(in); diag.CodeOf(err) != diag.Usage {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"churn:1.0", "reg.example:5000/a/b:1@sha256:" + strings.Repeat("0", 64), "layout:C:\\x:y", "@", "::"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := registry.ParseRef(s)
		if err != nil {
			return
		}
		if r.Kind != registry.KindLayout && (!registry.ValidRepo(r.Repo) || strings.Contains(r.Repo, "..")) {
			t.Fatalf("%q: name %q", s, r.Repo)
		}
		again, err := registry.ParseRef(r.String())
		if err != nil || again != r {
			t.Fatalf("%q: %+v is read back as %+v, %v", s, r, again, err)
		}
	})
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte("nothing"))
	var seed bytes.Buffer
	w := tar.NewWriter(&seed)
	for name, content := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`,
		"index.json": `{"schemaVersion":2,"manifests":[]}`, "blobs/sha256/" + artifact.EmptyDigest.Hex(): artifact.EmptyConfig} {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content)), Mode: 0o644}); err != nil {
			f.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		dst, err := store.Open(t.Context(), "store", store.Options{FS: fsx.NewMem(), Create: true,
			Lock: func(context.Context, string, bool) (func() error, error) { return func() error { return nil }, nil }})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = registry.Load(t.Context(), bytes.NewReader(b), dst, "")
		if rep, err := dst.Verify(t.Context(), false, nil); err != nil || len(rep.Problems) > 0 {
			t.Fatalf("%+v %v", rep, err)
		}
	})
}

func TestExtract(t *testing.T) {
	r := local(t, "churn")
	m := newModel(t, "1.0")
	m.push(t, r, "1.0")
	model, _, err := registry.ReadModel(t.Context(), r, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	outer := t.TempDir()
	dir := filepath.Join(outer, "new", "out")
	if _, err := registry.Extract(t.Context(), r, model.Layers, dir, registry.ExtractOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, l := range model.Layers {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(l.Path)))
		if err != nil || !bytes.Equal(b, m.layers[l.Digest]) {
			t.Errorf("%s: %v", l.Path, err)
		}
	}
	if res, err := registry.Extract(t.Context(), r, model.Layers, dir, registry.ExtractOptions{}); err != nil || res.Present != len(model.Layers) || res.Written != 0 {
		t.Errorf("over files that are right: %+v %v", res, err)
	}
	edited := filepath.Join(dir, "interface.json")
	was, err := os.ReadFile(edited)
	if err != nil {
		t.Fatal(err)
	}
	other := bytes.Repeat([]byte("x"), len(was)) // the size does not tell
	if err := os.WriteFile(edited, other, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := registry.Extract(t.Context(), r, model.Layers, dir, registry.ExtractOptions{}); diag.CodeOf(err) != diag.Usage {
		t.Errorf("over a file that was edited: %v", err)
	}
	if now, err := os.ReadFile(edited); err != nil || !bytes.Equal(now, other) {
		t.Errorf("the edited file was touched: %v", err)
	}
	if _, err := registry.Extract(t.Context(), r, model.Layers, dir, registry.ExtractOptions{Force: true}); err != nil {
		t.Error(err)
	}
	if now, err := os.ReadFile(edited); err != nil || !bytes.Equal(now, was) {
		t.Errorf("the edited file was not replaced: %v", err)
	}
	// An altered blob leaves no file, under no name.
	src := model.ByRole(artifact.RoleSource)[0]
	if err := os.WriteFile(r.Store().BlobPath(src.Digest), make([]byte, src.Size), 0o600); err != nil {
		t.Fatal(err)
	}
	dir2 := filepath.Join(outer, "two")
	if _, err := registry.Extract(t.Context(), r, []artifact.Layer{src}, dir2, registry.ExtractOptions{}); diag.CodeOf(err) != diag.Verification {
		t.Errorf("altered: %v", err)
	}
	if es, err := os.ReadDir(filepath.Join(dir2, "source")); err != nil || len(es) != 0 {
		t.Errorf("left behind: %v %v", es, err)
	}
	// A link that waits in the folder does not lead out of it.
	dir3 := filepath.Join(outer, "three")
	if err := os.MkdirAll(dir3, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outer, filepath.Join(dir3, "source")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	good := model.ByRole(artifact.RoleInterface)[0]
	good.Path = "source/interface.json"
	if _, err := registry.Extract(t.Context(), r, []artifact.Layer{good}, dir3, registry.ExtractOptions{Force: true}); err == nil {
		t.Error("wrote through a symbolic link")
	}
	if _, err := os.Stat(filepath.Join(outer, "interface.json")); err == nil {
		t.Error("a file was written outside the folder")
	}
}
