// Package device wires the parts of the runtime into one process, as a configuration asks for it: agent, server, engine, journal,
// reports, policy, watchdog and metrics.
package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/control"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/report"
	"github.com/waybill-ml/waybill/edge-runtime/sdnotify"
	"github.com/waybill-ml/waybill/edge-runtime/serve"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ratelimit"
	"github.com/waybill-ml/waybill/internal/version"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/verify"
)

// grace is how long running requests may take once the process is asked to stop.
const grace = 10 * time.Second

// device is everything of one process, wired.
type device struct {
	cfg     *config.Config
	key     *devicekey.Key
	agent   *agent.Agent
	server  *serve.Server
	engine  *engine.Engine
	models  models
	local   *local // nil without a policy of the device's own
	log     *journal.Journal
	damaged error        // what was wrong with the journal that was put aside at the start
	logs    *slog.Logger // with the device's id
	unlock  func() error
	// mute ends the sending of reports and waits for it; nil when nobody gets any.
	mute func()
}

// open takes the state directory and wires the parts. Nothing serves yet.
func open(ctx context.Context, cfg *config.Config, certs verify.Certificates, log *slog.Logger) (_ *device, err error) {
	d := &device{cfg: cfg}
	defer func() {
		if err != nil {
			_ = d.close(context.WithoutCancel(ctx)) // the first error is the one to tell
		}
	}()
	fsys := fsx.OS{}
	if d.key, err = config.OpenKey(ctx, fsys, cfg.Key); err != nil {
		return nil, err
	}
	log = log.With("service.node.name", d.key.KeyID())
	d.logs = log
	trustFile, err := config.ReadFile(cfg.Trust.File, artifact.MaxBundle)
	if err != nil {
		return nil, err
	}
	if d.unlock, err = state.Lock(cfg.State); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "start")
	}
	public, err := d.key.Public()
	if err != nil {
		return nil, err
	}
	lost := agent.Rebuild{
		FS: fsys, Dir: cfg.State, Journal: config.JournalPath(cfg), Checker: devicekey.Journal{Key: d.key}, Device: d.key.KeyID(), Public: public,
		TrustFile: trustFile, TrustVersion: cfg.Trust.Version, TrustDigest: cfg.Trust.Digest,
	}
	for _, c := range cfg.Channels {
		lost.Channels = append(lost.Channels, agent.Channel{Name: c.Name, Env: c.Env, Model: c.Model})
	}
	store, damage, err := lost.OpenState(time.Now())
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "open the state")
	}
	if damage != nil {
		log.Error("the state was lost and is rebuilt", "error", damage, "lacking", store.Doc().Rebuilt.Lacking)
	}
	for _, n := range store.Notes() {
		log.Error("state", "note", n)
	}
	if err := store.Clean(func(string) bool { return true }); err != nil {
		log.Warn("clean the state directory", "error", err)
	}
	d.log, d.damaged, err = journal.Open(fsys, filepath.Join(cfg.State, "journal.log"), store.Doc().Journal, devicekey.Journal{Key: d.key}, time.Now())
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "open the journal")
	}
	if d.damaged != nil {
		log.Error("a damaged journal was put aside", "error", d.damaged)
	}
	if d.engine, err = newEngine(ctx, cfg, log); err != nil {
		return nil, err
	}
	if cfg.DevicePolicy != "" {
		d.local = newLocal(ctx, cfg, d.engine, log)
	}
	d.server = newServer(&cfg.Serve, log)
	for _, c := range cfg.Channels {
		d.server.Expect(c.Model)
	}
	ac := agent.Config{
		Class: cfg.Class, Labels: cfg.Labels, Version: version.Number,
		TrustFile: trustFile, TrustVersion: cfg.Trust.Version, TrustDigest: cfg.Trust.Digest, Reserve: uint64(cfg.Reserve),
		ReportEvery: cfg.ReportEvery(),
	}
	limit := ratelimit.New(int64(cfg.Bandwidth))
	repos := map[string]*registry.Remote{}
	for _, c := range cfg.Channels {
		repo, err := c.Remote()
		if err != nil {
			return nil, err
		}
		if repo != nil {
			repos[c.Name] = repo
		}
	}
	spool, reporters := newSpool(cfg, d.key.KeyID(), repos, log)
	for _, c := range cfg.Channels {
		carry := cfg.Over(c.Carry)
		windows, err := carry.ParseWindows()
		if err != nil && config.ZoneLost(err) {
			log.Error("the time zone of the maintenance windows is not known: none opens, what runs goes on", "channel", c.Name, "error", err)
		} else if err != nil {
			return nil, diag.Wrap(diag.Usage, err, "channel %s", c.Name)
		}
		from, err := c.Open(cfg.Carry, limit)
		if err != nil {
			return nil, err
		}
		ch := agent.Channel{
			Name: c.Name, Env: c.Env, Model: c.Model, ResourceURI: c.ResourceURI, Interval: time.Duration(c.Interval), Carrier: carriers{from},
			Windows: windows, Downloads: carry.Download == "always", Clockless: carry.NoClock == "update",
			Trial: agent.Trial{
				Duration: time.Duration(c.Trial.Duration), MinRequests: c.Trial.MinRequests, MaxErrorRate: c.Trial.MaxErrorRate, P50: time.Duration(c.Trial.P50), P99: time.Duration(c.Trial.P99),
				Memory: uint64(c.Trial.Memory),
			},
		}
		ch.Shadow, ch.Factory = shadowOf(c.Shadow), factoryOf(c.Factory)
		if r, ok := reporters[c.Name]; ok {
			ch.Reporter = r
		}
		ac.Channels = append(ac.Channels, ch)
	}
	d.agent, err = agent.New(ctx, ac, agent.Deps{
		FS: fsys, Store: store, Journal: d.log, Runtime: runtime{d.engine, &cfg.Engine}, Server: server{d.server, &d.models}, Signer: d.key, Clock: clock{}, Log: log,
		Certificates: certs, Local: asLocal(d.local), Shadows: server{d.server, &d.models}, Memory: freeMemory,
	})
	if err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	if spool != nil {
		d.mute = sendReports(ctx, spool)
	}
	return d, nil
}

// sendReports sends until the function that it returns is called.
func sendReports(ctx context.Context, s *report.Spool) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

func newEngine(ctx context.Context, cfg *config.Config, log *slog.Logger) (*engine.Engine, error) {
	ec, err := cfg.Engine.Limits()
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "engine.mode")
	}
	ec.Log = func(step, line string) { log.Info("model", "step", step, "line", line) }
	cache := filepath.Join(cfg.State, "cache")
	err = os.MkdirAll(cache, 0o700)
	if err == nil {
		ec.CacheSecret, err = engine.CacheSecret(filepath.Join(cfg.State, "cache.secret"))
	}
	if err == nil {
		ec.CacheDir = cache
	} else {
		log.Warn("models are compiled at every start", "error", err) // a full disk must not keep the device from serving
	}
	e, err := engine.New(ctx, ec)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "start the engine")
	}
	return e, nil
}

// close frees everything in the reverse order.
func (d *device) close(ctx context.Context) error {
	var errs []error
	if d.agent != nil {
		errs = append(errs, d.agent.Close(ctx))
	}
	if d.mute != nil {
		d.mute()
	}
	if d.server != nil {
		errs = append(errs, d.server.Close(ctx))
	}
	errs = append(errs, d.local.close(ctx))
	if d.engine != nil {
		errs = append(errs, d.engine.Close(ctx))
	}
	if d.log != nil {
		errs = append(errs, d.log.Close())
	}
	if d.unlock != nil {
		errs = append(errs, d.unlock())
	}
	return errors.Join(errs...)
}

// diskRefuses tells failures to write that a device must live with: what is on it serves all the same.
func diskRefuses(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EIO)
}

// Run runs a device until ctx ends: it follows the channels of cfg and serves their models. file is where cfg came from;
// the addresses that are served on are told on stdout.
func Run(ctx context.Context, cfg *config.Config, file string, certs verify.Certificates, log *slog.Logger, stdout io.Writer) (err error) {
	d, err := open(ctx, cfg, certs, log)
	if err != nil {
		return err
	}
	log = d.logs
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if cerr := d.close(ctx); err == nil && cerr != nil {
			log.Warn("stop", "error", cerr)
		}
	}()
	listeners, err := listen(cfg, file)
	if err != nil {
		return err
	}
	listener := listeners[0]
	orders, err := control.Listen(cfg.Control)
	if err != nil && diskRefuses(err) {
		log.Error("no commands reach this agent until its disk can be written", "error", err)
		orders, err = nil, nil
	}
	if err != nil {
		for _, l := range listeners {
			_ = l.Close()
		}
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	notify := notifier(log)
	self := &self{device: d, started: time.Now(), watchdog: notify.Interval()}
	tell := func(lines ...string) {
		if err := notify.Send(lines...); err != nil {
			log.Warn("service manager", "error", err)
		}
	}
	self.phase.Store(control.Starting)
	d.server.Metrics().Collect(self.collect)
	done := make(chan error, 3)
	go func() {
		if orders == nil {
			done <- nil
			return
		}
		done <- control.Serve(ctx, control.Guard(orders, log), control.Handler(d.agent, self.status))
	}()
	// Whoever asks while models are loaded hears that the process is alive and not ready.
	served := make(chan error, 1)
	go func() { served <- d.server.Serve(ctx, listener, graceOf(&cfg.Serve), listeners[1:]...) }()
	// Nothing served is a state that status shows; the agent stays and follows its channels out of it.
	if err := d.agent.Start(ctx); err != nil {
		log.Error("start", "error", err)
	}
	addr := filepath.Join(cfg.State, "addr")
	if err := fsx.WriteFileAtomic(fsx.OS{}, addr, []byte(listener.Addr().String()+"\n"), 0o600); err != nil {
		log.Warn("write the address", "error", err)
	}
	defer func() {
		if err := os.Remove(addr); err != nil && !errors.Is(err, fs.ErrNotExist) {
			log.Warn("remove the address", "error", err)
		}
	}()

	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	go func() { done <- d.agent.Run(ctx) }()
	go trim(ctx)
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				tell(sdnotify.Reload()...)
				tell(sdnotify.Ready)
				if err := d.agent.Poll(ctx); err != nil && ctx.Err() == nil {
					log.Warn("poll", "error", err)
				}
			}
		}
	}()
	fmt.Fprintf(stdout, "listening on http://%s\n", listener.Addr())
	for _, l := range listeners[1:] {
		fmt.Fprintf(stdout, "listening for gRPC on %s\n", l.Addr())
	}
	self.phase.Store(control.Running)
	stopping := context.AfterFunc(ctx, func() {
		self.phase.Store(control.Stopping)
		tell(sdnotify.Stopping, sdnotify.Status("stopping: requests under way are finished"))
	})
	defer stopping()
	tell(sdnotify.Ready, sdnotify.Status("serving on "+listener.Addr().String()))
	go watchdog{notify, newVital(d, dialable(listener.Addr())).check, log}.run(ctx)
	serveErr := <-served
	stop()
	err = errors.Join(<-done, <-done)
	if serveErr != nil {
		err = diag.Wrap(diag.Failure, serveErr, "serve on %s", cfg.Listen)
	}
	log.Info("stopped")
	return err
}

// Rollback rolls back without a running agent: the same steps, with nobody asking the model anything.
func Rollback(ctx context.Context, cfg *config.Config, certs verify.Certificates, channel string, to artifact.Digest) (agent.RollbackResult, error) {
	for i := range cfg.Channels {
		cfg.Channels[i].NoReports = true // offline; the agent reports when it runs again
	}
	if _, err := state.ReadOnly(fsx.OS{}, cfg.State); errors.Is(err, state.ErrDamaged) { // only a start that tells of it rebuilds the state
		return agent.RollbackResult{}, diag.Wrap(diag.Failure, err, "open the state")
	}
	d, err := open(ctx, cfg, certs, slog.New(slog.DiscardHandler))
	if err != nil {
		return agent.RollbackResult{}, err
	}
	defer func() { _ = d.close(context.WithoutCancel(ctx)) }()
	if err := d.agent.Start(ctx); err != nil {
		return agent.RollbackResult{}, err
	}
	return d.agent.Rollback(ctx, channel, to)
}
