// Package targettest is the suite that every deploy.Target passes. A target's tests supply a Harness: a local server that stands
// for the platform, and the target in front of it, through the platform's real client. The suite puts itself between the two (Wire),
// fails, loses, delays and interleaves single calls, and looks at what the platform serves, not at what the target says.
//
// The local server keeps its state machine by calls, not by clocks: what takes time on the platform takes a few reads there. Targets
// under test ask and retry without noticeable waits. So the suite is quick and gives the same result on a loaded machine.
package targettest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Harness makes platforms.
type Harness struct {
	// New makes an empty platform whose server handles requests through w.Handler. It fails tb when it cannot, and cleans up
	// through it.
	New func(tb testing.TB, w *Wire) *Fixture
	// Without names parts of the suite, or causes within one ("refusals/quota"), that this platform cannot have, each with the reason.
	// A name that the suite does not have fails it.
	Without map[string]string
	// Portable says that what the platform runs is WebAssembly: it has no architectures, and no words about them. Its releases name none,
	// or wasm; the part architecture expects that and refusals of all others, of the target itself.
	Portable bool
}

// Fixture is one platform. All functions are required, unless it says otherwise. Those that look at or change the platform do so
// directly, not through the wire.
type Fixture struct {
	// Target is the target under test in a state as if its process just began. It logs to log, at all levels.
	Target func(log *slog.Logger) deploy.Target
	// Release is the n-th release, from 1: always the same for the same n, another image or bundle for another n. Wait is left to the suite.
	Release func(n int) deploy.Release
	// Serving is who gets traffic at this moment, in percent by the artifact, judged by the code that really runs there (the
	// image's digest, the uploaded files), not by labels. It changes nothing.
	Serving func() map[artifact.Digest]int
	// Rest lets everything that is under way on the platform come to its end.
	Rest func()
	// Dump is the platform's whole state as text, without counters and times of reads: two equal dumps are the same state.
	Dump func() string
	// Sick makes the platform never run d: with ErrUnhealthy it reports that it failed, with ErrUnavailable it stays pending for
	// ever, with ErrPlatform, ErrTooLarge and ErrQuota it says that in its own words at the call where it would.
	Sick func(d artifact.Digest, cause error)
	// Forget deletes what the platform keeps of d besides the one that serves: somebody tidied up.
	Forget func(d artifact.Digest)
	// Meddle changes a setting that the target sets (memory, environment ...), by hand, not the traffic. The second call may change it again.
	Meddle func()
	// Fail answers a request as the platform does for cause (ErrThrottled, ErrUnavailable, ErrForbidden, ErrUnauthorized), without
	// acting on it. message is part of the answer wherever the platform has a text.
	Fail func(w http.ResponseWriter, r *http.Request, cause error, message string)
	// Secrets are all credentials that the target was given, and what is derived from them and as good.
	Secrets []string
}

// long is given to releases that get healthy: on a loaded machine too the platform's state machine ends long before.
const long = time.Minute

// part is one of the suite's.
type part struct {
	name string
	run  func(c *check)
}

func parts() []part {
	return slices.Concat(basicParts(), refusalParts(), faultParts(), togetherParts(), canaryParts())
}

// Run runs the suite, one subtest per part.
func Run(t *testing.T, h Harness) {
	known := map[string]bool{}
	for _, p := range parts() {
		known[p.name] = true
	}
	for _, c := range causes() {
		known["refusals/"+c.name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(h.Without)) {
		if !known[name] || h.Without[name] == "" {
			t.Errorf("Without: the suite has no part %q, or no reason is given", name)
		}
	}
	for _, p := range parts() {
		t.Run(p.name, func(t *testing.T) {
			if why := h.Without[p.name]; why != "" {
				t.Skipf("this platform cannot: %s", why)
			}
			for _, problem := range problems(t, h, p) {
				t.Error(problem)
			}
		})
	}
}

// problems runs one part and gives what it found, so that the suite's own tests can expect it to find something.
func problems(tb testing.TB, h Harness, p part) []string {
	tb.Helper()
	c := &check{tb: tb, h: h}
	func() {
		defer func() {
			if r := recover(); r != nil && r != any(stop{}) {
				panic(r)
			}
		}()
		p.run(c)
	}()
	return c.found
}

// stop ends a part early.
type stop struct{}

// check is one run of a part.
type check struct {
	tb    testing.TB
	h     Harness
	where string // the scenario within the part
	mu    sync.Mutex
	found []string
}

// errorf notes a problem. More than a dozen of one part tell nothing more.
func (c *check) errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) < 12 {
		c.found = append(c.found, strings.TrimPrefix(c.where+": "+fmt.Sprintf(format, args...), ": "))
	}
}

// at names the scenario from here on.
func (c *check) at(where string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.where = where
}

// fatalf notes a problem that makes the rest of the part pointless.
func (c *check) fatalf(format string, args ...any) {
	c.errorf(format, args...)
	panic(stop{})
}

// world is a fresh platform with what the suite knows about it.
type world struct {
	*check
	*Fixture
	wire *Wire
	log  *lockedBuffer
	sick map[artifact.Digest]bool
}

// world makes one. where names the scenario in messages.
func (c *check) world(where string, args ...any) *world {
	c.at(fmt.Sprintf(where, args...))
	w := &world{check: c, wire: &Wire{}, log: &lockedBuffer{}, sick: map[artifact.Digest]bool{}}
	w.Fixture = c.h.New(c.tb, w.wire)
	w.wire.fail, w.wire.serving = w.Fixture.Fail, w.Fixture.Serving
	return w
}

// target is a fresh process. All that comes out of it is searched for secrets.
func (w *world) target() *watched {
	log := slog.New(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))
	return &watched{Target: w.Fixture.Target(log), w: w}
}

// release is the n-th with time enough.
func (w *world) release(n int) deploy.Release {
	r := w.Release(n)
	r.Wait = long
	return r
}

// digest is that of the n-th release.
func (w *world) digest(n int) artifact.Digest { return w.Release(n).Digest }

// apply plans and applies r with a fresh target.
func (w *world) apply(ctx context.Context, r deploy.Release) (*deploy.Outcome, error) {
	t := w.target()
	p, err := t.Plan(ctx, r)
	if err != nil {
		return nil, err
	}
	return t.Apply(ctx, p)
}

// deployed makes the releases serve one after the other.
func (w *world) deployed(ns ...int) *world {
	for _, n := range ns {
		if _, err := w.apply(w.tb.Context(), w.release(n)); err != nil {
			w.fatalf("release %d could not be deployed: %v", n, err)
		}
		w.serves("after the deploy", n)
	}
	return w
}

// serves expects all traffic at release n, 0 for nowhere.
func (w *world) serves(when string, n int) {
	w.Rest()
	got := w.Serving()
	if n == 0 && len(got) == 0 {
		return
	}
	if n == 0 || got[w.digest(n)] != 100 || len(got) != 1 {
		w.errorf("%s: %s serves, want release %d", when, w.show(got), n)
	}
}

// show writes shares as releases.
func (w *world) show(shares map[artifact.Digest]int) string {
	var out []string
	for d, weight := range shares {
		name := string(d)
		for n := 1; n <= 4; n++ {
			if w.digest(n) == d {
				name = fmt.Sprintf("release %d", n)
			}
		}
		out = append(out, fmt.Sprintf("%s at %d%%", name, weight))
	}
	if out == nil {
		return "nothing"
	}
	slices.Sort(out)
	return strings.Join(out, " and ")
}

// outcome expects o to say what happened, as a deployment/v1 statement needs it.
func (w *world) outcome(o *deploy.Outcome, now, before int, image bool) {
	if o == nil {
		w.errorf("there is no Outcome")
		return
	}
	var prev artifact.Digest
	if before > 0 {
		prev = w.digest(before)
	}
	if o.Digest != w.digest(now) || o.Previous != prev || !o.Changed || o.Weight != 100 {
		w.errorf("the Outcome says %+v, want release %d after %d, changed, at 100%%", o, now, before)
	}
	if len(o.IDs) == 0 {
		w.errorf("the Outcome has no ids of the platform")
	}
	for k, v := range o.IDs {
		if k == "" || v == "" {
			w.errorf("the Outcome has an empty id: %q", o.IDs)
		}
	}
	if want := w.Release(now).Image; image && want != "" {
		_, a, err := deploy.SplitImage(o.Image)
		_, b, _ := deploy.SplitImage(want)
		if err != nil || a != b {
			w.errorf("the Outcome says that image %q runs, want %s", o.Image, want)
		}
	}
}

// is expects err to wrap one of wants.
func (w *world) is(what string, err error, wants ...error) {
	if !slices.ContainsFunc(wants, func(want error) bool { return errors.Is(err, want) }) {
		w.errorf("%s: error %v, want one that is %q", what, err, wants)
	}
}

// watched searches everything that a target gives for secrets.
type watched struct {
	deploy.Target
	w *world
}

func (t *watched) Status(ctx context.Context) (*deploy.Status, error) {
	s, err := t.Target.Status(ctx)
	t.w.search("Status", s, err)
	return s, err
}

func (t *watched) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	p, err := t.Target.Plan(ctx, r)
	t.w.search("Plan", p, err)
	if (p == nil) == (err == nil) {
		t.w.errorf("Plan gives %+v and %v", p, err)
		if p == nil {
			panic(stop{})
		}
	}
	return p, err
}

func (t *watched) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	o, err := t.Target.Apply(ctx, p)
	t.w.search("Apply", o, err)
	return o, err
}

func (t *watched) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	o, err := t.Target.Rollback(ctx, to, wait)
	t.w.search("Rollback", o, err)
	return o, err
}

// promote is refused by targets without canaries.
func (t *watched) promote(ctx context.Context) (*deploy.Outcome, error) {
	p, ok := t.Target.(deploy.Promoter)
	if !ok {
		return nil, errNoCanary
	}
	o, err := p.Promote(ctx, long)
	t.w.search("Promote", o, err)
	return o, err
}

var errNoCanary = errors.New("the target has no canaries")

// search looks for each secret, plain and in the forms in which it travels, in v, err and all that was logged.
func (w *world) search(where string, v any, err error) {
	text := fmt.Sprintf("%+v %#v", v, v)
	if raw, jerr := json.Marshal(v); jerr == nil {
		text += string(raw)
	}
	for e := err; e != nil; e = errors.Unwrap(e) {
		text += fmt.Sprintf(" %v %+v %#v", e, e, e)
	}
	for _, s := range w.Secrets {
		for _, form := range []string{s, url.QueryEscape(s), base64.StdEncoding.EncodeToString([]byte(s)), base64.RawURLEncoding.EncodeToString([]byte(s))} {
			if strings.Contains(text, form) {
				w.errorf("%s gives a credential away", where)
			}
			if strings.Contains(w.log.String(), form) {
				w.errorf("%s logs a credential", where)
			}
		}
	}
}

// lockedBuffer is what was logged.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
