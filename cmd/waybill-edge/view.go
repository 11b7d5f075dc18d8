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
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// view is what the commands that look at a device share: the configuration, its file, and the format of the output.
func view(name, synopsis string, args []string, stderr io.Writer, more func(*flags)) (cfg *config, file, output string, err error) {
	f := newFlags(name, synopsis, stderr)
	path, format := f.configFlag(), f.outputFlag()
	if more != nil {
		more(f)
	}
	if err := f.parse(args); err != nil {
		return nil, "", "", err
	}
	if err := checkOutput(name, *format); err != nil {
		return nil, "", "", err
	}
	cfg, err = loadConfig(*path)
	return cfg, *path, *format, err
}

func journalPath(cfg *config) string { return filepath.Join(cfg.State, "journal.log") }

func printJSON(w io.Writer, v any) error {
	b, err := artifact.Canonical(v)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

func noState(err error, cfg *config, file string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diag.New(diag.NotFound, "this device has not run yet: there is no state in %s", cfg.State).Hint("waybill-edge run --config %s", file)
	case errors.Is(err, fs.ErrPermission):
		return notOurs(err, "read the state", cfg.State)
	case errors.Is(err, state.ErrDamaged):
		return diag.Wrap(diag.Failure, err, "read the state").Hint("waybill-edge doctor --config %s", file)
	}
	return diag.Wrap(diag.Failure, err, "read the state")
}

// deviceStatus asks the running agent, or, when it does not answer, reads what its state says. Nothing is changed.
func deviceStatus(ctx context.Context, cfg *config, file string) (agent.Status, error) {
	var s agent.Status
	err := ask(ctx, cfg, http.MethodGet, "/status", &s)
	if err == nil && s.AgentState == "" {
		s.AgentState = phaseRunning // an agent of an earlier version
	}
	if !errors.Is(err, errDown) && !errors.Is(err, errSilent) {
		return s, err
	}
	silent := errors.Is(err, errSilent)
	if s, err = statusFromDisk(ctx, cfg, time.Now()); err != nil {
		return s, noState(err, cfg, file)
	}
	s.AgentState = agentDown
	if pid, known := state.Holder(cfg.State); known && pid != 0 {
		s.AgentState, s.PID = agentBusy, pid
	}
	if silent {
		s.AgentState = agentSilent
	}
	return s, nil
}

// statusFromDisk reads the state of a device without owning it.
func statusFromDisk(ctx context.Context, cfg *config, now time.Time) (agent.Status, error) {
	doc, _, err := state.Look(fsx.OS{}, cfg.State)
	if err != nil {
		return agent.Status{}, err
	}
	for _, c := range cfg.Channels {
		doc.Channel(c.Name)
	}
	s := agent.StatusOf(doc, now)
	if s.Trust == 0 {
		s.Trust = cfg.Trust.Version
	}
	for i := range s.Channels {
		for _, c := range cfg.Channels {
			if c.Name == s.Channels[i].Channel && s.Channels[i].Model == "" {
				s.Channels[i].Model = c.Model
			}
		}
	}
	if free, ferr := (fsx.OS{}).FreeBytes(cfg.State); ferr == nil {
		s.Free = free
	}
	key, err := openKey(ctx, fsx.OS{}, cfg.Key)
	if err != nil {
		s.JournalState = "not verified: " + err.Error()
		return s, nil
	}
	r, err := journal.Verify(fsx.OS{}, journalPath(cfg), doc.Journal, journalKey{key})
	s.JournalState = journalVerified
	if err != nil {
		s.JournalState = err.Error()
	}
	if r.Head.Entries > 0 {
		s.Journal = r.Head // the document knows a prefix
	}
	return s, nil
}

// status shows what the running agent says, or, when it is down, what its state says.
func status(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, file, output, err := view("status", "status [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	s, err := deviceStatus(ctx, cfg, file)
	if err != nil {
		return err
	}
	return showStatus(stdout, stderr, s, output, file)
}

// showStatus prints a status; what to do about an agent that is not there goes to stderr.
func showStatus(stdout, stderr io.Writer, s agent.Status, output, file string) error {
	if output == "json" {
		return printJSON(stdout, s)
	}
	if err := printStatus(stdout, s, columns(stdout)); err != nil {
		return err
	}
	switch s.AgentState {
	case agentDown:
		fmt.Fprintf(stderr, "hint: waybill-edge run --config %s\n", file)
	case agentSilent, agentBusy:
		fmt.Fprintf(stderr, "hint: waybill-edge doctor --config %s\n", file)
	}
	return nil
}

// history prints the journal.
func history(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	n := 20
	cfg, file, output, err := view("history", "history [--config FILE] [-n COUNT] [--output json]", args, stderr, func(f *flags) {
		f.IntVar(&n, "n", n, "`COUNT` of the newest entries; 0 for all")
	})
	if err != nil {
		return err
	}
	var es []journal.Entry
	err = ask(ctx, cfg, http.MethodGet, fmt.Sprintf("/history?n=%d", n), &es)
	if errors.Is(err, errDown) || errors.Is(err, errSilent) {
		es, err = journal.Read(fsx.OS{}, journalPath(cfg), n)
		if err == nil && len(es) == 0 {
			err = fs.ErrNotExist
		}
		if err != nil {
			return noState(err, cfg, file)
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
	return printHistory(stdout, es, columns(stdout))
}

// poll has the running agent look at its channels now, and waits for what comes of it.
func poll(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var now bool
	cfg, file, output, err := view("poll", "poll [--now] [--config FILE] [--output json]", args, stderr, func(f *flags) {
		f.BoolVar(&now, "now", false, "do not wait for a maintenance window: somebody is on site")
	})
	if err != nil {
		return err
	}
	target := "/poll"
	if now {
		target += "?now=1"
	}
	var s agent.Status
	stop := tellWaiting(ctx, cfg, stderr)
	err = ask(ctx, cfg, http.MethodPost, target, &s)
	stop()
	if errors.Is(err, errDown) {
		return diag.Wrap(diag.Failure, err, "poll").Hint("waybill-edge run --config %s", file)
	}
	if err != nil {
		return err
	}
	return showStatus(stdout, stderr, s, output, file)
}

// tellWaiting says, when an order takes long, what the agent is at.
func tellWaiting(ctx context.Context, cfg *config, stderr io.Writer) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTimer(2 * time.Second)
		defer t.Stop()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		var s agent.Status
		why := "it does not say at what"
		if ask(ctx, cfg, http.MethodGet, "/status", &s) == nil {
			for _, c := range s.Channels {
				if c.State != agent.StateCommitted && c.State != agent.StateEmpty {
					why = fmt.Sprintf("%s is at %s", c.Channel, shownState(c, s.At))
				}
			}
			if s.AgentState == phaseStarting {
				why = "it is starting"
			}
		}
		if ctx.Err() == nil {
			fmt.Fprintf(stderr, "waiting for the agent: %s (an interrupt ends the waiting, not the agent)\n", why)
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// rollback takes the device back: through the agent, or on its state when it is down.
func rollback(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var channel, to string
	cfg, file, output, err := view("rollback", "rollback [--config FILE] [--channel NAME] [--to DIGEST]", args, stderr, func(f *flags) {
		f.StringVar(&channel, "channel", "", "`NAME`; may be left out when the device follows one channel")
		f.StringVar(&to, "to", "", "`DIGEST` that this device has run before, or how it begins (default: the one before the present)")
	})
	if err != nil {
		return err
	}
	if channel == "" && len(cfg.Channels) > 1 {
		var names []string
		for _, c := range cfg.Channels {
			names = append(names, c.Name)
		}
		return diag.New(diag.Usage, "rollback: this device follows %d channels (%s): --channel is missing", len(names), strings.Join(names, ", ")).
			Hint("waybill-edge rollback --config %s --channel %s", file, names[0])
	}
	if to != "" {
		if to, err = expandDigest(ctx, cfg, file, first(channel, cfg.Channels[0].Name), to); err != nil {
			return err
		}
	}
	var res agent.RollbackResult
	q := url.Values{"channel": {channel}, "to": {to}}
	stop := tellWaiting(ctx, cfg, stderr)
	err = ask(ctx, cfg, http.MethodPost, "/rollback?"+q.Encode(), &res)
	stop()
	if errors.Is(err, errDown) {
		res, err = rollbackDown(ctx, cfg, channel, artifact.Digest(to), slog.New(slog.DiscardHandler))
	}
	if err != nil {
		e := diag.Wrap(codeOf(err), err, "rollback")
		if codeOf(err) == diag.NotFound {
			e.Hint("waybill-edge status --config %s", file)
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

// shortestDigest is how many characters of a digest name one.
const shortestDigest = 4

// expandDigest finds the digest on the device that begins with text, which may be a whole one with its algorithm.
func expandDigest(ctx context.Context, cfg *config, file, channel, text string) (string, error) {
	if _, err := artifact.ParseDigest(text); err == nil {
		return text, nil
	}
	hex := strings.TrimPrefix(text, "sha256:")
	if len(hex) < shortestDigest || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", diag.New(diag.Usage, "rollback: --to: %q is not a sha256 digest, nor the beginning of one (at least %d characters)", text, shortestDigest).Hint("waybill-edge status --config %s --output json", file)
	}
	s, err := deviceStatus(ctx, cfg, file)
	if err != nil {
		return "", err
	}
	var found []string
	for _, c := range s.Channels {
		if c.Channel != channel {
			continue
		}
		for _, slot := range slotsOf(c) {
			if strings.HasPrefix(slot.Digest.Hex(), hex) && !slices.Contains(found, string(slot.Digest)) {
				found = append(found, string(slot.Digest))
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return "", diag.New(diag.NotFound, "rollback: --to: nothing that channel %s has run here and still keeps begins with %s", channel, hex).Hint("waybill-edge status --config %s --output json", file)
	}
	return "", diag.New(diag.Usage, "rollback: --to: %s is the beginning of several digests: %s", hex, strings.Join(found, ", "))
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
func verifyJournal(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, file, output, err := view("verify-journal", "verify-journal [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	key, err := openKey(ctx, fsx.OS{}, cfg.Key)
	if err != nil {
		return err
	}
	doc, err := state.ReadOnly(fsx.OS{}, cfg.State)
	if err != nil {
		return noState(err, cfg, file)
	}
	r, err := journal.Verify(fsx.OS{}, journalPath(cfg), doc.Journal, journalKey{key})
	if err != nil {
		return diag.Wrap(diag.Verification, err, "verify the journal").Hint("waybill-edge history --config %s -n 0 --output json", file)
	}
	if output == "json" {
		return printJSON(stdout, map[string]any{"entries": r.Head.Entries, "head": "sha256:" + r.Head.Hash, "checkpoints": r.Checkpoints, "signed": r.Signed, "torn": r.Torn})
	}
	fmt.Fprintf(stderr, "%s entries, chain whole; %s of device %s cover the first %s\n", ui.Count(r.Head.Entries), ui.Plural(r.Checkpoints, "checkpoint"), key.KeyID()[:12], ui.Count(r.Signed))
	if r.Torn {
		fmt.Fprintln(stderr, "an entry after these was being written when the power went; the next start removes it")
	}
	fmt.Fprintf(stdout, "sha256:%s\n", r.Head.Hash)
	return nil
}
