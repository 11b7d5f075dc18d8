package agent

import (
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify/sigstore"
	"github.com/waybill-ml/waybill/oci/verify/sigstore/sigstoretest"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// A release signed without a key: a device with the verifier of certificates takes it, one without keeps what it runs and
// says why; by somebody whom the trust document does not name, no device takes it.
func TestKeylessRelease(t *testing.T) {
	const issuer, ci = "https://ci.example", "https://ci.example/ml/churn/release.yml@refs/tags/v1"
	for name, c := range map[string]struct {
		subject string
		linked  bool
		reason  string // of the refusal; empty: it runs
	}{
		"with the verifier":    {ci, true, ""},
		"without the verifier": {ci, false, "this build checks pinned keys only"},
		"a stranger":           {"https://ci.example/evil/churn/release.yml@refs/tags/v1", true, "whom trust document"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			s := sigstoretest.New(t, w.Now)
			root := s.TrustedRoot(t)
			w.Doc.Identities = []trust.Identity{{
				ID: trust.IdentityID(issuer, ci, false), Name: "release", Role: trust.RolePublisher, Issuer: issuer, Subject: ci,
				Scope: trust.Scope{Models: []string{"churn"}, Envs: []string{}, Channels: []string{}},
			}}
			w.Doc.Keyless = &trust.Keyless{TrustedRoot: artifact.DigestOf(root), TrustedRootJSON: string(root), Logs: 1, Timestamps: 1}
			before := w.publish(w.change(w.model("1.0 by key")))
			d := w.mustBoot(newDeviceFS(t))
			if c.linked {
				d.Certificates = sigstore.With()
			}
			if err := d.pollOnce(); err != nil {
				t.Fatal(err)
			}
			target := w.model("2.0 by certificate")
			ch := w.change(target)
			st, err := evidence.NewStatement(evidence.TypeRelease, "churn", target.Digest, struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			payload, err := st.Encode()
			if err != nil {
				t.Fatal(err)
			}
			rel := s.Sign(t, sigstoretest.Signing{Issuer: issuer, Subject: c.subject, Payload: payload, At: w.Now.Add(-time.Second)})
			w.reg.put(rel)
			ch.Evidence = []channel.EvidenceRef{verifytest.Ref(evidence.TypeRelease, target.Digest, rel), ch.Evidence[1]}
			w.publish(ch)
			err = d.pollOnce()
			runs := d.channel().Current.Digest
			switch {
			case c.reason == "" && (err != nil || runs != target.Digest):
				t.Errorf("runs %s: %v", runs.Short(), err)
			case c.reason != "" && (err == nil || !strings.Contains(err.Error(), c.reason) || runs != before.Record.Target.Digest):
				t.Errorf("runs %s: %v", runs.Short(), err)
			}
		})
	}
}
