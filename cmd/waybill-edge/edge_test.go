package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/agent"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/probe"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
	ociserver "github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
	"github.com/waybill-ml/waybill/packager/build"
)

// TestMain lets the test binary be waybill-edge itself, so that tests run a real second process without a build.
func TestMain(m *testing.M) {
	if os.Getenv("WAYBILL_EDGE_TEST_MAIN") == "1" {
		main()
	}
	os.Exit(m.Run())
}

const modelName = "churn" // of verifytest's world

// publisher is the other side: an embedded registry and the keys of a verifytest world whose time is now.
type publisher struct {
	*verifytest.World
	t    *testing.T
	repo *registry.Remote
	host string
	head *channel.Head

	mu    sync.Mutex
	alter artifact.Digest // blob that is served with one byte changed
}

func newPublisher(t *testing.T) *publisher {
	t.Helper()
	p := &publisher{World: verifytest.New(t), t: t}
	p.Now = time.Now().UTC().Truncate(time.Second)
	p.Doc.Issued, p.Doc.Expires = p.Now.Add(-time.Hour), p.Now.Add(24*time.Hour)
	s, err := ociserver.New(t.TempDir(), ociserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		alter := p.alter
		p.mu.Unlock()
		if alter == "" || r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, string(alter)) {
			s.ServeHTTP(w, r)
			return
		}
		rec := httptest.NewRecorder()
		s.ServeHTTP(rec, r)
		b := rec.Body.Bytes()
		b[len(b)/2] ^= 1
		w.WriteHeader(rec.Code)
		_, _ = w.Write(b)
	}))
	t.Cleanup(func() {
		h.Close()
		_ = s.Close()
	})
	p.host = strings.TrimPrefix(h.URL, "http://")
	if p.repo, err = registry.NewRemote(p.host, "ml/churn", registry.RemoteOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// compiled caches compiled examples for the whole test run: compiling is not what is tested here.
var compiled sync.Map

// pack compiles an example, records its golden vectors with the engine, and pushes the artifact.
func (p *publisher) pack(example string) channel.Target {
	p.t.Helper()
	type files struct{ module, weights, iface, golden []byte }
	v, ok := compiled.Load(example)
	if !ok {
		raw, err := exampleModel(example)
		if err != nil {
			p.t.Fatal(err)
		}
		m, err := build.Compile(p.t.Context(), build.Source{Path: "model.onnx", Data: raw}, build.Options{Name: modelName, Version: example})
		if err != nil {
			p.t.Fatal(err)
		}
		iface, err := artifact.Canonical(m.Interface)
		if err != nil {
			p.t.Fatal(err)
		}
		v = files{m.Code, m.Weights, iface, p.golden(m)}
		compiled.Store(example, v)
	}
	f := v.(files)
	ctx := p.t.Context()
	var ls []artifact.Layer
	for _, x := range []struct {
		path string
		role artifact.Role
		data []byte
	}{{"model.wasm", artifact.RoleModule, f.module}, {"weights.bin", artifact.RoleWeights, f.weights}, {"interface.json", artifact.RoleInterface, f.iface}, {"golden.json", artifact.RoleGolden, f.golden}} {
		if x.data == nil {
			continue
		}
		d, err := registry.PushBytes(ctx, p.repo, "application/octet-stream", x.data)
		if err != nil {
			p.t.Fatal(err)
		}
		l := artifact.Layer{Role: x.role, Path: x.path, Digest: d.Digest, Size: d.Size}
		switch x.role {
		case artifact.RoleModule:
			l.Target = artifact.TargetAny
		case artifact.RoleGolden:
			l.Personal = artifact.PersonalNone
		}
		ls = append(ls, l)
	}
	manifest, cfg, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: modelName, Version: example}}, ls, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	if _, err := registry.PushBytes(ctx, p.repo, artifact.MediaTypeConfig, cfg); err != nil {
		p.t.Fatal(err)
	}
	d, err := p.repo.PushManifest(ctx, manifest, artifact.MediaTypeManifest, example)
	if err != nil {
		p.t.Fatal(err)
	}
	return channel.Target{Name: modelName, Repo: "ml/churn", Digest: d.Digest, Size: d.Size, Version: example}
}

// golden records what the module computes for a few rows.
func (p *publisher) golden(m *build.Model) []byte {
	p.t.Helper()
	ctx := p.t.Context()
	e, err := engine.New(ctx, engine.Config{})
	if err != nil {
		p.t.Fatal(err)
	}
	defer e.Close(ctx)
	loaded, err := e.Load(ctx, m.Code, engine.WeightsSource{Bytes: m.Weights}, m.Interface)
	if err != nil {
		p.t.Fatal(err)
	}
	g := artifact.Golden{Schema: artifact.GoldenSchema}
	for n := range 4 {
		in := row(n)
		outs, err := loaded.Run(ctx, []engine.Tensor{in})
		if err != nil {
			p.t.Fatal(err)
		}
		v := artifact.GoldenVector{Name: fmt.Sprint("row ", n), Inputs: []artifact.GoldenTensor{probe.ToGolden(m.Interface.Inputs[0].Name, in)}}
		for i, o := range outs {
			v.Expected = append(v.Expected, probe.ToGolden(m.Interface.Outputs[i].Name, o))
		}
		g.Vectors = append(g.Vectors, v)
	}
	b, err := artifact.Canonical(g)
	if err != nil {
		p.t.Fatal(err)
	}
	return b
}

func row(n int) engine.Tensor {
	v := make([]float32, 30)
	for i := range v {
		v[i] = float32((i*37+n*11)%50) / 2
	}
	return engine.Of(v, 1, 30)
}

// change is the input for the next record, with its evidence pushed.
func (p *publisher) change(target channel.Target, edit ...func(*evidence.VSA)) channel.Change {
	p.t.Helper()
	c := p.Change(target)
	vsa := p.VSA()
	if p.head != nil {
		vsa.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: p.head.Record.Seq, Champion: p.head.Record.Target.Digest}
	}
	for _, e := range edit {
		e(vsa)
	}
	rel, verdict := p.Release(modelName, target.Digest), p.SignVSA(target.Digest, vsa)
	c.Evidence = nil
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: target.Digest, Size: target.Size}
	for _, x := range []struct {
		typ string
		b   []byte
	}{{evidence.TypeRelease, rel}, {evidence.TypeVSA, verdict}} {
		if _, err := p.repo.Attach(p.t.Context(), subject, x.b, x.typ); err != nil {
			p.t.Fatal(err)
		}
		c.Evidence = append(c.Evidence, verifytest.Ref(x.typ, target.Digest, x.b))
	}
	return c
}

func (p *publisher) publish(c channel.Change) {
	p.t.Helper()
	r, err := channel.Next(p.head, c)
	if err != nil {
		p.t.Fatal(err)
	}
	p.push(r)
}

func (p *publisher) push(r *channel.Record) {
	p.t.Helper()
	head, raw := p.SignRecord(trust.RoleDeployer, r)
	p.tag(raw, channel.SeqTag("prod", r.Seq))
	p.tag(raw, channel.Tag("prod"))
	p.head = head
}

func (p *publisher) tag(raw []byte, tag string) {
	p.t.Helper()
	ctx := p.t.Context()
	d, err := registry.PushBytes(ctx, p.repo, artifact.MediaTypeBundle, raw)
	if err == nil {
		_, err = registry.PushBytes(ctx, p.repo, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	}
	if err != nil {
		p.t.Fatal(err)
	}
	m, err := json.Marshal(artifact.Manifest{
		SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeChannel,
		Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: 2}, Layers: []artifact.Descriptor{d},
	})
	if err == nil {
		_, err = p.repo.PushManifest(ctx, m, artifact.MediaTypeManifest, tag)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// edge is one enrolled device with its process.
type edge struct {
	t    *testing.T
	dir  string
	cfg  string
	exe  []string // what runs instead of the test binary
	addr string
	args []string // of run, besides the configuration
	cmd  *exec.Cmd
	log  *bytes.Buffer
	exit chan error
}

func enrolled(t *testing.T, p *publisher, trial trialConfig) *edge {
	t.Helper()
	d := &edge{t: t, dir: t.TempDir()}
	ref := p.TrustRef()
	prov, err := json.Marshal(provisioning{
		Schema: schemaProvisioning, Class: "edge-s", Listen: "127.0.0.1:0",
		Trust: provisionedTrust{Bundle: p.Trust(), Version: ref.Version, Digest: ref.Digest},
		Channels: []channelConfig{{
			Name: "prod", Env: "prod", Registry: p.host, Repo: "ml/churn", Model: modelName, ResourceURI: "waybill:ml/churn",
			Interval: duration(time.Hour), Trial: trial, // polls are asked for
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(d.dir, "provisioning.json")
	if err := os.WriteFile(file, prov, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(d.dir, "edge")
	if got, err := command1(t, "enroll", "--out", out, "--label", "site=a", "--provision", file); err != nil || len(strings.TrimSpace(got)) != 64 {
		t.Fatalf("enroll: %q, %v", got, err)
	}
	d.cfg = filepath.Join(out, "config.json")
	return d
}

// command1 runs a command of waybill-edge in this process.
func command1(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out, talk bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	if code := run(ctx, args, &out, &talk); code != diag.OK {
		return out.String(), diag.New(code, "%s", talk.String())
	}
	return out.String(), nil
}

// edgeBinary is the waybill-edge under test: WAYBILL_EDGE_BINARY, or this test binary being it.
func edgeBinary(t *testing.T) string {
	t.Helper()
	if b := os.Getenv("WAYBILL_EDGE_BINARY"); b != "" {
		return b
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return exe
}

// start runs the agent as a second process and waits until it listens.
func (d *edge) start() {
	d.t.Helper()
	line := append([]string{edgeBinary(d.t), "run", "--config", d.cfg}, d.args...)
	if d.exe != nil {
		line = append(d.exe[:len(d.exe):len(d.exe)], line[1:]...)
	}
	cmd := exec.Command(line[0], line[1:]...)
	cmd.Env = append(os.Environ(), "WAYBILL_EDGE_TEST_MAIN=1")
	d.run(cmd)
}

// run starts an agent and waits until it listens.
func (d *edge) run(cmd *exec.Cmd) {
	d.t.Helper()
	d.cmd = cmd
	d.log = &bytes.Buffer{}
	d.cmd.Stderr = d.log
	stdout, err := d.cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = d.cmd.Wait()
		d.t.Fatalf("the agent did not start: %v\n%s", err, d.log)
	}
	d.addr = strings.TrimSpace(strings.TrimPrefix(line, "listening on "))
	d.exit = make(chan error, 1)
	go func() { d.exit <- d.cmd.Wait() }()
	d.t.Cleanup(func() { d.kill() })
}

// stop asks the process to end and returns its error.
func (d *edge) stop() error {
	if goruntime.GOOS == "windows" {
		d.kill()
		return nil
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	err := <-d.exit
	d.exit <- err
	return err
}

func (d *edge) kill() {
	_ = d.cmd.Process.Kill()
	err := <-d.exit
	d.exit <- err
}

func (d *edge) do(args ...string) (string, error) {
	return command1(d.t, append([]string{args[0], "--config", d.cfg}, args[1:]...)...)
}

func (d *edge) status() agent.ChannelStatus {
	d.t.Helper()
	out, err := d.do("status", "--output", "json")
	if err != nil {
		d.t.Fatal(err)
	}
	var s agent.Status
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		d.t.Fatal(err)
	}
	return s.Channels[0]
}

// infer asks the served model and returns the digest that answered.
func (d *edge) infer() (artifact.Digest, error) {
	data, err := engine.Values[float32](row(1))
	if err != nil {
		return "", err
	}
	meta, err := http.Get(d.addr + "/v2/models/" + modelName)
	if err != nil {
		return "", err
	}
	var m struct {
		Inputs []struct{ Name string } `json:"inputs"`
	}
	err = json.NewDecoder(meta.Body).Decode(&m)
	_ = meta.Body.Close()
	if err != nil || len(m.Inputs) != 1 {
		return "", fmt.Errorf("metadata: %v", err)
	}
	body, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": m.Inputs[0].Name, "datatype": "FP32", "shape": []int{1, 30}, "data": data}}})
	if err != nil {
		return "", err
	}
	resp, err := http.Post(d.addr+"/v2/models/"+modelName+"/infer", "application/json", bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s %w", resp.Status, raw, err)
	}
	return artifact.Digest(resp.Header.Get("Waybill-Digest")), nil
}

// The main path with a real process, a real registry and real models: first install, an update under load without a failed
// request, attacks that are refused, an update that breaks its latency budget and is undone, rollback by record and by hand,
// restart without network.
func TestEndToEnd(t *testing.T) {
	p := newPublisher(t)
	v1, v2, v3 := p.pack("v1"), p.pack("v2"), p.pack("v3")
	d := enrolled(t, p, trialConfig{Duration: duration(300 * time.Millisecond), MinRequests: 5, MaxErrorRate: 0.01, P99: duration(time.Minute)})
	d.start()
	if _, err := d.infer(); err == nil {
		t.Error("it answers before anything was activated")
	}
	p.publish(p.change(v1))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("poll: %v\n%s\n%s", err, out, d.log)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("v1 does not answer: %s, %v", got, err)
	}

	// Update while clients keep asking.
	var asked, failed atomic.Int64
	seen := sync.Map{}
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				got, err := d.infer()
				asked.Add(1)
				if err != nil {
					failed.Add(1)
					t.Logf("request failed: %v", err)
				}
				seen.Store(got, true)
			}
		})
	}
	p.publish(p.change(v2))
	if _, err := d.do("poll"); err != nil {
		t.Errorf("update: %v\n%s", err, d.log)
	}
	cancel()
	wg.Wait()
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Fatalf("v2 does not answer: %s, %v", got, err)
	}
	_, sawOld := seen.Load(v1.Digest)
	_, sawNew := seen.Load(v2.Digest)
	if failed.Load() != 0 || asked.Load() < 10 || !sawOld || !sawNew {
		t.Errorf("%d of %d requests failed during the switch; old answered %v, new %v", failed.Load(), asked.Load(), sawOld, sawNew)
	}

	t.Run("attacks", func(t *testing.T) { attacks(t, p, d, v2, v3) })

	// By record, then by hand, then by hand to a digest.
	r, err := channel.RollBack(p.head, v1.Digest, "recall fell", p.change(v1))
	if err != nil {
		t.Fatal(err)
	}
	p.push(r)
	if _, err := d.do("poll"); err != nil {
		t.Errorf("rollback by record: %v", err)
	}
	if s := d.status(); s.Current.Digest != v1.Digest || s.LastRollback == nil || s.LastRollback.Reason != "recall fell" {
		t.Errorf("after the rollback by record: %+v", s)
	}
	if out, err := d.do("rollback"); err != nil || strings.TrimSpace(out) != string(v2.Digest) {
		t.Errorf("rollback: %q, %v", out, err)
	}
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Errorf("after the rollback: %s, %v", got, err)
	}
	if _, err := d.do("rollback", "--to", string(artifact.DigestOf(nil))); diag.CodeOf(err) != diag.NotFound {
		t.Errorf("rollback to a digest that never ran: %v", err)
	}
	if _, err := command1(t, "run", "--config", d.cfg); err == nil || !strings.Contains(err.Error(), "another waybill-edge") {
		t.Errorf("a second agent on the same state: %v", err)
	}

	// The device's own word reaches the registry, and no list of what is attached to a model.
	id := fleetID(t, d)
	eventually(t, "the newest status report stands under the device's tag", func() bool {
		m, _, err := p.repo.GetBounded(t.Context(), fleet.StatusTag("prod", id), artifact.MaxManifest)
		return err == nil && bytes.Contains(m, []byte(evidence.TypeStatus))
	})
	refs, err := p.repo.Referrers(t.Context(), v2.Digest)
	if err != nil || len(refs) == 0 {
		t.Fatal(len(refs), err)
	}
	for _, ref := range refs {
		if ref.Annotations[artifact.AnnotationBundlePredicate] == evidence.TypeStatus {
			t.Error("a report is attached to the model: a fleet would fill the list that gates read")
		}
	}

	if err := d.stop(); err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, d.log)
	}
	for _, args := range [][]string{{"status"}, {"history"}, {"verify-journal"}} {
		if out, err := d.do(args...); err != nil || out == "" {
			t.Errorf("%s while the agent is down: %q, %v", args[0], out, err)
		}
	}
	// Down, and rolled back with --to; then it starts without the registry.
	if out, err := d.do("rollback", "--to", string(v1.Digest)); err != nil || strings.TrimSpace(out) != string(v1.Digest) {
		t.Errorf("rollback while the agent is down: %q, %v", out, err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("after a restart: %s, %v", got, err)
	}
	d.kill() // and after the hard way
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("after kill -9: %s, %v", got, err)
	}
	if out, err := d.do("verify-journal"); err != nil {
		t.Errorf("verify-journal: %q, %v", out, err)
	}
	log := filepath.Join(filepath.Dir(d.cfg), "state", "journal.log")
	raw, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, bytes.Replace(raw, []byte("recall fell"), []byte("recall rose"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.do("verify-journal"); diag.CodeOf(err) != diag.Verification {
		t.Errorf("a forged journal: %v", err)
	}
}

// attacks are refused with their reason; what serves goes on.
func attacks(t *testing.T, p *publisher, d *edge, serving, target channel.Target) {
	check := func(name, reason string) {
		t.Helper()
		_, err := d.do("poll")
		if diag.CodeOf(err) != diag.Verification || !strings.Contains(err.Error(), reason) {
			t.Errorf("%s: poll said %v, want %q", name, err, reason)
		}
		if s := d.status(); s.Current.Digest != serving.Digest || s.LastRefusal == nil || !strings.Contains(s.LastRefusal.Reason, reason) {
			t.Errorf("%s: status %+v", name, s.LastRefusal)
		}
		if got, err := d.infer(); err != nil || got != serving.Digest {
			t.Errorf("%s: %s answers, %v", name, got, err)
		}
	}
	// A verdict for staging.
	p.publish(p.change(target, func(v *evidence.VSA) { v.Waybill.Environment = "staging" }))
	check("verdict for staging", "environment staging, not prod")
	// A release that nobody signed as publisher.
	c := p.change(target)
	fake := p.Keys[trust.RoleEvaluator].Sign(t, evidence.TypeRelease, modelName, target.Digest, struct{}{})
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: target.Digest, Size: target.Size}
	if _, err := p.repo.Attach(t.Context(), subject, fake, evidence.TypeRelease); err != nil {
		t.Fatal(err)
	}
	c.Evidence[0] = verifytest.Ref(evidence.TypeRelease, target.Digest, fake)
	p.publish(c)
	check("release by the evaluator", "wrong-role")
	// One byte of a layer altered on the way.
	p.publish(p.change(target))
	m, _, err := registry.ReadModel(t.Context(), p.repo, string(target.Digest))
	if err != nil {
		t.Fatal(err)
	}
	module, err := m.Module(artifact.TargetAny)
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	p.alter = module.Digest
	p.mu.Unlock()
	check("altered layer", "digest")
	p.mu.Lock()
	p.alter = ""
	p.mu.Unlock()
	// An older record again.
	raw, _, err := p.repo.GetBounded(t.Context(), channel.SeqTag("prod", 1), artifact.MaxManifest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.repo.PushManifest(t.Context(), raw, artifact.MediaTypeManifest, channel.Tag("prod")); err != nil {
		t.Fatal(err)
	}
	check("replayed record", "older than the one accepted")
	// The registry as it was: the next record goes through again.
	p.publish(p.change(serving))
	if _, err := d.do("poll"); err != nil {
		t.Errorf("after the attacks: %v", err)
	}
}

// A model that is too slow for its device goes back by itself while requests go on, and says why.
func TestLatencyBudget(t *testing.T) {
	p := newPublisher(t)
	v1, v2 := p.pack("v1"), p.pack("v2")
	// No model meets this budget; what is tested is the way back, not the machine.
	d := enrolled(t, p, trialConfig{Duration: duration(20 * time.Second), MinRequests: 5, MaxErrorRate: 0.01, P99: duration(time.Nanosecond)})
	d.start()
	p.publish(p.change(v1))
	answer := make(chan error, 1)
	go func() {
		_, err := d.do("poll")
		answer <- err
	}()
	ask := func() error {
		for {
			select {
			case err := <-answer:
				return err
			default:
				_, _ = d.infer() // before the first trial nothing answers
			}
		}
	}
	if err := ask(); diag.CodeOf(err) != diag.RolledBack || !strings.Contains(err.Error(), "latency budget") {
		t.Fatalf("first artifact: %v", err)
	}
	if s := d.status(); s.Current != nil || len(s.Quarantine) != 1 {
		t.Fatalf("status %+v", s)
	}
	// With the budget lifted v1 is committed; then the budget falls again, and v2 is too slow.
	edit := func(old, fresh string) {
		t.Helper()
		if err := d.stop(); err != nil {
			t.Fatalf("%v\n%s", err, d.log)
		}
		raw, err := os.ReadFile(d.cfg)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(old), []byte(fresh), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		d.start()
	}
	edit(`"p99": "1ns"`, `"p99": "0s"`)
	edit(`"duration": "20s"`, `"duration": "1ms"`)
	p.publish(p.change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	edit(`"p99": "0s"`, `"p99": "1ns"`)
	edit(`"duration": "1ms"`, `"duration": "20s"`)
	p.publish(p.change(v2))
	go func() {
		_, err := d.do("poll")
		answer <- err
	}()
	failed := 0
	for done := false; !done; {
		select {
		case err := <-answer:
			if diag.CodeOf(err) != diag.RolledBack {
				t.Fatalf("v2: %v", err)
			}
			done = true
		default:
			if _, err := d.infer(); err != nil {
				failed++
			}
		}
	}
	s := d.status()
	if failed != 0 || s.Current.Digest != v1.Digest || s.LastRollback == nil || s.LastRollback.From != v2.Digest || !strings.Contains(s.LastRollback.Reason, "latency budget") {
		t.Errorf("%d requests failed; %+v", failed, s.LastRollback)
	}
	if out, err := d.do("status"); err != nil || !strings.Contains(out, "latency budget") || !strings.Contains(out, "quarantine") {
		t.Errorf("status does not tell: %s, %v", out, err)
	} else {
		t.Logf("status:\n%s", out)
	}
	if out, err := d.do("history"); err != nil || !strings.Contains(out, "rolled-back") {
		t.Errorf("history does not tell: %s, %v", out, err)
	} else {
		t.Logf("history:\n%s", out)
	}
}

// kill -9 in the middle of a trial: the old model serves after the restart, and the new one is not tried again.
func TestKillInTrial(t *testing.T) {
	p := newPublisher(t)
	v1, v2 := p.pack("v1"), p.pack("v2")
	d := enrolled(t, p, trialConfig{Duration: duration(time.Millisecond), MinRequests: 5, MaxErrorRate: 0.01})
	d.start()
	p.publish(p.change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	d.kill()
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte(`"duration": "1ms"`), []byte(`"duration": "1h0m0s"`), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	p.publish(p.change(v2))
	d.start()
	asked := make(chan struct{})
	go func() { defer close(asked); _, _ = d.do("poll") }() // it waits for the end of a trial that the kill below cuts short
	defer func() { <-asked }()
	for got := artifact.Digest(""); got != v2.Digest; { // the step is durable a moment before the switch; go test's limit ends a wait in vain
		var err error
		if got, err = d.infer(); err != nil {
			t.Fatal(err)
		}
	}
	if s := d.status(); s.State != "trial" {
		t.Errorf("v2 serves in state %s", s.State)
	}
	d.kill()
	if s := d.status(); s.Current.Digest != v1.Digest || s.Candidate == nil || s.Candidate.Digest != v2.Digest {
		t.Errorf("while it is down: %+v", s)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("after the restart: %s, %v", got, err)
	}
	if _, err := d.do("poll"); err != nil {
		t.Error(err)
	}
	s := d.status()
	if s.Current.Digest != v1.Digest || s.LastRollback == nil || s.LastRollback.Reason != "the device restarted during the trial" || len(s.Quarantine) != 1 {
		t.Errorf("status %+v, %+v", s, s.LastRollback)
	}
	if out, err := d.do("verify-journal"); err != nil {
		t.Errorf("verify-journal: %q, %v", out, err)
	}
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	cfg := filepath.Join(dir, "config.json")
	put := func(s string) {
		t.Helper()
		if err := os.WriteFile(cfg, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	check := func(code diag.Code, want string, args ...string) {
		t.Helper()
		_, err := command1(t, args...)
		if diag.CodeOf(err) != code || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: code %d, %v; want code %d and %q", args, diag.CodeOf(err), err, code, want)
		}
	}
	check(diag.NotFound, "hint: waybill-edge enroll", "run", "--config", cfg)
	check(diag.Usage, "hint: waybill-edge rollback", "rolback")
	check(diag.Usage, "did you mean --config?", "status", "--confg", "x")
	check(diag.Usage, "surplus argument", "status", "extra")
	check(diag.Usage, "--out is missing", "enroll")
	check(diag.Usage, "--class is missing", "enroll", "--out", dir)
	put(`{"state":"state","chanels":[]}`)
	check(diag.Usage, `did you mean "channels"?`, "run", "--config", cfg)
	put("{\n  \"state\": }")
	check(diag.Usage, "config.json:2", "run", "--config", cfg)
	put(`{"state":"state","listen":"127.0.0.1:0","class":"a","trust":{"file":"t","version":1,"digest":"sha256:ab"}}`)
	check(diag.Usage, "trust.digest", "run", "--config", cfg)
	check(diag.Usage, "not a sha256 digest", "rollback", "--config", enrolled(t, newPublisher(t), trialConfig{}).cfg, "--to", "v1")

	// A trust document that is not the pinned one.
	p := newPublisher(t)
	ref := p.TrustRef()
	b, err := json.Marshal(provisioning{
		Schema: schemaProvisioning, Class: "edge-s", Trust: provisionedTrust{Bundle: p.Trust(), Version: ref.Version, Digest: artifact.DigestOf(nil)},
		Channels: []channelConfig{{Name: "prod", Env: "prod", Registry: "localhost:1", Repo: "a", Model: "m", ResourceURI: "waybill:a/m"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	put(string(b))
	check(diag.Verification, "the pinned one", "enroll", "--out", filepath.Join(dir, "x"), "--provision", cfg)
	if _, err := os.Stat(filepath.Join(dir, "x", "config.json")); err == nil {
		t.Error("a configuration was written all the same")
	}

	// A port that is taken.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := enrolled(t, p, trialConfig{})
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte("127.0.0.1:0"), []byte(l.Addr().String()), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	check(diag.Failure, "listen on "+l.Addr().String(), "run", "--config", d.cfg)
	check(diag.NotFound, "has not run yet", "verify-journal", "--config", enrolled(t, p, trialConfig{}).cfg)
}

// The key stays when a device is enrolled again, and its mode is looked at.
func TestEnrollAgain(t *testing.T) {
	out := filepath.Join(t.TempDir(), "edge")
	first, err := command1(t, "enroll", "--out", out, "--class", "edge-s")
	if err != nil {
		t.Fatal(err)
	}
	second, err := command1(t, "enroll", "--out", out, "--class", "edge-s", "--label", "site=b")
	if err != nil || first != second {
		t.Errorf("another device: %s, %s, %v", first, second, err)
	}
	raw, err := os.ReadFile(filepath.Join(out, "request.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r fleet.Request
	if err := json.Unmarshal(raw, &r); err != nil || r.Device != strings.TrimSpace(first) || r.Labels["site"] != "b" {
		t.Errorf("request %+v, %v", r, err)
	}
	if _, id, err := trust.ParsePublic([]byte(r.Public)); err != nil || id != r.Device {
		t.Errorf("public key of %s, %v", id, err)
	}
	if goruntime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(filepath.Join(out, "device.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := command1(t, "enroll", "--out", out, "--class", "edge-s"); err == nil || !strings.Contains(err.Error(), "read by others") {
		t.Errorf("a key that everybody may read: %v", err)
	}
}

// The flags give the same configuration as a provisioning file.
func TestEnrollByFlags(t *testing.T) {
	p := newPublisher(t)
	want := enrolled(t, p, trialConfig{Duration: duration(time.Minute), MinRequests: 20, MaxErrorRate: 0.01, P99: duration(time.Millisecond)})
	dir := t.TempDir()
	file, out := filepath.Join(dir, "trust.signed"), filepath.Join(dir, "edge")
	if err := os.WriteFile(file, p.Trust(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"enroll", "--out", out, "--class", "edge-s", "--label", "site=a", "--listen", "127.0.0.1:0", "--trust", file,
		"--follow", p.host + "/ml/churn", "--interval", "1h", "--p99", "1ms"}
	if _, err := command1(t, append(args, "--trust-digest", string(p.TrustRef().Digest))...); err != nil {
		t.Fatal(err)
	}
	a, err := os.ReadFile(want.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(out, "config.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Errorf("the configurations differ:\n%s\n%s", a, b)
	}
	for _, c := range []struct {
		code diag.Code
		want string
		args []string
	}{
		{diag.Verification, "the pinned one", append(args[:len(args):len(args)], "--trust-digest", string(artifact.DigestOf(nil)))},
		{diag.Usage, "--trust-digest is missing", args},
		{diag.Usage, "is not REGISTRY/REPO", []string{"enroll", "--out", out, "--class", "a", "--trust", file, "--trust-digest", string(p.TrustRef().Digest), "--follow", "churn"}},
	} {
		if _, err := command1(t, c.args...); diag.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

// fleetID is the id of a device.
func fleetID(t *testing.T, d *edge) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(d.cfg), requestFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := fleet.ParseRequest(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r.Device
}
