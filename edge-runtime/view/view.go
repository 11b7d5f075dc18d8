// Package view shows people a device: its status and history, told by the running agent or read from disk when it is down.
package view

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
)

func NoState(err error, cfg *config.Config, file string) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return diag.New(diag.NotFound, "this device has not run yet: there is no state in %s", cfg.State).Hint("waybill-edge run --config %s", file)
	case errors.Is(err, fs.ErrPermission):
		return control.NotOurs(err, "read the state", cfg.State)
	case errors.Is(err, state.ErrDamaged):
		return diag.Wrap(diag.Failure, err, "read the state").Hint("waybill-edge doctor --config %s", file)
	}
	return diag.Wrap(diag.Failure, err, "read the state")
}

// Status asks the running agent, or, when it does not answer, reads what its state says. Nothing is changed.
func Status(ctx context.Context, cfg *config.Config, file string) (agent.Status, error) {
	var s agent.Status
	err := control.Ask(ctx, cfg, http.MethodGet, "/status", &s)
	if err == nil && s.AgentState == "" {
		s.AgentState = control.Running // an agent of an earlier version
	}
	if !errors.Is(err, control.ErrDown) && !errors.Is(err, control.ErrSilent) {
		return s, err
	}
	silent := errors.Is(err, control.ErrSilent)
	if s, err = statusFromDisk(ctx, cfg, time.Now()); err != nil {
		return s, NoState(err, cfg, file)
	}
	s.AgentState = control.Down
	if pid, known := state.Holder(cfg.State); known && pid != 0 {
		s.AgentState, s.PID = control.Busy, pid
	}
	if silent {
		s.AgentState = control.Silent
	}
	return s, nil
}

// statusFromDisk reads the state of a device without owning it.
func statusFromDisk(ctx context.Context, cfg *config.Config, now time.Time) (agent.Status, error) {
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
			if w, err := cfg.Over(c.Carry).ParseWindows(); err != nil && c.Name == s.Channels[i].Channel {
				s.Channels[i].WindowsClosed = w.Closed()
			}
			if c.Name == s.Channels[i].Channel && s.Channels[i].Model == "" {
				s.Channels[i].Model = c.Model
			}
		}
	}
	if free, ferr := (fsx.OS{}).FreeBytes(cfg.State); ferr == nil {
		s.Free = free
	}
	key, err := config.OpenKey(ctx, fsx.OS{}, cfg.Key)
	if err != nil {
		s.JournalState = "not verified: " + err.Error()
		return s, nil
	}
	r, err := journal.Verify(fsx.OS{}, config.JournalPath(cfg), doc.Journal, devicekey.Journal{Key: key})
	s.JournalState = control.JournalVerified
	if err != nil {
		s.JournalState = err.Error()
	}
	if r.Head.Entries > 0 {
		s.Journal = r.Head // the document knows a prefix
	}
	return s, nil
}

// History is the newest n entries of the journal (0: all), told by the running agent or read from disk.
func History(ctx context.Context, cfg *config.Config, file string, n int) ([]journal.Entry, error) {
	var es []journal.Entry
	err := control.Ask(ctx, cfg, http.MethodGet, fmt.Sprintf("/history?n=%d", n), &es)
	if !errors.Is(err, control.ErrDown) && !errors.Is(err, control.ErrSilent) {
		return es, err
	}
	es, err = journal.Read(fsx.OS{}, config.JournalPath(cfg), n)
	if err == nil && len(es) == 0 {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, NoState(err, cfg, file)
	}
	return es, nil
}

// shortestDigest is how many characters of a digest name one.
const shortestDigest = 4

// ExpandDigest finds the digest on the device that begins with text, which may be a whole one with its algorithm.
func ExpandDigest(ctx context.Context, cfg *config.Config, file, channel, text string) (string, error) {
	if _, err := artifact.ParseDigest(text); err == nil {
		return text, nil
	}
	hex := strings.TrimPrefix(text, "sha256:")
	if len(hex) < shortestDigest || len(hex) > 64 || strings.Trim(hex, "0123456789abcdef") != "" {
		return "", diag.New(diag.Usage, "rollback: --to: %q is not a sha256 digest, nor the beginning of one (at least %d characters)", text, shortestDigest).Hint("waybill-edge status --config %s --output json", file)
	}
	s, err := Status(ctx, cfg, file)
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
