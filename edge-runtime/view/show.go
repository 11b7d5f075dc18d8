package view

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// PrintStatus prints a status at most width columns wide: a table when it fits, else a block for each channel.
func PrintStatus(w io.Writer, s agent.Status, width int) error {
	var b strings.Builder
	if !statusTable(&b, s, width) {
		statusBlocks(&b, s, width)
	}
	for _, c := range s.Channels {
		for _, n := range channelNotes(c) {
			fold(&b, n, width)
		}
	}
	fold(&b, deviceLine(s), width)
	_, err := io.WriteString(w, b.String())
	return err
}

// shownSlot is what a line is about: the candidate while it is on trial, else what is committed.
func shownSlot(c agent.ChannelStatus) *state.Slot {
	if c.State == string(state.Trial) && c.Candidate != nil {
		return c.Candidate
	}
	return c.Current
}

// slotsOf are the artifacts that passed on this device, newest first.
func slotsOf(c agent.ChannelStatus) []state.Slot {
	var out []state.Slot
	for _, s := range []*state.Slot{c.Current, c.Previous} {
		if s != nil {
			out = append(out, *s)
		}
	}
	return append(out, c.Kept...)
}

// ShownState says how far a channel is.
func ShownState(c agent.ChannelStatus, now time.Time) string {
	switch {
	case c.State == string(state.Trial) && !c.TrialEnds.IsZero():
		return fmt.Sprintf("trial (%s left)", ui.Duration(max(c.TrialEnds.Sub(now).Round(time.Second), 0)))
	case c.State == agent.StateCommitted && c.Pinned:
		return "rolled back here"
	case c.State == agent.StateCommitted && c.Frozen != nil:
		return "committed, FROZEN"
	case c.State == agent.StateCommitted && c.Stale:
		return "committed, STALE"
	}
	return c.State
}

// health is what the serving model has done since it was switched to; brief leaves the latency out.
func health(c agent.ChannelStatus, brief bool) string {
	h := c.Health
	if h == nil {
		return "-"
	}
	if h.Requests == 0 {
		return "no requests yet"
	}
	t := fmt.Sprintf("%s ok, %s failed", short10(h.Requests-h.Errors), short10(h.Errors))
	if !brief {
		t += ", p99 " + ui.Duration(h.P99)
	}
	return t
}

// short10 writes counts the way people read them: 318, 12.4 k, 1.2 M.
func short10(n int64) string {
	switch {
	case n < 10_000:
		return ui.Count(n)
	case n < 1_000_000:
		return fmt.Sprintf("%.3g k", float64(n)/1e3)
	case n < 1_000_000_000:
		return fmt.Sprintf("%.3g M", float64(n)/1e6)
	}
	return fmt.Sprintf("%.3g G", float64(n)/1e9)
}

// named is version and the beginning of the digest.
func named(s *state.Slot, version, hex int) string {
	if s == nil {
		return "-"
	}
	d := s.Digest.Hex()
	return ui.Clip(ui.Printable(s.Version), version) + " " + d[:min(hex, len(d))]
}

// statusTable lays the channels out in columns, dropping the least important ones until it fits; false: it does not.
func statusTable(b *strings.Builder, s agent.Status, width int) bool {
	for _, l := range []struct {
		hex, name       int
		previous, brief bool
	}{{12, 40, true, false}, {8, 24, true, false}, {6, 16, true, false}, {6, 16, true, true}, {6, 12, false, false}, {4, 12, false, true}} {
		rows := [][]string{{"channel", "model", "running", "since", "previous", "state", "health"}}
		for _, c := range s.Channels {
			shown, since := shownSlot(c), "-"
			running := named(shown, l.name, l.hex)
			if shown == nil {
				running = "nothing"
			} else if !shown.Since.IsZero() {
				since = ui.Ago(s.At.Sub(shown.Since))
			}
			previous := c.Previous
			if shown == c.Candidate && c.Current != nil {
				previous = c.Current // what it goes back to
			}
			rows = append(rows, []string{ui.Clip(c.Channel, l.name), ui.Clip(dash(ui.Printable(c.Model)), l.name), running, since, named(previous, l.name, l.hex), ShownState(c, s.At), health(c, l.brief)})
		}
		if !l.previous {
			for i := range rows {
				rows[i] = append(rows[i][:4], rows[i][5:]...)
			}
		}
		if text := table(rows); widest(text) <= width {
			b.WriteString(text)
			return true
		}
	}
	return false
}

// table lays rows out in columns two spaces apart.
func table(rows [][]string) string {
	var w []int
	for _, r := range rows {
		for i, c := range r {
			if i == len(w) {
				w = append(w, 0)
			}
			w[i] = max(w[i], ui.Width(c))
		}
	}
	var b strings.Builder
	for _, r := range rows {
		var l strings.Builder
		for i, c := range r {
			l.WriteString(c)
			l.WriteString(strings.Repeat(" ", w[i]-ui.Width(c)+2))
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	return b.String()
}

func widest(text string) int {
	n := 0
	for l := range strings.Lines(text) {
		n = max(n, ui.Width(strings.TrimSuffix(l, "\n")))
	}
	return n
}

// statusBlocks prints a few lines for each channel, for narrow terminals.
func statusBlocks(b *strings.Builder, s agent.Status, width int) {
	for _, c := range s.Channels {
		fmt.Fprintln(b, ui.Clip(c.Channel, width))
		shown := shownSlot(c)
		line := func(label, text string) {
			for i, l := range ui.Fold(text, max(width-11, 8)) {
				if i > 0 {
					label = ""
				}
				fmt.Fprintf(b, "  %-8s %s\n", label, l)
			}
		}
		line("model", dash(ui.Printable(c.Model)))
		if shown == nil {
			line("running", "nothing")
		} else {
			line("running", named(shown, 12, 6))
			line("since", ui.Ago(s.At.Sub(shown.Since)))
		}
		if c.Previous != nil {
			line("previous", named(c.Previous, 12, 6))
		}
		line("state", ShownState(c, s.At))
		line("health", health(c, false))
	}
}

// channelNotes are the sentences below the table.
func channelNotes(c agent.ChannelStatus) []string {
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, ui.Printable(fmt.Sprintf(format, args...))) }
	known := func(d artifact.Digest) string {
		for _, s := range slotsOf(c) {
			if s.Digest == d {
				return s.Version + " " + d.Short()
			}
		}
		if d == "" {
			return "nothing"
		}
		return d.Short()
	}
	const minute = "2006-01-02 15:04"
	if n := c.LastRollback; n != nil {
		add("last rollback: %s %s -> %s on %s, %s", c.Channel, known(n.From), known(n.To), n.At.Format(minute), n.Reason)
	}
	if n := c.Waiting; n != nil {
		add("waiting: %s %s %s since %s to %s: %s", c.Channel, n.Slot.Version, n.Slot.Digest.Short(), n.Since.Format(minute), n.Action, n.Reason)
	}
	if n := c.LastRefusal; n != nil {
		add("last refusal: %s seq %d %s on %s, %s", c.Channel, n.Seq, short(n.To), n.At.Format(minute), n.Reason)
	}
	for _, q := range c.Quarantine {
		add("quarantine: %s %s until the channel passes seq %d: %s", c.Channel, q.Digest.Short(), q.Seq, q.Reason)
	}
	if c.Pinned {
		add("rolled back here: %s stays until the channel passes seq %d", c.Channel, c.Seq)
	}
	if n := c.Frozen; n != nil {
		add("FROZEN: %s since %s by seq %d, nothing new is activated: %s", c.Channel, n.Since.Format(minute), n.Seq, n.Reason)
	}
	if c.Stale {
		add("STALE: the record of %s expired on %s; what runs goes on, nothing new is activated", c.Channel, c.Expires.Format(minute))
	}
	if c.WindowsClosed != "" {
		add("%s: no maintenance window can open, so no update begins: %s", c.Channel, c.WindowsClosed)
	}
	notes = append(notes, carrierNotes(c)...)
	if shown := shownSlot(c); c.Serving != "" && shown != nil && c.Serving != shown.Digest {
		add("%s answers with %s", c.Channel, c.Serving.Short())
	} else if c.Health != nil && c.Serving == "" && c.State == agent.StateCommitted {
		add("%s: nothing answers requests", c.Channel)
	}
	return notes
}

// carrierNotes say from where the channel cannot be had. A place that is merely not there, as a stick that was pulled out, is no news.
func carrierNotes(c agent.ChannelStatus) []string {
	var notes []string
	reached := false
	for _, p := range c.Carriers {
		switch p.State {
		case carrier.Down, carrier.Wrong, carrier.Paused:
			notes = append(notes, ui.Printable(fmt.Sprintf("%s: %s is %s: %s", c.Channel, p.Name, p.State, p.Reason)))
		case carrier.OK, carrier.Lacking:
			reached = true
		}
	}
	if len(notes) > 0 && !reached {
		notes = append(notes, ui.Printable(c.Channel+" is NOT REACHED: what runs goes on, nothing new is heard of"))
	}
	return notes
}

// deviceLine is the last line: the device as a whole.
func deviceLine(s agent.Status) string {
	var parts []string
	switch s.AgentState {
	case control.Down:
		parts = append(parts, "agent down")
	case control.Silent:
		parts = append(parts, "agent does NOT ANSWER")
	case control.Busy:
		parts = append(parts, fmt.Sprintf("agent down, process %d has the state directory", s.PID))
	case control.Starting, control.Stopping:
		parts = append(parts, "agent "+s.AgentState)
	}
	clock := "clock ok"
	if !s.ClockOK {
		clock = "clock " + ui.Ago(s.ClockFloor.Sub(s.At)) + " BEHIND the last signed time"
	}
	if r := s.Rebuilt; r != nil {
		parts = append(parts, "STATE REBUILT "+r.At.Format(time.DateTime))
	}
	entries := ui.Count(s.Journal.Entries) + " entries"
	switch s.JournalState {
	case "":
	case control.JournalVerified:
		entries += " verified"
	default:
		entries += " (" + ui.Printable(s.JournalState) + ")"
	}
	return strings.Join(append(parts, fmt.Sprintf("trust version %d", s.Trust), clock, "journal "+entries, ui.Bytes(int64(min(s.Free, 1<<62)))+" free"), ", ")
}

// fold prints text over lines of at most width columns, the further ones indented.
func fold(b *strings.Builder, text string, width int) {
	for i, l := range ui.Fold(text, max(width-2, 8)) {
		if i > 0 {
			b.WriteString("  ")
		}
		b.WriteString(l + "\n")
	}
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func short(d artifact.Digest) string { return dash(d.Short()) }

// PrintHistory prints journal entries, the reason of each below it when it does not fit beside it.
func PrintHistory(w io.Writer, es []journal.Entry, width int) error {
	var rows [][]string
	var reasons []string
	for _, e := range es {
		if e.Kind == journal.KindCheckpoint {
			continue
		}
		what := short(e.Digest)
		if e.From != "" {
			what = short(e.From) + " -> " + what
		}
		seq := "-"
		if e.Seq > 0 {
			seq = fmt.Sprintf("seq %d", e.Seq)
		}
		rows = append(rows, []string{fmt.Sprint(e.N), e.At.Format(time.DateTime), ui.Clip(dash(ui.Printable(e.Channel)), 16), ui.Clip(ui.Printable(e.Kind), 16), seq, what})
		reasons = append(reasons, ui.Printable(e.Reason))
	}
	text := table(rows)
	full := widest(text)
	var b strings.Builder
	i := 0
	for l := range strings.Lines(text) {
		l = strings.TrimSuffix(l, "\n")
		switch room := width - full - 2; {
		case reasons[i] == "":
			b.WriteString(ui.Clip(l, width) + "\n")
		case ui.Width(reasons[i]) <= room:
			fmt.Fprintf(&b, "%-*s  %s\n", full, l, reasons[i])
		case ui.Width(l)+2+ui.Width(reasons[i]) <= width:
			b.WriteString(l + "  " + reasons[i] + "\n")
		default:
			b.WriteString(ui.Clip(l, width) + "\n")
			for _, r := range ui.Fold(reasons[i], max(width-4, 8)) {
				b.WriteString("    " + r + "\n")
			}
		}
		i++
	}
	_, err := io.WriteString(w, b.String())
	return err
}
