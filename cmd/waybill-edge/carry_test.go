package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/registry"
)

// saved is what `waybill save REF --with-evidence --channel prod` writes of the channel: its records and targets.
func (p *publisher) saved(t *testing.T) []byte {
	t.Helper()
	items := []registry.SaveItem{{From: p.repo, Target: channel.Tag("prod"), Name: "churn:" + channel.Tag("prod"), Along: true}}
	for seq := p.head.Record.Seq; seq > 0; seq-- {
		items = append(items, registry.SaveItem{From: p.repo, Target: channel.SeqTag("prod", seq), Name: "churn:" + channel.SeqTag("prod", seq), Along: true})
	}
	items = append(items, registry.SaveItem{From: p.repo, Target: string(p.head.Record.Target.Digest), Name: "churn:" + p.head.Record.Target.Version})
	var b bytes.Buffer
	if _, err := registry.Save(t.Context(), &b, items, registry.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A device without a network follows its channel from a stick with a saved archive, and waits for its maintenance window.
func TestStick(t *testing.T) {
	p := newPublisher(t)
	v1 := p.pack("v1")
	p.publish(p.change(v1))
	d := enrolled(t, p, trialConfig{Duration: 1})
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
	if err := os.WriteFile(filepath.Join(stick, "waybill.tar"), p.saved(t), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, d.log)
	}
	if s := d.status(); s.Current == nil || s.Current.Digest != v1.Digest || len(s.Carriers) != 1 || s.Carriers[0].State != carrier.OK {
		t.Fatalf("%+v", s)
	}
	// A window of one minute, three days from now: it is closed, whatever the hour.
	v2 := p.pack("v2")
	p.publish(p.change(v2))
	if err := os.WriteFile(filepath.Join(stick, "waybill.tar"), p.saved(t), 0o644); err != nil {
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

func TestCarryConfig(t *testing.T) {
	good := func(edit string) error {
		var c channelConfig
		raw := `{"name":"prod","env":"prod","model":"churn","resource_uri":"x","interval":"1m"` + edit + `}`
		if err := decode("config.json", []byte(raw), &c); err != nil {
			return err
		}
		return checkChannels([]channelConfig{c})
	}
	for _, ok := range []string{
		`,"registry":"reg.example","repo":"ml/churn"`, `,"carriers":[{"registry":"reg.example","repo":"ml/churn"},{"folder":"/media"},{"mirror":"https://m.example/x"}]`,
		`,"carriers":[{"folder":"s"}],"windows":["Mon-Fri 02:00-05:00"],"timezone":"UTC","download":"always","no_clock":"update","bandwidth":"512kB/s","min_rate":"1kB"`,
	} {
		if err := good(ok); err != nil {
			t.Errorf("%s: %v", ok, err)
		}
	}
	for _, bad := range []string{
		``, `,"carriers":[]`, `,"carriers":[{}]`, `,"carriers":[{"folder":"a","mirror":"https://b"}]`, `,"registry":"r","repo":"a","carriers":[{"folder":"s"}]`, `,"carriers":[{"registry":"r"}]`,
		`,"carriers":[{"folder":"s","plain_http":true}]`, `,"carriers":[{"mirror":"ftp://x"}]`, `,"carriers":[{"folder":"s"}],"windows":["Mo 1-2"]`, `,"carriers":[{"folder":"s"}],"timezone":"Nowhere/At_All"`,
		`,"carriers":[{"folder":"s"}],"download":"never"`, `,"carriers":[{"folder":"s"}],"bandwidth":"10"`, `,"carriers":[{"folder":"s"}],"bandwidth":"fast"`, `,"carriers":[{"folder":"s"}],"no_clock":"maybe"`, `,"carriers":[{"folders":"s"}]`,
	} {
		if err := good(bad); err == nil {
			t.Errorf("%s is taken", bad)
		}
	}
}
