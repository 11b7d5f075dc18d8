package device

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/edge-runtime/sdnotify"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// watchdog tells the service manager that the process works, as long as it does.
type watchdog struct {
	notify sdnotify.Notifier
	alive  func(ctx context.Context) error
	log    *slog.Logger
}

// run asks alive three times in each interval that the manager gives, and passes a yes on. A question that is not answered
// in time counts as a no; there is never more than one.
func (w watchdog) run(ctx context.Context) {
	interval := w.notify.Interval()
	if interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 3)
	defer tick.Stop()
	sick := false
	var pending chan error
	for {
		var err error
		pending, err = w.ask(ctx, pending, interval/3)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			sick = true
			w.log.Error("not alive: the service manager is not told otherwise", "error", err)
			w.send(sdnotify.Status("not alive: " + err.Error()))
		case sick:
			sick = false
			w.log.Info("alive again")
			w.send(sdnotify.Watchdog, sdnotify.Status("serving"))
		default:
			w.send(sdnotify.Watchdog)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ask asks once and waits for at most the given time. A question that is not answered stays open and is returned, to be waited
// for the next time: one that hangs with what it asks must not become many.
func (w watchdog) ask(ctx context.Context, open chan error, most time.Duration) (chan error, error) {
	late := open != nil
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if open == nil {
		open = make(chan error, 1)
		done := open
		go func() { done <- w.alive(ctx) }()
	}
	select {
	case err := <-open:
		if late && err == nil {
			err = errors.New("the check of the agent and its models took too long") // its answer is old: ask again
		}
		return nil, err
	case <-ctx.Done():
		return open, errors.New("the check of the agent and its models does not return")
	}
}

func (w watchdog) send(lines ...string) {
	if err := w.notify.Send(lines...); err != nil {
		w.log.Warn("watchdog", "error", err)
	}
}

// vital asks everything that a working device needs: the loops that follow the channels, the listener, and each model.
type vital struct {
	*device
	addr string // that models are served on

	mu    sync.Mutex
	asked map[string]served // by model
}

func newVital(d *device, addr string) *vital {
	return &vital{device: d, addr: addr, asked: map[string]served{}}
}

// served is what a model had done when it was looked at, and when it was last asked itself.
type served struct {
	digest   artifact.Digest
	requests uint64
	at       time.Time
	took     time.Duration
}

// check is nil while the device works.
func (v *vital) check(ctx context.Context) error {
	if err := v.agent.Alive(ctx); err != nil {
		return err
	}
	if err := v.listens(ctx); err != nil {
		return err
	}
	for _, name := range v.server.Names() {
		if err := v.answers(ctx, name); err != nil {
			return fmt.Errorf("model %s: %w", name, err)
		}
	}
	return nil
}

// listens takes the way of a client.
func (v *vital) listens(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+v.addr+"/v2/health/live", http.NoBody)
	if err != nil {
		return err
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: nil}}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("the server does not answer: %w", err)
	}
	_ = resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the server answers %s", resp.Status)
	}
	return nil
}

// share is the part of the time that asking an idle model may take.
const share = 1000

// answers is nil when the model has answered requests since it was last looked at, or computes its first golden vector now.
func (v *vital) answers(ctx context.Context, name string) error {
	st, ok := v.server.Stats(name)
	if !ok {
		return nil // it has gone
	}
	v.mu.Lock()
	before := v.asked[name]
	v.mu.Unlock()
	now := served{digest: st.Digest, requests: st.OK + st.Refused, at: before.at, took: before.took}
	busy := before.digest == now.digest && now.requests > before.requests
	if !busy && (before.digest != now.digest || time.Since(before.at) >= share*before.took) {
		m := v.models.get(name)
		if m == nil {
			return nil
		}
		at := time.Now()
		err := m.pulse(ctx)
		if err != nil && v.models.get(name) == m && v.server.Active(name) == st.Digest {
			return err
		}
		now.at, now.took = time.Now(), time.Since(at)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked[name] = now
	return nil
}

// pulse computes the first golden vector and compares it.
func (m *model) pulse(ctx context.Context) error {
	if len(m.golden.Vectors) == 0 {
		return nil
	}
	r, err := probe.Run(ctx, m.Model, &artifact.Golden{Schema: m.golden.Schema, Vectors: m.golden.Vectors[:1]})
	if err != nil {
		return err
	}
	return r.Err()
}

// models are those that serve now, for the watchdog. Safe for concurrent use.
type models struct {
	mu   sync.Mutex
	live map[string]*model
}

func (l *models) set(name string, m *model) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.live == nil {
		l.live = map[string]*model{}
	}
	if m == nil {
		delete(l.live, name)
		return
	}
	l.live[name] = m
}

func (l *models) get(name string) *model {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.live[name]
}

// notifier is that of the environment. A value that cannot be used is told, and done without.
func notifier(log *slog.Logger) sdnotify.Notifier {
	n, err := sdnotify.New(os.Getenv, os.Getpid())
	if err != nil {
		log.Warn("the service manager can't be told", "error", err)
	}
	return n
}

// dialable is an address under which this process reaches its own listener.
func dialable(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}
