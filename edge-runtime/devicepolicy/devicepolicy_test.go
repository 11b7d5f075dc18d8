package devicepolicy

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/deviceinput/deviceinputtest"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/device"
)

const head = "package waybill.device\n\ndefault allow := false\n\n"

// build compiles Rego as `waybill policy pack --device` does.
func build(t testing.TB, rego string) []byte {
	t.Helper()
	b, err := bundle.FromFS(fstest.MapFS{"device.rego": {Data: []byte(head + rego)}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := device.Compile(context.Background(), b)
	if err != nil {
		t.Fatal(err)
	}
	return m.Code
}

func newEngine(t testing.TB, cfg engine.Config) *engine.Engine {
	t.Helper()
	e, err := engine.New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close(context.Background()) })
	return e
}

func load(t testing.TB, e *engine.Engine, code []byte) *Policy {
	t.Helper()
	p, err := Load(context.Background(), e, code, WithTimeout(time.Minute)) // a busy machine; tests of the bound set their own
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	return p
}

func encode(t testing.TB, d *deviceinput.Document) []byte {
	t.Helper()
	raw, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

const batteryPolicy = `
allow if input.device.battery.percent >= 30

allow if input.device.battery.charging == true

reasons contains $"battery {input.device.battery.percent} %, needs 30 % or a charger" if {
	input.device.battery.percent < 30
	input.device.battery.charging == false
}

reasons contains "the battery cannot be read" if input.device.battery.known == false
`

func TestEvaluate(t *testing.T) {
	for _, mode := range []engine.Mode{engine.Auto, engine.Interpreter} {
		p := load(t, newEngine(t, engine.Config{Mode: mode}), build(t, batteryPolicy))
		for range 2 { // nothing is left behind by an evaluation
			d := deviceinputtest.Good()
			if got := p.Evaluate(t.Context(), encode(t, d)); !got.Allow || got.Err != nil || len(got.Reasons) != 0 {
				t.Fatalf("80 %%: %+v", got)
			}
			d.Device.Battery.Percent = new(int64(12))
			got := p.Evaluate(t.Context(), encode(t, d))
			if got.Allow || got.Err != nil || got.Why() != "battery 12 %, needs 30 % or a charger" {
				t.Fatalf("12 %%: %+v", got)
			}
			d.Device.Battery.Charging = new(true)
			if got := p.Evaluate(t.Context(), encode(t, d)); !got.Allow {
				t.Fatalf("charging: %+v", got)
			}
			d.Device.Battery = deviceinput.Battery{}
			got = p.Evaluate(t.Context(), encode(t, d))
			if got.Allow || got.Why() != "the battery cannot be read" {
				t.Fatalf("unknown: %+v", got)
			}
		}
	}
}

// Without its schema the input is what an attacker, or a bug, makes of it; with it the policy never sees it.
func TestInputIsChecked(t *testing.T) {
	p := load(t, newEngine(t, engine.Config{}), build(t, batteryPolicy))
	low := deviceinputtest.Good()
	low.Device.Battery.Percent, low.Device.Battery.Charging = new(int64(3)), new(false)
	raw := compact(t, encode(t, low))
	for name, c := range map[string]struct{ in, err string }{
		"percent as text":  {strings.Replace(raw, `"percent":3`, `"percent":"3"`, 1), "percent"}, // texts come after numbers in Rego's order
		"percent above":    {strings.Replace(raw, `"percent":3`, `"percent":300`, 1), "between 0 and 100"},
		"percent an array": {strings.Replace(raw, `"percent":3`, `"percent":[]`, 1), "percent"},
		"given twice":      {strings.Replace(raw, `"percent":3`, `"percent":3,"percent":90`, 1), "twice"},
	} {
		if c.in == raw {
			t.Fatal(name)
		}
		if got := p.Evaluate(t.Context(), []byte(c.in)); got.Allow || got.Err == nil || !strings.Contains(got.Err.Error(), c.err) {
			t.Errorf("%s: %+v", name, got)
		}
		open := p.checksOff()
		if got := open.Evaluate(t.Context(), []byte(c.in)); !got.Allow {
			t.Errorf("%s: not allowed without the check too: %+v", name, got)
		}
	}
}

// checksOff is p without the check of its input.
func (p *Policy) checksOff() *Policy {
	q := &Policy{digest: p.digest, timeout: p.timeout, checks: p.checks, foreign: p.foreign, env: p.env, allow: p.allow, reasons: p.reasons}
	q.checks.input = func([]byte) error { return nil }
	return q
}

func compact(t testing.TB, raw []byte) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, raw); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
