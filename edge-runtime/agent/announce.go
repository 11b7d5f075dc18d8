package agent

import (
	"context"
	"log/slog"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
)

// told is how a kind of journal entry appears in the log: a sentence, its place in the Elastic Common Schema, and how loud.
type told struct {
	message  string
	category string
	types    []string
	outcome  string
	level    slog.Level
	alert    bool
}

// tellings are all kinds of entries. What is not here (an entry of a later version) is told as it is.
func tellings() map[string]told {
	const pkg, proc, conf = "package", "process", "configuration"
	return map[string]told{
		KindStarted:     {"the agent started", proc, []string{"start"}, "success", slog.LevelInfo, false},
		KindRecord:      {"a channel record was accepted", conf, []string{"change"}, "success", slog.LevelInfo, false},
		KindAlarm:       {"something was accepted that a person should look at", conf, []string{"info"}, "unknown", slog.LevelWarn, true},
		KindRefused:     {"a record or what it names was refused", pkg, []string{"info"}, "failure", slog.LevelWarn, true},
		KindFetched:     {"an artifact was fetched", pkg, []string{"info"}, "success", slog.LevelInfo, false},
		KindTrial:       {"an artifact serves on trial", pkg, []string{"start"}, "unknown", slog.LevelInfo, false},
		KindCommitted:   {"an artifact passed its trial", pkg, []string{"installation"}, "success", slog.LevelInfo, false},
		KindRolledBack:  {"the device went back", pkg, []string{"change"}, "success", slog.LevelWarn, true},
		KindQuarantined: {"an artifact is not tried again under this record", pkg, []string{"info"}, "failure", slog.LevelWarn, true},
		KindInterrupted: {"an activation was cut short", pkg, []string{"info"}, "failure", slog.LevelInfo, false},
		KindFallback:    {"the committed artifact could not be served, another one is", pkg, []string{"change"}, "failure", slog.LevelError, true},
		KindFailed:      {"a try failed that may work later", pkg, []string{"info"}, "failure", slog.LevelWarn, false},
		KindTrust:       {"a newer trust document was accepted", conf, []string{"change"}, "success", slog.LevelInfo, false},
		KindHeld:        {"too many rollbacks: waiting", pkg, []string{"info"}, "failure", slog.LevelWarn, true},
		KindFrozen:      {"the channel is frozen", conf, []string{"change"}, "success", slog.LevelWarn, false},
		KindThawed:      {"the channel is no longer frozen", conf, []string{"change"}, "success", slog.LevelInfo, false},
		KindShadow:      {"an artifact was compared with the live one", pkg, []string{"info"}, "success", slog.LevelInfo, false},
		KindFactory:     {"the artifact that the device was delivered with", pkg, []string{"installation"}, "success", slog.LevelInfo, false},
		KindLeft:        {"a channel is followed no longer, or has another model", pkg, []string{"info"}, "unknown", slog.LevelInfo, false},
		KindPostponed:   {"the device's own policy does not allow it now", pkg, []string{"info"}, "unknown", slog.LevelInfo, false},
	}
}

// announce writes a journal entry to the log, and counts it.
func (a *Agent) announce(e journal.Entry) {
	a.tally(e)
	t, known := tellings()[e.Kind]
	if !known {
		t = told{message: e.Kind, category: "package", types: []string{"info"}, outcome: "unknown"}
	}
	kind := "event"
	if t.alert {
		kind = "alert"
	}
	attrs := []slog.Attr{
		slog.String("event.kind", kind), slog.String("event.action", e.Kind), slog.String("event.dataset", "waybill.journal"), slog.String("event.provider", "waybill-edge"),
		slog.Any("event.category", []string{t.category}), slog.Any("event.type", t.types), slog.String("event.outcome", t.outcome),
		slog.String("event.reason", e.Reason), slog.String("channel", e.Channel), slog.String("digest", string(e.Digest)), slog.String("from", string(e.From)),
	}
	if e.Serial > 0 {
		attrs = append(attrs, slog.Uint64("event.sequence", e.Serial))
	}
	if e.Seq > 0 {
		attrs = append(attrs, slog.Int64("seq", e.Seq))
	}
	a.Log.LogAttrs(context.Background(), t.level, t.message, attrs...)
}
