package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// give writes the factory artifact into the device's configuration.
func (d *edge) give(f config.Factory) {
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
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{})
	fac := p.Layout(v1.Digest)
	d.give(fac)
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(p.Host), []byte("127.0.0.1:1"), 1), 0o600); err != nil {
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
	p.Publish(p.Change(v2))
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
