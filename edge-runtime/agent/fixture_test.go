package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/devicekey"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// registry is a carrier in memory: what a registry would answer, with a few ways to misbehave.
type registry struct {
	mu    sync.Mutex
	tags  map[string]artifact.Digest
	blobs map[artifact.Digest][]byte
	down  bool
	opens int
}

func newRegistry() *registry {
	return &registry{tags: map[string]artifact.Digest{}, blobs: map[artifact.Digest][]byte{}}
}

func (r *registry) Resolve(_ context.Context, tag string) (artifact.Digest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down {
		return "", errors.New("connection refused")
	}
	d, ok := r.tags[tag]
	if !ok {
		return "", fmt.Errorf("tag %s: %w", tag, fs.ErrNotExist)
	}
	return d, nil
}

func (r *registry) Open(_ context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opens++
	b, ok := r.blobs[d.Digest]
	if !ok || r.down {
		return nil, fmt.Errorf("blob %s: %w", d.Digest, fs.ErrNotExist)
	}
	return io.NopCloser(bytes.NewReader(b[min(offset, int64(len(b))):])), nil
}

func (r *registry) put(b []byte) artifact.Digest {
	d := artifact.DigestOf(b)
	r.blobs[d] = b
	return d
}

// runtime runs nothing: the module's bytes say how the model behaves.
type fakeRuntime struct {
	mu     sync.Mutex
	opened int
	closed int
}

type fakeModel struct {
	rt     *fakeRuntime
	digest artifact.Digest
	text   string
}

func (rt *fakeRuntime) Load(_ context.Context, b Bundle) (Model, error) {
	m := &fakeModel{rt: rt, digest: b.Slot.Digest}
	for _, l := range b.Layers {
		data, err := b.Read(l)
		if err != nil {
			return nil, err
		}
		if l.Role == artifact.RoleModule {
			m.text = string(data)
		}
	}
	if strings.Contains(m.text, "unloadable") {
		return nil, errors.New("invalid module")
	}
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.opened++
	return m, nil
}

func (m *fakeModel) Probe(_ context.Context, measure bool) (state.Proof, error) {
	if strings.Contains(m.text, "wrong") {
		return state.Proof{}, errors.New("vector 3: output differs in 2 bits")
	}
	p := state.Proof{Vectors: 3, Calls: 3, First: 2 * time.Millisecond, P50: time.Millisecond, P99: 2 * time.Millisecond, Memory: 1 << 20}
	if measure {
		p.Calls = 100
	}
	switch {
	case strings.Contains(m.text, "sluggish"):
		p.P50, p.P99 = 3*time.Second, 4*time.Second
	case strings.Contains(m.text, "large"):
		p.Memory = 1 << 30
	}
	return p, nil
}

func (m *fakeModel) Close(context.Context) error {
	m.rt.mu.Lock()
	defer m.rt.mu.Unlock()
	m.rt.closed++
	return nil
}

// fakeServer keeps what was swapped in; the module's text says how its trial goes.
type fakeServer struct {
	mu   sync.Mutex
	live *fakeModel
	seen []artifact.Digest
	none int // swaps that left nothing in service

	names map[string]artifact.Digest // what serves under each name
}

func (s *fakeServer) Swap(name string, slot state.Slot, m Model) (<-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	gone := make(chan struct{})
	close(gone)
	if s.names == nil {
		s.names = map[string]artifact.Digest{}
	}
	s.names[name] = slot.Digest
	if m == nil {
		s.live, s.none = nil, s.none+1
		return gone, nil
	}
	s.live = m.(*fakeModel)
	if s.live.digest != slot.Digest {
		return nil, errors.New("slot and model differ")
	}
	s.seen = append(s.seen, slot.Digest)
	return gone, nil
}

func (s *fakeServer) Stats(string) Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Requests: 100, P99: time.Millisecond}
	switch {
	case s.live == nil:
		return Stats{}
	case strings.Contains(s.live.text, "slow"):
		st.P99 = time.Second
	case strings.Contains(s.live.text, "failing"):
		st.Errors = 50
	}
	return st
}

func (s *fakeServer) current() artifact.Digest {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return ""
	}
	return s.live.digest
}

// fakeClock goes forward when somebody sleeps.
type fakeClock struct {
	mu      sync.Mutex
	now     time.Time // on the wall: tests set it as they like
	up      time.Duration
	onSleep func()
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Up() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up
}

func (c *fakeClock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.now, c.up = c.now.Add(d), c.up+d
	on := c.onSleep
	c.mu.Unlock()
	if on != nil {
		on()
	}
	return ctx.Err()
}

func (c *fakeClock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now, c.up = c.now.Add(d), c.up+d
}

// world is a publisher, its registry and the history of its channel.
type world struct {
	*verifytest.World
	t    testing.TB
	reg  *registry
	head *channel.Head
	key  *devicekey.Key

	shadows Shadower
	runtime Runtime // instead of the fake one
}

func newWorld(t testing.TB) *world {
	t.Helper()
	key, err := devicekey.Generate(strings.NewReader(strings.Repeat("k", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return &world{World: verifytest.New(t), t: t, reg: newRegistry(), key: key}
}

// model pushes an artifact whose module holds text.
func (w *world) model(text string) channel.Target { return w.modelOf(text, nil) }

// modelOf is model with other content for some of its files.
func (w *world) modelOf(text string, other map[string][]byte) channel.Target {
	w.t.Helper()
	iface := []byte(`{"name":"churn"}`)
	if strings.Contains(text, "hungry") {
		var err error
		iface, err = artifact.Canonical(artifact.Interface{
			Name: "churn", Inputs: []artifact.Port{}, Outputs: []artifact.Port{}, State: []artifact.StateVar{}, Steps: []artifact.Step{}, Nodes: []string{},
			Memory: artifact.Memory{Heap: 1000000, Arena: 65536},
		})
		if err != nil {
			w.t.Fatal(err)
		}
	}
	files := map[string][]byte{
		"model.wasm":     []byte(text),
		"interface.json": iface,
		"golden.json":    []byte(`{"vectors":[]}`),
		"model.onnx":     []byte("source of " + text), // not for devices
	}
	maps.Copy(files, other)
	roles := map[string]artifact.Role{"model.wasm": artifact.RoleModule, "interface.json": artifact.RoleInterface, "golden.json": artifact.RoleGolden, "model.onnx": artifact.RoleSource}
	var ls []artifact.Layer
	for name, b := range files {
		l := artifact.Layer{Role: roles[name], Path: name, Digest: artifact.DigestOf(b), Size: int64(len(b))}
		if l.Role == artifact.RoleModule {
			l.Target = artifact.TargetAny
		}
		if l.Role == artifact.RoleGolden || l.Role == artifact.RoleSource {
			l.Personal = artifact.PersonalNone
		}
		ls = append(ls, l)
		if l.Role != artifact.RoleSource {
			w.reg.put(b)
		}
	}
	manifest, cfg, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn", Version: strings.Fields(text)[0]}}, ls, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	w.reg.put(cfg)
	d := w.reg.put(manifest)
	return channel.Target{Name: "churn", Repo: "ml/churn", Digest: d, Size: int64(len(manifest)), Version: strings.Fields(text)[0]}
}

// change is the publisher's input for a target, with valid evidence in the registry.
func (w *world) change(target channel.Target) channel.Change {
	w.t.Helper()
	c := w.Change(target)
	vsa := w.VSA()
	if w.head != nil {
		vsa.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: w.head.Record.Seq, Champion: w.head.Record.Target.Digest}
	}
	rel, verdict := w.Release("churn", target.Digest), w.SignVSA(target.Digest, vsa)
	w.reg.put(rel)
	w.reg.put(verdict)
	c.Evidence = []channel.EvidenceRef{verifytest.Ref(evidence.TypeRelease, target.Digest, rel), verifytest.Ref(evidence.TypeVSA, target.Digest, verdict)}
	return c
}

// publish makes the next record and moves the tag.
func (w *world) publish(c channel.Change) *channel.Head {
	w.t.Helper()
	r, err := channel.Next(w.head, c)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.push(trust.RoleDeployer, r)
}

func (w *world) push(role trust.Role, r *channel.Record) *channel.Head {
	w.t.Helper()
	head, raw := w.SignRecord(role, r)
	w.tag(raw, channel.Tag(r.Channel), channel.SeqTag(r.Channel, r.Seq))
	w.head = head
	return head
}

// tag stores a bundle as the layer of a manifest under tags.
func (w *world) tag(raw []byte, tags ...string) {
	w.t.Helper()
	d := w.reg.put(raw)
	m, err := json.Marshal(artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeChannel,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: 2},
		Layers: []artifact.Descriptor{{MediaType: artifact.MediaTypeBundle, Digest: d, Size: int64(len(raw))}},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	for _, t := range tags {
		w.reg.tags[t] = w.reg.put(m)
	}
}

// device is a running agent over a file system.
type device struct {
	*Agent
	server  *fakeServer
	runtime *fakeRuntime
	clock   *fakeClock
	reports [][]byte
}

func (d *device) Report(_ context.Context, _ state.Slot, bundle []byte) error {
	d.reports = append(d.reports, bundle)
	return nil
}

type journalSigner struct{ key *devicekey.Key }

func (s journalSigner) ID() string { return s.key.KeyID() }
func (s journalSigner) Sign(m []byte) ([]byte, error) {
	return s.key.SignRaw("journal", m)
}

func (s journalSigner) Check(device string, m, sig []byte) error {
	pub, err := s.key.Public()
	if err != nil {
		return err
	}
	return devicekey.VerifyRaw(pub, "journal", m, sig)
}

const stateDir = "var/lib/waybill"

func newDeviceFS(t testing.TB) *fsx.Mem {
	t.Helper()
	m := fsx.NewMem()
	for _, err := range []error{m.MkdirAll("var/lib", 0o755), m.SyncDir("."), m.SyncDir("var")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// boot starts an agent; an error is one that a start on a broken disk may have.
func (w *world) boot(fsys fsx.FS, reg *registry, edit ...func(*Config)) (*device, error) {
	d := &device{server: &fakeServer{}, runtime: &fakeRuntime{}, clock: &fakeClock{now: w.Now}}
	log := slog.New(slog.DiscardHandler)
	store, _, err := w.rebuild(fsys).OpenState(d.clock.Now())
	if err != nil {
		return nil, err
	}
	j, damaged, err := journal.Open(fsys, stateDir+"/journal.log", store.Doc().Journal, journalSigner{w.key}, d.clock.Now())
	if err != nil {
		return nil, err
	}
	if damaged != nil {
		return nil, damaged
	}
	ref := w.TrustRef()
	cfg := Config{
		Class: "edge-s", Labels: map[string]string{"site": "a"}, Version: "0.1.0",
		TrustFile: w.Trust(), TrustVersion: ref.Version, TrustDigest: ref.Digest,
		Channels: []Channel{{
			Name: "prod", Env: "prod", Model: "churn", ResourceURI: "waybill:ml/churn", Interval: time.Minute,
			Trial:   Trial{Duration: time.Minute, MinRequests: 10, MaxErrorRate: 0.01, P99: 5 * time.Millisecond, Memory: 64 << 20},
			Carrier: reg, Reporter: d,
		}},
	}
	for _, e := range edit {
		e(&cfg)
	}
	runs := Runtime(d.runtime)
	if w.runtime != nil {
		runs = w.runtime
	}
	d.Agent, err = New(context.Background(), cfg, Deps{
		FS: fsys, Store: store, Journal: j, Runtime: runs, Server: d.server, Signer: w.key, Clock: d.clock, Log: log, Shadows: w.shadows,
	})
	if err != nil {
		return nil, err
	}
	return d, d.Start(context.Background())
}

func (w *world) mustBoot(fsys fsx.FS, edit ...func(*Config)) *device {
	w.t.Helper()
	d, err := w.boot(fsys, w.reg, edit...)
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// pollOnce looks at the channel once, as the loop does.
func (d *device) pollOnce() error { return d.followers[0].look(context.Background(), true) }

func (d *device) channel() *state.Channel { return d.Store.Doc().Channel("prod") }
