// Package policytest makes a small real world for tests of the gate and the audit: keys of every role, a trust document,
// a signed environments document, an artifact with its layers, evidence over it and a channel, all in memory. Nothing in
// it is a stand-in for verification: signatures are real and are checked by oci/verify.
package policytest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/environments"
)

// Now is the time at which everything happens.
func Now() time.Time { return time.Date(2026, 11, 23, 9, 0, 0, 0, time.UTC) }

// Key is an ECDSA P-256 key that signs statements, without a passphrase and without asking for a role.
type Key struct {
	ID   string
	PEM  string
	priv *ecdsa.PrivateKey
}

// NewKey makes a key.
func NewKey(t testing.TB) *Key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	p, err := trust.EncodePublic(&k.PublicKey)
	must(t, err)
	id, err := trust.KeyID(&k.PublicKey)
	must(t, err)
	return &Key{ID: id, PEM: string(p), priv: k}
}

// Sign gives the bundle of a statement.
func (k *Key) Sign(_ context.Context, s *evidence.Statement) ([]byte, error) {
	payload, err := s.Encode()
	if err != nil {
		return nil, err
	}
	h := sha256.Sum256(evidence.PAE(evidence.PayloadType, payload))
	sig, err := ecdsa.SignASN1(rand.Reader, k.priv, h[:])
	if err != nil {
		return nil, err
	}
	return evidence.EncodeBundle(k.ID, payload, sig)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// World is a repository, its channels and the keys. Tests change its fields.
type World struct {
	Keys         map[trust.Role]*Key
	Trust        *trust.Document
	Environments *environments.Signed
	EnvDoc       *environments.Document
	Blobs        map[artifact.Digest][]byte
	Manifests    map[artifact.Digest][]byte
	Attached     map[artifact.Digest][][]byte
	Channels     map[string][]byte
	Kept         [][]byte // every record that was published
	Reported     [][]byte // reports of devices, and how many there are beside them
	Unread       int
	ChannelErr   error
	EvidenceErr  error
}

// New makes a world whose trust document pins policy and whose environments are staging and prod.
func New(t testing.TB, policy artifact.Digest) *World {
	t.Helper()
	w := &World{Keys: map[trust.Role]*Key{}, Blobs: map[artifact.Digest][]byte{}, Manifests: map[artifact.Digest][]byte{},
		Attached: map[artifact.Digest][][]byte{}, Channels: map[string][]byte{}}
	all := []string{"*"}
	w.Trust = &trust.Document{Schema: trust.Schema, Version: 3, Generation: 1, Issued: Now().AddDate(0, -1, 0), Expires: Now().AddDate(1, 0, 0),
		Threshold: 1, Policies: []artifact.Digest{policy}, Revoked: []string{}, Denied: []artifact.Digest{}}
	for _, r := range trust.Roles() {
		k := NewKey(t)
		w.Keys[r] = k
		e := trust.Key{ID: k.ID, Name: string(r) + " team", Role: r, Public: k.PEM, Scope: trust.Scope{Models: all, Envs: all, Channels: all}}
		if r == trust.RoleApprover {
			e.ApproverRoles = []string{"ml-lead", "privacy-officer"}
		}
		w.Trust.Keys = append(w.Trust.Keys, e)
	}
	must(t, w.Trust.Validate())
	d, err := environments.ParseYAML("environments.yaml", fmt.Appendf(nil, environmentsYAML, policy, policy))
	must(t, err)
	w.SetEnvironments(t, d)
	return w
}

const environmentsYAML = `version: 1
environments:
  staging:
    namespace: ml
    policy: {digest: "%s"}
    deviceClasses: [{name: edge-s, memory: 256MiB}]
    metrics: [{name: roc_auc, min: 0.9}]
    licenses: {models: [Apache-2.0], datasets: [CC-BY-4.0]}
  prod:
    namespace: ml
    policy: {digest: "%s"}
    deviceClasses: [{name: edge-s, memory: 256MiB, runtime: "0.1.0"}]
    metrics:
      - {name: roc_auc, min: 0.95, maxRegression: 0.005, minN: 100}
      - {name: log_loss, max: 0.3, maxRegression: 0.05}
    licenses: {models: [Apache-2.0], datasets: [CC-BY-4.0]}
    approvals: {minimum: 1, roles: [ml-lead]}
    evidence: [evaluation, dataset]
    exceptions: {roles: [ml-lead], rules: [MET-004]}
`

// SetEnvironments signs and verifies d.
func (w *World) SetEnvironments(t testing.TB, d *environments.Document) {
	t.Helper()
	raw, err := environments.Sign(t.Context(), d, w.Keys[trust.RoleRoot], nil)
	must(t, err)
	w.EnvDoc = d
	w.Environments, err = environments.Verify(raw, w.Trust, Now())
	must(t, err)
}

// Wasm is the smallest module: a header and nothing.
func Wasm() []byte { return []byte("\x00asm\x01\x00\x00\x00") }

// WasmImporting is a module that imports one function.
func WasmImporting(mod, name string) []byte {
	typ := []byte{1, 4, 1, 0x60, 0, 0}
	imp := []byte{1, byte(len(mod))}
	imp = append(append(imp, mod...), byte(len(name)))
	imp = append(append(imp, name...), 0, 0)
	out := append(Wasm(), typ...)
	return append(append(out, 2, byte(len(imp))), imp...)
}

// Model is what an artifact is made from; Default fills it.
type Model struct {
	Name, Version, License string
	Module                 []byte
	Source                 []byte
	SourcePath             string
	GoldenPersonal         string
	Reference              float32 // of the golden vector; the module's own output is 0.25
	NoCard                 bool
}

// Default is a model that passes.
func Default() Model {
	return Model{Name: "churn", Version: "1.0.0", License: "Apache-2.0", Module: Wasm(), Source: []byte("\x08\x08\x12\x07skl2onnx\x3a\x00"),
		SourcePath: "model.onnx", GoldenPersonal: artifact.PersonalNone, Reference: 0.25}
}

func f32(v float32) artifact.Base64 {
	return binary.LittleEndian.AppendUint32(nil, math.Float32bits(v))
}

// Add puts an artifact into the repository and gives its digest.
func (w *World) Add(t testing.TB, m Model) artifact.Digest {
	t.Helper()
	blob := func(b []byte) artifact.Digest {
		d := artifact.DigestOf(b)
		w.Blobs[d] = b
		return d
	}
	module := artifact.FileRef{Path: "module.wasm", Digest: blob(m.Module), Size: int64(len(m.Module))}
	port := artifact.Port{Name: "score", Kind: "tensor", DType: "f32", Shape: []artifact.Dim{{Size: 1}}, Ranked: true}
	in := port
	in.Name = "x"
	iface, err := artifact.Canonical(artifact.Interface{Schema: artifact.InterfaceSchema, Name: m.Name, Version: m.Version, ABI: 1, MinRuntime: "0.1.0",
		Compiler: "waybill 0.1.0", Inputs: []artifact.Port{in}, Outputs: []artifact.Port{port}, State: []artifact.StateVar{},
		Steps:  []artifact.Step{{Kind: "model", Name: m.Name, File: module, Inputs: []artifact.Port{in}, Outputs: []artifact.Port{port}}},
		Module: module, Memory: artifact.Memory{Heap: 65536, Context: 1024, Arena: 65536, Max: 1 << 20}, Nodes: []string{}})
	must(t, err)
	ten := func(name string, v float32) []artifact.GoldenTensor {
		return []artifact.GoldenTensor{{Name: name, DType: "f32", Shape: []int64{1}, Data: f32(v)}}
	}
	golden, err := artifact.Canonical(artifact.Golden{Schema: artifact.GoldenSchema, Vectors: []artifact.GoldenVector{{Name: "v0",
		Inputs: ten("x", 1), Expected: ten("score", 0.25), Reference: ten("score", m.Reference), Tolerance: []artifact.Tolerance{{Output: "score", ATol: 1e-6}}}}})
	must(t, err)
	layer := func(r artifact.Role, p string, b []byte) artifact.Layer {
		return artifact.Layer{Role: r, Path: p, Digest: blob(b), Size: int64(len(b))}
	}
	mod := layer(artifact.RoleModule, "module.wasm", m.Module)
	mod.Target = artifact.TargetAny
	gold := layer(artifact.RoleGolden, "golden.json", golden)
	gold.Personal = m.GoldenPersonal
	src := layer(artifact.RoleSource, m.SourcePath, m.Source)
	src.Personal = artifact.PersonalNone
	layers := []artifact.Layer{mod, gold, src, layer(artifact.RoleInterface, "interface.json", iface)}
	if !m.NoCard {
		layers = append(layers, layer(artifact.RoleDoc, "README.md", []byte("# "+m.Name+"\n")))
	}
	man, cfg, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: m.Name, Version: m.Version, Licenses: []string{m.License}},
		Model: artifact.ModelConfig{Format: "wasm"}}, layers, nil)
	must(t, err)
	blob(cfg)
	d := artifact.DigestOf(man)
	w.Manifests[d] = man
	return d
}

// Statement signs a predicate about d with the key of a role.
func (w *World) Statement(t testing.TB, role trust.Role, typ, name string, d artifact.Digest, predicate any) []byte {
	t.Helper()
	s, err := evidence.NewStatement(typ, name, d, predicate)
	must(t, err)
	b, err := w.Keys[role].Sign(t.Context(), s)
	must(t, err)
	return b
}

// Attach adds evidence.
func (w *World) Attach(t testing.TB, role trust.Role, typ string, d artifact.Digest, predicate any) artifact.Digest {
	t.Helper()
	b := w.Statement(t, role, typ, "churn", d, predicate)
	w.Attached[d] = append(w.Attached[d], b)
	return artifact.DigestOf(b)
}

// TestSet and TrainSet are the digests of the data sets.
func TestSet() artifact.Digest  { return artifact.DigestOf([]byte("test data")) }
func TrainSet() artifact.Digest { return artifact.DigestOf([]byte("training data")) }

// Evaluation gives metrics on the test set.
func Evaluation(auc, loss float64) evidence.Evaluation {
	return evidence.Evaluation{At: Now().AddDate(0, 0, -2), Tool: "example", Metrics: []evidence.Metric{
		{Name: "roc_auc", Value: auc, Direction: "higher", Slice: "all", N: 171, DatasetDigest: TestSet()},
		{Name: "log_loss", Value: loss, Direction: "lower", Slice: "all", N: 171, DatasetDigest: TestSet()}}}
}

// Datasets is the statement about both sets.
func Datasets() evidence.Datasets {
	return evidence.Datasets{Datasets: []evidence.Dataset{
		{Name: "churn-train", Role: "train", Digest: TrainSet(), License: "CC-BY-4.0", Rows: 398, PersonalData: "none"},
		{Name: "churn-test", Role: "test", Digest: TestSet(), License: "CC-BY-4.0", Rows: 171, PersonalData: "none"}}}
}

// Approve attaches the approval that prod wants.
func (w *World) Approve(t testing.TB, d artifact.Digest) artifact.Digest {
	return w.Attach(t, trust.RoleApprover, evidence.TypeApproval, d,
		evidence.Approval{Role: "ml-lead", Reason: "reviewed", At: Now().Add(-time.Hour), Expires: Now().AddDate(0, 1, 0)})
}

// Release adds an artifact with everything that prod demands.
func (w *World) Release(t testing.TB, m Model, auc, loss float64) artifact.Digest {
	t.Helper()
	d := w.Add(t, m)
	w.Attach(t, trust.RolePublisher, evidence.TypeRelease, d, map[string]any{})
	w.Attach(t, trust.RoleEvaluator, evidence.TypeEvaluation, d, Evaluation(auc, loss))
	w.Attach(t, trust.RoleEvaluator, evidence.TypeDataset, d, Datasets())
	w.Approve(t, d)
	return d
}

// Publish puts a record for d into a channel at seq.
func (w *World) Publish(t testing.TB, name string, seq int64, d artifact.Digest, change func(*channel.Record)) {
	t.Helper()
	td, err := w.Trust.Digest()
	must(t, err)
	r := &channel.Record{Schema: channel.Schema, Channel: name, Generation: 1, Seq: seq, Env: name, Issued: Now().Add(-time.Hour), Expires: Now().AddDate(0, 1, 0),
		Audience: channel.Audience{Classes: []string{}, Labels: map[string]string{}},
		Target:   channel.Target{Name: "churn", Repo: "ml/churn", Digest: d, Size: int64(len(w.Manifests[d])), Version: "1.0.0"},
		Evidence: []channel.EvidenceRef{}, Keep: []channel.Target{}, Trust: channel.TrustRef{Version: w.Trust.Version, Digest: td}}
	for _, typ := range []string{evidence.TypeRelease, evidence.TypeVSA} {
		r.Evidence = append(r.Evidence, channel.EvidenceRef{PredicateType: typ, Subject: d, Digest: artifact.DigestOf([]byte(typ)), Size: 900})
	}
	if seq > 1 {
		r.Prev = artifact.DigestOf([]byte("the record before"))
	}
	if change != nil {
		change(r)
	}
	w.Channels[name] = w.Statement(t, trust.RoleDeployer, evidence.TypeChannel, channel.SubjectName(name), r.Target.Digest, r)
	w.Kept = append(w.Kept, w.Channels[name])
}

// Manifest implements the gate's source.
func (w *World) Manifest(_ context.Context, d artifact.Digest) ([]byte, error) {
	if b, ok := w.Manifests[d]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("manifest %s: %w", d, fs.ErrNotExist)
}

// Blob implements the gate's source. It gives what is there, hash or not.
func (w *World) Blob(_ context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	if b, ok := w.Blobs[d.Digest]; ok {
		return io.NopCloser(bytes.NewReader(b)), nil
	}
	return nil, fmt.Errorf("blob %s: %w", d.Digest, fs.ErrNotExist)
}

// Bundles implements the gate's source.
func (w *World) Bundles(_ context.Context, d artifact.Digest) ([][]byte, error) {
	return w.Attached[d], w.EvidenceErr
}

// Record implements the gate's channels.
func (w *World) Record(_ context.Context, name string) ([]byte, error) {
	return w.Channels[name], w.ChannelErr
}

// Records implements the audit's source.
func (w *World) Records(context.Context) ([][]byte, error) { return w.Kept, w.ChannelErr }

// Reports implements the audit's source: what devices keep under tags of their own.
func (w *World) Reports(context.Context) ([][]byte, int, error) { return w.Reported, w.Unread, nil }

// Layer finds a layer of an artifact by role.
func (w *World) Layer(t testing.TB, d artifact.Digest, role artifact.Role) artifact.Layer {
	t.Helper()
	m, err := artifact.ParseModel(w.Manifests[d])
	must(t, err)
	l, err := m.One(role)
	must(t, err)
	return l
}

// Resign takes a bundle apart, changes its predicate and keeps the old signature: a forgery.
func Resign(t testing.TB, bundle []byte, change func(predicate map[string]any)) []byte {
	t.Helper()
	b, err := evidence.ParseBundle(bundle)
	must(t, err)
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	must(t, err)
	var p map[string]any
	must(t, json.Unmarshal(s.Predicate, &p))
	change(p)
	s.Predicate, err = json.Marshal(p)
	must(t, err)
	payload, err := s.Encode()
	must(t, err)
	id, err := b.KeyID()
	must(t, err)
	out, err := evidence.EncodeBundle(id, payload, b.DSSEEnvelope.Signatures[0].Sig)
	must(t, err)
	return out
}
