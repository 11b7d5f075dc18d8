// Package agent keeps a device on its channels: follow -> fetch -> verify -> admit -> stage -> probe -> activate on
// trial -> confirm, or roll back. Every step is written down with the rollback target before it is taken, so that a
// restart at any moment finds either the old artifact or the new one, verified, and knows which.
//
// The committed pointer does not move before the trial has passed. Whatever comes from a Carrier is untrusted until
// oci/verify said otherwise, and nothing serves before it has reproduced its golden vectors here.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/schedule"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// Carrier brings bytes from somewhere: a registry, a folder, a mirror. It is not trusted with anything.
type Carrier interface {
	// Resolve gives the manifest digest under a tag; errors.Is(err, fs.ErrNotExist) when there is no such tag.
	Resolve(ctx context.Context, tag string) (artifact.Digest, error)
	// Open reads the content of d from offset on. Manifests are told from blobs by their media type.
	Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error)
}

// Runtime loads artifacts.
type Runtime interface {
	// Load makes b ready to run. What it cannot load is an error that matches ErrTransient only if it may work later.
	Load(ctx context.Context, b Bundle) (Model, error)
}

// Model is a loaded artifact.
type Model interface {
	// Probe runs the golden vectors, compares bit for bit and tells what they took; with measure it repeats them until the figures
	// say something. An error is a verdict on the artifact unless ctx ended.
	Probe(ctx context.Context, measure bool) (state.Proof, error)
	// Close frees it, after the calls that still run.
	Close(ctx context.Context) error
}

// Bundle is an artifact on disk. Its files may have changed since they were verified: Read hashes what it returns, and who opens
// the file of the weights by its Path hashes it before use. The agent hashes whatever else was not read.
type Bundle struct {
	Slot   state.Slot
	Layers []artifact.Layer                       // those a device pulls
	Path   func(d artifact.Digest) string         // file of a layer
	Read   func(l artifact.Layer) ([]byte, error) // content of a layer, hashed again
}

// Server answers requests with the model that it was last given under a name.
type Server interface {
	// Swap makes m the model behind name for every request that arrives from now on, and starts its Stats anew; nil takes
	// name out of service. drained is closed once no request uses the model before. Swap does not close models.
	Swap(name string, slot state.Slot, m Model) (drained <-chan struct{}, err error)
	// Stats tells what the model behind name has done since its Swap.
	Stats(name string) Stats
}

// Stats of a served model.
type Stats struct {
	Requests int64         `json:"requests"` // finished, errors included
	Errors   int64         `json:"errors"`   // failed through the model's or the device's fault, not the client's
	P50      time.Duration `json:"p50Ns"`    // of model inference time, without queueing and network
	P99      time.Duration `json:"p99Ns"`
}

// Reporter hands a signed status on to whoever wants it.
type Reporter interface {
	Report(ctx context.Context, slot state.Slot, bundle []byte) error
}

// Signer is the device key.
type Signer interface {
	KeyID() string
	Sign(s *evidence.Statement) ([]byte, error)
}

// Clock is the time. Sleep returns early with the context's error.
type Clock interface {
	// Now is the clock on the wall, which may be wrong and may be set at any moment.
	Now() time.Time
	// Up is the time since some moment of this process, on a clock that nobody sets: how long anything takes is measured with it.
	Up() time.Duration
	Sleep(ctx context.Context, d time.Duration) error
}

// ErrTransient marks failures that say nothing about the artifact: a full disk, a connection that broke.
var ErrTransient = errors.New("it may work later")

// Trial says how long a new artifact serves on probation and what it must keep to.
type Trial struct {
	Duration     time.Duration
	MinRequests  int64         // the budgets are judged from this many requests on; fewer by the end pass
	MaxErrorRate float64       // 0.01 is one in a hundred
	P50          time.Duration // of model inference time; 0: no limit
	P99          time.Duration // of model inference time; 0: no limit
	Memory       uint64        // bytes of linear memory, mapped weights included, after the golden vectors; 0: no limit
}

// Channel is one channel that the device follows.
type Channel struct {
	Name        string
	Env         string
	Model       string // name that the channel's targets must have, and under which they are served
	ResourceURI string // that verdicts must name
	Interval    time.Duration
	Trial       Trial
	Shadow      Shadow
	Factory     Factory
	Carrier     Carrier  // several places when it is a Places
	Reporter    Reporter // may be nil
	// Windows are the times at which an update may begin, Downloads that files may come at any time, and Clockless that an update
	// may also begin while the clock of the device is known to be wrong, so that nobody can tell whether a window is open.
	Windows   schedule.Windows
	Downloads bool
	Clockless bool
}

// Config of an Agent.
type Config struct {
	Class    string
	Labels   map[string]string
	Channels []Channel
	Version  string // of this program, for reports
	// TrustFile is the provisioned trust document with its signatures; it must be version TrustVersion with TrustDigest.
	TrustFile    []byte
	TrustVersion int
	TrustDigest  artifact.Digest
	// Reserve is the number of bytes that downloads leave free on the disk; 0 means 8 MiB.
	Reserve uint64
	// MaxRollbacks automatic rollbacks within RollbackWindow stop further activations until the window has passed.
	// 0 means 5 in an hour.
	MaxRollbacks   int
	RollbackWindow time.Duration
	// ReportEvery is how long a channel may be silent when nothing changes; looked at at each poll. 0: for ever.
	ReportEvery time.Duration
	// Stuck is how long a channel may go without any progress before Alive says so; 0 means 10 minutes.
	Stuck time.Duration
	// LookFirst bounds the look at the channel before an artifact is loaded that ended the process again and again, when nothing
	// else can serve; 0 means 5 seconds, less that there is none.
	LookFirst time.Duration
	// MaxCrashes restarts in the middle of activating one record put its target in quarantine; 0 means 3.
	MaxCrashes int
}

// Deps are the parts that an Agent works with.
type Deps struct {
	FS      fsx.FS // of the state directory, for reports
	Store   *state.Store
	Journal *journal.Journal
	Runtime Runtime
	Server  Server
	Signer  Signer
	Clock   Clock
	Log     *slog.Logger
	// Local is the device's own policy; nil: a model that was admitted is taken at once.
	Local Local
	// Shadows runs shadow runs; it may be nil when no channel has one. Memory tells how many bytes of main memory are free, if known.
	Shadows Shadower
	Memory  func() (free uint64, known bool)
	// Certificates verifies releases and verdicts that were signed without a key; nil: pinned keys only.
	Certificates verify.Certificates
}

// Agent follows the channels of one device. Its methods are safe for concurrent use.
type Agent struct {
	cfg    Config
	Deps   // by value; the store's document is the only truth
	blobs  *state.Blobs
	checks checks

	doc sync.Mutex // orders updates of the document with what they put into the journal
	// unsigned entries wait for a checkpoint that failed, or that a restart prevented; doc guards it.
	unsigned bool
	// disk is held while blobs are swept and while the document or the claims begin to name some, so that a sweep never takes
	// what another channel just fetched.
	disk   sync.Mutex
	claims claims
	idle   map[*follower]idleClaim // disk guards it

	mu    sync.Mutex
	trust *trust.Document

	retiring sync.WaitGroup // models that were replaced and are still at work

	careful   atomic.Bool // the last start did not come to its end
	began     time.Time   // of Start
	ended     sync.Map    // digests of artifacts whose counted load came to an end
	followers []*follower
}

// checks are the decisions about untrusted input. Tests leave one out to see the attack succeed.
type checks struct {
	record  func(raw []byte, doc *trust.Document, now time.Time) (*channel.Record, *verify.Evidence, error)
	follows func(prev, next *channel.Head, byRefresher bool) (channel.Step, error)
	admit   func(r *channel.Record, now time.Time, d channel.Device) error
	bundle  func(raw []byte, doc *trust.Document, want verify.Want) (*verify.Evidence, error)
	vsa     func(raw []byte, doc *trust.Document, want verify.VSAWant) (*evidence.VSA, *verify.Evidence, error)
	enough  func(evs []verify.Evidence, doc *trust.Document, subject artifact.Digest, types ...string) error
	blob    func(got, want artifact.Digest) bool
	pinned  func(doc *trust.Document, policy artifact.Digest) bool
	time    func(clock, floor time.Time) time.Time
	needs   func(c *state.Channel) []state.Slot // what a sweep keeps
	place   func(r *channel.Record, c *Channel) error
	proven  func(f *follower) error                // what a rebuilt state lacks
	renew   func(f *follower, ctx context.Context) // before a new record is believed
	trust   func(raw []byte, current *trust.Document) (*trust.Document, error)
	walk    int // how many earlier records, or trust documents, one poll fetches
	denied  func(doc *trust.Document, d artifact.Digest) bool
	cut     func(r io.Reader, n int64) io.Reader // what is read of an answer
	// What is done with files: how they get into the store, are read from it, and are hashed where they lie.
	fetch    func(b *state.Blobs, ctx context.Context, d artifact.Digest, size int64, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) error
	read     func(b *state.Blobs, d artifact.Digest, most int64) ([]byte, error)
	rehash   func(b *state.Blobs, ctx context.Context, d artifact.Digest, size int64) error
	manifest func(raw []byte, want artifact.Digest) (*artifact.Model, error)
}

func realChecks() checks {
	return checks{
		record:  verify.Record,
		follows: channel.Follows,
		admit:   func(r *channel.Record, now time.Time, d channel.Device) error { return r.Admit(now, d) },
		bundle:  verify.Bundle,
		vsa:     verify.VSA,
		enough:  verify.Enough,
		blob:    func(got, want artifact.Digest) bool { return got == want },
		pinned:  pinned,
		time:    later,
		needs:   (*state.Channel).Slots,
		place:   ofChannel,
		proven:  (*follower).proven,
		renew:   (*follower).renewTrust,
		trust:   verify.TrustBundle,
		walk:    maxWalk,
		denied:  (*trust.Document).IsDenied,
		cut:     io.LimitReader,

		fetch: (*state.Blobs).Fetch, read: (*state.Blobs).Read, rehash: (*state.Blobs).Check,
		manifest: verify.Manifest,
	}
}

// follower is one channel at work.
type follower struct {
	a      *Agent
	cfg    Channel
	places Places
	wake   chan wake

	mu      sync.Mutex      // held through an activation; whoever holds it may change what serves
	live    *loaded         // what the server answers with; nil: nothing
	seen    sightings       // what came of the tags that were looked at
	last    sighting        // the record that was fetched last
	settled artifact.Digest // the record that the document's tag stands for; "": not known
	hand    hand            // how the poll under way was asked for
	opens   opening         // of the maintenance window that the last poll waits for
	looked  time.Duration   // when an activation last looked at the channel, on Clock.Up
	lookTag artifact.Digest
	unsent  bool // a report waits to be made
	// owed writes down how the intent in the document ended, which failed before; nil: nothing is owed.
	owed func() error
	sent chan struct{} // closed once the newest report was handed over, or that failed
	// reported is when the newest report was made, on Clock.Up, if one was.
	reported    time.Duration
	hasReported bool
	// waitWhy is what the device's policy said last; it changes more often than is worth writing down.
	waitWhy  atomic.Pointer[string]
	count    tallies
	beat     pulse                     // of the goroutine that follows
	trialEnd atomic.Int64              // on Clock.Up, in nanoseconds; 0: no trial is under way
	againAt  atomic.Pointer[time.Time] // when what is held back is loaded again; nil: nothing waits for that
	attested time.Time                 // the latest time that the evidence of the candidate proves
	// shadowed is the shadow run under way.
	shadowed atomic.Pointer[ShadowRun]
	// sendFailed is set by the goroutine that hands reports over.
	sendFailed atomic.Bool

	attempt sync.Mutex
	cancel  context.CancelCauseFunc // of the poll or activation under way, nil when there is none
}

// loaded is a model in memory and what it is.
type loaded struct {
	slot  state.Slot
	model Model
}

// New checks the configuration and the trust document. Nothing serves before Start.
func New(ctx context.Context, cfg Config, deps Deps) (*Agent, error) {
	if cfg.Reserve == 0 {
		cfg.Reserve = 8 << 20
	}
	if cfg.MaxRollbacks == 0 {
		cfg.MaxRollbacks = 5
	}
	if cfg.RollbackWindow == 0 {
		cfg.RollbackWindow = time.Hour
	}
	if cfg.Stuck == 0 {
		cfg.Stuck = 10 * time.Minute
	}
	if cfg.LookFirst == 0 {
		cfg.LookFirst = 5 * time.Second
	}
	if cfg.MaxCrashes == 0 {
		cfg.MaxCrashes = 3
	}
	a := &Agent{cfg: cfg, Deps: deps, blobs: deps.Store.Blobs(), checks: realChecks(), claims: claims{}, idle: map[*follower]idleClaim{}}
	if len(cfg.Channels) == 0 {
		return nil, errors.New("no channel to follow")
	}
	names := map[string]bool{}
	for _, c := range cfg.Channels {
		if err := channel.ValidName(c.Name); err != nil {
			return nil, err
		}
		if names[c.Name] || names["model "+c.Model] {
			return nil, fmt.Errorf("channel %q or model %q is given twice", c.Name, c.Model)
		}
		names[c.Name], names["model "+c.Model] = true, true
		if c.Shadow.Requests > 0 && deps.Shadows == nil {
			return nil, fmt.Errorf("channel %s: %w", c.Name, errNoShadower)
		}
		a.followers = append(a.followers, &follower{
			a: a, cfg: c, wake: make(chan wake), places: placesOf(c.Carrier),
			unsent: true, // what changed last may not have been told before the process ended
		})
	}
	if doc := a.Store.Doc(); doc.Device != "" && doc.Device != deps.Signer.KeyID() {
		return nil, fmt.Errorf("the state belongs to device %.12s, the key is that of device %.12s", doc.Device, deps.Signer.KeyID())
	}
	a.unsigned = deps.Journal.Unsigned() > 0
	if err := a.loadTrust(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

// loadTrust takes the newer of the provisioned trust document and the one accepted since.
func (a *Agent) loadTrust(ctx context.Context) error {
	provisioned, err := verify.TrustPinned(a.cfg.TrustFile, a.cfg.TrustVersion, a.cfg.TrustDigest)
	if err != nil {
		return fmt.Errorf("provisioned trust document: %w", err)
	}
	a.trust = provisioned
	if pin := a.Store.Doc().Trust; pin.Version > provisioned.Version && pin.File != "" { // without its file nothing is followed: see proven
		raw, err := a.blobs.Read(pin.File, artifact.MaxBundle)
		if err != nil {
			return fmt.Errorf("trust document version %d: %w", pin.Version, err)
		}
		if a.trust, err = verify.TrustPinned(raw, pin.Version, pin.Digest); err != nil {
			return fmt.Errorf("trust document version %d: %w", pin.Version, err)
		}
	}
	return nil
}

// Trust is the trust document in force.
func (a *Agent) Trust() *trust.Document {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.trust
}

// Run polls every channel until ctx ends, then lets activations under way stop where they are and closes the models.
func (a *Agent) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	for _, f := range a.followers {
		wg.Go(func() { f.run(ctx) })
	}
	wg.Wait()
	return nil
}

// Close takes every model out of service and frees it, waiting for requests until ctx ends.
func (a *Agent) Close(ctx context.Context) error {
	a.endStart()
	var errs []error
	for _, f := range a.followers {
		f.mu.Lock()
		if f.sent != nil {
			select {
			case <-f.sent:
			case <-ctx.Done():
			}
		}
		if f.live != nil {
			drained, err := a.Server.Swap(f.cfg.Model, state.Slot{}, nil)
			if err == nil {
				select {
				case <-drained:
				case <-ctx.Done():
				}
				err = f.live.model.Close(ctx)
			}
			f.live = nil
			errs = append(errs, err)
		}
		f.mu.Unlock()
	}
	done := make(chan struct{})
	go func() { a.retiring.Wait(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	return errors.Join(errs...)
}

// begin makes a context that a rollback by hand ends, with errByHand as its cause; end must be called.
func (f *follower) begin(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	f.attempt.Lock()
	f.cancel = cancel
	f.attempt.Unlock()
	return ctx, func() {
		f.attempt.Lock()
		f.cancel = nil
		f.attempt.Unlock()
		cancel(nil)
	}
}

func (a *Agent) follower(name string) *follower {
	for _, f := range a.followers {
		if f.cfg.Name == name {
			return f
		}
	}
	return nil
}

func sorted[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
