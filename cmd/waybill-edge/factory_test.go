package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// layout writes an artifact with its release as the directory of an OCI layout, and gives what a configuration pins of it.
func (p *publisher) layout(digest artifact.Digest) factoryConfig {
	p.t.Helper()
	dir := p.t.TempDir()
	blobs := filepath.Join(dir, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o700); err != nil {
		p.t.Fatal(err)
	}
	put := func(b []byte) artifact.Digest {
		d := artifact.DigestOf(b)
		if err := os.WriteFile(filepath.Join(blobs, d.Hex()), b, 0o600); err != nil {
			p.t.Fatal(err)
		}
		return d
	}
	ctx := p.t.Context()
	raw, _, err := p.repo.GetBounded(ctx, string(digest), artifact.MaxManifest)
	if err != nil {
		p.t.Fatal(err)
	}
	put(raw)
	m, err := artifact.ParseManifest(raw)
	if err != nil {
		p.t.Fatal(err)
	}
	for _, l := range m.Layers {
		r, err := p.repo.BlobFrom(ctx, l, 0)
		if err != nil {
			p.t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := b.ReadFrom(r); err != nil {
			p.t.Fatal(err)
		}
		_ = r.Close()
		put(b.Bytes())
	}
	for name, text := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": `{"schemaVersion":2,"manifests":[]}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
	return factoryConfig{Source: dir, Digest: digest, Release: []artifact.Digest{put(p.Release(modelName, digest))}}
}

// give writes the factory artifact into the device's configuration.
func (d *edge) give(f factoryConfig) {
	d.t.Helper()
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	b, err := json.Marshal(f)
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(`"interval"`), append(append([]byte(`"factory": `), b...), `, "interval"`...), 1), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// A real process with no registry in reach serves its factory artifact, keeps it when the source is gone, takes the channel's
// artifact when the registry is there, and goes back to the factory's by hand.
func TestFactoryArtifact(t *testing.T) {
	p := newPublisher(t)
	v1, v2 := p.pack("v1"), p.pack("v2")
	d := enrolled(t, p, trialConfig{})
	fac := p.layout(v1.Digest)
	d.give(fac)
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(p.host), []byte("127.0.0.1:1"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("first boot without a network: %s, %v", got, err)
	}
	d.kill()
	if err := os.RemoveAll(fac.Source); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(`"duration": "1m0s"`), []byte(`"duration": "1ms"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("without its source: %s, %v", got, err)
	}
	p.publish(p.change(v2))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Errorf("after an update: %s, %v", got, err)
	}
	if out, err := d.do("rollback", "--to", string(v1.Digest)); err != nil {
		t.Errorf("rollback: %s, %v", out, err)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("after the rollback: %s, %v", got, err)
	}
	if out, err := d.do("history"); err != nil || !strings.Contains(out, "factory") {
		t.Errorf("history: %s, %v", out, err)
	}
}

func TestFactoryConfig(t *testing.T) {
	d := artifact.DigestOf(nil)
	for want, f := range map[string]*factoryConfig{
		"source is missing":  {Digest: d, Release: []artifact.Digest{d}},
		"digest: ":           {Source: "x", Release: []artifact.Digest{d}},
		"release is missing": {Source: "x", Digest: d},
		"release[0]: ":       {Source: "x", Digest: d, Release: []artifact.Digest{"v1"}},
		"epoch is negative":  {Source: "x", Digest: d, Release: []artifact.Digest{d}, Epoch: -1},
		"":                   {Source: "x", Digest: d, Release: []artifact.Digest{d}, Epoch: 1},
	} {
		if err := f.check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %q", f, err, want)
		}
	}
}
