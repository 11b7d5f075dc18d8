// Package doctor checks everything that a device rests on, and changes nothing.
package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/owner"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/trust"
)

// Schema is the schema of `doctor --output json`.
const Schema = "waybill.dev/edge-doctor/v1"

// Verdict is the outcome of one check.
type Verdict string

const (
	Good    Verdict = "ok"
	Doubt   Verdict = "warn" // it works, and a person should look at it
	Bad     Verdict = "fail" // something does not work, or will not at the next start
	Skipped Verdict = "skip" // it could not be looked at, or was not asked for
)

// Finding is one line of a diagnosis.
type Finding struct {
	Check  string  `json:"check"`
	Status Verdict `json:"status"`
	What   string  `json:"what"`           // what was found
	Help   string  `json:"help,omitempty"` // a command, or one sentence
}

// Diagnosis is what `doctor --output json` prints; members are only added.
type Diagnosis struct {
	Schema       string    `json:"schema"`
	Version      string    `json:"version"`
	At           time.Time `json:"at"`
	AgentRunning bool      `json:"agentRunning"`
	Failed       int       `json:"failed"`
	Warned       int       `json:"warned"`
	Checks       []Finding `json:"checks"`
}

// Doctor looks at everything that a device rests on. It changes nothing: what it tries, it tries on files without a name.
type Doctor struct {
	file    string
	Offline bool
	Now     time.Time
	Sys     System
	Reach   func(ctx context.Context, c *config.Channel, x config.Carrier) (string, error) // what a carrier says of the channel

	cfg     *config.Config
	key     *devicekey.Key
	trust   *trust.Document
	doc     *state.Doc
	status  *agent.Status // of a running agent
	pid     int           // of the agent; that of this process when it is down
	results []Finding
	sizes   map[string]int64 // of what runs, by channel
}

// New looks at the device whose configuration is in file, on this machine.
func New(file string) *Doctor {
	return &Doctor{file: file, Now: time.Now(), Sys: thisSystem(), Reach: lookAt}
}

//
//go:noinline
func (d *Doctor) add(check string, v Verdict, help, format string, args ...any) {
	d.results = append(d.results, Finding{Check: check, Status: v, What: fmt.Sprintf(format, args...), Help: help})
}

func (d *Doctor) ok(check, format string, args ...any) { d.add(check, Good, "", format, args...) }

func (d *Doctor) check(ctx context.Context) {
	if d.checkConfig() {
		d.checkAgent(ctx)
		d.checkKey(ctx)
		d.checkStateDir()
		d.checkState()
		d.checkTrust()
		d.checkClock()
		d.checkChannels(ctx)
		d.checkJournal()
		d.checkCache()
		d.checkCertificates()
	}
	d.checkEngine(ctx)
	d.checkLimits()
	d.checkService()
}

// Diagnose runs every check that can run.
func (d *Doctor) Diagnose(ctx context.Context) (*Diagnosis, error) {
	d.results, d.sizes = nil, map[string]int64{}
	d.check(ctx)
	if err := ctx.Err(); err != nil {
		return nil, diag.Wrap(diag.Interrupted, err, "doctor")
	}
	out := &Diagnosis{Schema: Schema, Version: version.Number, At: d.Now.UTC(), AgentRunning: d.status != nil, Checks: d.results}
	for _, r := range d.results {
		switch r.Status {
		case Bad:
			out.Failed++
		case Doubt:
			out.Warned++
		}
	}
	return out, nil
}

// Print prints the findings at most width columns wide.
func Print(w io.Writer, fs []Finding, width int) error {
	var b strings.Builder
	const label = 16
	for _, f := range fs {
		room := max(width-label-7, 16)
		for i, l := range ui.Fold(ui.Printable(f.What), room) {
			if i == 0 {
				fmt.Fprintf(&b, "%-4s  %-*s %s\n", f.Status, label, ui.Clip(f.Check, label), l)
			} else {
				fmt.Fprintf(&b, "%-4s  %-*s %s\n", "", label, "", l)
			}
		}
		if f.Help != "" {
			for i, l := range ui.Fold(f.Help, max(room-6, 16)) {
				head := "help: "
				if i > 0 {
					head = "      "
				}
				fmt.Fprintf(&b, "%-4s  %-*s %s%s\n", "", label, "", head, l)
			}
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// checkConfig reads the configuration; without one most checks have nothing to look at.
func (d *Doctor) checkConfig() bool {
	cfg, err := config.Load(d.file)
	if err != nil {
		d.add("config", Bad, firstHint(err, "waybill-edge enroll --help"), "%v", err)
		return false
	}
	d.cfg = cfg
	if info, err := os.Stat(d.file); err == nil && os.PathSeparator == '/' && info.Mode().Perm()&0o022 != 0 {
		d.add("config", Bad, "chmod 600 "+d.file, "%s may be written by others (mode %04o): they decide whom this device trusts", d.file, info.Mode().Perm())
		return true
	}
	d.ok("config", "%s, %s, class %s", d.file, ui.Plural(len(cfg.Channels), "channel"), cfg.Class)
	return true
}

func firstHint(err error, other string) string {
	if hs := control.HintsOf(err); len(hs) > 0 {
		return hs[0]
	}
	return other
}

// checkAgent asks the agent; what it says of itself serves the checks after this one.
func (d *Doctor) checkAgent(ctx context.Context) {
	d.pid = os.Getpid()
	var s agent.Status
	err := control.Ask(ctx, d.cfg, http.MethodGet, "/status", &s)
	holder, known := state.Holder(d.cfg.State)
	switch {
	case err == nil:
		d.status = &s
		if s.PID != 0 {
			d.pid = s.PID
		}
		if s.Version != version.Number {
			d.add("agent", Doubt, "systemctl restart waybill-edge", "it runs version %s, this command is %s", s.Version, version.Number)
			return
		}
		d.ok("agent", "%s, process %d, version %s", cmp.Or(s.AgentState, control.Running), s.PID, s.Version)
	case errors.Is(err, control.ErrDown) && known && holder != 0:
		d.add("agent", Doubt, fmt.Sprintf("ps -p %d", holder), "no agent answers, and process %d has the state directory: it starts, stops or rolls back", holder)
	case errors.Is(err, control.ErrDown):
		d.add("agent", Doubt, "waybill-edge run --config "+d.file, "it is not running")
	case errors.Is(err, control.ErrSilent):
		d.add("agent", Bad, "systemctl restart waybill-edge", "process %d holds the control socket and has not answered for %s", holder, control.Patience)
	default:
		d.add("agent", Bad, firstHint(err, ""), "%v", err)
	}
}

func (d *Doctor) checkKey(ctx context.Context) {
	key, err := config.OpenKey(ctx, fsx.OS{}, d.cfg.Key)
	if err != nil {
		d.add("key", Bad, firstHint(err, ""), "%v", err)
		return
	}
	d.key = key
	d.ok("key", "device %s", key.KeyID())
}

// checkState reads the durable document.
func (d *Doctor) checkState() {
	doc, notes, err := state.Look(fsx.OS{}, d.cfg.State)
	switch {
	case errors.Is(err, os.ErrNotExist):
		d.add("state", Doubt, "waybill-edge run --config "+d.file, "this device has not run yet")
		return
	case errors.Is(err, os.ErrPermission):
		d.add("state", Bad, "sudo -u "+cmp.Or(owner.Name(d.cfg.State), "OWNER")+" waybill-edge doctor", "%v", err)
		return
	case err != nil:
		d.add("state", Bad, "waybill-edge run --config "+d.file, "%v; the next start rebuilds it from the journal", err)
		return
	}
	d.doc = doc
	switch {
	case d.key != nil && doc.Device != "" && doc.Device != d.key.KeyID():
		d.add("state", Bad, "", "it belongs to device %.12s, the key is that of device %.12s", doc.Device, d.key.KeyID())
	case doc.Rebuilt != nil && len(doc.Rebuilt.Lacking) > 0:
		d.add("state", Doubt, "waybill-edge history --config "+d.file, "it was rebuilt at %s (%s); %s", doc.Rebuilt.At.Format(time.RFC3339), doc.Rebuilt.Why, strings.Join(doc.Rebuilt.Lacking, "; "))
	case doc.Rebuilt != nil:
		d.add("state", Doubt, "the disk loses or alters what is written: look at it", "it was rebuilt at %s (%s)", doc.Rebuilt.At.Format(time.RFC3339), doc.Rebuilt.Why)
	case len(notes) > 0:
		d.add("state", Doubt, "the disk loses or alters what is written: look at it", "%s", strings.Join(notes, "; "))
	default:
		d.ok("state", "document %d of %s, %s", doc.Serial, filepath.Base(d.cfg.State), ui.Plural(len(doc.Channels), "channel"))
	}
	if n := len(doc.Outbox); n > 16 && d.status == nil {
		d.add("state", Doubt, "", "%d decisions wait for the journal, which could not be written", n)
	}
}
