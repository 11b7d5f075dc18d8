package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
	"github.com/waybill-ml/waybill/packager/build"
)

// layout packs an example into an OCI layout folder and returns its digest.
func layout(t *testing.T, dir string, row []float32) string {
	t.Helper()
	ctx := t.Context()
	raw, err := examples.BreastCancer.ReadFile("breast-cancer/v1/model.onnx")
	if err != nil {
		t.Fatal(err)
	}
	m, err := build.Compile(ctx, build.Source{Path: "model.onnx", Data: raw}, build.Options{Name: "churn", Version: "1"})
	if err != nil {
		t.Fatal(err)
	}
	e, err := engine.New(ctx, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close(ctx)
	loaded, err := e.Load(ctx, m.Code, engine.WeightsSource{}, m.Interface)
	if err != nil {
		t.Fatal(err)
	}
	in := edge.Of(row, 1, int64(len(row)))
	outs, err := loaded.Run(ctx, []engine.Tensor{in})
	if err != nil {
		t.Fatal(err)
	}
	v := artifact.GoldenVector{Name: "row", Inputs: []artifact.GoldenTensor{probe.ToGolden(m.Interface.Inputs[0].Name, in)}}
	for i, o := range outs {
		v.Expected = append(v.Expected, probe.ToGolden(m.Interface.Outputs[i].Name, o))
	}
	put := func(b []byte) artifact.Digest {
		d := artifact.DigestOf(b)
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Hex()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	doc := func(v any) []byte {
		b, err := artifact.Canonical(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatal(err)
	}
	var layers []artifact.Layer
	for _, x := range []struct {
		path string
		role artifact.Role
		data []byte
	}{{"golden.json", artifact.RoleGolden, doc(artifact.Golden{Schema: artifact.GoldenSchema, Vectors: []artifact.GoldenVector{v}})},
		{"interface.json", artifact.RoleInterface, doc(m.Interface)}, {"model.wasm", artifact.RoleModule, m.Code}} {
		l := artifact.Layer{Role: x.role, Path: x.path, Digest: put(x.data), Size: int64(len(x.data))}
		switch x.role {
		case artifact.RoleModule:
			l.Target = artifact.TargetAny
		case artifact.RoleGolden:
			l.Personal = artifact.PersonalNone
		}
		layers = append(layers, l)
	}
	manifest, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1"}}, layers, nil)
	if err != nil {
		t.Fatal(err)
	}
	return string(put(manifest))
}

// release makes a signed release of a model in an OCI layout folder and in an archive of it.
func release(t *testing.T, row []float32) (folder, archive edge.Release, w *verifytest.World) {
	t.Helper()
	dir := t.TempDir()
	digest := artifact.Digest(layout(t, dir, row))
	w = verifytest.New(t)
	w.Now = time.Now().UTC().Truncate(time.Second)
	w.Doc.Issued, w.Doc.Expires = w.Now.Add(-time.Hour), w.Now.Add(time.Hour)
	attach(t, dir, digest, w.Release("churn", digest))
	trust := filepath.Join(t.TempDir(), "trust.jsonl")
	if err := os.WriteFile(trust, w.Trust(), 0o600); err != nil {
		t.Fatal(err)
	}
	folder = edge.Release{From: dir, Model: "churn", Trust: trust, TrustDigest: string(w.TrustRef().Digest)}
	archive = folder
	archive.From = filepath.Join(t.TempDir(), "churn.tar")
	f, err := os.Create(archive.From)
	if err != nil {
		t.Fatal(err)
	}
	tw := tar.NewWriter(f)
	if err := errors.Join(tw.AddFS(os.DirFS(dir)), tw.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
	return folder, archive, w
}

// attach lists a bundle in the layout as a statement about the digest, and the digest itself; nil: only that.
func attach(t *testing.T, dir string, about artifact.Digest, bundle []byte) {
	t.Helper()
	put := func(mediaType string, b []byte) artifact.Descriptor {
		d := artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b), Size: int64(len(b))}
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", d.Digest.Hex()), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	raw, err := os.ReadFile(filepath.Join(dir, "blobs", "sha256", about.Hex()))
	if err != nil {
		t.Fatal(err)
	}
	subject := put(artifact.MediaTypeManifest, raw)
	list := []artifact.Descriptor{subject}
	if bundle != nil {
		m, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": artifact.MediaTypeManifest, "artifactType": artifact.MediaTypeBundle,
			"config": put(artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig)), "layers": []any{put(artifact.MediaTypeBundle, bundle)}, "subject": subject})
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, put(artifact.MediaTypeManifest, m))
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": list})
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestEmbed(t *testing.T) {
	row := make([]float32, 30)
	folder, archive, w := release(t, row)
	for _, r := range []edge.Release{folder, archive} {
		if out, err := predict(t.Context(), r, row); err != nil || len(out) == 0 {
			t.Fatalf("%v, %v", out, err)
		}
		for name, edit := range map[string]func(*edge.Release){
			"another model's name":                       func(r *edge.Release) { r.Model = "fraud" },
			"no name":                                    func(r *edge.Release) { r.Model = "" },
			"another trust document":                     func(r *edge.Release) { r.TrustDigest = string(artifact.DigestOf([]byte("x"))) },
			"no digest of the trust document":            func(r *edge.Release) { r.TrustDigest = "" },
			"a trust document that has expired":          func(r *edge.Release) { r.Now = func() time.Time { return time.Now().Add(48 * time.Hour) } },
			"evidence that is not there":                 func(r *edge.Release) { r.Evidence = []string{evidence.TypeVSA} },
			"a digest that is not there":                 func(r *edge.Release) { r.Digest = string(artifact.DigestOf([]byte("x"))) },
			"a tag in place of a digest":                 func(r *edge.Release) { r.Digest = "v1" },
			"a trust document that denies it, or others": func(r *edge.Release) { r.Trust = denying(t, w, folder) },
		} {
			x := r
			edit(&x)
			if _, err := predict(t.Context(), x, row); err == nil {
				t.Errorf("%s: it is loaded", name)
			}
		}
	}
	// Without the release nobody vouches for it: only the function with the long name takes it.
	bare := t.TempDir()
	attach(t, bare, artifact.Digest(layout(t, bare, row)), nil)
	none := folder
	none.From = bare
	if _, err := predict(t.Context(), none, row); verify.ReasonOf(err) != verify.NoBundle {
		t.Errorf("no release: %v", err)
	}
	m, err := edge.InsecureOpenWithoutAnyProof(t.Context(), bare, edge.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Close(t.Context()); err != nil || m.Proof != nil {
		t.Error(err, m.Proof)
	}
	// One byte of any file, and nothing is loaded: neither from the folder nor from the archive.
	blobs := filepath.Join(folder.From, "blobs", "sha256", "*")
	files, err := filepath.Glob(blobs)
	if err != nil || len(files) != 7 {
		t.Fatalf("%v, %v", files, err)
	}
	packed, err := os.ReadFile(archive.From)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if string(b) == artifact.EmptyConfig {
			continue // says nothing, and nobody reads it
		}
		at := bytes.Index(packed, b)
		if at < 0 {
			t.Fatalf("%s is not in the archive as it is", filepath.Base(f))
		}
		b[len(b)/2] ^= 1
		packed[at+len(b)/2] ^= 1
		if err := errors.Join(os.WriteFile(f, b, 0o600), os.WriteFile(archive.From, packed, 0o600)); err != nil {
			t.Fatal(err)
		}
		for _, r := range []edge.Release{folder, archive} {
			if _, err := predict(t.Context(), r, row); err == nil {
				t.Errorf("%s was changed and loaded from %s", filepath.Base(f), r.From)
			}
		}
		b[len(b)/2] ^= 1
		packed[at+len(b)/2] ^= 1
		if err := errors.Join(os.WriteFile(f, b, 0o600), os.WriteFile(archive.From, packed, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := predict(t.Context(), archive, row); err != nil {
		t.Errorf("whole again: %v", err)
	}
	if err := os.WriteFile(archive.From, packed[:len(packed)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := predict(t.Context(), archive, row); err == nil {
		t.Error("half an archive is loaded")
	}
}

// denying writes a trust document that denies the model; its digest is another one, too.
func denying(t *testing.T, w *verifytest.World, r edge.Release) string {
	t.Helper()
	d := *w.Doc
	d.Version = 2
	file := filepath.Join(t.TempDir(), "trust.jsonl")
	if err := os.WriteFile(file, verifytest.SignTrust(t, &d, w.Keys[trust.RoleRoot]), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// The page shows the function as it is compiled here.
func TestDocsShowTheExample(t *testing.T) {
	src, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile("../../docs/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	_, fn, ok := strings.Cut(string(src), "\nfunc predict(")
	if !ok || !strings.Contains(strings.ReplaceAll(string(page), "\r", ""), "func predict("+strings.TrimSpace(strings.ReplaceAll(fn, "\r", ""))) {
		t.Error("docs/edge.md shows another function than examples/embed/main.go")
	}
}
