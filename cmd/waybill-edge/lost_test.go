package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// edit changes the configuration of a device.
func (d *edge) edit(change func(c map[string]any)) {
	d.t.Helper()
	raw, err := os.ReadFile(d.cfg)
	var c map[string]any
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err == nil {
		change(c)
		raw, err = json.Marshal(c)
	}
	if err == nil {
		err = os.WriteFile(d.cfg, raw, 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// A device that lost its time zone data starts and serves; it takes no update by itself, and says why.
func TestLostTimeZone(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: 1})
	p.Publish(p.Change(v1))
	d.start()
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	d.edit(func(c map[string]any) { c["windows"], c["timezone"] = []string{"00:00-24:00"}, "Nowhere/At_All" })
	d.start()
	p.Publish(p.Change(v2))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("%s, %v", got.Short(), err)
	}
	told := func(when string) {
		t.Helper()
		text, err := d.do("status")
		if err != nil || !strings.Contains(strings.Join(strings.Fields(text), " "), `no maintenance window can open`) || !strings.Contains(text, "Nowhere/At_All") {
			t.Errorf("status %s: %v\n%s", when, err, text)
		}
		if _, err := d.do("doctor", "--offline"); diag.CodeOf(err) != diag.Failure {
			t.Errorf("doctor %s: %v", when, err)
		}
		out, _ := d.do("doctor", "--offline", "--output", "json")
		if !strings.Contains(strings.Join(strings.Fields(out), ""), `"check":"windowsprod","status":"fail"`) {
			t.Errorf("doctor %s: %s", when, out)
		}
	}
	told("while it runs")
	if out, err := d.do("poll", "--now"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Fatalf("%s, %v", got.Short(), err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(d.log.String(), "Nowhere/At_All") {
		t.Errorf("the log says nothing:\n%s", d.log)
	}
	told("while it is down")
}
