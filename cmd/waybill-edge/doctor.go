package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/trust"
)

// schemaDoctor is the schema of `doctor --output json`.
const schemaDoctor = "waybill.dev/edge-doctor/v1"

// verdict is the outcome of one check.
type verdict string

const (
	good    verdict = "ok"
	doubt   verdict = "warn" // it works, and a person should look at it
	bad     verdict = "fail" // something does not work, or will not at the next start
	skipped verdict = "skip" // it could not be looked at, or was not asked for
)

// finding is one line of a diagnosis.
type finding struct {
	Check  string  `json:"check"`
	Status verdict `json:"status"`
	What   string  `json:"what"`           // what was found
	Help   string  `json:"help,omitempty"` // a command, or one sentence
}

// diagnosis is what `doctor --output json` prints; members are only added.
type diagnosis struct {
	Schema       string    `json:"schema"`
	Version      string    `json:"version"`
	At           time.Time `json:"at"`
	AgentRunning bool      `json:"agentRunning"`
	Failed       int       `json:"failed"`
	Warned       int       `json:"warned"`
	Checks       []finding `json:"checks"`
}

// doctor looks at everything that a device rests on. It changes nothing: what it tries, it tries on files without a name.
type doctor struct {
	file    string
	offline bool
	now     time.Time
	sys     system
	reach   func(ctx context.Context, c *channelConfig, x carrierConfig) (string, error) // what a carrier says of the channel

	cfg     *config
	key     *devicekey.Key
	trust   *trust.Document
	doc     *state.Doc
	status  *agent.Status // of a running agent
	pid     int           // of the agent; that of this process when it is down
	results []finding
}

func (d *doctor) add(check string, v verdict, help, format string, args ...any) {
	d.results = append(d.results, finding{Check: check, Status: v, What: fmt.Sprintf(format, args...), Help: help})
}

func (d *doctor) ok(check, format string, args ...any) { d.add(check, good, "", format, args...) }

// diagnose runs every check that can run.
func (d *doctor) diagnose(ctx context.Context) {
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

// runDoctor is the command doctor.
func runDoctor(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	f := newFlags("doctor", "doctor [--config FILE] [--offline] [--output json]", stderr)
	path, output := f.configFlag(), f.outputFlag()
	offline := f.Bool("offline", false, "ask nothing over the network")
	if err := f.parse(args); err != nil {
		return err
	}
	if err := checkOutput("doctor", *output); err != nil {
		return err
	}
	d := &doctor{file: *path, offline: *offline, now: time.Now(), sys: thisSystem(), reach: lookAt}
	d.diagnose(ctx)
	if err := ctx.Err(); err != nil {
		return diag.Wrap(diag.Interrupted, err, "doctor")
	}
	out := diagnosis{Schema: schemaDoctor, Version: version.Number, At: d.now.UTC(), AgentRunning: d.status != nil, Checks: d.results}
	for _, r := range d.results {
		switch r.Status {
		case bad:
			out.Failed++
		case doubt:
			out.Warned++
		}
	}
	if *output == "json" {
		enc := json.NewEncoder(stdout)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		if err := enc.Encode(out); err != nil {
			return err
		}
	} else if err := printDiagnosis(stdout, d.results, columns(stdout)); err != nil {
		return err
	}
	if out.Failed > 0 {
		return diag.New(diag.Failure, "%s of %d failed", ui.Plural(out.Failed, "check"), len(d.results))
	}
	fmt.Fprintf(stderr, "%d checks, none failed, %s\n", len(d.results), ui.Plural(out.Warned, "warning"))
	return nil
}

func printDiagnosis(w io.Writer, fs []finding, width int) error {
	var b strings.Builder
	const label = 16
	for _, f := range fs {
		room := max(width-label-7, 16)
		for i, l := range ui.Fold(printable(f.What), room) {
			if i == 0 {
				fmt.Fprintf(&b, "%-4s  %-*s %s\n", f.Status, label, clipText(f.Check, label), l)
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
func (d *doctor) checkConfig() bool {
	cfg, err := loadConfig(d.file)
	if err != nil {
		d.add("config", bad, firstHint(err, "waybill-edge enroll --help"), "%v", err)
		return false
	}
	d.cfg = cfg
	if info, err := os.Stat(d.file); err == nil && os.PathSeparator == '/' && info.Mode().Perm()&0o022 != 0 {
		d.add("config", bad, "chmod 600 "+d.file, "%s may be written by others (mode %04o): they decide whom this device trusts", d.file, info.Mode().Perm())
		return true
	}
	d.ok("config", "%s, %s, class %s", d.file, ui.Plural(len(cfg.Channels), "channel"), cfg.Class)
	return true
}

func firstHint(err error, other string) string {
	if hs := hintsOf(err); len(hs) > 0 {
		return hs[0]
	}
	return other
}

// checkAgent asks the agent; what it says of itself serves the checks after this one.
func (d *doctor) checkAgent(ctx context.Context) {
	d.pid = os.Getpid()
	var s agent.Status
	err := ask(ctx, d.cfg, http.MethodGet, "/status", &s)
	holder, known := state.Holder(d.cfg.State)
	switch {
	case err == nil:
		d.status = &s
		if s.PID != 0 {
			d.pid = s.PID
		}
		if s.Version != version.Number {
			d.add("agent", doubt, "systemctl restart waybill-edge", "it runs version %s, this command is %s", s.Version, version.Number)
			return
		}
		d.ok("agent", "%s, process %d, version %s", first(s.AgentState, phaseRunning), s.PID, s.Version)
	case errors.Is(err, errDown) && known && holder != 0:
		d.add("agent", doubt, fmt.Sprintf("ps -p %d", holder), "no agent answers, and process %d has the state directory: it starts, stops or rolls back", holder)
	case errors.Is(err, errDown):
		d.add("agent", doubt, "waybill-edge run --config "+d.file, "it is not running")
	case errors.Is(err, errSilent):
		d.add("agent", bad, "systemctl restart waybill-edge", "process %d holds the control socket and has not answered for %s", holder, patience)
	default:
		d.add("agent", bad, firstHint(err, ""), "%v", err)
	}
}

func (d *doctor) checkKey(ctx context.Context) {
	key, err := openKey(ctx, fsx.OS{}, d.cfg.Key)
	if err != nil {
		d.add("key", bad, firstHint(err, ""), "%v", err)
		return
	}
	d.key = key
	d.ok("key", "device %s", key.KeyID())
}

// checkState reads the durable document.
func (d *doctor) checkState() {
	doc, notes, err := state.Look(fsx.OS{}, d.cfg.State)
	switch {
	case errors.Is(err, os.ErrNotExist):
		d.add("state", doubt, "waybill-edge run --config "+d.file, "this device has not run yet")
		return
	case errors.Is(err, os.ErrPermission):
		d.add("state", bad, "sudo -u "+first(ownerName(d.cfg.State), "OWNER")+" waybill-edge doctor", "%v", err)
		return
	case err != nil:
		d.add("state", bad, "mv "+d.cfg.State+" "+d.cfg.State+".damaged, then start: the device begins anew and takes what its channels name", "%v", err)
		return
	}
	d.doc = doc
	switch {
	case d.key != nil && doc.Device != "" && doc.Device != d.key.KeyID():
		d.add("state", bad, "", "it belongs to device %.12s, the key is that of device %.12s", doc.Device, d.key.KeyID())
	case len(notes) > 0:
		d.add("state", doubt, "the disk loses or alters what is written: look at it", "%s", strings.Join(notes, "; "))
	default:
		d.ok("state", "document %d of %s, %s", doc.Serial, filepath.Base(d.cfg.State), ui.Plural(len(doc.Channels), "channel"))
	}
	if n := len(doc.Outbox); n > 16 && d.status == nil {
		d.add("state", doubt, "", "%d decisions wait for the journal, which could not be written", n)
	}
}
