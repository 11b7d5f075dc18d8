package source

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
	"github.com/waybill-ml/waybill/policy/bundle"
)

func policy(t *testing.T, name, body string) *bundle.Bundle {
	t.Helper()
	b, err := bundle.FromFS(fstest.MapFS{
		"main.rego":   {Data: []byte("package main\n\ndeny contains \"" + body + "\" if input.x\n")},
		"policy.json": {Data: []byte(`{"name": "` + name + `", "version": "1.0"}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// place is a repository of a real registry, which counts what is downloaded of blobs.
type place struct {
	registry.Place
	blobs atomic.Int64
}

func newPlace(t *testing.T) *place {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	s, err := server.New(t.TempDir(), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := &place{}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			p.blobs.Add(1)
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	if p.Place, err = registry.NewRemote(strings.TrimPrefix(h.URL, "http://"), "policies/gov", registry.RemoteOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// put writes a manifest over any layers, as an attacker who owns the registry does.
func (p *place) put(t *testing.T, change func(*artifact.Manifest), layer []byte) artifact.Digest {
	t.Helper()
	ctx := context.Background()
	cfg, err := registry.PushBytes(ctx, p, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	if err != nil {
		t.Fatal(err)
	}
	l, err := registry.PushBytes(ctx, p, bundle.MediaTypeLayer, layer)
	if err != nil {
		t.Fatal(err)
	}
	m := artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: bundle.ArtifactType, Config: cfg, Layers: []artifact.Descriptor{l}}
	if change != nil {
		change(&m)
	}
	raw, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.PushManifest(ctx, raw, artifact.MediaTypeManifest, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	return d.Digest
}

func TestReadAndWrite(t *testing.T) {
	p, b := newPlace(t), policy(t, "gov", "no")
	d, err := Write(t.Context(), p, b, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // again changes nothing
		a, err := Read(t.Context(), p, "1.0", b.Digest())
		if err != nil || a.Descriptor.Digest != d.Digest || a.Bundle.Digest() != b.Digest() {
			t.Fatalf("%+v %v", a, err)
		}
		if again, err := Write(t.Context(), p, b, "1.0"); err != nil || again.Digest != d.Digest {
			t.Errorf("%v %v", again, err)
		}
	}
	if _, err := Read(t.Context(), p, "2.0", ""); diag.CodeOf(err) != diag.NotFound {
		t.Errorf("a tag that is not there: %v", err)
	}
}

// What a registry may hand out in place of the pinned policy. Each is refused, and where one check refuses it, leaving that check out
// lets it through.
func TestAttacksOnTheArtifact(t *testing.T) {
	b, other := policy(t, "gov", "no"), policy(t, "gov", "never")
	x, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("another policy under the tag", func(t *testing.T) {
		p := newPlace(t)
		if _, err := Write(t.Context(), p, other, "1.0"); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(t.Context(), p, "1.0", b.Digest()); ReasonOf(err) != WrongDigest || diag.CodeOf(err) != diag.Verification {
			t.Errorf("%v", err)
		}
		if n := p.blobs.Load(); n != 0 {
			t.Errorf("%d blobs were fetched of a policy that nobody pinned", n)
		}
		if a, err := (checks{"pin"}).read(t.Context(), p, "1.0", b.Digest()); err != nil || a.Bundle.Digest() != other.Digest() {
			t.Errorf("without the check: %v", err)
		}
	})
	t.Run("a manifest that says more than the files", func(t *testing.T) {
		// Waybill reads layer 0; conftest and OPA would read the others.
		p := newPlace(t)
		p.put(t, func(m *artifact.Manifest) {
			evil, err := registry.PushBytes(t.Context(), p, "application/vnd.cncf.openpolicyagent.policy.layer.v1+rego", []byte("package main\n"))
			if err != nil {
				t.Fatal(err)
			}
			evil.Annotations = map[string]string{"org.opencontainers.image.title": "main.rego"}
			m.Layers = append(m.Layers, evil)
		}, b.Tar())
		if _, err := Read(t.Context(), p, "1.0", b.Digest()); ReasonOf(err) != NotCanonical {
			t.Errorf("%v", err)
		}
		if a, err := (checks{"manifest"}).read(t.Context(), p, "1.0", b.Digest()); err != nil || a.Bundle.Digest() != b.Digest() {
			t.Errorf("without the check: %v", err)
		}
	})
	t.Run("too large", func(t *testing.T) {
		p := newPlace(t)
		p.put(t, nil, make([]byte, bundle.MaxBytes+512))
		if _, err := Read(t.Context(), p, "1.0", ""); ReasonOf(err) != TooLarge {
			t.Errorf("%v", err)
		}
		if n := p.blobs.Load(); n != 0 {
			t.Errorf("%d blobs were fetched", n)
		}
		if _, err := (checks{"size"}).read(t.Context(), p, "1.0", ""); err == nil || p.blobs.Load() == 0 {
			t.Errorf("without the check nothing is fetched: %v", err)
		}
	})
	t.Run("not canonical", func(t *testing.T) {
		p := newPlace(t)
		p.put(t, nil, append(b.Tar(), make([]byte, 1024)...))
		if _, err := Read(t.Context(), p, "1.0", ""); ReasonOf(err) != NotCanonical {
			t.Errorf("%v", err)
		}
	})
	t.Run("not a policy", func(t *testing.T) {
		p := newPlace(t)
		for name, change := range map[string]func(*artifact.Manifest){
			"another artifact type": func(m *artifact.Manifest) { m.ArtifactType = artifact.ArtifactType },
			"another layer type":    func(m *artifact.Manifest) { m.Layers[0].MediaType = "application/octet-stream" },
		} {
			p.put(t, change, b.Tar())
			if _, err := Read(t.Context(), p, "1.0", ""); ReasonOf(err) != NotPolicy {
				t.Errorf("%s: %v", name, err)
			}
		}
		p.put(t, nil, []byte("no tar"))
		if _, err := Read(t.Context(), p, "1.0", ""); ReasonOf(err) != NotPolicy {
			t.Errorf("no tar: %v", err)
		}
	})
	t.Run("by the digest of a manifest", func(t *testing.T) {
		p := newPlace(t)
		if _, err := Write(t.Context(), p, b, "1.0"); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(t.Context(), p, string(x.Descriptor.Digest), b.Digest()); err != nil {
			t.Error(err)
		}
		if _, err := Read(t.Context(), p, string(b.Digest()), b.Digest()); diag.CodeOf(err) != diag.NotFound {
			t.Errorf("the policy digest is no manifest: %v", err)
		}
	})
}

func TestSignatures(t *testing.T) {
	w := verifytest.New(t)
	key := w.Keys[trust.RolePolicy]
	entry := func(role trust.Role, scope string) trust.Key {
		e := key.Entry()
		e.Role, e.Scope = role, trust.Scope{Models: []string{scope}}
		return e
	}
	doc := func(e trust.Key, revoked ...string) *trust.Document {
		d := *w.Doc
		d.Keys = append(append([]trust.Key{}, d.Keys...), e)
		d.Revoked = revoked
		return &d
	}
	b, other := policy(t, "gov", "no"), policy(t, "gov", "never")
	x, err := b.Image()
	if err != nil {
		t.Fatal(err)
	}
	says := func(name string, of *bundle.Bundle, subject artifact.Digest) []byte {
		return key.Sign(t, evidence.TypePolicy, ScopeOf(name), subject, evidence.Policy{Name: name, Version: "1.0", Digest: of.Digest()})
	}
	ox, err := other.Image()
	if err != nil {
		t.Fatal(err)
	}
	good := says("gov", b, x.Descriptor.Digest)
	in := doc(entry(trust.RolePolicy, "policy/*"))
	check := func(raw []byte, d *trust.Document) error {
		var list [][]byte
		if raw != nil {
			list = [][]byte{raw}
		}
		_, err := Signed(b, list, d, w.Now, nil)
		return err
	}
	if err := check(good, in); err != nil {
		t.Fatal(err)
	}
	if ok, err := Signed(b, [][]byte{[]byte("x"), says("gov", other, ox.Descriptor.Digest), good}, in, w.Now, nil); err != nil || len(ok) != 1 {
		t.Errorf("among others: %v %v", ok, err)
	}
	// In each row the same bytes pass under the document of the last column: only the check named refuses them.
	for name, c := range map[string]struct {
		raw  []byte
		doc  *trust.Document
		want Reason
		pass *trust.Document
	}{
		"nobody":           {nil, in, Unsigned, nil},
		"of a publisher":   {good, doc(entry(trust.RolePublisher, "*")), Reason(verify.WrongRole), in},
		"of a root":        {good, doc(entry(trust.RoleRoot, "*")), Reason(verify.WrongRole), in},
		"out of scope":     {good, doc(entry(trust.RolePolicy, "policy/other")), Reason(verify.OutOfScope), in},
		"model scope":      {good, doc(entry(trust.RolePolicy, "gov")), Reason(verify.OutOfScope), in},
		"unknown key":      {good, w.Doc, Reason(verify.WrongSigner), in},
		"revoked":          {good, doc(entry(trust.RolePolicy, "policy/*"), key.ID), Reason(verify.Revoked), in},
		"another policy's": {says("gov", other, ox.Descriptor.Digest), in, Reason(verify.WrongSubject), nil},
		"a release":        {key.Sign(t, evidence.TypeRelease, "policy/gov", x.Descriptor.Digest, struct{}{}), in, Reason(verify.WrongPredicate), nil},
		"altered":          {[]byte(strings.Replace(string(good), `"sig":"`, `"sig":"AAAA`, 1)), in, Reason(verify.Altered), nil},
	} {
		err := check(c.raw, c.doc)
		if ReasonOf(err) != c.want || diag.CodeOf(err) != diag.Verification {
			t.Errorf("%s: %q, want %q: %v", name, ReasonOf(err), c.want, err)
		}
		if c.pass != nil {
			if err := check(c.raw, c.pass); err != nil {
				t.Errorf("%s: refused for another reason too: %v", name, err)
			}
		}
	}
	// The digest of a manifest binds the files; what the signer called them is compared too.
	for name, raw := range map[string][]byte{
		"another digest inside": key.Sign(t, evidence.TypePolicy, "policy/gov", x.Descriptor.Digest, evidence.Policy{Name: "gov", Version: "1.0", Digest: other.Digest()}),
		"another name inside":   key.Sign(t, evidence.TypePolicy, "policy/gov", x.Descriptor.Digest, evidence.Policy{Name: "tame", Version: "1.0", Digest: b.Digest()}),
		"another version":       key.Sign(t, evidence.TypePolicy, "policy/gov", x.Descriptor.Digest, evidence.Policy{Name: "gov", Version: "9", Digest: b.Digest()}),
		"another subject name":  key.Sign(t, evidence.TypePolicy, "policy/tame", x.Descriptor.Digest, evidence.Policy{Name: "gov", Version: "1.0", Digest: b.Digest()}),
	} {
		if err := check(raw, in); ReasonOf(err) != WrongDigest {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := (checks{"about"}).signed(b, [][]byte{raw}, in, w.Now, nil); err != nil {
			t.Errorf("%s, without the check: %v", name, err)
		}
	}
	// A policy key releases no model: its word is that of another role, and would count if the role were another.
	release := key.Sign(t, evidence.TypeRelease, "churn", x.Descriptor.Digest, struct{}{})
	want := verify.Want{PredicateType: evidence.TypeRelease, Subject: x.Descriptor.Digest, Model: "churn", Now: w.Now}
	if _, err := verify.Bundle(release, doc(entry(trust.RolePolicy, "*")), want); verify.ReasonOf(err) != verify.WrongRole {
		t.Errorf("a policy key releases a model: %v", err)
	}
	if _, err := verify.Bundle(release, doc(entry(trust.RolePublisher, "*")), want); err != nil {
		t.Errorf("refused for another reason too: %v", err)
	}
	if Demanded(w.Doc) || !Demanded(in) || !Demanded(doc(entry(trust.RolePolicy, "policy/*"), key.ID)) {
		t.Error("Demanded: policy keys, revoked ones too, make signatures due")
	}
	if _, err := Statement(b); err != nil {
		t.Error(err)
	}
	nameless, err := bundle.FromFS(fstest.MapFS{"a.rego": {Data: []byte("package a\n")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Statement(nameless); diag.CodeOf(err) != diag.Usage {
		t.Errorf("a policy without a name: %v", err)
	}
}

func TestParse(t *testing.T) {
	for s, want := range map[string]Kind{
		"": KindBuiltin, "builtin": KindBuiltin, "policy": KindPath, "./policy": KindPath, "policies.d/gov": KindPath, "../gov.tar": KindPath, "/srv/gov": KindPath,
		`C:\gov`: KindPath, "C:/gov": KindPath, `.\gov`: KindPath, "./a:1": KindPath, "localhost:5000/gov": KindPath,
		"gov:1.0": KindRef, "reg.example/policies/gov:1": KindRef, "layout:./p": KindRef, "layout:/srv/p:1": KindRef, "localhost:5000/gov:1": KindRef,
		"reg.example/gov@sha256:" + strings.Repeat("a", 64): KindRef, "gov@sha256:" + strings.Repeat("a", 64): KindRef,
	} {
		if s, err := Parse(s); err != nil || s.Kind != want {
			t.Errorf("%+v: %v, want %d", s, err, want)
		}
	}
	for _, s := range []string{"Gov:1.0", "gov:1 0", "gov@sha256:12", "a\nb", "reg.example/GOV:1", "layout:"} {
		if got, err := Parse(s); err == nil {
			t.Errorf("%q is %+v", s, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"builtin", "./p", "gov:1", "layout:x:1", "reg.example/a@sha256:" + strings.Repeat("0", 64), `C:\x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := Parse(s)
		if err == nil && p.Kind == KindRef && p.Ref.Kind == registry.KindRemote && p.Ref.Tag == "" && p.Ref.Digest == "" {
			t.Errorf("%q would be fetched by whatever tag", s)
		}
	})
}
