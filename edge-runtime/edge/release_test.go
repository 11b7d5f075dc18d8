package edge

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
	"github.com/waybill-ml/waybill/packager/codegen"
	"github.com/waybill-ml/waybill/packager/ir"
)

// T is the part of testing.TB that making a release needs: an example has none of it.
type T interface {
	Helper()
	Fatalf(format string, args ...any)
	TempDir() string
}

func must[V any](t T) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatalf("%v", err)
		}
		return v
	}
}

// folder writes an artifact that makes one operator of a vector, and returns its layers. promise is what its golden vector says
// that it answers to 1, -2; without it there is none.
func folder(t T, op string, promise ...float32) (string, *artifact.Model) {
	t.Helper()
	x := &ir.Value{Name: "x", Type: ir.Type{DType: ir.F32, Shape: ir.Shape{Ranked: true, Dims: []ir.Dim{{Sym: "N"}}}}}
	y := &ir.Value{Name: "y", Type: x.Type}
	res := must[*codegen.Result](t)(codegen.Compile(&ir.Graph{Name: "neg", Body: &ir.Region{Params: []*ir.Value{x}, Results: []*ir.Value{y},
		Nodes: []*ir.Node{{ID: 1, Op: op, Name: "step", Ins: []*ir.Value{x}, Outs: []*ir.Value{y}}}}}, codegen.Options{}))
	dim := []artifact.Dim{{Size: -1, Sym: "N"}}
	ins := []artifact.Port{{Name: "x", Kind: "tensor", DType: "f32", Shape: dim, Ranked: true}}
	outs := []artifact.Port{{Name: "y", Kind: "tensor", DType: "f32", Shape: dim, Ranked: true}}
	ref := artifact.FileRef{Path: "model/model.wasm", Digest: artifact.DigestOf(res.Module), Size: int64(len(res.Module))}
	doc := must[[]byte](t)(artifact.Canonical(artifact.Interface{
		Schema: artifact.InterfaceSchema, Name: "neg", Version: "1", ABI: abi.Version, MinRuntime: "0.1.0", Compiler: "test",
		Inputs: ins, Outputs: outs, State: []artifact.StateVar{}, Module: ref, Nodes: res.Nodes,
		Steps:  []artifact.Step{{Kind: "model", Name: "neg", File: ref, Inputs: ins, Outputs: outs}},
		Memory: artifact.Memory{Heap: res.HeapBase, Context: res.CtxSize, Arena: 1 << 16, Max: 16 << 20},
	}))
	dir := t.TempDir()
	m := &artifact.Model{}
	add := func(l artifact.Layer, b []byte) {
		f := filepath.Join(dir, filepath.FromSlash(l.Path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(f), 0o755), os.WriteFile(f, b, 0o644)); err != nil {
			t.Fatalf("%v", err)
		}
		l.Digest, l.Size = artifact.DigestOf(b), int64(len(b))
		m.Layers = append(m.Layers, l)
	}
	add(artifact.Layer{Role: artifact.RoleModule, Path: "model/model.wasm", Target: artifact.TargetAny}, res.Module)
	add(artifact.Layer{Role: artifact.RoleInterface, Path: "interface.json"}, doc)
	if promise != nil {
		add(artifact.Layer{Role: artifact.RoleGolden, Path: "golden.json", Personal: artifact.PersonalNone},
			must[[]byte](t)(artifact.Canonical(artifact.Golden{Schema: artifact.GoldenSchema, Vectors: []artifact.GoldenVector{{Name: "one",
				Inputs:   []artifact.GoldenTensor{probe.ToGolden("x", Of([]float32{1, -2}))},
				Expected: []artifact.GoldenTensor{probe.ToGolden("y", Of(promise))}}}})))
	}
	return dir, m
}

// shop is an OCI layout that a test fills, and the world that signs what is in it.
type shop struct {
	t     T
	dir   string
	index []artifact.Descriptor
	world *verifytest.World
}

func newShop(t T) *shop {
	t.Helper()
	s := &shop{t: t, dir: t.TempDir(), world: verifytest.New(t)}
	if err := os.MkdirAll(filepath.Join(s.dir, "blobs", "sha256"), 0o700); err != nil {
		t.Fatalf("%v", err)
	}
	return s
}

func (s *shop) blob(d artifact.Digest) string {
	return filepath.Join(s.dir, "blobs", "sha256", d.Hex())
}

func (s *shop) put(mediaType string, b []byte) artifact.Descriptor {
	s.t.Helper()
	d := artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b), Size: int64(len(b))}
	if err := os.WriteFile(s.blob(d.Digest), b, 0o600); err != nil {
		s.t.Fatalf("%v", err)
	}
	return d
}

// list adds an entry to the index.
func (s *shop) list(d artifact.Descriptor) {
	s.t.Helper()
	s.index = append(s.index, d)
	b := must[[]byte](s.t)(json.Marshal(map[string]any{"schemaVersion": 2, "manifests": s.index}))
	if err := os.WriteFile(filepath.Join(s.dir, "index.json"), b, 0o600); err != nil {
		s.t.Fatalf("%v", err)
	}
}

// pack stores the layers of an artifact and its manifest, which no index lists yet.
func (s *shop) pack(op string, promise ...float32) (artifact.Descriptor, *artifact.Model) {
	s.t.Helper()
	dir, m := folder(s.t, op, promise...)
	for _, l := range m.Layers {
		s.put("", must[[]byte](s.t)(os.ReadFile(filepath.Join(dir, filepath.FromSlash(l.Path)))))
	}
	raw, _, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "neg", Version: "1"}}, m.Layers, nil)
	if err != nil {
		s.t.Fatalf("%v", err)
	}
	return s.put(artifact.MediaTypeManifest, raw), m
}

// attach lists a bundle as a statement about a manifest.
func (s *shop) attach(about artifact.Descriptor, bundle []byte) {
	s.t.Helper()
	s.list(s.put(artifact.MediaTypeManifest, must[[]byte](s.t)(json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": artifact.MediaTypeManifest, "artifactType": artifact.MediaTypeBundle,
		"config": s.put(artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig)), "layers": []any{s.put(artifact.MediaTypeBundle, bundle)}, "subject": about,
	}))))
}

// release is how a program that trusts the world asks for the model.
func (s *shop) release() Release {
	s.t.Helper()
	file := filepath.Join(s.t.TempDir(), "trust.jsonl")
	if err := os.WriteFile(file, s.world.Trust(), 0o600); err != nil {
		s.t.Fatalf("%v", err)
	}
	now := s.world.Now
	return Release{From: s.dir, Model: "neg", Trust: file, TrustDigest: string(s.world.TrustRef().Digest), Now: func() time.Time { return now }}
}

// ReleaseForExample is a signed release of a model that negates a vector.
func ReleaseForExample(t T) Release {
	s := newShop(t)
	d, _ := s.pack("Neg", -1, 2)
	s.list(d)
	s.attach(d, s.world.Release("neg", d.Digest))
	return s.release()
}
