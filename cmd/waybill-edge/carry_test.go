package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// A device without a network follows its channel from a stick with a saved archive, and waits for its maintenance window.
func TestStick(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1 := p.Pack("v1")
	p.Publish(p.Change(v1))
	d := enrolled(t, p, config.Trial{Duration: 1})
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(raw, &c); err != nil {
		t.Fatal(err)
	}
	ch := c["channels"].([]any)[0].(map[string]any)
	delete(ch, "registry")
	delete(ch, "repo")
	ch["carriers"] = []any{map[string]any{"folder": "stick"}}
	set := func(key string, v any) {
		t.Helper()
		if c[key] = v; v == nil {
			delete(c, key)
		}
		raw, err := json.Marshal(c)
		if err == nil {
			err = os.WriteFile(d.cfg, raw, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set("bandwidth", "512kB/s")
	d.start()
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("without the stick: %v\n%s", err, out)
	}
	stick := filepath.Join(filepath.Dir(d.cfg), "stick")
	if err := os.Mkdir(stick, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(stick, "waybill.tar"), p.Saved(t), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, d.log)
	}
	if s := d.status(); s.Current == nil || s.Current.Digest != v1.Digest || len(s.Carriers) != 1 || s.Carriers[0].State != carrier.OK {
		t.Fatalf("%+v", s)
	}
	// A window of one minute, three days from now: it is closed, whatever the hour.
	v2 := p.Pack("v2")
	p.Publish(p.Change(v2))
	if err := os.WriteFile(filepath.Join(stick, "waybill.tar"), p.Saved(t), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	closed := p.Now.UTC().AddDate(0, 0, 3).Weekday().String()
	set("windows", []string{closed + " 00:00-00:01"})
	set("timezone", "UTC")
	d.start()
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if s := d.status(); s.Current.Digest != v1.Digest || s.Waiting == nil || !strings.Contains(s.Waiting.Reason, "maintenance window") {
		t.Fatalf("%+v", s)
	}
	if out, err := d.do("poll", "--now"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if s := d.status(); s.Current.Digest != v2.Digest || s.Waiting != nil {
		t.Fatalf("%+v", s)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
}
