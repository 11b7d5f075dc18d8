// Package ecslog writes log records as lines of JSON in the Elastic Common Schema. An attribute whose key is one of the
// schema's fields becomes that field, "error" becomes error.message and error.type, and everything else a string below
// labels. A line is one line whatever the values hold: control characters, invalid UTF-8 and length are dealt with here.
package ecslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/waybill-ml/waybill/internal/redact"
)

// Bounds of a line. Text beyond is cut and ends in "...".
const (
	MaxLine  = 16 << 10 // bytes of a line, with its newline
	maxValue = 4 << 10  // bytes of one value
	maxAttrs = 48       // labels of a line
)

// Options of a log.
type Options struct {
	Level  slog.Leveler     // nil: info
	Redact *redact.Redactor // nil: the known forms of secrets
	// Service and Version name the program, Node the device.
	Service, Version, Node string
}

// New makes a log of ECS lines on w. Each line is one Write.
func New(w io.Writer, o Options) *slog.Logger {
	h := &handler{o: o, out: &output{w: w}}
	for _, f := range []struct{ k, v string }{{"service.name", o.Service}, {"service.type", o.Service}, {"service.version", o.Version}, {"service.node.name", o.Node}} {
		if f.v != "" {
			h.attrs = append(h.attrs, slog.String(f.k, f.v))
		}
	}
	return slog.New(h)
}

// NewText makes a log of key=value lines on w, with the same bounds and the same care for secrets.
func NewText(w io.Writer, o Options) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: o.Level, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		switch a.Value.Kind() {
		case slog.KindString:
			return slog.String(a.Key, hide(o.Redact, a.Value.String(), maxValue))
		case slog.KindAny:
			if _, level := a.Value.Any().(slog.Level); !level {
				return slog.String(a.Key, hide(o.Redact, fmt.Sprint(a.Value.Any()), maxValue))
			}
		}
		return a
	}}))
}

type output struct {
	mu sync.Mutex
	w  io.Writer
}

type handler struct {
	o     Options
	out   *output
	attrs []slog.Attr // flat, keys with their groups
	group string
}

// Enabled implements slog.Handler.
func (h *handler) Enabled(_ context.Context, l slog.Level) bool {
	least := slog.LevelInfo
	if h.o.Level != nil {
		least = h.o.Level.Level()
	}
	return l >= least
}

// WithAttrs implements slog.Handler.
func (h *handler) WithAttrs(as []slog.Attr) slog.Handler {
	n := *h
	n.attrs = slices.Clip(n.attrs)
	for _, a := range as {
		n.attrs = flat(n.attrs, h.group, a)
	}
	return &n
}

// WithGroup implements slog.Handler.
func (h *handler) WithGroup(name string) slog.Handler {
	n := *h
	n.group = join(h.group, name)
	return &n
}

func join(group, key string) string {
	if group == "" || key == "" {
		return group + key
	}
	return group + "." + key
}

// flat adds a to out, groups resolved into dotted keys.
func flat(out []slog.Attr, group string, a slog.Attr) []slog.Attr {
	v := a.Value.Resolve()
	if v.Kind() == slog.KindGroup {
		for _, m := range v.Group() {
			out = flat(out, join(group, a.Key), m)
		}
		return out
	}
	if a.Key == "" {
		return out
	}
	return append(out, slog.Attr{Key: join(group, a.Key), Value: v})
}

// Handle implements slog.Handler.
func (h *handler) Handle(_ context.Context, r slog.Record) error {
	attrs := slices.Clip(h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		attrs = flat(attrs, h.group, a)
		return true
	})
	at := r.Time
	if at.IsZero() {
		at = time.Now()
	}
	line := h.line(at, r.Level, r.Message, attrs, maxValue, maxAttrs)
	if len(line) > MaxLine {
		line = h.line(at, r.Level, r.Message, attrs, 128, 8)
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(line)
	return err
}

// line encodes one record, each value cut to size and at most labels labels.
func (h *handler) line(at time.Time, level slog.Level, message string, attrs []slog.Attr, size, labels int) []byte {
	e := encoder{size: size, redact: h.o.Redact, b: []byte{'{'}, seen: map[string]int{}}
	e.set("@timestamp", slog.TimeValue(at))
	e.set("log.level", slog.StringValue(levelName(level)))
	e.set("message", slog.StringValue(message))
	e.set("ecs.version", slog.StringValue(Version))
	var other []slog.Attr
	for i, a := range attrs {
		if slices.ContainsFunc(attrs[i+1:], func(b slog.Attr) bool { return b.Key == a.Key }) {
			continue // the later one counts: a key must not stand twice
		}
		switch _, known := fields[a.Key]; {
		case a.Key == "error" || a.Key == "err":
			e.failure(a.Value)
		case known:
			e.set(a.Key, a.Value)
		default:
			other = append(other, a)
		}
	}
	e.labels(other, labels)
	return append(e.b, '}', '\n')
}

func levelName(l slog.Level) string {
	switch {
	case l < slog.LevelInfo:
		return "debug"
	case l < slog.LevelWarn:
		return "info"
	case l < slog.LevelError:
		return "warn"
	}
	return "error"
}

type encoder struct {
	b      []byte
	seen   map[string]int
	size   int
	redact *redact.Redactor
}

func (e *encoder) key(k string) {
	if len(e.b) > 1 && e.b[len(e.b)-1] != '{' {
		e.b = append(e.b, ',')
	}
	e.text(k)
	e.b = append(e.b, ':')
}

// text appends a JSON string.
func (e *encoder) text(s string) {
	var q bytes.Buffer
	j := json.NewEncoder(&q)
	j.SetEscapeHTML(false)
	if err := j.Encode(s); err != nil { // a string always encodes
		return
	}
	e.b = append(e.b, bytes.TrimSuffix(q.Bytes(), []byte("\n"))...)
}

func (e *encoder) string(v slog.Value) string {
	s := v.String()
	if v.Kind() == slog.KindTime {
		s = v.Time().UTC().Format(time.RFC3339Nano)
	}
	return hide(e.redact, s, e.size)
}

// set writes an ECS field in its type. A value that has another type is not written: the index would refuse the whole line.
func (e *encoder) set(k string, v slog.Value) {
	if e.seen[k]++; e.seen[k] > 1 {
		return
	}
	switch fields[k] {
	case date:
		if v.Kind() == slog.KindTime {
			e.key(k)
			e.text(v.Time().UTC().Format("2006-01-02T15:04:05.000000Z07:00"))
		}
	case long:
		var n int64
		switch v.Kind() {
		case slog.KindInt64:
			n = v.Int64()
		case slog.KindUint64:
			n = int64(min(v.Uint64(), 1<<62))
		case slog.KindDuration:
			n = int64(v.Duration())
		default:
			return
		}
		e.key(k)
		e.b = fmt.Appendf(e.b, "%d", n)
	case ip:
		if a, err := netip.ParseAddr(v.String()); err == nil {
			e.key(k)
			e.text(a.WithZone("").String())
		}
	case list:
		ss, ok := v.Any().([]string)
		if !ok {
			ss = []string{v.String()}
		}
		if len(ss) == 0 || ss[0] == "" {
			return
		}
		e.key(k)
		e.b = append(e.b, '[')
		for i, s := range ss {
			if i > 0 {
				e.b = append(e.b, ',')
			}
			e.text(clean(s, e.size))
		}
		e.b = append(e.b, ']')
	default:
		if s := e.string(v); s != "" {
			e.key(k)
			e.text(s)
		}
	}
}

func (e *encoder) failure(v slog.Value) {
	err, ok := v.Any().(error)
	if !ok {
		e.set("error.message", v)
		return
	}
	if err == nil {
		return
	}
	e.set("error.message", slog.StringValue(err.Error()))
	e.set("error.type", slog.StringValue(typeOf(err)))
}

// typeOf names the type of the innermost error that has one of its own.
func typeOf(err error) string {
	name := ""
	for e := err; e != nil; e = errors.Unwrap(e) {
		switch t := fmt.Sprintf("%T", e); t {
		case "*fmt.wrapError", "*fmt.wrapErrors", "*errors.errorString", "*errors.joinError":
		default:
			name = strings.TrimPrefix(t, "*")
		}
	}
	return name
}

// labels writes what is not in the schema: strings below labels, dots in keys as underscores, since a key must not be both a
// value and the parent of others.
func (e *encoder) labels(as []slog.Attr, most int) {
	first := true
	seen := map[string]bool{}
	for _, a := range as {
		k := clean(strings.NewReplacer(".", "_", "*", "_", `\`, "_", `"`, "_").Replace(a.Key), 64)
		s := e.string(a.Value)
		if s == "" || k == "" || seen[k] || len(seen) == most {
			continue
		}
		seen[k] = true
		if first {
			e.key("labels")
			e.b = append(e.b, '{')
			first = false
		}
		e.key(k)
		e.text(s)
	}
	if !first {
		e.b = append(e.b, '}')
	}
}

// hide takes secrets out of s and cleans it. The first cut spares the work on endless text; what it cuts in two is not in
// the part that stays.
func hide(r *redact.Redactor, s string, size int) string {
	s, long := cut(s, 4*size)
	s = clean(r.Text(s), size)
	if long && !strings.HasSuffix(s, "...") {
		s += "..."
	}
	return s
}

// clean makes s valid UTF-8 without characters that steer a terminal, and at most size bytes long. Newlines and tabs stay:
// JSON and the text format escape them.
func clean(s string, size int) string {
	s, long := cut(s, size)
	s = strings.ToValidUTF8(s, "\uFFFD")
	if strings.IndexFunc(s, steers) >= 0 {
		var b strings.Builder
		for _, r := range s {
			if steers(r) {
				fmt.Fprintf(&b, "<%04x>", r)
			} else {
				b.WriteRune(r)
			}
		}
		s = b.String()
	}
	s, longer := cut(s, size)
	if long || longer {
		s += "..."
	}
	return s
}

// cut shortens s to size bytes, not within a character.
func cut(s string, size int) (string, bool) {
	if len(s) <= size {
		return s, false
	}
	for n := size; n > size-utf8.UTFMax; n-- {
		if utf8.RuneStart(s[n]) {
			return s[:n], true
		}
	}
	return s[:size], true
}

// steers tells control characters, and those that change the direction or the visibility of text.
func steers(r rune) bool {
	return unicode.IsControl(r) && r != '\n' && r != '\t' || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029'
}
