package agent

import (
	"fmt"
	"io"
	"log"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/edge-runtime/schedule"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func discardLog() *log.Logger { return log.New(io.Discard, "", 0) }

// netFaults are what can happen to a request.
var netFaults = []string{
	"cut before the answer", "cut after the header", "cut after 1 byte", "cut in the middle", "cut at the last byte",
	"stall before the answer", "stall in the middle", "1 byte/s", "length too short", "length too long", "flipped bit", "endless",
	"401", "403", "404", "429", "429, in 2 minutes", "429, in 10 years", "500", "503", "503, on a date",
	"redirect loop", "redirect to another host", "redirect to http", "redirect to a file",
	"429, on a date in 10 years", "503, in 10^20 seconds", "503, on a date long past", "closes the connection", "closes the connection, then cut",
	"DNS slow", "DNS leads elsewhere", "certificate expired", "clock to and fro",
	"DNS gone", "refused", "reset", "TLS error", "captive portal", "gzip bomb", "headers of 1 MB", "clock +50 y", "clock -50 y",
}

// placing is where a device of the matrix finds its channel.
type placing struct {
	name   string
	places []string // by preference
	host   string   // whose requests are spoiled
	second bool     // a place is left that works, so the first poll ends with the update
}

var placings = []placing{
	{"registry", []string{regHost}, regHost, false},
	{"mirror", []string{mirrorHost}, mirrorHost, false},
	{"mirror, then registry", []string{mirrorHost, regHost}, mirrorHost, true},
}

// bed is a device with the update before it.
type bed struct {
	*device
	inj  *injector
	live *follower
	tr   *http.Transport
}

// netModel is the text of a model whose module takes a while to send.
func netModel(version string) string {
	return version + " good " + strings.Repeat("weights of "+version+" ", 12_000)
}

func (n *netWorld) device(t *testing.T, fsys fsx.FS, p placing, o carrier.Options) *bed {
	t.Helper()
	b := &bed{}
	clock := &fakeClock{now: n.Now}
	b.tr = n.transport(func() time.Time { return clock.Now() })
	jumped := false
	b.inj = &injector{next: b.tr, proto: n.proto, host: p.host, jump: func(years int) {
		clock.mu.Lock()
		defer clock.mu.Unlock()
		if jumped {
			return
		}
		jumped = true
		clock.now = n.Now.AddDate(years, 0, 0)
	}, sway: func(d time.Duration) {
		clock.mu.Lock()
		defer clock.mu.Unlock()
		clock.now = n.Now.Add(d)
	}, drop: b.tr.CloseIdleConnections}
	b.tr.DialContext = b.inj.dial(n.wire)
	var places []carrier.Named
	for _, h := range p.places {
		if h == regHost {
			places = append(places, carrier.Named{Name: h, Place: carrier.NewRegistry(n.remote(t, b.inj))})
			continue
		}
		m, err := carrier.NewMirror("https://"+mirrorHost, carrier.MirrorOptions{Transport: b.inj, Names: []string{"churn"}})
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, carrier.Named{Name: h, Place: m})
	}
	d, err := n.boot(fsys, n.reg, func(c *Config) { c.Channels[0].Carrier = carrier.NewSet(o, places...) })
	if err != nil {
		t.Fatal(err)
	}
	d.clock = clock
	d.Agent.Clock = clock
	b.device, b.live = d, d.followers[0]
	return b
}

func (b *bed) done() { b.tr.CloseIdleConnections() }

// matrix is one world with a device that runs v1, and v2 in the channel.
type matrix struct {
	*netWorld
	t      *testing.T
	base   *fsx.Mem
	v1, v2 artifact.Digest
}

func newMatrix(t *testing.T, proto string) *matrix {
	t.Helper()
	m := &matrix{netWorld: newNetWorld(t, proto), t: t, base: newDeviceFS(t)}
	publish := func(version string) artifact.Digest {
		text := netModel(version)
		target := m.model(text)
		m.publish(m.change(target))
		m.upload(t, []byte("source of "+text))
		return target.Digest
	}
	m.v1 = publish("1.0")
	b := m.device(t, m.base, placings[0], carrier.Options{})
	if err := b.pollOnce(); err != nil || b.server.current() != m.v1 {
		t.Fatalf("the first install: %v", err)
	}
	b.done()
	m.v2 = publish("2.0")
	return m
}

func (m *matrix) fresh() *fsx.Mem { return m.base.CrashClone(100, rand.New(rand.NewPCG(1, 1))) }

// netRun of one run.
type netRun struct {
	polls   int           // until the update was there, the one with the fault included
	took    time.Duration // of the poll with the fault
	bytes   int64         // that came
	problem string
}

// bounds of what a fault may cost.
const (
	mostPolls = 4
	mostTime  = 20 * time.Minute
)

// run spoils request at of one poll, or all from it on, and then lets the device poll as its schedule does.
func (m *matrix) run(p placing, kind string, at int, on bool, o carrier.Options) (out netRun) {
	fsys := m.fresh()
	b := m.device(m.t, fsys, p, o)
	defer b.done()
	b.inj.arm(kind, at, on)
	start := time.Now()
	f := b.followers[0]
	err := f.pollAs(m.t.Context(), atEase)
	out.took, out.polls = time.Since(start), 1
	fail := func(format string, args ...any) {
		if out.problem == "" {
			out.problem = fmt.Sprintf(format, args...)
		}
	}
	look := func() {
		if c := b.server.current(); c != m.v1 && c != m.v2 || b.server.none > 0 {
			fail("it serves %q", c)
		}
		if d := b.channel(); d.Current == nil || d.Current.Digest != b.server.current() {
			fail("the document says otherwise than the server")
		}
		if len(b.channel().Quarantine) > 0 || len(b.channel().Rollbacks) > 0 {
			fail("the network put a model in quarantine")
		}
	}
	look()
	if out.took > mostTime {
		fail("the poll took %s", out.took)
	}
	if p.second && err == nil && b.server.current() != m.v2 {
		fail("the other carrier was not used: %v", b.channel().LastRefusal)
	}
	if p.second && err != nil && !strings.HasPrefix(kind, "clock") {
		fail("the other carrier was not used: %v", err)
	}
	b.inj.arm("", 0, false)
	b.clock.mu.Lock()
	b.clock.now = m.Now
	b.clock.mu.Unlock()
	for ; b.server.current() != m.v2 && out.polls < mostPolls; out.polls++ {
		time.Sleep(time.Hour + time.Minute) // no less than a server may keep it away
		err = f.pollAs(m.t.Context(), atEase)
		look()
	}
	if b.server.current() != m.v2 {
		fail("no update after %d polls: %v", out.polls, err)
	}
	es, derr := fsys.ReadDir(stateDir + "/blobs/sha256")
	if derr != nil {
		fail("%v", derr)
	}
	for _, e := range es {
		raw, err := fsx.ReadFile(fsys, stateDir+"/blobs/sha256/"+e.Name(), 1<<30)
		if err != nil || artifact.DigestOf(raw).Hex() != e.Name() {
			fail("wrong bytes under %s", e.Name())
		}
	}
	m.mu.Lock()
	if len(m.leaked) > 0 {
		fail("a credential left its host: %s", m.leaked[0])
		m.leaked = nil
	}
	m.mu.Unlock()
	out.bytes = b.inj.bytes
	return out
}

// requests counts what a clean update asks.
func (m *matrix) requests(p placing) (n int, bytes int64) {
	m.t.Helper()
	b := m.device(m.t, m.fresh(), p, carrier.Options{})
	defer b.done()
	if err := b.followers[0].pollAs(m.t.Context(), atEase); err != nil || b.server.current() != m.v2 {
		m.t.Fatalf("%s: a clean update: %v", p.name, err)
	}
	return b.inj.n, b.inj.bytes
}

// Every fault at every request of an update, once and until the poll ends: the device serves on, never takes a wrong byte, keeps
// its credentials to their host, and has the update within a few polls once the fault is gone.
// WAYBILL_NETWORK_RUNS=all takes every combination; without it requests are taken in turns, each fault at several of them.
func TestNetworkMatrix(t *testing.T) {
	runMatrix(t, "http/1.1", 5, netFaults)
}

// The same over HTTP/2, where a connection carries all requests and a cut is one of a stream.
func TestNetworkMatrixHTTP2(t *testing.T) {
	var kinds []string // of the connection; what a server says is the same
	for _, k := range netFaults {
		for _, of := range []string{"cut", "stall", "1 byte", "length", "endless", "closes", "DNS", "certificate", "reset", "headers"} {
			if strings.Contains(k, of) && !slices.Contains(kinds, k) {
				kinds = append(kinds, k)
			}
		}
	}
	runMatrix(t, "h2", 9, kinds)
}

// runMatrix takes one in few places of faults that go on, and one in 3 times that of others.
func runMatrix(t *testing.T, proto string, few int, kinds []string) {
	all := os.Getenv("WAYBILL_NETWORK_RUNS") == "all"
	synctest.Test(t, func(t *testing.T) {
		m := newMatrix(t, proto)
		table := &strings.Builder{}
		tw := tabwriter.NewWriter(table, 0, 4, 2, ' ', 0)
		fmt.Fprintf(tw, "fault\truns\tpolls, most\tslowest poll\tviolations\n")
		type row struct {
			runs, polls, bad int
			took             time.Duration
		}
		rows := map[string]*row{}
		runs, violations := 0, 0
		for _, p := range placings {
			n, _ := m.requests(p)
			for ki, kind := range kinds {
				for at := 1; at <= n; at++ {
					for _, on := range []bool{true, false} {
						if !all && (on && (at+ki)%few != 0 || !on && (at+ki)%(3*few) != 1) {
							continue
						}
						o := m.run(p, kind, at, on, carrier.Options{})
						r := rows[kind]
						if r == nil {
							r = &row{}
							rows[kind] = r
						}
						r.runs, runs = r.runs+1, runs+1
						r.polls, r.took = max(r.polls, o.polls), max(r.took, o.took)
						if o.problem != "" {
							r.bad, violations = r.bad+1, violations+1
							t.Errorf("%s, %s at request %d of %d (and on: %v): %s", p.name, kind, at, n, on, o.problem)
						}
					}
				}
			}
		}
		for _, kind := range kinds {
			r := rows[kind]
			if r == nil {
				continue // none of its places was taken
			}
			fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%d\n", kind, r.runs, r.polls, r.took.Round(time.Second), r.bad)
		}
		_ = tw.Flush()
		time.Sleep(25 * time.Hour) // until every stalled answer was given up (hang)
		t.Logf("\n%snetwork, %s: %d runs, %d violations", table, proto, runs, violations)
	})
}

// Without the check of the rate one byte a second is waited for.
func TestNetworkMutants(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMatrix(t, "http/1.1")
		p := placings[1]
		n, _ := m.requests(p)
		slow := func(o carrier.Options) (worst time.Duration) {
			for at := 1; at <= n; at++ {
				worst = max(worst, m.run(p, "1 byte/s", at, true, o).took)
			}
			return worst
		}
		if got := slow(carrier.Options{}); got > mostTime {
			t.Errorf("with the check a poll takes %s", got)
		}
		if got := slow(carrier.Options{MinRate: 1, Window: 1000 * time.Hour}); got < time.Hour {
			t.Errorf("without the check a poll takes %s: the matrix would not notice", got)
		}
		polls := func(o carrier.Options) int { return m.run(placings[0], "429, in 10 years", 2, true, o).polls }
		if got := polls(carrier.Options{}); got >= mostPolls {
			t.Errorf("with the bound it takes %d polls", got)
		}
		if got := m.run(placings[0], "429, in 10 years", 2, true, carrier.Options{MaxPause: 100 * 365 * 24 * time.Hour}); !strings.Contains(got.problem, "no update") {
			t.Errorf("without the bound of Retry-After nothing shows: %+v", got)
		}
	})
}

// Were the stranger's certificate believed, its answers would be asked for with the registry's password: that is what checking it
// keeps out when the name service leads elsewhere.
func TestNetworkStrangerMutant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMatrix(t, "http/1.1")
		if got := m.run(placings[0], "DNS leads elsewhere", 1, true, carrier.Options{}); got.problem != "" {
			t.Error(got.problem)
		}
		m.roots.AddCert(m.other.Leaf)
		if got := m.run(placings[0], "DNS leads elsewhere", 1, true, carrier.Options{}); !strings.Contains(got.problem, "a credential left its host") {
			t.Errorf("with its certificate believed nothing shows: %+v", got)
		}
	})
}

// The loop itself: a server that says "come back in ten years" for an hour, and a clock that jumps, cost hours, not years, and
// cause no storm.
func TestNetworkLoop(t *testing.T) {
	for name, c := range map[string]struct {
		kind string
		jump int
	}{"429, in 10 years": {"429, in 10 years", 0}, "clock 50 years ahead": {"", 50}, "clock 50 years back": {"", -50}, "captive portal": {"captive portal", 0}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newMatrix(t, "http/1.1")
				b := m.device(t, m.fresh(), placings[0], carrier.Options{})
				defer b.done()
				b.inj.arm(c.kind, 1, c.kind != "")
				if c.kind == "" {
					b.inj.at = 0
				}
				done := make(chan error, 1)
				if c.jump != 0 {
					b.inj.jump(c.jump)
				}
				go func() { done <- b.Run(t.Context()) }()
				time.Sleep(time.Hour)
				b.inj.mu.Lock()
				asked := b.inj.n
				b.inj.mu.Unlock()
				if b.server.current() != m.v1 {
					t.Errorf("it serves %s", b.server.current())
				}
				// A clock that is wrong makes every certificate expired, so each poll fails, with one or two requests.
				fewest, most := pollsOfFailing(b.followers[0].device(), time.Hour)
				if c.jump != 0 && (asked < fewest || asked > 2*most) || asked > 150 {
					t.Errorf("%d requests in an hour of trouble, polling every minute; %d to %d polls are due", asked, fewest, most)
				}
				b.inj.arm("", 0, false)
				b.clock.mu.Lock()
				b.clock.now = m.Now
				b.clock.mu.Unlock()
				end := time.Now().Add(5 * time.Hour)
				for b.server.current() != m.v2 && time.Now().Before(end) {
					time.Sleep(time.Minute)
				}
				if b.server.current() != m.v2 {
					t.Error("five hours after the trouble the update is not there")
				}
				t.Logf("%d requests in an hour of trouble; updated %s after it", asked, 5*time.Hour-time.Until(end))
			})
		})
	}
}

// pollsOfFailing is how many polls a device makes in span when each fails, with the longest and with the shortest waits.
func pollsOfFailing(d schedule.Device, span time.Duration) (fewest, most int) {
	count := func(random uint64) (n int) {
		var p schedule.Pace
		for at := d.First(schedule.Serving); at < span; n++ {
			p = p.After(schedule.Failed)
			at += d.Next(schedule.Ask{Up: at, Pace: p, Random: random})
		}
		return n
	}
	return count(math.MaxUint64), count(0)
}
