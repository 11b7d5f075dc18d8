package audit_test

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/audit"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/policytest"
	"github.com/waybill-ml/waybill/policy/rego"
)

var page = flag.String("page", "", "write the page of TestWholeLife to this file, to look at it")

var compiled = sync.OnceValues(func() (*rego.Policy, error) {
	b, err := library.Default()
	if err != nil {
		return nil, err
	}
	return rego.Compile(context.Background(), b)
})

func world(t *testing.T) (*policytest.World, *rego.Policy) {
	t.Helper()
	p, err := compiled()
	if err != nil {
		t.Fatal(err)
	}
	return policytest.New(t, p.Bundle().Digest()), p
}

// gated runs the gate over d and attaches what it says.
func gated(t *testing.T, w *policytest.World, p *rego.Policy, d artifact.Digest, now time.Time) (verdict, record artifact.Digest) {
	t.Helper()
	o, err := gate.Decide(context.Background(), w, w, gate.Request{Ref: "reg.example/ml/churn@" + string(d), Pinned: true, Digest: d, Environment: "prod",
		Environments: w.Environments, Trust: w.Trust, Policy: p, Now: now, TimeSource: "host", Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	v, r, err := o.Attest(t.Context(), w.Keys[trust.RoleGate])
	if err != nil {
		t.Fatal(err)
	}
	w.Attached[d] = append(w.Attached[d], v, r)
	return artifact.DigestOf(v), artifact.DigestOf(r)
}

func show(t *testing.T, w *policytest.World, d artifact.Digest, ps ...gate.Evaluator) *audit.Report {
	t.Helper()
	r, err := audit.Show(context.Background(), w, d, audit.Options{Trust: w.Trust, Now: policytest.Now().Add(time.Hour), Policies: ps})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// find gives the one line of a section that contains text.
func find(t *testing.T, r *audit.Report, section, text string) audit.Line {
	t.Helper()
	var hits []audit.Line
	for _, s := range r.Sections {
		for _, l := range s.Lines {
			if s.Name == section && strings.Contains(l.Text, text) {
				hits = append(hits, l)
			}
		}
	}
	if len(hits) != 1 {
		t.Fatalf("%d lines of %s contain %q:\n%s", len(hits), section, text, r.Text(nil))
	}
	return hits[0]
}

func want(t *testing.T, r *audit.Report, section, text string, st audit.Status, proof ...artifact.Digest) {
	t.Helper()
	l := find(t, r, section, text)
	if l.Status != st {
		t.Errorf("%s %q is %s, want %s", section, text, l.Status, st)
	}
	if len(proof) > 0 && !slices.Equal(l.Proof, proof) {
		t.Errorf("%s %q rests on %v, want %v", section, text, l.Proof, proof)
	}
}

func status(w *policytest.World, running, previous artifact.Digest, seq int64, at time.Time, events ...evidence.StatusEvent) evidence.Status {
	return evidence.Status{Device: w.Keys[trust.RoleDevice].ID, Class: "edge-s", Labels: map[string]string{}, Channel: "prod", Model: "churn", Seq: seq,
		State: "committed", Running: running, Previous: previous, At: at, Runtime: "waybill-edge 0.1.0", Events: events,
		Journal: evidence.JournalHead{Entries: 9, Head: artifact.DigestOf([]byte("head"))}, Trust: w.Trust.Version}
}

// The life of three releases: v1 and v2 run, v3 is rolled back by the device. The report on v3 is found although the device
// reports under v2 since.
func TestWholeLife(t *testing.T) {
	w, p := world(t)
	now := policytest.Now()
	m := policytest.Default()
	v1 := w.Release(t, m, 0.98, 0.1)
	gated(t, w, p, v1, now)
	w.Publish(t, "prod", 1, v1, nil)
	m.Version = "2.0.0"
	v2 := w.Release(t, m, 0.985, 0.09)
	gated(t, w, p, v2, now.Add(time.Minute))
	w.Publish(t, "prod", 2, v2, nil)
	m.Version = "3.0.0"
	v3 := w.Release(t, m, 0.99, 0.08)
	verdict, record := gated(t, w, p, v3, now.Add(2*time.Minute))
	w.Publish(t, "prod", 3, v3, func(r *channel.Record) {
		r.Keep = []channel.Target{{Name: "churn", Repo: "ml/churn", Digest: v2, Size: 900, Version: "2.0.0"}}
	})
	at := now.Add(10 * time.Minute)
	events := []evidence.StatusEvent{
		{At: at, Kind: "committed", Digest: v2, From: v1, Seq: 2},
		{At: at.Add(time.Minute), Kind: "trial", Digest: v3, Seq: 3},
		{At: at.Add(2 * time.Minute), Kind: "rolled-back", Digest: v2, From: v3, Seq: 3, Reason: "latency budget: p99 41 ms over 5 ms"},
		{At: at.Add(2 * time.Minute), Kind: "quarantined", Digest: v3, Seq: 3, Reason: "latency budget: p99 41 ms over 5 ms"},
	}
	st := w.Attach(t, trust.RoleDevice, evidence.TypeStatus, v2, status(w, v2, v1, 3, at.Add(3*time.Minute), events...))

	r := show(t, w, v3, p)
	want(t, r, "WHO", "published by publisher team", audit.Proven)
	want(t, r, "WHO", "approved as ml-lead by approver team, who is not the author", audit.Proven)
	want(t, r, "DATA", "train: churn-train sha256:"+policytest.TrainSet().Short()+", CC-BY-4.0, no personal data", audit.Proven)
	want(t, r, "QUALITY", "roc_auc 0.99", audit.Proven)
	want(t, r, "QUALITY", "golden vectors", audit.Proven)
	want(t, r, "CODE", "module.wasm imports nothing", audit.Proven)
	want(t, r, "POLICY", "allowed it for prod until", audit.Proven, verdict)
	want(t, r, "POLICY", "replayed from its record: the same decision", audit.Proven, record)
	want(t, r, "WHERE", "channel prod named it at seq 3, by deployer team; and names it now", audit.Proven)
	want(t, r, "WHERE", "rolled it back to "+v2.Short(), audit.Proven, st)
	want(t, r, "WHERE", "put it into quarantine", audit.Proven, st)
	want(t, r, "WHEN", "gated", audit.Claimed, verdict)
	want(t, r, "GAPS", "fairness", audit.Missing)
	if r.Counts[audit.Contradicted] != 0 {
		t.Errorf("contradictions:\n%s", r.Text(nil))
	}
	attached := r.Text(nil)

	// The same report under the device's own tag, as agents keep it.
	report := w.Attached[v2][len(w.Attached[v2])-1]
	w.Reported = [][]byte{report}
	if twice := show(t, w, v3, p).Text(nil); twice != attached {
		t.Errorf("attached and under a tag:\n%s\nattached only:\n%s", twice, attached)
	}
	w.Attached[v2] = w.Attached[v2][:len(w.Attached[v2])-1]
	want(t, show(t, w, v3, p), "WHERE", "rolled it back to "+v2.Short(), audit.Proven, st)
	forged := policytest.Resign(t, report, func(p map[string]any) { p["device"] = "x" })
	w.Reported, w.Unread = [][]byte{forged, []byte("junk")}, 7
	bad := show(t, w, v3, p).Text(nil)
	if strings.Contains(bad, "rolled it back") || !strings.Contains(bad, "7 reports of devices were not read") {
		t.Errorf("forged report:\n%s", bad)
	}
	w.Reported, w.Unread = [][]byte{report}, 0
	if l := find(t, r, "DATA", "train: churn-train"); l.Refs[0] != policytest.TrainSet() {
		t.Errorf("refs %v", l.Refs)
	}
	for _, sec := range r.Sections {
		for _, l := range sec.Lines {
			for _, d := range l.Proof {
				known := d == v3 || w.Blobs[d] != nil || slices.ContainsFunc(r.Statements, func(s audit.Statement) bool { return s.Bundle == d })
				if !known {
					t.Errorf("%q rests on %s, which is no statement of the report", l.Text, d)
				}
			}
		}
	}
	two := show(t, w, v2, p)
	want(t, two, "WHERE", "runs it (committed)", audit.Proven, st)
	want(t, two, "WHERE", "now seq 3 names "+v3.Short(), audit.Proven)

	checkText(t, r)
	b, err := json.Marshal(r)
	if err != nil || bytes.Contains(b, []byte("null")) {
		t.Errorf("JSON: %v %s", err, b)
	}
	checkPage(t, r)
	if *page != "" {
		f, err := os.Create(filepath.Clean(*page))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := r.HTML(f); err != nil {
			t.Fatal(err)
		}
	}
}

func checkText(t *testing.T, r *audit.Report) {
	t.Helper()
	for _, l := range strings.Split(r.Text(nil), "\n") {
		if len([]rune(l)) > 100 {
			t.Errorf("line of %d columns: %s", len([]rune(l)), l)
		}
	}
	again := r.Text(func(s audit.Status, w string) string { return w })
	if again != r.Text(nil) {
		t.Error("the text depends on the painter")
	}
}

func checkPage(t *testing.T, r *audit.Report) {
	t.Helper()
	var b bytes.Buffer
	if err := r.HTML(&b); err != nil {
		t.Fatal(err)
	}
	s := b.String()
	for _, sec := range r.Sections {
		for _, l := range sec.Lines {
			if first, _, _ := strings.Cut(l.Text, "'"); !strings.Contains(s, first) && !strings.Contains(l.Text, `"`) {
				t.Errorf("the page lacks %q", l.Text)
			}
		}
	}
	if m := regexp.MustCompile(`(?i)(src|href)="(https?:|//)|@import|url\(|<script`).FindString(s); m != "" {
		t.Errorf("the page asks for something else: %s", m)
	}
	for _, ref := range regexp.MustCompile(`href="#([^"]+)"`).FindAllStringSubmatch(s, -1) {
		if !strings.Contains(s, `id="`+ref[1]+`"`) {
			t.Errorf("link to nothing: %s", ref[1])
		}
	}
}

func TestNothingAttached(t *testing.T) {
	w, p := world(t)
	d := w.Add(t, policytest.Default())
	r := show(t, w, d, p)
	want(t, r, "WHO", "no publisher", audit.Missing)
	want(t, r, "DATA", "no data set is recorded", audit.Missing)
	want(t, r, "QUALITY", "nobody has attested", audit.Missing)
	want(t, r, "POLICY", "no gate has decided", audit.Missing)
	want(t, r, "WHERE", "no channel has named it", audit.Missing)
	if r.Counts[audit.Contradicted] != 0 {
		t.Errorf("%s", r.Text(nil))
	}
	checkPage(t, r)
}

func TestContradictions(t *testing.T) {
	for name, c := range map[string]struct {
		change  func(t *testing.T, w *policytest.World, d artifact.Digest, verdict, record int)
		section string
		text    string
		status  audit.Status
	}{
		"verdict removed": {func(t *testing.T, w *policytest.World, d artifact.Digest, verdict, _ int) {
			w.Attached[d] = slices.Delete(slices.Clone(w.Attached[d]), verdict, verdict+1)
		}, "POLICY", "a verdict for prod was removed", audit.Contradicted},
		"record removed": {func(t *testing.T, w *policytest.World, d artifact.Digest, _, record int) {
			w.Attached[d] = slices.Delete(slices.Clone(w.Attached[d]), record, record+1)
		}, "POLICY", "record of this decision is not attached", audit.Missing},
		"forged metrics": {func(t *testing.T, w *policytest.World, d artifact.Digest, _, _ int) {
			w.Attached[d] = append(w.Attached[d], policytest.Resign(t, w.Attached[d][1], func(m map[string]any) {
				m["metrics"].([]any)[0].(map[string]any)["value"] = 1.0
			}))
		}, "WHO", "an attached evaluation is false", audit.Contradicted},
		"evidence of another digest": {func(t *testing.T, w *policytest.World, d artifact.Digest, _, _ int) {
			w.Attached[d] = append(w.Attached[d], w.Statement(t, trust.RolePublisher, evidence.TypeRelease, "churn", artifact.DigestOf([]byte("other")), map[string]any{}))
		}, "WHO", "an attached release is false", audit.Contradicted},
		"a stranger": {func(t *testing.T, w *policytest.World, d artifact.Digest, _, _ int) {
			w.Keys[trust.RolePublisher] = policytest.NewKey(t)
			w.Attach(t, trust.RolePublisher, evidence.TypeRelease, d, map[string]any{"x": 1})
		}, "WHO", "an attached release is not proven", audit.Claimed},
		"denied since": {func(_ *testing.T, w *policytest.World, d artifact.Digest, _, _ int) {
			w.Trust.Denied = append(w.Trust.Denied, d)
		}, "WHAT", "denies this digest", audit.Contradicted},
		"layer altered": {func(t *testing.T, w *policytest.World, d artifact.Digest, _, _ int) {
			l := w.Layer(t, d, artifact.RoleSource)
			w.Blobs[l.Digest] = append(bytes.Clone(w.Blobs[l.Digest]), 'x')
		}, "WHAT", "layer: model.onnx", audit.Contradicted},
		"garbage": {func(_ *testing.T, w *policytest.World, d artifact.Digest, _, _ int) {
			w.Attached[d] = append(w.Attached[d], []byte("{}"))
		}, "WHO", "an attached statement is false", audit.Contradicted},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := world(t)
			d := w.Release(t, policytest.Default(), 0.98, 0.1)
			at := len(w.Attached[d])
			gated(t, w, p, d, policytest.Now())
			gated(t, w, p, d, policytest.Now().Add(time.Minute))
			if r := show(t, w, d, p); r.Counts[audit.Contradicted] != 0 {
				t.Fatalf("before:\n%s", r.Text(nil))
			}
			c.change(t, w, d, at, at+3)
			want(t, show(t, w, d, p), c.section, c.text, c.status)
		})
	}
}

// A verdict whose key holder signs PASSED over a record that denies is found out.
func TestVerdictThatItsRecordDenies(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.5, 0.9)
	o, err := gate.Decide(context.Background(), w, w, gate.Request{Ref: "r@" + string(d), Pinned: true, Digest: d, Environment: "prod", Environments: w.Environments,
		Trust: w.Trust, Policy: p, Now: policytest.Now(), TimeSource: "host", Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	_, record, err := o.Attest(t.Context(), w.Keys[trust.RoleGate])
	if err != nil {
		t.Fatal(err)
	}
	v, err := o.VSA()
	if err != nil {
		t.Fatal(err)
	}
	v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Passed, []string{"WAYBILL_ENV_PROD"}, []string{}
	w.Attached[d] = append(w.Attached[d], record)
	w.Attach(t, trust.RoleGate, evidence.TypeVSA, d, v)
	want(t, show(t, w, d, p), "POLICY", "the verdict and its record disagree", audit.Contradicted)
}

func TestPolicyNotAtHand(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	gated(t, w, p, d, policytest.Now())
	want(t, show(t, w, d), "POLICY", "is not at hand", audit.Claimed)
}

// Approvals and trust documents that ran out since are told as of their time.
func TestLongAfterwards(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	gated(t, w, p, d, policytest.Now())
	r, err := audit.Show(context.Background(), w, d, audit.Options{Trust: w.Trust, Now: policytest.Now().AddDate(5, 0, 0), Policies: []gate.Evaluator{p}})
	if err != nil {
		t.Fatal(err)
	}
	want(t, r, "WHO", "approved as ml-lead", audit.Proven)
	if l := find(t, r, "WHO", "approved as ml-lead"); !strings.Contains(l.Note, "valid until") {
		t.Errorf("note %q", l.Note)
	}
	want(t, r, "POLICY", "replayed from its record", audit.Proven)
	want(t, r, "WHAT", "trust document version 3 expired", audit.Claimed)
}

func TestUnreadableChannelsAreTold(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.ChannelErr = os.ErrPermission
	want(t, show(t, w, d, p), "GAPS", "the channels could not be read", audit.Missing)
}
