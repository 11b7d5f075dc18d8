package sign

import (
	"crypto"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore/pkg/signature"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/oci/trust"
)

// What waybill sign attaches is found and verified by cosign's own code, over a registry: the path of "cosign verify
// --key publisher.pub --new-bundle-format".
func TestCosignVerifiesAttachedRelease(t *testing.T) {
	srv, err := server.New(t.TempDir(), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(srv)
	t.Cleanup(func() {
		h.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
	})
	host := strings.TrimPrefix(h.URL, "http://")
	repo, err := registry.NewRemote(host, "ml/churn", registry.RemoteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	iface, err := registry.PushBytes(t.Context(), repo, artifact.MediaTypeWeightConfig, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	module, err := registry.PushBytes(t.Context(), repo, artifact.MediaTypeCode, []byte("\x00asm"))
	if err != nil {
		t.Fatal(err)
	}
	raw, cfg, err := artifact.BuildModel(artifact.Config{Descriptor: artifact.ModelDescriptor{Name: "churn"}}, []artifact.Layer{
		{Role: artifact.RoleInterface, Path: "interface.json", Digest: iface.Digest, Size: iface.Size},
		{Role: artifact.RoleModule, Path: "model.wasm", Digest: module.Digest, Size: module.Size, Target: artifact.TargetAny},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := registry.PushBytes(t.Context(), repo, artifact.MediaTypeConfig, cfg); err != nil {
		t.Fatal(err)
	}
	d, err := repo.PushManifest(t.Context(), raw, artifact.MediaTypeManifest, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	path, kp := generate(t, trust.RolePublisher)
	_, other := generate(t, trust.RolePublisher)
	k, err := Load(path, []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	st, err := evidence.NewStatement(evidence.TypeRelease, "churn", d.Digest, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.Sign(t.Context(), st)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Attach(t.Context(), d, b, evidence.TypeRelease); err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewDigest(host+"/ml/churn@"+string(d.Digest), name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		kp   *KeyPair
		ok   bool
	}{{"publisher", kp, true}, {"another key", other, false}} {
		sv, err := signature.LoadVerifier(publicOf(t, c.kp), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		co := &cosign.CheckOpts{
			SigVerifier: sv, IgnoreTlog: true, IgnoreSCT: true, NewBundleFormat: true, ClaimVerifier: cosign.IntotoSubjectClaimVerifier,
			TrustedMaterial: root.TrustedMaterialCollection{}, Offline: true,
		}
		sigs, _, err := cosign.VerifyImageAttestations(t.Context(), ref, co)
		if c.ok != (err == nil) || c.ok && len(sigs) != 1 {
			t.Errorf("%s: %d signatures, %v", c.name, len(sigs), err)
		}
	}
}
