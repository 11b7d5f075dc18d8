package publish

import (
	"os"
	"regexp"
	"slices"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// Each attempt to publish what the gate did not allow is refused, and succeeds once the one check against it is left out.
// What verify.VSA checks of a single verdict (signer, verifier, resource, environment, result) has its table in
// oci/verify. docs/gate.md lists these names.
func TestAdmitAttacks(t *testing.T) {
	w := verifytest.New(t)
	digest, other := artifact.DigestOf([]byte("model A")), artifact.DigestOf([]byte("model B"))
	verdict := func(change ...func(*evidence.VSA)) []byte {
		v := w.VSA()
		for _, f := range change {
			f(v)
		}
		return w.SignVSA(digest, v)
	}
	failed := func(v *evidence.VSA) {
		v.VerificationResult, v.VerifiedLevels, v.Waybill.Violations = evidence.Failed, []string{"FAILED"}, []string{"MET-001"}
	}
	after := func(prev []byte, d time.Duration) func(*evidence.VSA) {
		return func(v *evidence.VSA) {
			v.Waybill.Prev, v.TimeVerified = artifact.DigestOf(prev), v.TimeVerified.Add(d)
		}
	}
	release, pass := w.Release("churn", digest), verdict()
	deny := verdict(failed, after(pass, time.Minute))
	again := verdict(after(deny, 2*time.Minute))
	for _, a := range []struct {
		check   string
		code    diag.Code
		bundles [][]byte
		change  func(*Need)
	}{
		{"release", diag.Verification, [][]byte{pass}, nil},
		{"distinct-keys", diag.OK, [][]byte{release, release, pass}, nil}, // the second signature of one key is pinned once
		{"newest", diag.Denied, [][]byte{release, pass, deny}, nil},
		{"chain", diag.Denied, [][]byte{release, pass, again}, nil},
		{"policy", diag.Denied, [][]byte{release, pass}, func(n *Need) { n.Policies = []artifact.Digest{other} }},
		{"basis", diag.Denied, [][]byte{release, pass}, func(n *Need) { n.Bases = []evidence.Basis{{Channel: "prod", Seq: 4, Champion: other}} }},
		{"basis", diag.Denied, [][]byte{release, verdict(func(v *evidence.VSA) { v.Waybill.Basis = evidence.Basis{Channel: "prod", Seq: 9, Champion: other} })}, func(n *Need) {
			n.Bases, n.Record = nil, &channel.Record{Channel: "prod", Seq: 9}
		}},
		{"not-after", diag.Denied, [][]byte{release, verdict(func(v *evidence.VSA) { v.Waybill.NotAfter = w.Now })}, nil},
		{"classes", diag.Denied, [][]byte{release, pass}, func(n *Need) { n.Classes = []string{"edge-s", "edge-l"} }},
	} {
		t.Run(a.check, func(t *testing.T) {
			n := Need{Ref: "reg.example/ml/churn@" + string(digest), Digest: digest, Model: "churn", Env: "prod", ResourceURI: "waybill:ml/churn",
				Policies: []artifact.Digest{verifytest.Policy}, Bases: []evidence.Basis{{Channel: "prod"}}}
			if a.change != nil {
				a.change(&n)
			}
			p, err := Admit(a.bundles, w.Doc, n, w.Now)
			if diag.CodeOf(err) != a.code {
				t.Fatalf("got %v, want code %d", err, a.code)
			}
			q, err := admission{skip: a.check}.admit(a.bundles, w.Doc, n, w.Now)
			if err != nil {
				t.Fatalf("without the check: %v", err)
			}
			if p != nil && len(p.Refs) == len(q.Refs) {
				t.Error("without the check nothing is different")
			}
		})
	}
}

// Two publishers are two keys: one that signs twice is one.
func TestAdmitCountsKeys(t *testing.T) {
	w := verifytest.New(t)
	digest := artifact.DigestOf([]byte("model A"))
	n := Need{Ref: "r", Digest: digest, Model: "churn", Env: "prod", ResourceURI: "waybill:ml/churn", Bases: []evidence.Basis{{Channel: "prod"}}, Releases: 2}
	one, two := w.Release("churn", digest), w.Keys[trust.RolePublisher].Sign(t, evidence.TypeRelease, "churn", digest, map[string]any{"again": true})
	if _, err := Admit([][]byte{one, two, w.SignVSA(digest, w.VSA())}, w.Doc, n, w.Now); diag.CodeOf(err) != diag.Verification {
		t.Errorf("one key that signs twice counts as two: %v", err)
	}
}

// The table of the documentation names every check that can be left out here, and no other.
func TestAdmitChecksAreDocumented(t *testing.T) {
	src, err := os.ReadFile("admit.go")
	if err != nil {
		t.Fatal(err)
	}
	doc, err := os.ReadFile("../../docs/gate.md")
	if err != nil {
		t.Fatal(err)
	}
	find := func(re string, b []byte) []string {
		var out []string
		for _, m := range regexp.MustCompile(re).FindAllSubmatch(b, -1) {
			out = append(out, string(m[1]))
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	in, told := find(`a\.on\("([a-z-]+)"\)`, src), find("(?m)^\\| `publish:([a-z-]+)`", doc)
	if !slices.Equal(in, told) {
		t.Errorf("checks in admit.go %v, in docs/gate.md %v", in, told)
	}
}
