//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

func scrape(t *testing.T, addr string) string {
	t.Helper()
	resp, err := http.Get(addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	return string(raw)
}

// The real Prometheus scrapes the agent, through installs and rollbacks, and finds the figures; rules and their tests pass.
func TestPrometheus(t *testing.T) {
	promtool, prometheus := edgetest.Tool(t, "promtool"), edgetest.Tool(t, "prometheus")
	rules, err := filepath.Abs("../../examples/prometheus")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"check", "rules", "waybill-alerts.yml"}, {"test", "rules", "waybill-alerts-test.yml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = rules
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(100 * time.Millisecond), MinRequests: 1000})
	d.start()
	edgetest.CheckMetrics(t, scrape(t, d.addr)) // before anything serves
	p.Publish(p.Change(v1))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := d.infer(); err != nil {
		t.Fatal(err)
	}
	p.Publish(p.Change(v2))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := d.do("rollback"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, err := d.infer(); err != nil {
		t.Fatal(err)
	}
	text := scrape(t, d.addr)
	edgetest.CheckMetrics(t, text)
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (waybill_\w+)`).FindAllStringSubmatch(text, -1) {
		if !bytes.Contains(doc, []byte("`"+m[1]+"`")) {
			t.Errorf("docs/metrics.md does not describe %s", m[1])
		}
	}

	dir := t.TempDir()
	alerts, err := os.ReadFile(filepath.Join(rules, "waybill-alerts.yml"))
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("global: {scrape_interval: 200ms, evaluation_interval: 200ms}\nrule_files: [alerts.yml]\nscrape_configs:\n  - job_name: waybill\n    static_configs: [{targets: [%q]}]\n", strings.TrimPrefix(d.addr, "http://"))
	for name, b := range map[string][]byte{"prometheus.yml": []byte(config), "alerts.yml": alerts} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := startPrometheus(t, prometheus, dir)
	query := func(q string) string {
		resp, err := http.Get(base + "/api/v1/query?query=" + url.QueryEscape(q))
		if err != nil {
			return "not asked: " + err.Error()
		}
		defer resp.Body.Close()
		var r struct {
			Status string
			Data   struct {
				Result []struct{ Value [2]any }
			}
		}
		if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || r.Status != "success" {
			return fmt.Sprintf("%s, %v", r.Status, err)
		}
		if len(r.Data.Result) != 1 {
			return fmt.Sprintf("%d results", len(r.Data.Result))
		}
		return fmt.Sprint(r.Data.Result[0].Value[1])
	}
	for q, want := range map[string]string{
		`up{job="waybill"}`: "1",
		`waybill_model_info{channel="prod",model="churn",version="v1"}`:                      "1",
		`waybill_model_info{digest="` + string(v1.Digest) + `"}`:                             "1",
		`sum(waybill_model_info)`:                                                            "1",
		`waybill_channel_seq{channel="prod"}`:                                                "2",
		`waybill_channel_state{state="committed"}`:                                           "1",
		`sum(waybill_channel_state)`:                                                         "1",
		`waybill_channel_serving`:                                                            "1",
		`waybill_channel_pinned`:                                                             "1",
		`waybill_channel_stale`:                                                              "0",
		`waybill_rollbacks_total{reason="by_hand"}`:                                          "1",
		`sum(waybill_rollbacks_total)`:                                                       "1",
		`waybill_commits_total`:                                                              "2",
		`waybill_polls_total{outcome="failed"}`:                                              "0",
		`waybill_download_bytes_total > bool 10000`:                                          "1",
		`waybill_journal_entries > bool 8`:                                                   "1",
		`waybill_state_free_bytes > bool 1000000`:                                            "1",
		`waybill_trust_version`:                                                              "1",
		`waybill_clock_floor_lag_seconds`:                                                    "0",
		`waybill_probe_seconds > bool 0`:                                                     "1",
		`(waybill_channel_expiry_timestamp_seconds > bool time())`:                           "1",
		`(waybill_poll_success_timestamp_seconds > bool (time() - 3600))`:                    "1",
		`sum(waybill_requests_total{code="200"})`:                                            "2",
		`histogram_quantile(0.99, sum by (le) (waybill_inference_seconds_bucket)) < bool 10`: "1",
		`process_resident_memory_bytes{job="waybill"} > bool 1000000`:                        "1",
		`count(ALERTS{alertname=~"WaybillNothingServes|WaybillChannelStale|WaybillRolledBack"}) or vector(0)`: "0",
	} {
		deadline := time.Now().Add(time.Minute)
		got := query(q)
		for got != want && time.Now().Before(deadline) {
			time.Sleep(50 * time.Millisecond)
			got = query(q)
		}
		if got != want {
			t.Errorf("%s = %s, want %s", q, got, want)
		}
	}
}

// startPrometheus starts the server on a free port and gives its address.
func startPrometheus(t *testing.T, exe, dir string) string {
	t.Helper()
	for range 5 { // somebody may take the port between the two
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().String()
		_ = l.Close()
		cmd := exec.Command(exe, "--config.file="+filepath.Join(dir, "prometheus.yml"), "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr)
		var log bytes.Buffer
		cmd.Stdout, cmd.Stderr = &log, &log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		stop := func() {
			_ = cmd.Process.Kill()
			<-ended
		}
		deadline := time.Now().Add(time.Minute)
		for time.Now().Before(deadline) {
			select {
			case <-ended:
				ended <- nil
				deadline = time.Time{}
				continue
			default:
			}
			resp, err := http.Get("http://" + addr + "/-/ready")
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					t.Cleanup(stop)
					return "http://" + addr
				}
			}
			time.Sleep(20 * time.Millisecond)
		}
		stop()
		t.Logf("Prometheus did not start at %s:\n%s", addr, log.Bytes())
	}
	t.Fatal("Prometheus did not start")
	return ""
}
