package view

import (
	"bytes"
	"encoding/json"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/internal/ui"
)

func TestPrintStatus(t *testing.T) {
	var b bytes.Buffer
	if err := PrintStatus(&b, edgetest.TwoChannels(), 100); err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{
		"channel  model  running", "prod     churn  2.0 9b9b9b", "3.1 cbcbcb", "1.4 7b7b7b", "trial (48 s left)", "1.2 M ok, 0 failed", "3 d 4 h",
		"last rollback: prod ebebebebebeb -> 2.0 9b9b9b9b9b9b on 2026-11-19 14:02, latency budget: p99 41ms\n  over 5ms in 300 requests\n",
		"trust version 7, clock ok, journal 1,204 entries verified, 212 MB free\n",
	} {
		if !strings.Contains(b.String(), part) {
			t.Errorf("%q is missing in\n%s", part, b.String())
		}
	}
	evil := edgetest.TwoChannels()
	evil.Channels[0].Model = "x\x1b[2J\ny\u202e"
	evil.Channels[0].LastRollback.Reason = "r\x1b]0;t\x07\nprod     churn  6.6 evil"
	evil.Channels[0].Channel, evil.Channels[0].Current.Version = strings.Repeat("long-", 30), strings.Repeat("9", 200)
	evil.AgentState, evil.ClockOK, evil.ClockFloor = control.Busy, false, evil.At.Add(49*time.Hour)
	evil.JournalState = "the journal is damaged: entry 7 does not follow the one before it"
	for _, s := range []agent.Status{edgetest.TwoChannels(), evil, {At: evil.At, AgentState: control.Down}} {
		for _, width := range []int{100, 80, 60, 40, 24} {
			b.Reset()
			if err := PrintStatus(&b, s, width); err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(b.String()) {
				l = strings.TrimSuffix(l, "\n")
				if ui.Width(l) > width || strings.ContainsAny(l, "\x1b\x07\r\u202e") {
					t.Errorf("width %d: %q", width, l)
				}
			}
			if strings.Contains(b.String(), "\nprod     churn  6.6 evil") {
				t.Error("a reason made a line of its own")
			}
		}
	}
}

func TestPrintHistory(t *testing.T) {
	at := time.Date(2026, 11, 23, 10, 0, 0, 0, time.UTC)
	d, from := edgetest.Slot("", '9', at).Digest, edgetest.Slot("", '7', at).Digest
	es := []journal.Entry{
		{N: 1, At: at, Kind: agent.KindRecord, Channel: "prod", Digest: d, Seq: 41, Reason: "record 91ab91ab91ab"},
		{N: 2, At: at, Kind: journal.KindCheckpoint},
		{N: 3, At: at, Kind: agent.KindRolledBack, Channel: strings.Repeat("x", 60), Digest: d, From: from, Seq: 41, Reason: strings.Repeat("budget ", 40)},
		{N: 4, At: at, Kind: agent.KindTrust, Reason: "a\nb\x1b[0m"},
	}
	for _, width := range []int{100, 40} {
		var b bytes.Buffer
		if err := PrintHistory(&b, es, width); err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(b.String()) {
			if l = strings.TrimSuffix(l, "\n"); ui.Width(l) > width || strings.ContainsAny(l, "\x1b") {
				t.Errorf("width %d: %q", width, l)
			}
		}
		if width == 100 && (!strings.Contains(b.String(), "rolled-back") || strings.Contains(b.String(), "checkpoint") || strings.Count(b.String(), "\n") < 6) {
			t.Errorf("%s", b.String())
		}
	}
}

// The JSON of status keeps every name that a former version had.
func TestStatusIsAdditive(t *testing.T) {
	raw, err := json.Marshal(edgetest.TwoChannels())
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"schema", "device", "agentRunning", "version", "at", "trustVersion", "clockOk", "journal", "freeBytes", "channels", "channel", "model", "seq", "expires", "stale", "state", "current", "candidate", "previous", "kept", "health", "lastRollback", "quarantine", "pinned"} {
		if !bytes.Contains(raw, []byte(`"`+k+`":`)) {
			t.Errorf("%s is missing", k)
		}
	}
}

// Every member of what the commands print as JSON is named like the others: camelCase, by a tag of its own.
func TestOutputKeys(t *testing.T) {
	key := regexp.MustCompile(`^[a-z][a-zA-Z0-9]*$`)
	seen := map[reflect.Type]bool{}
	var walk func(at string, x reflect.Type)
	walk = func(at string, x reflect.Type) {
		for x.Kind() == reflect.Pointer || x.Kind() == reflect.Slice || x.Kind() == reflect.Map {
			x = x.Elem()
		}
		if x.Kind() != reflect.Struct || seen[x] || x == reflect.TypeFor[time.Time]() {
			return
		}
		seen[x] = true
		for f := range x.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if f.Anonymous && name == "" {
				walk(at, f.Type)
				continue
			}
			if f.IsExported() && name != "-" && !key.MatchString(name) {
				t.Errorf("%s.%s is %q in JSON", at, f.Name, name)
			}
			walk(at+"."+f.Name, f.Type)
		}
	}
	walk("status", reflect.TypeFor[agent.Status]())
	walk("rollback", reflect.TypeFor[agent.RollbackResult]())
	walk("history", reflect.TypeFor[journal.Entry]())
	if len(seen) < 10 {
		t.Errorf("%d types were looked at", len(seen))
	}
	raw, err := json.Marshal(edgetest.TwoChannels().Channels[0].Health)
	if want := `{"requests":1200000,"errors":0,"p50Ns":0,"p99Ns":400000}`; err != nil || string(raw) != want {
		t.Errorf("%s, %v; want %s", raw, err, want)
	}
}

// A channel that cannot be had shows in its status; a stick that is not plugged in is no news.
func TestCarrierNotes(t *testing.T) {
	down := agent.CarrierStatus{Name: "registry reg.example/ml/churn", State: carrier.Down, Reason: "connection refused"}
	stick := agent.CarrierStatus{Name: "folder /media/stick", State: carrier.Absent}
	mirror := agent.CarrierStatus{Name: "mirror https://m.example", State: carrier.OK}
	for _, c := range []struct {
		carriers []agent.CarrierStatus
		failing  bool
		alone    bool
	}{{nil, false, false}, {[]agent.CarrierStatus{mirror, stick}, false, false}, {[]agent.CarrierStatus{stick}, false, false}, {[]agent.CarrierStatus{mirror, down}, true, false}, {[]agent.CarrierStatus{stick, down}, true, true}} {
		s := edgetest.TwoChannels()
		s.Channels[0].Carriers = c.carriers
		var b bytes.Buffer
		if err := PrintStatus(&b, s, 100); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.String(), "prod: registry reg.example/ml/churn is failing: connection refused") != c.failing || strings.Contains(b.String(), "prod is NOT REACHED") != c.alone {
			t.Errorf("%v:\n%s", c.carriers, b.String())
		}
	}
}
