package main

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// Each platform's contract gives the numbers that the Open Inference Protocol gives, digit for digit.
func TestPlatforms(t *testing.T) {
	x := ship(t)
	row, err := edge.Values[float32](edgetest.Row(1))
	if err != nil {
		t.Fatal(err)
	}
	instances, err := json.Marshal(map[string]any{"instances": [][]float32{row}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ variant, health, predict string }{{"sagemaker", "/ping", "/invocations"}, {"vertex", "/ask/health", "/ask/now"}} {
		s := started(t, append(x.env(), "WAYBILL_VARIANT="+c.variant, "AIP_HEALTH_ROUTE=/ask/health", "AIP_PREDICT_ROUTE=/ask/now"), "serve")
		if code, _, b := call(t, "GET", s.url+c.health, "", nil); code != 200 || len(b) > 0 {
			t.Errorf("%s: health %d %q", c.variant, code, b)
		}
		code, _, b := call(t, "POST", s.url+"/v2/models/churn/infer", "application/json", question(t))
		var v2 struct {
			Outputs []struct{ Data []json.RawMessage }
		}
		if err := json.Unmarshal(b, &v2); err != nil || code != 200 {
			t.Fatalf("%d %s %v", code, b, err)
		}
		code, h, b := call(t, "POST", s.url+c.predict, "application/json", instances)
		if code != 200 || h.Get("Waybill-Digest") != string(x.target.Digest) {
			t.Errorf("%s: %d %s", c.variant, code, b)
		}
		for _, o := range v2.Outputs {
			for _, n := range o.Data {
				if !bytes.Contains(b, n) {
					t.Errorf("%s: no %s in %s", c.variant, n, b)
				}
			}
		}
		if code, _, again := call(t, "POST", s.url+c.predict, "application/json", question(t)); code != 200 || !bytes.Contains(again, []byte(`"outputs"`)) {
			t.Errorf("%s: the protocol's own request: %d %s", c.variant, code, again)
		}
	}
	s := launch(t, append(x.env(), "WAYBILL_VARIANT=vertex", "AIP_HEALTH_ROUTE=health"))
	if s.url != "" || s.wait() != int(diag.Usage) {
		t.Errorf("a route that is no path: %q\n%s", s.url, s.log)
	}
}
