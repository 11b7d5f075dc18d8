package monitor

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

func text(m *Metrics) string {
	var b bytes.Buffer
	m.Write(&b)
	return b.String()
}

// Every family has its help and type directly before its samples, counters end in _total, and buckets are cumulative.
func TestExposition(t *testing.T) {
	m := New()
	m.Request("", "", 404)
	m.Rejected("m", "queue")
	m.Swap("m")
	m.Active("m", "d", true)
	m.Released("m", time.Millisecond)
	m.SessionStarted("m")
	m.SessionEnded("m", "end")
	m.Gauge("waybill_ready", func() float64 { return 1 })
	d, n := m.Model("m", "d"), m.Name("m")
	d.Answered(200)
	n.InFlight.Inc()
	for _, v := range []time.Duration{0, 100 * time.Microsecond, 100*time.Microsecond + 1, time.Second, time.Minute} {
		d.Inference.Observe(v)
		n.Requests["grpc"].Observe(v)
	}
	out := text(m)
	for _, want := range []string{
		`waybill_inference_seconds_bucket{model="m",digest="d",le="0.0001"} 2`,
		`waybill_inference_seconds_bucket{model="m",digest="d",le="0.00025"} 3`,
		`waybill_inference_seconds_bucket{model="m",digest="d",le="1"} 4`,
		`waybill_inference_seconds_bucket{model="m",digest="d",le="10"} 4`,
		`waybill_inference_seconds_bucket{model="m",digest="d",le="+Inf"} 5`,
		`waybill_inference_seconds_count{model="m",digest="d"} 5`,
		`waybill_inference_seconds_sum{model="m",digest="d"} 61.000200001`,
		`waybill_request_seconds_count{model="m",protocol="grpc"} 5`,
		`waybill_request_seconds_count{model="m",protocol="rest"} 0`,
		`waybill_requests_total{model="m",digest="d",code="200"} 1`,
		`waybill_requests_in_flight{model="m"} 1`,
		`waybill_ready 1`,
	} {
		if !strings.Contains(out, want+"\n") {
			t.Errorf("lacks %s", want)
		}
	}
	family, seen := "", map[string]bool{}
	kind := ""
	sample := regexp.MustCompile(`^(waybill_\w+?)(\{[^}]*\})? [0-9.e+-]+$`)
	for line := range strings.Lines(out) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "# TYPE waybill_"); ok {
			name, k, _ := strings.Cut(rest, " ")
			family, kind = "waybill_"+name, k
			if seen[family] {
				t.Errorf("%s stands twice", family)
			}
			seen[family] = true
			if (kind == "counter") != strings.HasSuffix(family, "_total") {
				t.Errorf("%s is a %s", family, kind)
			}
			continue
		}
		if !strings.HasPrefix(line, "waybill_") {
			continue
		}
		s := sample.FindStringSubmatch(line)
		if s == nil || familyOf(s[1]) != family {
			t.Errorf("%q below %s", line, family)
		}
	}
	if len(seen) != len(families) {
		t.Errorf("%d families, want %d", len(seen), len(families))
	}
}

// A device that is updated for years does not collect the series of all it ever ran.
func TestOldDigestsAreForgotten(t *testing.T) {
	m := New()
	var size int
	for i := range 1000 {
		d := fmt.Sprintf("digest-%04d", i)
		v := m.Model("m", d)
		v.Answered(200)
		v.Answered(500)
		v.Inference.Observe(time.Millisecond)
		m.Active("m", d, true)
		if i > 0 {
			m.Active("m", fmt.Sprintf("digest-%04d", i-1), false)
		}
		if i == 2*keptDigests {
			size = strings.Count(text(m), "\n")
		}
	}
	out := text(m)
	if n := strings.Count(out, "\n"); n > size+20 {
		t.Errorf("%d lines after 1000 digests, %d after %d", n, size, 2*keptDigests)
	}
	if strings.Contains(out, "digest-0991") || !strings.Contains(out, `waybill_model_active{model="m",digest="digest-0999"} 1`) || !strings.Contains(out, "digest-0992") {
		t.Error("the last eight should be there, and no others")
	}
	if a, b := m.Model("m", "digest-0992"), m.Model("m", "digest-0992"); a != b {
		t.Error("a digest that comes back has two sets of series")
	}
}

func BenchmarkObserve(b *testing.B) {
	d := New().Model("m", "d")
	b.ReportAllocs()
	for b.Loop() {
		d.Inference.Observe(time.Millisecond)
		d.Answered(200)
	}
}
