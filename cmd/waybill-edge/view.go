package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/device"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/edge-runtime/view"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
)

// looking is what the commands that look at a device share: the configuration, its file, and the format of the output.
func looking(name, synopsis string, args []string, stderr io.Writer, more func(*flags)) (cfg *config.Config, file, output string, err error) {
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
	cfg, err = config.Load(*path)
	return cfg, *path, *format, err
}

func printJSON(w io.Writer, v any) error {
	b, err := artifact.Canonical(v)
	if err == nil {
		_, err = w.Write(b)
	}
	return err
}

// status shows what the running agent says, or, when it is down, what its state says.
func status(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, file, output, err := looking("status", "status [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	s, err := view.Status(ctx, cfg, file)
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
	if err := view.PrintStatus(stdout, s, ui.Columns(stdout)); err != nil {
		return err
	}
	switch s.AgentState {
	case control.Down:
		fmt.Fprintf(stderr, "hint: waybill-edge run --config %s\n", file)
	case control.Silent, control.Busy:
		fmt.Fprintf(stderr, "hint: waybill-edge doctor --config %s\n", file)
	}
	return nil
}

// history prints the journal.
func history(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	n := 20
	cfg, file, output, err := looking("history", "history [--config FILE] [-n COUNT] [--output json]", args, stderr, func(f *flags) {
		f.IntVar(&n, "n", n, "`COUNT` of the newest entries; 0 for all")
	})
	if err != nil {
		return err
	}
	es, err := view.History(ctx, cfg, file, n)
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
	return view.PrintHistory(stdout, es, ui.Columns(stdout))
}

// poll has the running agent look at its channels now, and waits for what comes of it.
func poll(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var now bool
	cfg, file, output, err := looking("poll", "poll [--now] [--config FILE] [--output json]", args, stderr, func(f *flags) {
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
	err = control.Ask(ctx, cfg, http.MethodPost, target, &s)
	stop()
	if errors.Is(err, control.ErrDown) {
		return diag.Wrap(diag.Failure, err, "poll").Hint("waybill-edge run --config %s", file)
	}
	if err != nil {
		return err
	}
	return showStatus(stdout, stderr, s, output, file)
}

// tellWaiting says, when an order takes long, what the agent is at.
func tellWaiting(ctx context.Context, cfg *config.Config, stderr io.Writer) (stop func()) {
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
		if control.Ask(ctx, cfg, http.MethodGet, "/status", &s) == nil {
			for _, c := range s.Channels {
				if c.State != agent.StateCommitted && c.State != agent.StateEmpty {
					why = fmt.Sprintf("%s is at %s", c.Channel, view.ShownState(c, s.At))
				}
			}
			if s.AgentState == control.Starting {
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
	cfg, file, output, err := looking("rollback", "rollback [--config FILE] [--channel NAME] [--to DIGEST]", args, stderr, func(f *flags) {
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
		if to, err = view.ExpandDigest(ctx, cfg, file, cmp.Or(channel, cfg.Channels[0].Name), to); err != nil {
			return err
		}
	}
	var res agent.RollbackResult
	q := url.Values{"channel": {channel}, "to": {to}}
	stop := tellWaiting(ctx, cfg, stderr)
	err = control.Ask(ctx, cfg, http.MethodPost, "/rollback?"+q.Encode(), &res)
	stop()
	if errors.Is(err, control.ErrDown) {
		res, err = device.Rollback(ctx, cfg, certificates(), channel, artifact.Digest(to))
	}
	if err != nil {
		e := diag.Wrap(control.CodeOf(err), err, "rollback")
		if control.CodeOf(err) == diag.NotFound {
			e.Hint("waybill-edge status --config %s", file)
		}
		return advise(e, file)
	}
	if output == "json" {
		return printJSON(stdout, res)
	}
	fmt.Fprintf(stderr, "%s: %s %s -> %s %s\n", res.Channel, res.From.Version, res.From.Digest.Short(), res.To.Version, res.To.Digest.Short())
	fmt.Fprintln(stdout, res.To.Digest)
	return nil
}

// verifyJournal checks the journal against the state's head and the device key.
func verifyJournal(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	cfg, file, output, err := looking("verify-journal", "verify-journal [--config FILE] [--output json]", args, stderr, nil)
	if err != nil {
		return err
	}
	key, err := config.OpenKey(ctx, fsx.OS{}, cfg.Key)
	if err != nil {
		return err
	}
	doc, err := state.ReadOnly(fsx.OS{}, cfg.State)
	if err != nil {
		return view.NoState(err, cfg, file)
	}
	r, err := journal.Verify(fsx.OS{}, config.JournalPath(cfg), doc.Journal, devicekey.Journal{Key: key})
	if err != nil {
		return diag.Wrap(diag.Verification, err, "verify the journal").Hint("waybill-edge history --config %s -n 0 --output json", file)
	}
	if output == "json" {
		return printJSON(stdout, map[string]any{"entries": r.Head.Entries, "head": "sha256:" + r.Head.Hash, "checkpoints": r.Checkpoints, "signed": r.Signed, "torn": r.Torn})
	}
	fmt.Fprintf(stderr, "%s entries, chain whole; the first %s are covered by %s of device %s\n", ui.Count(r.Head.Entries), ui.Count(r.Signed), ui.Plural(r.Checkpoints, "checkpoint"), key.KeyID()[:12])
	if r.Torn {
		fmt.Fprintln(stderr, "an entry after these was being written when the power went; the next start removes it")
	}
	fmt.Fprintf(stdout, "sha256:%s\n", r.Head.Hash)
	return nil
}
