package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// A real process whose state documents are all damaged serves what it had committed, keeps the documents aside and says so.
func TestLostState(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1 := p.Pack("v1")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	d.start()
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	d.kill()
	cfg, err := config.Load(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	docs, err := filepath.Glob(filepath.Join(cfg.State, "state.0*"))
	if err != nil || len(docs) == 0 {
		t.Fatalf("documents: %v, %v", docs, err)
	}
	for _, f := range docs {
		if err := os.WriteFile(f, []byte("damaged"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := d.do("doctor"); err == nil || !strings.Contains(out, "rebuilds it from the journal") {
		t.Errorf("doctor before: %s, %v", out, err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("serves %s, %v", got, err)
	}
	if s := d.status(); s.Seq != 1 || s.Current == nil || s.Current.Digest != v1.Digest {
		t.Errorf("status %+v", s)
	}
	for _, f := range docs {
		if _, err := os.Stat(f + ".damaged"); err != nil {
			t.Error(err)
		}
	}
	for _, c := range []struct{ command, want string }{{"status", "STATE REBUILT"}, {"history", "the state was rebuilt"}, {"doctor", "it was rebuilt at"}} {
		if out, _ := d.do(c.command); !strings.Contains(strings.Join(strings.Fields(out), " "), c.want) { // doctor's code depends on the machine
			t.Errorf("%s: %s", c.command, out)
		}
	}
	if out, err := d.do("status", "--output", "json"); err != nil || !strings.Contains(out, `"rebuilt"`) {
		t.Errorf("status --output json: %s, %v", out, err)
	}
}
