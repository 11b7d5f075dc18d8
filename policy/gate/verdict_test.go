package gate_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	vsav1 "github.com/in-toto/attestation/go/predicates/vsa/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
)

// Equal facts give equal bytes, in whatever order a registry lists the evidence.
func TestEqualFactsGiveEqualVerdicts(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.Publish(t, "prod", 1, d, nil)
	for range 2 { // two verdicts at once, and a join: every part of a chain is there
		o := decide(t, w, request(w, p, d, "prod"))
		a, ra := attest(t, w, o)
		b, rb := attest(t, w, o)
		w.Attached[d] = append(w.Attached[d], a, ra, b, rb)
	}
	var first []byte
	for i := range 20 {
		rand.Shuffle(len(w.Attached[d]), func(i, j int) { w.Attached[d][i], w.Attached[d][j] = w.Attached[d][j], w.Attached[d][i] })
		o := decide(t, w, request(w, p, d, "prod"))
		b, err := json.Marshal(vsa(t, o))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Fatalf("order %d: another verdict\n%s\n%s", i, b, first)
		}
	}
}

func attest(t *testing.T, w *policytest.World, o *gate.Outcome) (verdict, record []byte) {
	t.Helper()
	verdict, record, err := o.Attest(t.Context(), w.Keys[trust.RoleGate])
	if err != nil {
		t.Fatal(err)
	}
	return verdict, record
}

// Every bundle that a verified fact cites is among the inputAttestations, once, sorted.
func TestInputAttestationsAreComplete(t *testing.T) {
	w, p := world(t)
	v1 := w.Release(t, policytest.Default(), 0.98, 0.1)
	w.Publish(t, "prod", 1, v1, nil)
	m := policytest.Default()
	m.Version = "2.0.0"
	d := w.Release(t, m, 0.99, 0.09)
	verdict, record := attest(t, w, decide(t, w, request(w, p, d, "prod")))
	w.Attached[d] = append(w.Attached[d], verdict, record)
	o := decide(t, w, request(w, p, d, "prod"))
	var doc any
	if err := json.Unmarshal(o.InputBytes, &doc); err != nil {
		t.Fatal(err)
	}
	cited := map[string]bool{string(w.Environments.Bundle): true, string(artifact.DigestOf(w.Channels["prod"])): true}
	var walk func(v any)
	walk = func(v any) {
		switch x := v.(type) {
		case map[string]any:
			if ok, is := x["verified"].(bool); is && !ok {
				return
			}
			for k, y := range x {
				if s, is := y.(string); is && strings.HasPrefix(s, "sha256:") && (k == "bundle" || k == "record" || k == "declared" || k == "evidence") {
					cited[s] = true
				}
				walk(y)
			}
		case []any:
			for _, y := range x {
				walk(y)
			}
		}
	}
	walk(doc)
	var listed []string
	for _, r := range vsa(t, o).InputAttestations {
		listed = append(listed, "sha256:"+r.Digest["sha256"])
	}
	if !slices.IsSorted(listed) || len(slices.Compact(slices.Clone(listed))) != len(listed) {
		t.Errorf("not sorted, or twice: %v", listed)
	}
	for c := range cited {
		if !slices.Contains(listed, c) {
			t.Errorf("%s is cited and not listed", c)
		}
	}
	if len(cited) < 8 || !cited[string(artifact.DigestOf(verdict))] {
		t.Errorf("only %d bundles are cited: %v", len(cited), cited)
	}
}

// consume does what the SLSA specification asks of a consumer of a verification summary (How to verify), with in-toto's own
// types: it knows nothing of Waybill.
func consume(payload []byte, subject, verifier, resource string, levels ...string) error {
	var s intoto.Statement
	if err := protojson.Unmarshal(payload, &s); err != nil {
		return err
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if s.GetPredicateType() != "https://slsa.dev/verification_summary/v1" {
		return errors.New("predicateType")
	}
	if !slices.ContainsFunc(s.GetSubject(), func(r *intoto.ResourceDescriptor) bool { return r.GetDigest()["sha256"] == subject }) {
		return errors.New("subject")
	}
	raw, err := s.GetPredicate().MarshalJSON()
	if err != nil {
		return err
	}
	var v vsav1.VerificationSummary
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &v); err != nil {
		return err
	}
	// in-toto's type does not know every level; the JSON does.
	var open struct {
		VerifiedLevels    []string                             `json:"verifiedLevels"`
		SLSAVersion       string                               `json:"slsaVersion"`
		InputAttestations []struct{ Digest map[string]string } `json:"inputAttestations"`
		Policy            struct {
			URI    string            `json:"uri"`
			Digest map[string]string `json:"digest"`
		} `json:"policy"`
	}
	if err := json.Unmarshal(raw, &open); err != nil {
		return err
	}
	switch {
	case v.GetVerifier().GetId() != verifier:
		return errors.New("verifier")
	case v.GetResourceUri() != resource:
		return errors.New("resourceUri")
	case v.GetVerificationResult() != "PASSED":
		return errors.New("verificationResult")
	case open.SLSAVersion != "1.0" || v.GetTimeVerified() == nil || open.Policy.URI == "" || open.Policy.Digest["sha256"] == "":
		return errors.New("a field is missing")
	}
	tracks := map[string]bool{}
	for _, l := range open.VerifiedLevels {
		if rest, ok := strings.CutPrefix(l, "SLSA_"); ok {
			track, level, ok := strings.Cut(rest, "_LEVEL_")
			if !ok || track != "BUILD" || !slices.Contains([]string{"1", "2", "3"}, level) || tracks[track] {
				return fmt.Errorf("level %s", l)
			}
			tracks[track] = true
		}
	}
	for _, a := range open.InputAttestations {
		if a.Digest["sha256"] == "" {
			return errors.New("an input attestation without a digest")
		}
	}
	for _, l := range levels {
		if !slices.Contains(open.VerifiedLevels, l) {
			return fmt.Errorf("level %s is not verified", l)
		}
	}
	return nil
}

func TestAStrangerCanConsumeTheVerdict(t *testing.T) {
	w, p := world(t)
	payload := func(raw []byte) []byte {
		b, err := evidence.ParseBundle(raw)
		if err != nil {
			t.Fatal(err)
		}
		return b.DSSEEnvelope.Payload
	}
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	verdict, _ := attest(t, w, o)
	if err := consume(payload(verdict), d.Hex(), evidence.GateID, "waybill:ml/churn", "WAYBILL_ENV_PROD", "WAYBILL_CLASS_EDGE_S"); err != nil {
		t.Error(err)
	}
	if err := consume(payload(verdict), d.Hex(), evidence.GateID, "waybill:ml/churn", "SLSA_BUILD_LEVEL_1"); err == nil {
		t.Error("a build level without provenance")
	}
	// The same artifact in another registry has the same resource.
	rq := request(w, p, d, "prod")
	rq.Ref = "other.example:5000/mirror/x/churn@" + string(d)
	if got := vsa(t, decide(t, w, rq)).ResourceURI; got != "waybill:ml/churn" {
		t.Errorf("resourceUri %s names a host", got)
	}
	bad := w.Release(t, policytest.Default(), 0.5, 0.9)
	verdict, _ = attest(t, w, decide(t, w, request(w, p, bad, "prod")))
	if err := consume(payload(verdict), bad.Hex(), evidence.GateID, "waybill:ml/churn"); err == nil || err.Error() != "verificationResult" {
		t.Errorf("a denial: %v", err)
	}
}

func TestBuildLevel(t *testing.T) {
	key := input.Signer{KeyID: "abc", Name: "builder@example"}
	by := func(id string, s input.Signer) input.Provenance { return input.Provenance{Builder: id, Signer: s} }
	hosted := input.Builder{ID: "https://ci.example/hosted", Level: 2, Signers: []string{}}
	for name, c := range map[string]struct {
		builders   []input.Builder
		provenance []input.Provenance
		want       int
	}{
		"no provenance":                             {[]input.Builder{hosted}, nil, 0},
		"no builder is listed":                      {nil, []input.Provenance{by(hosted.ID, key)}, 0},
		"another builder":                           {[]input.Builder{hosted}, []input.Provenance{by("https://ci.example/other", key)}, 0},
		"listed":                                    {[]input.Builder{hosted}, []input.Provenance{by(hosted.ID, key)}, 2},
		"a prefix is not the builder":               {[]input.Builder{hosted}, []input.Provenance{by(hosted.ID+"/x", key)}, 0},
		"its signer by name":                        {[]input.Builder{{ID: "b", Level: 3, Signers: []string{"builder@example"}}}, []input.Provenance{by("b", key)}, 3},
		"its signer by key":                         {[]input.Builder{{ID: "b", Level: 3, Signers: []string{"abc"}}}, []input.Provenance{by("b", key)}, 3},
		"signed by another":                         {[]input.Builder{{ID: "b", Level: 3, Signers: []string{"somebody"}}}, []input.Provenance{by("b", key)}, 0},
		"there is no level 4":                       {[]input.Builder{{ID: "b", Level: 4}}, []input.Provenance{by("b", key)}, 3},
		"listed without a level":                    {[]input.Builder{{ID: "b"}}, []input.Provenance{by("b", key)}, 0},
		"the lowest of two":                         {[]input.Builder{hosted, {ID: "b", Level: 3}}, []input.Provenance{by("b", key), by(hosted.ID, key)}, 2},
		"one of two is not listed":                  {[]input.Builder{hosted}, []input.Provenance{by(hosted.ID, key), by("b", key)}, 0},
		"the first of two isn't":                    {[]input.Builder{hosted}, []input.Provenance{by("b", key), by(hosted.ID, key)}, 0},
		"listed twice, with and without the signer": {[]input.Builder{{ID: "b", Level: 1}, {ID: "b", Level: 3, Signers: []string{"abc"}}}, []input.Provenance{by("b", key)}, 3},
	} {
		in := input.New()
		in.Environment.Builders, in.Provenance = c.builders, c.provenance
		if got := gate.BuildLevel(in); got != c.want {
			t.Errorf("%s: level %d, want %d", name, got, c.want)
		}
	}
}

// Two gates at once leave a fork: both verdicts are heads, of a pass and a denial the denial decides, and the next joins both.
func TestTwoGatesAtOnce(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	pass := request(w, p, d, "prod")
	deny := pass
	deny.Pinned, deny.Ref = false, "reg.example/ml/churn:1.0" // the rule about tags denies
	var wg sync.WaitGroup
	verdicts := make([][]byte, 8)
	for i := range verdicts {
		wg.Go(func() {
			rq := pass
			if i%4 == 3 {
				rq = deny
			}
			o, err := gate.Decide(t.Context(), w, w, rq)
			if err != nil {
				t.Error(err)
				return
			}
			if verdicts[i], _, err = o.Attest(t.Context(), w.Keys[trust.RoleGate]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	w.Attached[d] = append(w.Attached[d], verdicts...)
	rq := pass
	rq.Now = rq.Now.Add(time.Minute)
	o := decide(t, w, rq)
	if len(o.Chain.Heads) != 8 || !o.Chain.Complete() || len(o.Input.VerdictChain.Heads) != 8 {
		t.Fatalf("%+v", o.Chain)
	}
	if v := o.Chain.Newest(); v.VSA.VerificationResult != evidence.Failed {
		t.Errorf("of 2 denials and 6 passes at once, %s decides", v.VSA.VerificationResult)
	}
	v := vsa(t, o)
	if v.Waybill.Prev != o.Chain.Heads[0] || len(v.Waybill.Merges) != 7 {
		t.Errorf("prev %s, %d merges", v.Waybill.Prev, len(v.Waybill.Merges))
	}
	joined, _ := attest(t, w, o)
	w.Attached[d] = append(w.Attached[d], joined)
	rq.Now = rq.Now.Add(time.Minute)
	if o = decide(t, w, rq); len(o.Chain.Heads) != 1 || o.Chain.Heads[0] != artifact.DigestOf(joined) {
		t.Errorf("after the join: %v", o.Chain.Heads)
	}
	// Any of the eight that goes is missed.
	for i := range verdicts {
		keep := w.Attached[d]
		w.Attached[d] = slices.DeleteFunc(slices.Clone(keep), func(b []byte) bool { return bytes.Equal(b, verdicts[i]) })
		o := decide(t, w, rq)
		gone := artifact.DigestOf(verdicts[i])
		if o.Chain.Complete() || !slices.Equal(vsa(t, o).Waybill.Missing, []artifact.Digest{gone}) || !slices.Equal(o.Input.VerdictChain.Missing, []string{string(gone)}) {
			t.Errorf("verdict %d was removed: %+v", i, o.Chain.Missing)
		}
		w.Attached[d] = keep
	}
}

// failing signs until it does not.
type failing struct {
	gate.Signer
	left int
}

func (f *failing) Sign(ctx context.Context, s *evidence.Statement) ([]byte, error) {
	if f.left--; f.left < 0 {
		return nil, errors.New("the service is gone")
	}
	return f.Signer.Sign(ctx, s)
}

// When either statement cannot be signed there is neither: the caller has nothing to attach.
func TestNothingIsHandedOutHalfSigned(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	for n := range 2 {
		if v, r, err := o.Attest(t.Context(), &failing{w.Keys[trust.RoleGate], n}); err == nil || v != nil || r != nil {
			t.Errorf("after %d signatures: %d and %d bytes, %v", n, len(v), len(r), err)
		}
	}
}

// A gate that died between record and verdict leaves a record, which says nothing: the next one decides as if it were not there.
func TestRecordWithoutVerdict(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	before := decide(t, w, request(w, p, d, "prod"))
	_, record := attest(t, w, before)
	w.Attached[d] = append(w.Attached[d], record)
	after := decide(t, w, request(w, p, d, "prod"))
	if after.InputDigest != before.InputDigest || len(after.Chain.Heads) != 0 {
		t.Errorf("a record alone changes the facts: %v", after.Chain.Heads)
	}
}

func TestRecordsAndVerdictsThatDisagree(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	_, record := attest(t, w, o)
	st, _, err := open(record)
	if err != nil {
		t.Fatal(err)
	}
	if why := gate.Disagree(vsa(t, o), st.Predicate); why != "" {
		t.Fatal(why)
	}
	other := artifact.DigestOf([]byte("other"))
	for want, change := range map[string]func(*evidence.VSA){
		"the verdict FAILED":   func(v *evidence.VSA) { v.VerificationResult = evidence.Failed },
		"different policies":   func(v *evidence.VSA) { v.Waybill.PolicyDigest = other },
		"different inputs":     func(v *evidence.VSA) { v.Waybill.InputDigest = other },
		"different decisions":  func(v *evidence.VSA) { v.Waybill.DecisionDigest = other },
		"different envi":       func(v *evidence.VSA) { v.Waybill.Environment = "staging" },
		"different violations": func(v *evidence.VSA) { v.Waybill.Violations = []string{"X-001"} },
		"different warnings":   func(v *evidence.VSA) { v.Waybill.Warnings = []string{"X-001"} },
		"different exceptions": func(v *evidence.VSA) { v.Waybill.Exceptions = []string{"X-001"} },
	} {
		v := vsa(t, o)
		change(v)
		if why := gate.Disagree(v, st.Predicate); !strings.Contains(why, want) {
			t.Errorf("%s: %q", want, why)
		}
	}
	// The input was exchanged and the decision still names the old one: the bytes are hashed, not believed.
	forged := bytes.Replace(st.Predicate, []byte(`"value":0.98`), []byte(`"value":0.99`), 1)
	if why := gate.Disagree(vsa(t, o), forged); !strings.Contains(why, "different inputs") {
		t.Errorf("an exchanged input: %q", why)
	}
	for _, junk := range []string{"", "{}", `{"input":{},"decision":{},"policy":"` + string(other) + `"}`} {
		if gate.Disagree(vsa(t, o), []byte(junk)) == "" {
			t.Errorf("a record of %q agrees", junk)
		}
	}
}

// What a verdict is bound to: changing any of it in the signed statement breaks the signature, and asking for another one
// is refused.
func TestTheVerdictServesNothingElse(t *testing.T) {
	w, p := world(t)
	d := w.Release(t, policytest.Default(), 0.98, 0.1)
	o := decide(t, w, request(w, p, d, "prod"))
	verdict, _ := attest(t, w, o)
	good := verify.VSAWant{Subject: d, ResourceURI: "waybill:ml/churn", Model: "churn", Env: "prod", DeviceClass: "edge-s", Now: policytest.Now(), Basis: &o.Basis}
	if _, _, err := verify.VSA(verdict, w.Trust, good); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*verify.VSAWant){
		"another digest":      func(x *verify.VSAWant) { x.Subject = artifact.DigestOf(nil) },
		"another resource":    func(x *verify.VSAWant) { x.ResourceURI = "waybill:ml/fraud" },
		"another environment": func(x *verify.VSAWant) { x.Env = "staging" },
		"another class":       func(x *verify.VSAWant) { x.DeviceClass = "edge-l" },
		"another policy":      func(x *verify.VSAWant) { x.PinnedPolicies = []artifact.Digest{artifact.DigestOf(nil)} },
		"after notAfter":      func(x *verify.VSAWant) { x.Now = vsa(t, o).Waybill.NotAfter },
		"a moved channel":     func(x *verify.VSAWant) { x.Basis = &evidence.Basis{Channel: "prod", Seq: 1, Champion: d} },
		"another channel":     func(x *verify.VSAWant) { x.Record = &channel.Record{Channel: "other", Seq: 5} },
	} {
		x := good
		change(&x)
		if _, _, err := verify.VSA(verdict, w.Trust, x); err == nil {
			t.Errorf("the verdict serves %s", name)
		}
	}
	st, _, err := open(verdict)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, path := range leaves(t, st.Predicate) {
		if _, _, err := verify.VSA(policytest.Resign(t, verdict, func(m map[string]any) { mutate(m, path) }), w.Trust, good); err == nil {
			t.Errorf("%v changed and it verifies", path)
		}
		n++
	}
	t.Logf("%d mutations", n)
}
