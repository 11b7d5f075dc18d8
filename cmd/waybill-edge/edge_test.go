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
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/enroll"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/fleet"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// TestMain lets the test binary be waybill-edge itself, so that tests run a real second process without a build.
func TestMain(m *testing.M) {
	if os.Getenv("WAYBILL_EDGE_TEST_MAIN") == "1" {
		main()
	}
	os.Exit(m.Run())
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

func enrolled(t *testing.T, p *edgetest.Publisher, trial config.Trial) *edge {
	t.Helper()
	d := &edge{t: t, dir: t.TempDir()}
	ref := p.TrustRef()
	prov, err := json.Marshal(config.Provisioning{
		Schema: config.SchemaProvisioning, Class: "edge-s", Listen: "127.0.0.1:0",
		Trust: config.ProvisionedTrust{Bundle: p.Trust(), Version: ref.Version, Digest: ref.Digest},
		Channels: []config.Channel{{
			Name: "prod", Env: "prod", Registry: p.Host, Repo: "ml/churn", Model: edgetest.Model, ResourceURI: "waybill:ml/churn",
			Interval: config.Duration(time.Hour), Trial: trial, // polls are asked for
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
	data, err := engine.Values[float32](edgetest.Row(1))
	if err != nil {
		return "", err
	}
	meta, err := http.Get(d.addr + "/v2/models/" + edgetest.Model)
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
	resp, err := http.Post(d.addr+"/v2/models/"+edgetest.Model+"/infer", "application/json", bytes.NewReader(body))
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
	p := edgetest.NewPublisher(t)
	v1, v2, v3 := p.Pack("v1"), p.Pack("v2"), p.Pack("v3")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(300 * time.Millisecond), MinRequests: 5, MaxErrorRate: 0.01, P99: config.Duration(time.Minute)})
	d.start()
	if _, err := d.infer(); err == nil {
		t.Error("it answers before anything was activated")
	}
	p.Publish(p.Change(v1))
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
	p.Publish(p.Change(v2))
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
	r, err := channel.RollBack(p.Head, v1.Digest, "recall fell", p.Change(v1))
	if err != nil {
		t.Fatal(err)
	}
	p.Push(r)
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
	edgetest.Eventually(t, "the newest status report stands under the device's tag", func() bool {
		m, _, err := p.Repo.GetBounded(t.Context(), fleet.StatusTag("prod", id), artifact.MaxManifest)
		return err == nil && bytes.Contains(m, []byte(evidence.TypeStatus))
	})
	refs, err := p.Repo.Referrers(t.Context(), v2.Digest)
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
func attacks(t *testing.T, p *edgetest.Publisher, d *edge, serving, target channel.Target) {
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
	p.Publish(p.Change(target, func(v *evidence.VSA) { v.Waybill.Environment = "staging" }))
	check("verdict for staging", "environment staging, not prod")
	// A release that nobody signed as publisher.
	c := p.Change(target)
	fake := p.Keys[trust.RoleEvaluator].Sign(t, evidence.TypeRelease, edgetest.Model, target.Digest, struct{}{})
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: target.Digest, Size: target.Size}
	if _, err := p.Repo.Attach(t.Context(), subject, fake, evidence.TypeRelease); err != nil {
		t.Fatal(err)
	}
	c.Evidence[0] = verifytest.Ref(evidence.TypeRelease, target.Digest, fake)
	p.Publish(c)
	check("release by the evaluator", "wrong-role")
	// One byte of a layer altered on the way.
	p.Publish(p.Change(target))
	m, _, err := registry.ReadModel(t.Context(), p.Repo, string(target.Digest))
	if err != nil {
		t.Fatal(err)
	}
	module, err := m.Module(artifact.TargetAny)
	if err != nil {
		t.Fatal(err)
	}
	p.Mu.Lock()
	p.Alter = module.Digest
	p.Mu.Unlock()
	check("altered layer", "digest")
	p.Mu.Lock()
	p.Alter = ""
	p.Mu.Unlock()
	// An older record again.
	raw, _, err := p.Repo.GetBounded(t.Context(), channel.SeqTag("prod", 1), artifact.MaxManifest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Repo.PushManifest(t.Context(), raw, artifact.MediaTypeManifest, channel.Tag("prod")); err != nil {
		t.Fatal(err)
	}
	check("replayed record", "older than the one accepted")
	// The registry as it was: the next record goes through again.
	p.Publish(p.Change(serving))
	if _, err := d.do("poll"); err != nil {
		t.Errorf("after the attacks: %v", err)
	}
}

// A model that is too slow for its device goes back by itself while requests go on, and says why.
func TestLatencyBudget(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	// No model meets this budget; what is tested is the way back, not the machine.
	d := enrolled(t, p, config.Trial{Duration: config.Duration(20 * time.Second), MinRequests: 5, MaxErrorRate: 0.01, P99: config.Duration(time.Nanosecond)})
	d.start()
	p.Publish(p.Change(v1))
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
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	edit(`"p99": "0s"`, `"p99": "1ns"`)
	edit(`"duration": "1ms"`, `"duration": "20s"`)
	p.Publish(p.Change(v2))
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
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond), MinRequests: 5, MaxErrorRate: 0.01})
	d.start()
	p.Publish(p.Change(v1))
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
	p.Publish(p.Change(v2))
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
	nowhere := filepath.Join(t.TempDir(), "device")
	check(diag.Usage, `class "bogus/.." does not match`, "enroll", "--out", nowhere, "--class", "bogus/..")
	check(diag.Usage, `label name "a b" does not match`, "enroll", "--out", nowhere, "--class", "edge-s", "--label", "a b=c")
	check(diag.Usage, "cannot be shown", "enroll", "--out", nowhere, "--class", "edge-s", "--label", "site=a\x1b[2Jb")
	if _, err := os.Stat(nowhere); err == nil {
		t.Error("a refused enrolment left a folder behind")
	}
	put(`{"state":"state","chanels":[]}`)
	check(diag.Usage, `did you mean "channels"?`, "run", "--config", cfg)
	put("{\n  \"state\": }")
	check(diag.Usage, "config.json:2", "run", "--config", cfg)
	put(`{"state":"state","listen":"127.0.0.1:0","class":"a","trust":{"file":"t","version":1,"digest":"sha256:ab"}}`)
	check(diag.Usage, "trust.digest", "run", "--config", cfg)
	check(diag.Usage, "not a sha256 digest", "rollback", "--config", enrolled(t, edgetest.NewPublisher(t), config.Trial{}).cfg, "--to", "v1")

	// A trust document that is not the pinned one.
	p := edgetest.NewPublisher(t)
	ref := p.TrustRef()
	b, err := json.Marshal(config.Provisioning{
		Schema: config.SchemaProvisioning, Class: "edge-s", Trust: config.ProvisionedTrust{Bundle: p.Trust(), Version: ref.Version, Digest: artifact.DigestOf(nil)},
		Channels: []config.Channel{{Name: "prod", Env: "prod", Registry: "localhost:1", Repo: "a", Model: "m", ResourceURI: "waybill:a/m"}},
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
	d := enrolled(t, p, config.Trial{})
	raw, err := os.ReadFile(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.cfg, bytes.Replace(raw, []byte("127.0.0.1:0"), []byte(l.Addr().String()), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	check(diag.Failure, "listen on "+l.Addr().String(), "run", "--config", d.cfg)
	check(diag.NotFound, "has not run yet", "verify-journal", "--config", enrolled(t, p, config.Trial{}).cfg)
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
	p := edgetest.NewPublisher(t)
	want := enrolled(t, p, config.Trial{Duration: config.Duration(time.Minute), MinRequests: 20, MaxErrorRate: 0.01, P99: config.Duration(time.Millisecond)})
	dir := t.TempDir()
	file, out := filepath.Join(dir, "trust.signed"), filepath.Join(dir, "edge")
	if err := os.WriteFile(file, p.Trust(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"enroll", "--out", out, "--class", "edge-s", "--label", "site=a", "--listen", "127.0.0.1:0", "--trust", file,
		"--follow", p.Host + "/ml/churn", "--interval", "1h", "--p99", "1ms"}
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
	raw, err := os.ReadFile(filepath.Join(filepath.Dir(d.cfg), enroll.RequestFile))
	if err != nil {
		t.Fatal(err)
	}
	r, err := fleet.ParseRequest(raw)
	if err != nil {
		t.Fatal(err)
	}
	return r.Device
}
