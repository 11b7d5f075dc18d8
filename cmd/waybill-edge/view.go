package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// view is what the commands that look at a device share.
func view(name, synopsis string, args []string, stderr io.Writer, more func(*flags)) (*config, string, error) {
	f := newFlags(name, synopsis, stderr)
	path, output := f.configFlag(), f.outputFlag()
	if more != nil {
		more(f)
	}
	if err := f.parse(args); err != nil {
		return nil, "", err
	}
	if err := checkOutput(name, *output); err != nil {
		return nil, "", err
	}
	cfg, err := loadConfig(*path)
	return cfg, *output, err
}

func journalPath(cfg *config) string { return filepath.Join(cfg.State, "journal.log") }

func printJSON(w io.Writer, v any) error {
	b, err := artifact.Canonical(v)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func noState(err error, cfg *config) error {
	if errors.Is(err, fs.ErrNotExist) {
		return diag.Wrap(diag.NotFound, err, "this device has not run yet").Hint("waybill-edge run --config %s", filepath.Join(filepath.Dir(cfg.Key), "config.json"))
	}
	return diag.Wrap(diag.Failure, err, "read the state")
}

// status shows what the running agent says, or, when it is down, what its state says.
func status(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, output, err := view("status", "status [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	var s agent.Status
	err = ask(ctx, cfg.Control, http.MethodGet, "/status", &s)
	if errors.Is(err, errDown) {
		doc, rerr := state.ReadOnly(fsx.OS{}, cfg.State)
		if rerr != nil {
			return noState(rerr, cfg)
		}
		s, err = agent.StatusOf(doc, time.Now()), nil
		if s.Trust == 0 {
			s.Trust = cfg.Trust.Version
		}
		if es, jerr := journal.Read(fsx.OS{}, journalPath(cfg), 1); jerr == nil && len(es) == 1 {
			s.Journal.Entries = es[0].N // the document knows a prefix
		}
		if free, ferr := (fsx.OS{}).FreeBytes(cfg.State); ferr == nil {
			s.Free = free
		}
	}
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(stdout, s)
	}
	return printStatus(stdout, s)
}

func printStatus(w io.Writer, s agent.Status) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "channel\tmodel\trunning\tsince\tprevious\tstate\thealth")
	var notes []string
	for _, c := range s.Channels {
		running, since := "nothing", "-"
		shown := c.Current
		if c.State == string(state.Trial) && c.Candidate != nil {
			shown = c.Candidate
		}
		if shown != nil {
			running = shown.Version + " " + shown.Digest.Short()
			if !shown.Since.IsZero() {
				since = ago(s.At.Sub(shown.Since))
			}
		}
		previous := "-"
		if c.Previous != nil {
			previous = c.Previous.Version + " " + c.Previous.Digest.Short()
		}
		health := "-"
		if h := c.Health; h != nil {
			health = fmt.Sprintf("%d ok, %d failed, p99 %s", h.Requests-h.Errors, h.Errors, h.P99.Round(time.Microsecond))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", c.Channel, dash(c.Model), running, since, previous, c.State, health)
		if n := c.LastRollback; n != nil {
			notes = append(notes, fmt.Sprintf("last rollback: %s %s -> %s on %s, %s", c.Channel, short(n.From), short(n.To), n.At.Format(time.DateTime), n.Reason))
		}
		if n := c.Waiting; n != nil {
			notes = append(notes, fmt.Sprintf("waiting: %s %s %s since %s to %s: %s", c.Channel, n.Slot.Version, n.Slot.Digest.Short(), n.Since.Format(time.DateTime), n.Action, n.Reason))
		}
		if n := c.LastRefusal; n != nil {
			notes = append(notes, fmt.Sprintf("last refusal: %s seq %d %s on %s, %s", c.Channel, n.Seq, short(n.To), n.At.Format(time.DateTime), n.Reason))
		}
		for _, q := range c.Quarantine {
			notes = append(notes, fmt.Sprintf("quarantine: %s %s until the channel passes seq %d", c.Channel, q.Digest.Short(), q.Seq))
		}
		if c.Pinned {
			notes = append(notes, fmt.Sprintf("rolled back here: %s stays until the channel passes seq %d", c.Channel, c.Seq))
		}
		if n := c.Frozen; n != nil {
			notes = append(notes, fmt.Sprintf("FROZEN: %s since %s by seq %d, nothing new is activated: %s", c.Channel, n.Since.Format(time.DateTime), n.Seq, n.Reason))
		}
		if c.Stale {
			notes = append(notes, fmt.Sprintf("STALE: the record of %s expired on %s; what runs goes on, nothing new is activated", c.Channel, c.Expires.Format(time.DateTime)))
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range notes {
		fmt.Fprintln(w, n)
	}
	clock, up := "clock ok", ""
	if !s.ClockOK {
		clock = "clock BEHIND the last signed time"
	}
	if !s.Running {
		up = "agent down, "
	}
	_, err := fmt.Fprintf(w, "%strust version %d, %s, journal %d entries, %d MB free\n", up, s.Trust, clock, s.Journal.Entries, s.Free>>20)
	return err
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func short(d artifact.Digest) string { return dash(d.Short()) }

// ago formats a duration as people say it: two units.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(d/time.Second, 0))
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// history prints the journal.
func history(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	n := 20
	cfg, output, err := view("history", "history [--config FILE] [-n COUNT] [--output json]", args, stderr, func(f *flags) {
		f.IntVar(&n, "n", n, "`COUNT` of the newest entries; 0 for all")
	})
	if err != nil {
		return err
	}
	var es []journal.Entry
	err = ask(ctx, cfg.Control, http.MethodGet, fmt.Sprintf("/history?n=%d", n), &es)
	if errors.Is(err, errDown) {
		es, err = journal.Read(fsx.OS{}, journalPath(cfg), n)
		if err == nil && len(es) == 0 {
			return noState(fs.ErrNotExist, cfg)
		}
	}
	if err != nil {
		return err
	}
	if output == "json" {
		enc := json.NewEncoder(stdout)
		for _, e := range es {
			if err := enc.Encode(e); err != nil {
				return err
			}
		}
		return nil
	}
	t := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	for _, e := range es {
		if e.Kind == journal.KindCheckpoint {
			continue
		}
		what := short(e.Digest)
		if e.From != "" {
			what = short(e.From) + " -> " + what
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\tseq %d\t%s\t%s\n", e.N, e.At.Format(time.DateTime), dash(e.Channel), e.Kind, e.Seq, what, strings.ReplaceAll(e.Reason, "\n", "; "))
	}
	return t.Flush()
}

// poll has the running agent look at its channels now, and waits for what comes of it.
func poll(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, output, err := view("poll", "poll [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	var s agent.Status
	err = ask(ctx, cfg.Control, http.MethodPost, "/poll", &s)
	if errors.Is(err, errDown) {
		return diag.Wrap(diag.Failure, err, "poll").Hint("waybill-edge run")
	}
	if err != nil {
		return err
	}
	if output == "json" {
		return printJSON(stdout, s)
	}
	return printStatus(stdout, s)
}

// rollback takes the device back: through the agent, or on its state when it is down.
func rollback(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var channel, to string
	cfg, output, err := view("rollback", "rollback [--config FILE] [--channel NAME] [--to DIGEST]", args, stderr, func(f *flags) {
		f.StringVar(&channel, "channel", "", "`NAME`; may be left out when the device follows one channel")
		f.StringVar(&to, "to", "", "`DIGEST` that this device has run before (default: the one before the present)")
	})
	if err != nil {
		return err
	}
	if to != "" {
		if _, err := artifact.ParseDigest(to); err != nil {
			return diag.Wrap(diag.Usage, err, "rollback: --to").Hint("waybill-edge status --output json")
		}
	}
	var res agent.RollbackResult
	q := url.Values{"channel": {channel}, "to": {to}}
	err = ask(ctx, cfg.Control, http.MethodPost, "/rollback?"+q.Encode(), &res)
	if errors.Is(err, errDown) {
		res, err = rollbackDown(ctx, cfg, channel, artifact.Digest(to), slog.New(slog.DiscardHandler))
	}
	if err != nil {
		e := diag.Wrap(codeOf(err), err, "rollback")
		if codeOf(err) == diag.NotFound {
			e.Hint("waybill-edge status")
		}
		return e
	}
	if output == "json" {
		return printJSON(stdout, res)
	}
	fmt.Fprintf(stderr, "%s: %s %s -> %s %s\n", res.Channel, res.From.Version, res.From.Digest.Short(), res.To.Version, res.To.Digest.Short())
	fmt.Fprintln(stdout, res.To.Digest)
	return nil
}

// rollbackDown rolls back without a running agent: the same steps, with nobody asking the model anything.
func rollbackDown(ctx context.Context, cfg *config, channel string, to artifact.Digest, log *slog.Logger) (agent.RollbackResult, error) {
	for i := range cfg.Channels {
		cfg.Channels[i].NoReports = true // offline; the agent reports when it runs again
	}
	d, err := open(ctx, cfg, log)
	if err != nil {
		return agent.RollbackResult{}, err
	}
	defer func() { _ = d.close(context.WithoutCancel(ctx)) }()
	if err := d.agent.Start(ctx); err != nil {
		return agent.RollbackResult{}, err
	}
	return d.agent.Rollback(ctx, channel, to)
}

// verifyJournal checks the journal against the state's head and the device key.
func verifyJournal(_ context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, output, err := view("verify-journal", "verify-journal [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	key, err := readKey(fsx.OS{}, cfg.Key)
	if err != nil {
		return err
	}
	doc, err := state.ReadOnly(fsx.OS{}, cfg.State)
	if err != nil {
		return noState(err, cfg)
	}
	r, err := journal.Verify(fsx.OS{}, journalPath(cfg), doc.Journal, journalKey{key})
	if err != nil {
		return diag.Wrap(diag.Verification, err, "verify the journal").Hint("waybill-edge history -n 0 --output json")
	}
	if output == "json" {
		return printJSON(stdout, map[string]any{"entries": r.Head.Entries, "head": "sha256:" + r.Head.Hash, "checkpoints": r.Checkpoints, "signed": r.Signed, "torn": r.Torn})
	}
	fmt.Fprintf(stderr, "%d entries, chain whole; %d checkpoints of device %s cover the first %d\n", r.Head.Entries, r.Checkpoints, key.KeyID()[:12], r.Signed)
	fmt.Fprintf(stdout, "sha256:%s\n", r.Head.Hash)
	return nil
}
