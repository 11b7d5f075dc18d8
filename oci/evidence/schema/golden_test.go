package schema_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

var update = flag.Bool("update", false, "write the fixtures again; a change of an existing one breaks what is out there")

const dir = "../testdata"

// fixture is one predicate with who signs it; the golden files are its predicate, statement and bundle.
type fixture struct {
	name      string
	typ       string
	role      trust.Role
	subject   artifact.Digest
	subjName  string
	predicate any
}

var (
	model    = artifact.DigestOf([]byte("waybill fixture: model"))
	former   = artifact.DigestOf([]byte("waybill fixture: former model"))
	data     = artifact.DigestOf([]byte("waybill fixture: data set"))
	document = artifact.DigestOf([]byte("waybill fixture: document"))
)

func fixtures(t testing.TB, w *verifytest.World) []fixture {
	t.Helper()
	now := w.Now
	denial := w.VSA()
	denial.VerificationResult, denial.VerifiedLevels = evidence.Failed, []string{"FAILED"}
	denial.Waybill.Violations, denial.Waybill.Warnings = []string{"QUAL-001"}, []string{"CARD-001"}
	denial.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: 3, Champion: former}
	denial.Waybill.Prev = document
	denial.InputAttestations = []evidence.Reference{{URI: "sha256-x", Digest: map[string]string{"sha256": data.Hex()}}}
	h1 := head(t, w, trust.RoleDeployer, func() (*channel.Record, error) { return channel.Next(nil, w.Change(verifytest.Target("1.0", former))) })
	c := w.Change(verifytest.Target("2.0", model))
	c.Audience = channel.Audience{Classes: []string{"edge-s"}, Labels: map[string]string{"site": "north"}}
	c.Rollout = &channel.Rollout{ID: "phase-1", Percent: 12.5}
	h2 := head(t, w, trust.RoleDeployer, func() (*channel.Record, error) { return channel.Next(h1, c) })
	h3 := head(t, w, trust.RoleRefresher, func() (*channel.Record, error) {
		return channel.Extend(h2, now.Add(time.Hour), now.Add(7*24*time.Hour+time.Hour))
	})
	h4 := head(t, w, trust.RoleDeployer, func() (*channel.Record, error) {
		return channel.RollBack(h3, former, "p99 over budget", w.Change(channel.Target{Digest: former}))
	})
	h5 := head(t, w, trust.RoleDeployer, func() (*channel.Record, error) {
		return channel.Halt(h4, "labels under investigation", now.Add(2*time.Hour), now.Add(7*24*time.Hour+2*time.Hour), w.TrustRef())
	})
	on := func(name, typ string, r trust.Role, p any) fixture { return fixture{name, typ, r, model, "churn", p} }
	rec := func(name string, r trust.Role, h *channel.Head) fixture {
		return fixture{name, evidence.TypeChannel, r, h.Record.Target.Digest, "channel:prod", h.Record}
	}
	return []fixture{
		on("release", evidence.TypeRelease, trust.RolePublisher, struct{}{}),
		on("evaluation", evidence.TypeEvaluation, trust.RoleEvaluator, evidence.Evaluation{
			Metrics: []evidence.Metric{
				{Name: "roc_auc", Value: 0.991, Direction: "higher", Slice: "all", N: 114, CI: []float64{0.98, 0.999}, DatasetDigest: data},
				{Name: "log_loss", Value: 0.12, Direction: "lower", Slice: "site=north", DatasetDigest: data},
			}, At: now, Tool: "scikit-learn 1.7.2", Note: "hold-out"}),
		on("dataset", evidence.TypeDataset, trust.RoleEvaluator, evidence.Datasets{Datasets: []evidence.Dataset{
			{Name: "wdbc", Role: "train", Digest: data, URI: "https://example.com/wdbc.csv", License: "CC-BY-4.0", Rows: 455, PersonalData: "none"},
			{Name: "wdbc-test", Role: "test", Digest: document, License: "CC-BY-4.0", PersonalData: "noAssertion"},
		}}),
		on("evaluation-device", evidence.TypeEvaluation, trust.RoleEvaluator, evidence.Evaluation{
			Metrics: []evidence.Metric{
				{Name: "latency_p99_ms", Value: 4.2, Direction: "lower", Slice: "all", DatasetDigest: data, Stage: "on-device", DeviceClass: "edge-s"},
				{Name: "roc_auc", Value: 0.98, Direction: "higher", Slice: "all", N: 9000, DatasetDigest: data, Stage: "shadow"},
			}, At: now}),
		on("dataset-times", evidence.TypeDataset, trust.RoleEvaluator, evidence.Datasets{Datasets: []evidence.Dataset{
			{Name: "visits", Role: "train", Digest: data, License: "LicenseRef-internal", PersonalData: "yes", From: at(now.AddDate(-2, 0, 0)), To: at(now.AddDate(0, -1, 0)),
				Anonymised: []string{"pseudonymised", "k-anonymity 10"}, KnownBias: "few visits at night"},
		}}),
		on("approval", evidence.TypeApproval, trust.RoleApprover, evidence.Approval{Role: "ml-lead", Reason: "metrics reviewed", At: now, Expires: now.Add(90 * 24 * time.Hour)}),
		on("exception", evidence.TypeException, trust.RoleApprover, evidence.Exception{Rule: "CARD-001", Reason: "card follows", At: now, Expires: now.Add(24 * time.Hour), Ticket: "T-1"}),
		on("decision", evidence.TypeDecision, trust.RoleGate, evidence.Decision{Input: json.RawMessage(`{"schema":"x"}`), Decision: json.RawMessage(`{"allow":false}`), Policy: verifytest.Policy}),
		on("vsa", evidence.TypeVSA, trust.RoleGate, w.VSA()),
		on("vsa-denied", evidence.TypeVSA, trust.RoleGate, denial),
		on("deployment", evidence.TypeDeployment, trust.RoleDeployer, evidence.Deployment{
			Target: "lambda:churn", Action: "apply", Env: "prod", Digest: model, Previous: former, At: now, IDs: map[string]string{"version": "17"}}),
		on("status", evidence.TypeStatus, trust.RoleDevice, evidence.Status{
			Device: w.Keys[trust.RoleDevice].ID, Class: "edge-s", Labels: map[string]string{"site": "north"}, Channel: "prod", Model: "churn", Seq: 2,
			State: "committed", Running: model, Previous: former, At: now, Runtime: "0.1.0", Trust: 1,
			Events:  []evidence.StatusEvent{{At: now, Kind: "activated", Digest: model, From: former, Reason: "record", Seq: 2}},
			Journal: evidence.JournalHead{Entries: 12, Head: document}}),
		on("status-more", evidence.TypeStatus, trust.RoleDevice, evidence.Status{
			Device: w.Keys[trust.RoleDevice].ID, Class: "edge-s", Labels: map[string]string{}, Channel: "prod", Model: "churn", Seq: 3,
			State: "rolled-back", Running: model, Version: "1.4", At: now, Runtime: "0.1.0", Trust: 1, Events: []evidence.StatusEvent{},
			Journal: evidence.JournalHead{Entries: 40, Head: document}, Expires: at(now.Add(24 * time.Hour)), Stale: true, Pinned: true,
			Clock:      &evidence.StatusClock{OK: true, Floor: now},
			Health:     &evidence.StatusHealth{Requests: 1000, Errors: 2, P50: 300_000, P99: 900_000},
			Rollback:   &evidence.StatusNote{At: now, From: former, To: model, Seq: 3, Reason: "latency budget: p99 41ms over 5ms"},
			Refusal:    &evidence.StatusNote{At: now, To: former, Seq: 3, Record: document, Reason: "expired"},
			Waiting:    &evidence.StatusWaiting{Digest: former, Version: "1.5", Action: "download", Since: now, Reason: "on battery"},
			Quarantine: []evidence.StatusQuarantine{{Digest: former, Seq: 3, At: now, Reason: "latency budget"}}}),
		{"policy", evidence.TypePolicy, trust.RolePolicy, model, "policy/governance", evidence.Policy{Name: "governance", Version: "2.3", Digest: document}},
		rec("channel-1", trust.RoleDeployer, h1),
		rec("channel-2", trust.RoleDeployer, h2),
		rec("channel-3-refresh", trust.RoleRefresher, h3),
		rec("channel-4-rollback", trust.RoleDeployer, h4),
		rec("channel-5-freeze", trust.RoleDeployer, h5),
	}
}

func at(t time.Time) *time.Time { return &t }

func head(t testing.TB, w *verifytest.World, r trust.Role, f func() (*channel.Record, error)) *channel.Head {
	t.Helper()
	rec, err := f()
	if err != nil {
		t.Fatal(err)
	}
	h, _ := w.SignRecord(r, rec)
	return h
}

// golden compares with the committed file, or writes it with -update.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	p := filepath.Join(dir, filepath.FromSlash(name))
	if *update {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s changed\n got: %s\nwant: %s", name, got, want)
	}
}

func TestFixtures(t *testing.T) {
	w := verifytest.New(t)
	for r, k := range w.Keys {
		der, err := x509.MarshalPKCS8PrivateKey(k.Priv)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "keys/TEST-ONLY-"+string(r)+".pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
		golden(t, "keys/TEST-ONLY-"+string(r)+".pub", []byte(k.Public))
	}
	for _, f := range fixtures(t, w) {
		t.Run(f.name, func(t *testing.T) {
			p, err := artifact.Canonical(f.predicate)
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "predicates/"+f.name+".json", p)
			s, err := evidence.NewStatement(f.typ, f.subjName, f.subject, f.predicate)
			if err != nil {
				t.Fatal(err)
			}
			payload, err := s.Encode()
			if err != nil {
				t.Fatal(err)
			}
			golden(t, "statements/"+f.name+".json", payload)
			raw := w.Keys[f.role].SignPayload(t, payload)
			golden(t, "bundles/"+f.name+".sigstore.json", raw)
		})
	}
	golden(t, "trust/trust-1.jsonl", w.Trust())
	golden(t, "trust/trust-2.jsonl", verifytest.SignTrust(t, second(t, w), w.Keys[trust.RoleRoot], verifytest.NewKey(t, "root-2", trust.RoleRoot)))
}

// The word of a policy key counts under a trust document that names the key, and under no other.
func TestPolicyFixtureVerifies(t *testing.T) {
	w := verifytest.New(t)
	raw, err := os.ReadFile(filepath.Join(dir, "bundles", "policy.sigstore.json"))
	if err != nil {
		t.Fatal(err)
	}
	want := verify.Want{PredicateType: evidence.TypePolicy, Role: trust.RolePolicy, Subject: model, Model: "policy/governance", Now: w.Now}
	if _, err := verify.Bundle(raw, w.Doc, want); verify.ReasonOf(err) != verify.WrongSigner {
		t.Errorf("under a document without the key: %v", err)
	}
	if _, err := verify.Bundle(raw, ruled(t, w), want); err != nil {
		t.Error(err)
	}
}

func second(t testing.TB, w *verifytest.World) *trust.Document {
	t.Helper()
	d := *w.Doc
	d.Version, d.Threshold = 2, 2
	d.Keys = append(append([]trust.Key{}, d.Keys...), verifytest.NewKey(t, "root-2", trust.RoleRoot).Entry())
	d.Revoked = []string{w.Keys[trust.RoleEvaluator].ID}
	return &d
}

// ruled is a document that uses what was added later: rules, a retired key, a pin on the environments.
func ruled(t testing.TB, w *verifytest.World) *trust.Document {
	t.Helper()
	d := *second(t, w)
	d.Version, d.Revoked = 3, []string{}
	d.Keys = append([]trust.Key{}, d.Keys...)
	until := w.Now.Add(time.Hour)
	for i := range d.Keys {
		if d.Keys[i].Role == trust.RoleDeployer {
			d.Keys[i].Until = &until
		}
	}
	d.Rules = []trust.Rule{
		{PredicateType: evidence.TypeEvaluation, Signers: []string{w.Keys[trust.RoleEvaluator].ID}, Require: 1, MaxAge: "90d"},
		{PredicateType: "https://example.com/review/v1", Roles: []trust.Role{trust.RoleApprover}, Timestamp: true},
	}
	d.Keys = append(d.Keys, w.Keys[trust.RolePolicy].Entry())
	d.Environments = &trust.EnvironmentsPin{Version: 2, Digest: document}
	return &d
}

// The committed files alone, without the code that made them, must verify: this is what is out there.
func TestCommittedBundlesVerify(t *testing.T) {
	w := verifytest.New(t)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	doc, err := verify.TrustPinned(read("trust/trust-1.jsonl"), 1, w.TrustRef().Digest)
	if err != nil {
		t.Fatal(err)
	}
	doc2, err := verify.TrustBundle(read("trust/trust-2.jsonl"), doc)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range fixtures(t, w) {
		if f.role == trust.RolePolicy {
			continue // came later than these trust documents: TestPolicyFixtureVerifies
		}
		raw := read("bundles/" + f.name + ".sigstore.json")
		want := verify.Want{PredicateType: f.typ, Role: f.role, Subject: f.subject, Model: "churn", Env: "prod", Channel: "prod", Now: w.Now}
		if _, err := verify.Bundle(raw, doc, want); err != nil {
			t.Errorf("%s: %v", f.name, err)
		}
		wantReason := verify.Reason("")
		if f.role == trust.RoleEvaluator {
			wantReason = verify.Revoked
		}
		if _, err := verify.Bundle(raw, doc2, want); verify.ReasonOf(err) != wantReason {
			t.Errorf("%s under version 2: %v", f.name, err)
		}
		if f.typ == evidence.TypeChannel {
			if _, _, err := verify.Record(raw, doc, w.Now); err != nil {
				t.Errorf("%s: %v", f.name, err)
			}
		}
	}
	var prev *channel.Head
	for _, f := range []string{"channel-1", "channel-2", "channel-3-refresh", "channel-4-rollback"} {
		raw := read("bundles/" + f + ".sigstore.json")
		r, e, err := verify.Record(raw, doc, w.Now)
		if err != nil {
			t.Fatal(err)
		}
		next := &channel.Head{Record: r, Bundle: e.Bundle}
		if s, err := channel.Follows(prev, next, e.Role == trust.RoleRefresher); err != nil || len(s.Alarms) != 0 {
			t.Errorf("%s: %v %v", f, s, err)
		}
		prev = next
	}
	vw := verify.VSAWant{Subject: model, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", DeviceClass: "edge-s", Now: w.Now}
	if _, _, err := verify.VSA(read("bundles/vsa.sigstore.json"), doc, vw); err != nil {
		t.Error(err)
	}
	if _, _, err := verify.VSA(read("bundles/vsa-denied.sigstore.json"), doc, vw); verify.ReasonOf(err) != verify.Refused {
		t.Errorf("denial: %v", err)
	}
}
