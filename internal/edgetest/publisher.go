package edgetest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	ociserver "github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
	"github.com/waybill-ml/waybill/packager/build"
)

// Saved is what `waybill save REF --with-evidence --channel prod` writes of the channel: its records and targets.
func (p *Publisher) Saved(t *testing.T) []byte {
	t.Helper()
	items := []registry.SaveItem{{From: p.Repo, Target: channel.Tag("prod"), Name: "churn:" + channel.Tag("prod"), Along: true}}
	for seq := p.Head.Record.Seq; seq > 0; seq-- {
		items = append(items, registry.SaveItem{From: p.Repo, Target: channel.SeqTag("prod", seq), Name: "churn:" + channel.SeqTag("prod", seq), Along: true})
	}
	items = append(items, registry.SaveItem{From: p.Repo, Target: string(p.Head.Record.Target.Digest), Name: "churn:" + p.Head.Record.Target.Version})
	var b bytes.Buffer
	if _, err := registry.Save(t.Context(), &b, items, registry.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const Model = "churn" // of verifytest's world

// Publisher is the other side: an embedded registry and the keys of a verifytest world whose time is now.
type Publisher struct {
	*verifytest.World
	T    *testing.T
	Repo *registry.Remote
	Host string
	Head *channel.Head

	Mu    sync.Mutex
	Alter artifact.Digest // blob that is served with one byte changed
}

func NewPublisher(t *testing.T) *Publisher {
	t.Helper()
	p := &Publisher{World: verifytest.New(t), T: t}
	p.Now = time.Now().UTC().Truncate(time.Second)
	p.Doc.Issued, p.Doc.Expires = p.Now.Add(-time.Hour), p.Now.Add(24*time.Hour)
	s, err := ociserver.New(t.TempDir(), ociserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.Mu.Lock()
		alter := p.Alter
		p.Mu.Unlock()
		if alter == "" || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, string(alter)) {
			s.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		b := rec.Body.Bytes()
		b[len(b)/2] ^= 1
		w.WriteHeader(rec.Code)
		_, _ = w.Write(b)
	}))
	t.Cleanup(func() {
		h.Close()
		_ = s.Close()
	})
	p.Host = strings.TrimPrefix(h.URL, "http://")
	if p.Repo, err = registry.NewRemote(p.Host, "ml/churn", registry.RemoteOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// Pack compiles an example, records its golden vectors with the engine, and pushes the artifact.
func (p *Publisher) Pack(example string) channel.Target {
	p.T.Helper()
	type files struct{ module, weights, iface, golden []byte }
	v, ok := compiled.Load(example)
	if !ok {
		raw, err := exampleModel(example)
		if err != nil {
			p.T.Fatal(err)
		}
		m, err := build.Compile(p.T.Context(), build.Source{Path: "model.onnx", Data: raw}, build.Options{Name: Model, Version: example})
		if err != nil {
			p.T.Fatal(err)
		}
		iface, err := artifact.Canonical(m.Interface)
		if err != nil {
			p.T.Fatal(err)
		}
		v = files{m.Code, m.Weights, iface, p.golden(m)}
		compiled.Store(example, v)
	}
	f := v.(files)
	ctx := p.T.Context()
	var ls []artifact.Layer
	for _, x := range []struct {
		path string
		role artifact.Role
		data []byte
	}{{"model.wasm", artifact.RoleModule, f.module}, {"weights.bin", artifact.RoleWeights, f.weights}, {"interface.json", artifact.RoleInterface, f.iface}, {"golden.json", artifact.RoleGolden, f.golden}} {
		if x.data == nil {
			continue
		}
		d, err := registry.PushBytes(ctx, p.Repo, "application/octet-stream", x.data)
		if err != nil {
			p.T.Fatal(err)
		}
		l := artifact.Layer{Role: x.role, Path: x.path, Digest: d.Digest, Size: d.Size}
		switch x.role {
		case artifact.RoleModule:
			l.Target = artifact.TargetAny
		case artifact.RoleGolden:
			l.Personal = artifact.PersonalNone
		}
		ls = append(ls, l)
	}
	manifest, cfg, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: Model, Version: example}}, ls, nil)
	if err != nil {
		p.T.Fatal(err)
	}
	if _, err := registry.PushBytes(ctx, p.Repo, artifact.MediaTypeConfig, cfg); err != nil {
		p.T.Fatal(err)
	}
	d, err := p.Repo.PushManifest(ctx, manifest, artifact.MediaTypeManifest, example)
	if err != nil {
		p.T.Fatal(err)
	}
	return channel.Target{Name: Model, Repo: "ml/churn", Digest: d.Digest, Size: d.Size, Version: example}
}

// golden records what the module computes for a few rows.
func (p *Publisher) golden(m *build.Model) []byte {
	p.T.Helper()
	ctx := p.T.Context()
	e, err := engine.New(ctx, engine.Config{})
	if err != nil {
		p.T.Fatal(err)
	}
	defer e.Close(ctx)
	loaded, err := e.Load(ctx, m.Code, engine.WeightsSource{Bytes: m.Weights}, m.Interface)
	if err != nil {
		p.T.Fatal(err)
	}
	g := artifact.Golden{Schema: artifact.GoldenSchema}
	for n := range 4 {
		in := Row(n)
		outs, err := loaded.Run(ctx, []engine.Tensor{in})
		if err != nil {
			p.T.Fatal(err)
		}
		v := artifact.GoldenVector{Name: fmt.Sprint("row ", n), Inputs: []artifact.GoldenTensor{probe.ToGolden(m.Interface.Inputs[0].Name, in)}}
		for i, o := range outs {
			v.Expected = append(v.Expected, probe.ToGolden(m.Interface.Outputs[i].Name, o))
		}
		g.Vectors = append(g.Vectors, v)
	}
	b, err := artifact.Canonical(g)
	if err != nil {
		p.T.Fatal(err)
	}
	return b
}

func Row(n int) engine.Tensor {
	v := make([]float32, 30)
	for i := range v {
		v[i] = float32((i*37+n*11)%50) / 2
	}
	return engine.Of(v, 1, 30)
}

// Change is the input for the next record, with its evidence pushed.
func (p *Publisher) Change(target channel.Target, edit ...func(*evidence.VSA)) channel.Change {
	p.T.Helper()
	c := p.World.Change(target)
	vsa := p.VSA()
	if p.Head != nil {
		vsa.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: p.Head.Record.Seq, Champion: p.Head.Record.Target.Digest}
	}
	for _, e := range edit {
		e(vsa)
	}
	rel, verdict := p.Release(Model, target.Digest), p.SignVSA(target.Digest, vsa)
	c.Evidence = nil
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: target.Digest, Size: target.Size}
	for _, x := range []struct {
		typ string
		b   []byte
	}{{evidence.TypeRelease, rel}, {evidence.TypeVSA, verdict}} {
		if _, err := p.Repo.Attach(p.T.Context(), subject, x.b, x.typ); err != nil {
			p.T.Fatal(err)
		}
		c.Evidence = append(c.Evidence, verifytest.Ref(x.typ, target.Digest, x.b))
	}
	return c
}

func (p *Publisher) Publish(c channel.Change) {
	p.T.Helper()
	r, err := channel.Next(p.Head, c)
	if err != nil {
		p.T.Fatal(err)
	}
	p.Push(r)
}

func (p *Publisher) Push(r *channel.Record) {
	p.T.Helper()
	head, raw := p.SignRecord(trust.RoleDeployer, r)
	p.tag(raw, channel.SeqTag("prod", r.Seq))
	p.tag(raw, channel.Tag("prod"))
	p.Head = head
}

func (p *Publisher) tag(raw []byte, tag string) {
	p.T.Helper()
	ctx := p.T.Context()
	d, err := registry.PushBytes(ctx, p.Repo, artifact.MediaTypeBundle, raw)
	if err == nil {
		_, err = registry.PushBytes(ctx, p.Repo, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	}
	if err != nil {
		p.T.Fatal(err)
	}
	m, err := json.Marshal(artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeChannel,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: 2}, Layers: []artifact.Descriptor{d},
	})
	if err == nil {
		_, err = p.Repo.PushManifest(ctx, m, artifact.MediaTypeManifest, tag)
	}
	if err != nil {
		p.T.Fatal(err)
	}
}

// Layout writes an artifact with its release as the directory of an OCI layout, and gives what a configuration pins of it.
func (p *Publisher) Layout(digest artifact.Digest) config.Factory {
	p.T.Helper()
	dir := p.T.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		p.T.Fatal(err)
	}
	put := func(b []byte) artifact.Digest {
		d := artifact.DigestOf(b)
		if err := os.WriteFile(filepath.Join(blobs, d.Hex()), b, 0o600); err != nil {
			p.T.Fatal(err)
		}
		return d
	}
	ctx := p.T.Context()
	raw, _, err := p.Repo.GetBounded(ctx, string(digest), artifact.MaxManifest)
	if err != nil {
		p.T.Fatal(err)
	}
	put(raw)
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		p.T.Fatal(err)
	}
	for _, l := range m.Layers {
		r, err := p.Repo.BlobFrom(ctx, l, 0)
		if err != nil {
			p.T.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			p.T.Fatal(err)
		}
		_ = r.Close()
		put(b.Bytes())
	}
	for name, text := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			p.T.Fatal(err)
		}
	}
	return config.Factory{Source: dir, Digest: digest, Release: []artifact.Digest{put(p.Release(Model, digest))}}
}
