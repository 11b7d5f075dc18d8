package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// With a real process and real models: a candidate that answers otherwise is stopped in its shadow run while requests go on, none
// of which it answers; where other answers are wanted, it passes and is committed.
func TestShadowRun(t *testing.T) {
	p := newPublisher(t)
	v1, v2 := p.pack("v1"), p.pack("v2")
	d := enrolled(t, p, trialConfig{Duration: duration(time.Millisecond)})
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
	p.publish(p.change(v1))
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
	p.publish(p.change(v2))
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
	p.publish(p.change(v2))
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

func TestShadowConfig(t *testing.T) {
	ok := &shadowConfig{}
	if err := ok.check(); err != nil || ok.Requests != 200 || *ok.Sample != 1 || time.Duration(ok.Duration) != 5*time.Minute {
		t.Errorf("defaults: %+v, %v", ok, err)
	}
	half, none := 0.5, 0.0
	for want, s := range map[string]*shadowConfig{
		"requests":                   {Requests: -1},
		"sample: 0 is not above 0":   {Sample: &none},
		"max_different: 2 is not":    {MaxDifferent: 2, Sample: &half},
		"rtol, atol or p99_ratio is": {RTol: -1},
	} {
		if err := s.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want %s", s, err, want)
		}
	}
}
