package ecslog

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/redact"
	"github.com/waybill-ml/waybill/internal/strictjson"
)

func decode(t testing.TB, line []byte) map[string]any {
	t.Helper()
	if n := bytes.Count(line, []byte("\n")); n != 1 || line[len(line)-1] != '\n' {
		t.Fatalf("%d lines: %q", n, line)
	}
	if len(line) > MaxLine {
		t.Fatalf("a line of %d bytes", len(line))
	}
	if err := strictjson.Check(line); err != nil { // a key that stands twice included
		t.Fatalf("%v: %s", err, line)
	}
	if _, err := checkFields(line); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	var m map[string]any
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestLine(t *testing.T) {
	var b bytes.Buffer
	log := New(&b, Options{Service: "waybill-edge", Version: "0.1.0", Node: "4f2a"})
	log.Debug("not this one")
	log.With("log.logger", "agent").WithGroup("net").Warn("poll",
		"event.none", 1, slog.Group("", "retry", 3))
	m := decode(t, b.Bytes())
	for k, want := range map[string]any{"message": "poll", "log.level": "warn", "log.logger": "agent", "service.name": "waybill-edge", "service.node.name": "4f2a", "ecs.version": Version} {
		if m[k] != want {
			t.Errorf("%s = %v, want %v", k, m[k], want)
		}
	}
	if l := m["labels"].(map[string]any); l["net_retry"] != "3" || l["net_event_none"] != "1" {
		t.Errorf("labels %v", l)
	}
	b.Reset()
	log.Error("fetch", "error", fmt.Errorf("open: %w", &fs.PathError{Op: "open", Path: "x", Err: errors.New("boom")}), "channel", "prod", "seq", 7, "empty", "",
		"event.duration", 1500*time.Millisecond, "event.category", []string{"package"}, "http.response.status_code", 503, "event.sequence", "not a number")
	m = decode(t, b.Bytes())
	if m["error.message"] != "open: open x: boom" || m["error.type"] != "fs.PathError" || m["event.duration"] != 1.5e9 || m["http.response.status_code"] != 503. || m["event.sequence"] != nil {
		t.Errorf("%s", b.Bytes())
	}
	if l := m["labels"].(map[string]any); l["channel"] != "prod" || l["seq"] != "7" || len(l) != 2 {
		t.Errorf("labels %v", l)
	}
	if _, err := time.Parse(time.RFC3339Nano, m["@timestamp"].(string)); err != nil {
		t.Error(err)
	}
}

// What comes from a registry or a model must not become a line, a field or an order to the terminal of its own.
func TestInjection(t *testing.T) {
	evil := "x\n{\"log.level\":\"info\",\"message\":\"all is well\"}\r\x1b]0;owned\x07\x1b[2J\u202egnp\u2028\x00\xff\xc3"
	var b bytes.Buffer
	New(&b, Options{}).Error(evil, "error", errors.New(evil), "channel", evil, evil, "v", "a\nb", 1)
	m := decode(t, b.Bytes())
	if m["log.level"] != "error" || m["message"] == "all is well" {
		t.Errorf("%v", m)
	}
	for _, r := range b.String()[:b.Len()-1] {
		if steers(r) || r == '\n' || r == utf8.RuneError && !strings.Contains(evil, "\xff") {
			t.Errorf("%q is in the line", r)
		}
	}
	b.Reset()
	NewText(&b, Options{}).Error(evil, "error", errors.New(evil), "channel", evil)
	if n := strings.Count(b.String(), "\n"); n != 1 {
		t.Errorf("%d lines of text: %s", n, b.Bytes())
	}
	for _, r := range strings.TrimSuffix(b.String(), "\n") {
		if r < ' ' || steers(r) {
			t.Errorf("%q is in the text", r)
		}
	}
}

func TestBounds(t *testing.T) {
	var b bytes.Buffer
	var args []any
	for i := range 200 {
		args = append(args, fmt.Sprint("k", i), strings.Repeat("é", 5000))
	}
	for f := range fields {
		args = append(args, f, strings.Repeat("\x1b\"", 100000))
	}
	New(&b, Options{}).Info(strings.Repeat("\x00", 1<<20), args...)
	m := decode(t, b.Bytes())
	if !strings.HasSuffix(m["message"].(string), "...") {
		t.Error("a cut message does not say so")
	}
	b.Reset()
	New(&b, Options{}).Info("m", "error", errors.New(strings.Repeat("e", 3000)), "a", strings.Repeat("a", 3000))
	if m = decode(t, b.Bytes()); len(m["error.message"].(string)) != 3000 {
		t.Error("a line that fits was cut")
	}
}

func TestSecrets(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, made := range []func(*bytes.Buffer) *slog.Logger{
		func(b *bytes.Buffer) *slog.Logger { return New(b, Options{Redact: redact.New(secret)}) },
		func(b *bytes.Buffer) *slog.Logger { return NewText(b, Options{Redact: redact.New(secret)}) },
	} {
		var b bytes.Buffer
		made(&b).With("one", secret).Error("m "+secret, "error", fmt.Errorf("e %s", secret), "any", []string{secret}, "url.path", "/"+secret, slog.Group("g", "x", secret))
		if strings.Contains(b.String(), secret) || strings.Count(b.String(), redact.Mask) < 5 {
			t.Errorf("%s", b.Bytes())
		}
	}
}

// The names and types that this package writes are those of the published list.
func TestFieldsAreECS(t *testing.T) {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published field list is not at hand")
	}
	f, err := os.Open(filepath.Join(dir, "elastic-ecs", "fields.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	published := map[string][]string{}
	for _, r := range rows[1:] {
		published[r[3]] = r
	}
	types := map[kind]string{keyword: "keyword", text: "match_only_text", long: "long", date: "date", list: "keyword", ip: "ip"}
	for name, k := range fields {
		r := published[name]
		if r == nil || r[0] != Version || r[4] != types[k] && (r[4] != "wildcard" || k != keyword) || (r[6] == "array") != (k == list) {
			t.Errorf("%s as %s: the list says %v", name, types[k], r)
		}
	}
}

func FuzzLine(f *testing.F) {
	f.Add("message", "error", "x\n\x1b[0m", "log.level", "\xff")
	f.Add("", "labels", `{"a":1}`, "labels.x", "")
	f.Add("m", "event.category", "package", "@timestamp", "never")
	f.Fuzz(func(t *testing.T, m, k1, v1, k2, v2 string) {
		var b bytes.Buffer
		New(&b, Options{}).WithGroup(k1).With(k2, v1).Info(m, k1, v1, k2, v2, "n", 1, k1+k2, errors.New(v2))
		decode(t, b.Bytes())
		b.Reset()
		New(&b, Options{}).Info(m, k1, v1, k2, v2)
		decode(t, b.Bytes())
	})
}
