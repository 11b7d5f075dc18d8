// Package demo runs the main job from end to end on a real model and tells it as a story: a registry, a packed and
// signed model, the gate, a device that follows its channel, attacks, an automatic rollback, the audit. Each step is made
// of public commands of waybill and waybill-edge, shown as they run. Commands of waybill run through the program's own
// entry; waybill-edge is a real second process.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/ui"
)

// CLI runs one command line of waybill in a working directory with additional environment variables, and returns its
// exit code.
type CLI func(ctx context.Context, dir string, vars map[string]string, args []string, stdout, stderr io.Writer) int

// Options of Run.
type Options struct {
	Waybill CLI
	UI      *ui.UI
	Getenv  func(string) string
	Dir     string // where the user is
	Keep    string // folder that keeps the work area; "" removes it
	Edge    string // waybill-edge to use; "" finds one beside this program, else builds it
}

// Step is the outcome of one step.
type Step struct {
	Name    string  `json:"name"`
	OK      bool    `json:"ok"`
	Seconds float64 `json:"seconds"`
	Detail  string  `json:"detail"`
}

// Result is the outcome of the demo.
type Result struct {
	OK      bool              `json:"ok"`
	Steps   []Step            `json:"steps"`
	Digests map[string]string `json:"digests"`
	Kept    string            `json:"kept,omitempty"`
}

// step is one row of the storyline. run returns one line that says what was proven.
type step struct {
	name  string
	title string
	run   func(ctx context.Context, w *world) (string, error)
}

func storyline() []step {
	return []step{
		{"runtime", "Build the device runtime", stepRuntime},
		{"registry", "Start a registry on this machine", stepRegistry},
		{"pack", "Pack the model: compile it, prove it against scikit-learn, bundle it", stepPack},
		{"gate", "Sign it, attest its metrics, and let the policy decide", stepGate},
		{"deploy", "Publish it to a channel; a device pulls, verifies and serves it", stepDeploy},
		{"update", "Ship version 2 while a client keeps asking", stepUpdate},
		{"attacks", "Attack it", stepAttacks},
		{"denied", "A model that learned nothing meets the gate", stepDenied},
		{"rollback", "Version 3 is right but too slow here: the device goes back by itself", stepRollback},
		{"audit", "Ask who, from what, by which rule, and where it ran", stepAudit},
	}
}

// Run tells the whole story. The error says which step did not happen as described; the result is complete up to it.
// On return no process of the demo is left, and no file unless Keep is set, also when ctx was cancelled.
func Run(ctx context.Context, o Options) (res Result, err error) {
	res = Result{Steps: []Step{}, Digests: map[string]string{}}
	w, err := newWorld(o)
	if err != nil {
		return res, err
	}
	defer func() {
		if cerr := w.close(); err == nil && cerr != nil {
			err = fmt.Errorf("clean up: %w", cerr)
			res.OK = false
		}
	}()
	res.Digests = w.digests
	started := time.Now()
	for i, s := range storyline() {
		w.heading(i, s.title)
		begin := time.Now()
		detail, serr := s.run(ctx, w)
		if serr == nil {
			serr = ctx.Err()
		}
		st := Step{Name: s.name, OK: serr == nil, Seconds: time.Since(begin).Seconds(), Detail: detail}
		if serr != nil {
			st.Detail = serr.Error()
			res.Steps = append(res.Steps, st)
			if ctx.Err() != nil {
				return res, ctx.Err()
			}
			w.saveLogs()
			return res, fmt.Errorf("step %d (%s): %w", i, s.name, serr)
		}
		res.Steps = append(res.Steps, st)
		w.outcome(detail, time.Since(begin))
	}
	res.OK = true
	res.Kept = o.Keep
	w.ending(res, time.Since(started))
	return res, nil
}

// world is the state of a run.
type world struct {
	o       Options
	dir     string // work area
	vars    map[string]string
	digests map[string]string
	edgeBin string
	reg     *server // the registry
	host    string  // its host:port
	edge    *process
	api     string        // base URL of the device
	best    time.Duration // of version 1 on the client's rows, on this machine
	config  string        // the device's configuration file, relative to dir
	rows    rows
	facts   map[string]string
}

func newWorld(o Options) (*world, error) {
	w := &world{o: o, digests: map[string]string{}, facts: map[string]string{}}
	var err error
	if o.Keep != "" {
		if es, err := os.ReadDir(o.Keep); err == nil && len(es) > 0 {
			return nil, fmt.Errorf("%s is not empty", o.Keep)
		}
		if err := os.MkdirAll(o.Keep, 0o700); err != nil {
			return nil, err
		}
		w.dir, err = filepath.Abs(o.Keep)
	} else {
		w.dir, err = os.MkdirTemp("", "waybill-demo-")
	}
	if err != nil {
		return nil, err
	}
	if w.dir, err = filepath.EvalSymlinks(w.dir); err != nil {
		return nil, err
	}
	w.vars = map[string]string{
		"WAYBILL_HOME":     filepath.Join(w.dir, "home"),
		"WAYBILL_PASSWORD": "a passphrase for the demo",
		"WAYBILL_OUTPUT":   "", "WAYBILL_QUIET": "", "WAYBILL_VERBOSE": "", "WAYBILL_COLOR": "",
	}
	return w, nil
}

// close ends every process and removes the work area.
func (w *world) close() error {
	var errs []error
	if w.edge != nil {
		w.edge.kill()
	}
	if w.reg != nil {
		w.reg.stop()
	}
	if w.o.Keep == "" {
		// What the device keeps is read-only on purpose.
		_ = filepath.WalkDir(w.dir, func(p string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = os.Chmod(p, 0o700)
			}
			return nil
		})
		if err := os.RemoveAll(w.dir); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// heading, say, shown and outcome write the story; in JSON mode it is silent.
func (w *world) heading(i int, title string) {
	w.printf("\n%s\n", w.o.UI.Err.Bold(fmt.Sprintf("%d. %s", i, title)))
}

func (w *world) say(format string, args ...any) { w.printf("   %s\n", fmt.Sprintf(format, args...)) }

func (w *world) outcome(detail string, d time.Duration) {
	w.printf("   %s  %s  %s\n", w.o.UI.Err.Green("ok"), detail, w.o.UI.Err.Dim("("+ui.Duration(d)+")"))
}

func (w *world) printf(format string, args ...any) {
	if !w.o.UI.JSON && !w.o.UI.Quiet {
		w.o.UI.Err.Printf(format, args...)
	}
}

// tail prints the lines of out that matter, indented.
func (w *world) tail(out string, limit int) {
	lines := strings.Split(strings.TrimRight(out, "\n"), "\n")
	if len(lines) > limit {
		lines = append(lines[:limit], fmt.Sprintf("... %d more lines", len(lines)-limit))
	}
	for _, l := range lines {
		if l != "" {
			w.printf("     %s\n", short(l))
		}
	}
}

func (w *world) ending(res Result, total time.Duration) {
	w.printf("\n%s  %d steps in %s\n", w.o.UI.Err.Green("All of it happened as described."), len(res.Steps), ui.Duration(total))
	var names []string
	for n := range res.Digests {
		names = append(names, n)
	}
	sort.Strings(names)
	for _, n := range names {
		w.printf("   %-8s %s\n", n, res.Digests[n])
	}
	if w.o.Keep != "" {
		w.printf("\nThe work area is %s. Try there:\n", w.dir)
		w.printf("   export WAYBILL_HOME=%s WAYBILL_PASSWORD='%s'\n", w.path("home"), w.vars["WAYBILL_PASSWORD"])
		for _, l := range w.next() {
			w.printf("   %s\n", w.o.UI.Err.Cyan(l))
		}
	}
}

func (w *world) saveLogs() {
	if w.edge != nil {
		w.printf("\n   the device's log ends with:\n")
		w.tail(w.edge.lastLog(12), 12)
	}
}
