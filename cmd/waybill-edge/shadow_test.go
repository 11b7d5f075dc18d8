package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/internal/once"
)

// With a real process and real models: a candidate that answers otherwise is stopped in its shadow run while requests go on, none
// of which it answers; where other answers are wanted, it passes and is committed.
func TestShadowRun(t *testing.T) {
	once.Skip(t)
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	edit := func(old, fresh string) {
		t.Helper()
		raw, err := os.ReadFile(d.cfg)
		if err != nil || !bytes.Contains(raw, []byte(old)) {
			t.Fatalf("%s is not in the configuration: %v", old, err)
		}
		if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(old), []byte(fresh), 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit(`"interval"`, `"shadow": {"requests": 20, "duration": "1h", "max_different": 0.1}, "interval"`)
	d.start()
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	// load polls and asks until the poll is done; it returns how many requests another digest than v1 answered.
	load := func() (others int, err error) {
		t.Helper()
		answer := make(chan error, 1)
		go func() {
			_, err := d.do("poll")
			answer <- err
		}()
		for {
			select {
			case err := <-answer:
				return others, err
			default:
			}
			got, err := d.infer()
			if err != nil {
				t.Fatalf("a request failed: %v", err)
			}
			if got != v1.Digest {
				others++
			}
		}
	}
	p.Publish(p.Change(v2))
	others, err := load()
	if diag.CodeOf(err) != diag.RolledBack || !strings.Contains(err.Error(), "answers differ, at most 0.1 allowed") || others != 0 {
		t.Fatalf("v2 answered %d requests: %v", others, err)
	}
	s := d.status()
	if s.Current.Digest != v1.Digest || len(s.Quarantine) != 1 || !strings.HasPrefix(s.LastRollback.Reason, "shadow: ") {
		t.Errorf("status %+v", s)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	edit(`"max_different": 0.1`, `"max_different": 1`)
	d.start()
	p.Publish(p.Change(v2))
	if _, err := load(); err != nil {
		t.Fatal(err)
	}
	if s := d.status(); s.Current.Digest != v2.Digest || s.Current.Proof == nil || s.Current.Proof.Calls < 100 || s.Current.Proof.Memory == 0 {
		t.Errorf("status %+v", s.Current)
	}
	out, err := d.do("history")
	if err != nil || !strings.Contains(out, "live requests compared") || !strings.Contains(out, "golden vectors reproduced") {
		t.Errorf("history: %v\n%s", err, out)
	}
	if out, err := d.do("verify-journal"); err != nil {
		t.Errorf("verify-journal: %s, %v", out, err)
	}
}
