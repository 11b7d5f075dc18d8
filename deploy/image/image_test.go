package image

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

// released is an artifact in a registry with its release and a verdict.
func released(t *testing.T) (*edgetest.Publisher, channel.Target) {
	t.Helper()
	p := edgetest.NewPublisher(t)
	target := p.Pack("v1")
	p.Change(target)
	return p, target
}

func content(p *edgetest.Publisher, target channel.Target) Content {
	return Content{Digest: target.Digest, Model: edgetest.Model, Version: "1.0", Trust: p.Trust(), Doc: p.Doc, Now: p.Now}
}

func staged(t *testing.T, p *edgetest.Publisher, target channel.Target) *Staged {
	t.Helper()
	s, err := Stage(t.Context(), p.Repo, filepath.Join(t.TempDir(), "models"), content(p, target))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shared is the folder of the programs that most tests put into images.
var shared = struct {
	sync.Mutex
	dir  string
	made map[Platform]Runtime
}{made: map[Platform]Runtime{}}

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "waybill-serve-")
	if err != nil {
		panic(err)
	}
	shared.dir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// programs are waybill-serve for platforms, each built once.
func programs(t *testing.T, ps ...Platform) []Runtime {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	var out []Runtime
	for _, p := range ps {
		r, ok := shared.made[p]
		if !ok {
			r = built(t, p, shared.dir)
			shared.made[p] = r
		}
		out = append(out, r)
	}
	return out
}

func built(t *testing.T, p Platform, dir string) Runtime {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r, err := build(t.Context(), root, dir, p)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func both() []Platform { return []Platform{{"linux", "amd64"}, {"linux", "arm64"}} }

// native is the platform of containers on this machine, if images are made for it.
func native() Platform { return Platform{"linux", runtime.GOARCH} }

func must[V any](t *testing.T) func(V, error) V {
	return func(v V, err error) V {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Two builds in two places, of programs that lie in two places, are the same bytes, also as an archive; a statement of another type
// that is attached in between changes nothing, a different variant does.
func TestReproducible(t *testing.T) {
	p, target := released(t)
	runtimes := programs(t, both()...)
	pack := func(v Variant) (string, *Set) {
		set, err := Build(staged(t, p, target), runtimes, Options{Variant: v})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := set.WriteTar(t.Context(), &b, "churn:1.0"); err != nil {
			t.Fatal(err)
		}
		return string(artifact.DigestOf(b.Bytes())), set
	}
	first, set := pack(Plain)
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: target.Digest, Size: target.Size}
	must[artifact.Descriptor](t)(p.Repo.Attach(t.Context(), subject, p.SignVSA(target.Digest, p.VSA()), evidence.TypeVSA))
	runtimes[0] = built(t, runtimes[0].Platform, t.TempDir())
	again, _ := pack(Plain)
	if first != again {
		t.Errorf("%s, then %s", first, again)
	}
	if other, _ := pack(Lambda); other == first {
		t.Error("another variant is the same image")
	}
	if len(set.Images) != 2 || set.Root.MediaType != artifact.MediaTypeIndex {
		t.Fatalf("%+v", set.Root)
	}
	for _, i := range set.Images {
		if i.Runtime < 1<<20 || i.Artifact < 1000 || i.Size <= i.Runtime+i.Artifact {
			t.Errorf("%s has %d bytes, runtime %d and artifact %d", i.Platform, i.Size, i.Runtime, i.Artifact)
		}
	}
}

// What is pushed is found again: index, images, bills of materials and signatures, whose bytes the registry hashes; the tag is there.
func TestPush(t *testing.T) {
	p, target := released(t)
	set := must[*Set](t)(Build(staged(t, p, target), programs(t, both()...), Options{Variant: Plain, Labels: map[string]string{"team": "growth"}}))
	bundle := p.Keys[trust.RolePublisher].Sign(t, evidence.TypeRelease, "churn", set.Root.Digest, struct{}{})
	if err := set.Attach(set.Root, bundle, evidence.TypeRelease); err != nil {
		t.Fatal(err)
	}
	to := must[*registry.Remote](t)(registry.NewRemote(p.Host, "images/churn", registry.RemoteOptions{}))
	for range 2 { // the second finds everything there
		if err := set.Push(t.Context(), to, "1.0"); err != nil {
			t.Fatal(err)
		}
	}
	d := must[artifact.Descriptor](t)(to.Resolve(t.Context(), "1.0"))
	if d.Digest != set.Root.Digest {
		t.Errorf("the tag names %s, not %s", d.Digest, set.Root.Digest)
	}
	if refs := must[[]artifact.Descriptor](t)(to.Referrers(t.Context(), d.Digest)); len(refs) != 1 || refs[0].ArtifactType != artifact.MediaTypeBundle {
		t.Errorf("attached to the index: %v", refs)
	}
	for _, i := range set.Images {
		refs := must[[]artifact.Descriptor](t)(to.Referrers(t.Context(), i.Descriptor.Digest))
		if len(refs) != 1 || refs[0].ArtifactType != mediaTypeSBOM {
			t.Errorf("attached to %s: %v", i.Platform, refs)
		}
		raw, _, err := to.Manifest(t.Context(), i.Descriptor.Digest)
		if err != nil {
			t.Fatal(err)
		}
		var m manifestJSON
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatal(err)
		}
		if m.Annotations[LabelDigest] != string(target.Digest) || m.Annotations["team"] != "growth" {
			t.Errorf("annotations %v", m.Annotations)
		}
		var c configJSON
		if err := json.Unmarshal(must[[]byte](t)(registry.ReadBlob(t.Context(), to, m.Config, 1<<20)), &c); err != nil {
			t.Fatal(err)
		}
		if c.Architecture != i.Platform.Arch || c.Config.User != "65532:65532" || c.Config.Labels[LabelDigest] != string(target.Digest) || c.RootFS.DiffIDs[0] != m.Layers[0].Digest {
			t.Errorf("%+v", c)
		}
		if got := c.Config.Labels["org.opencontainers.image.version"]; got != "1.0" {
			t.Errorf("version %q", got)
		}
	}
}

func TestSBOM(t *testing.T) {
	p, target := released(t)
	set := must[*Set](t)(Build(staged(t, p, target), programs(t, both()[:1]...), Options{Variant: Plain}))
	raw := must[[]byte](t)(set.SBOM(set.Root.Digest))
	for _, want := range []string{`"pkg:golang/github.com/tetratelabs/wazero@v1.`, `"pkg:golang/stdlib@1.`, target.Digest.Hex(), `"container"`} {
		if !bytes.Contains(raw, []byte(want)) {
			t.Errorf("no %s in\n%s", want, raw)
		}
	}
	if _, err := set.SBOM(target.Digest); err == nil {
		t.Error("a bill of materials of nothing")
	}
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not here")
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	for _, f := range []string{"bom-1.7.schema.json", "spdx.schema.json", "jsf-0.82.schema.json", "cryptography-defs.schema.json"} {
		doc := must[any](t)(jsonschema.UnmarshalJSON(bytes.NewReader(must[[]byte](t)(os.ReadFile(filepath.Join(dir, "cyclonedx", "schema", f))))))
		if err := c.AddResource("http://cyclonedx.org/schema/"+f, doc); err != nil {
			t.Fatal(err)
		}
	}
	s := must[*jsonschema.Schema](t)(c.Compile("http://cyclonedx.org/schema/bom-1.7.schema.json"))
	if err := s.Validate(must[any](t)(jsonschema.UnmarshalJSON(bytes.NewReader(raw)))); err != nil {
		t.Error(err)
	}
}

// An artifact that is not proven becomes no image.
func TestStageRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(p *edgetest.Publisher, c *Content)
		says string
	}{
		"another name":              {func(_ *edgetest.Publisher, c *Content) { c.Model = "other" }, "other"},
		"evidence is missing":       {func(_ *edgetest.Publisher, c *Content) { c.Evidence = []string{evidence.TypeDataset} }, "dataset"},
		"the trust document is old": {func(p *edgetest.Publisher, c *Content) { c.Now = p.Doc.Expires.Add(time.Hour) }, "expired"},
		"the key is revoked": {func(p *edgetest.Publisher, c *Content) {
			p.Doc.Revoked = append(p.Doc.Revoked, p.Keys[trust.RolePublisher].ID)
			c.Trust = p.Trust()
		}, "revoked"},
		"a layer is altered on the way": {func(p *edgetest.Publisher, c *Content) {
			m, _, err := registry.ReadModel(context.Background(), p.Repo, string(c.Digest))
			if err != nil {
				p.T.Fatal(err)
			}
			p.Mu.Lock()
			p.Alter = m.Layers[0].Digest
			p.Mu.Unlock()
		}, "digest"},
	} {
		t.Run(name, func(t *testing.T) {
			p, target := released(t)
			x := content(p, target)
			c.edit(p, &x)
			_, err := Stage(t.Context(), p.Repo, filepath.Join(t.TempDir(), "models"), x)
			if diag.CodeOf(err) != diag.Verification || !strings.Contains(err.Error(), c.says) {
				t.Errorf("exit code %d: %v", diag.CodeOf(err), err)
			}
		})
	}
}

// unpack writes the root file system of an image as a container engine does, and gives its configuration.
func unpack(t *testing.T, set *Set, root string) configJSON {
	t.Helper()
	var cfg configJSON
	for _, d := range append([]artifact.Descriptor{set.Images[0].config}, set.Images[0].layers...) {
		for _, b := range set.blobs {
			if b.desc.Digest != d.Digest {
				continue
			}
			r := must[io.ReadCloser](t)(b.open())
			raw := must[[]byte](t)(io.ReadAll(r))
			_ = r.Close()
			if artifact.DigestOf(raw) != d.Digest {
				t.Fatalf("a blob does not have its digest")
			}
			if d.MediaType == mediaTypeConfig {
				if err := json.Unmarshal(raw, &cfg); err != nil {
					t.Fatal(err)
				}
				break
			}
			extract(t, raw, root)
			break
		}
	}
	return cfg
}

func extract(t *testing.T, raw []byte, root string) {
	t.Helper()
	for tr := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Mode&0o222 != 0 && h.Typeflag == tar.TypeReg {
			t.Errorf("%s: owner %d:%d, mode %o, time %s", h.Name, h.Uid, h.Gid, h.Mode, h.ModTime)
		}
		name := filepath.Join(root, filepath.FromSlash(h.Name))
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(name, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, name)
		default:
			err = os.WriteFile(name, must[[]byte](t)(io.ReadAll(tr)), os.FileMode(h.Mode)|0o200)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// boot runs what an image starts, from its unpacked files, with its own environment. It gives the first line of the output.
func boot(t *testing.T, root string, cfg configJSON, env ...string) (line string, log *bytes.Buffer, stop func() error) {
	t.Helper()
	cmd := exec.Command(filepath.Join(root, cfg.Config.Entrypoint[0]), cfg.Config.Entrypoint[1:]...)
	log = &bytes.Buffer{}
	cmd.Stderr = log
	for _, e := range cfg.Config.Env {
		cmd.Env = append(cmd.Env, strings.Replace(e, "=/"+artifactDir, "="+filepath.Join(root, artifactDir), 1))
	}
	cmd.Env = append(append(cmd.Env, "WAYBILL_LISTEN=127.0.0.1:0"), env...)
	out := must[io.ReadCloser](t)(cmd.StdoutPipe())
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 0, 100)
	for b := make([]byte, 1); ; {
		n, err := out.Read(b)
		if first = append(first, b[:n]...); err != nil || n == 1 && b[0] == '\n' {
			break
		}
	}
	stop = func() error {
		_ = cmd.Process.Kill()
		_, _ = io.Copy(io.Discard, out)
		return cmd.Wait()
	}
	return strings.TrimSpace(string(first)), log, stop
}

// The files of an image start as its configuration says, and not when one bit of the artifact's layer, or of the trust document, is
// another one. Without the pin of the trust document and with the attacker's own keys in it, the altered image would start.
func TestAlteredImageDoesNotStart(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("images are for Linux on amd64 and arm64")
	}
	p, target := released(t)
	set := must[*Set](t)(Build(staged(t, p, target), programs(t, native()), Options{Variant: Plain}))
	start := func(t *testing.T, alter func(root string), env ...string) (string, string, error) {
		root := t.TempDir()
		cfg := unpack(t, set, root)
		if alter != nil {
			alter(root)
		}
		line, log, stop := boot(t, root, cfg, env...)
		err := stop()
		return line, log.String(), err
	}
	if line, log, _ := start(t, nil); !strings.HasPrefix(line, "churn on http://") {
		t.Fatalf("%q\n%s", line, log)
	}
	m, _, err := registry.ReadModel(t.Context(), p.Repo, string(target.Digest))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.OnDevice() {
		line, log, err := start(t, func(root string) { flip(t, filepath.Join(root, artifactDir, "blobs", "sha256", l.Digest.Hex())) })
		var exit *exec.ExitError
		if line != "" || !errors.As(err, &exit) || exit.ExitCode() != int(diag.Verification) {
			t.Errorf("%s altered: %q, %v\n%s", l.Path, line, err, log)
		}
	}
	if line, log, _ := start(t, func(root string) { flip(t, filepath.Join(root, artifactDir, trustName)) }); line != "" {
		t.Errorf("the trust document altered: %q\n%s", line, log)
	}

	// An attacker's image: all of it in order, released by a key of his that his trust document names.
	evil, theirs := released(t)
	evil.Doc.Issued = evil.Doc.Issued.Add(-time.Second)
	bad := staged(t, evil, theirs)
	swap := func(root string) {
		if err := errors.Join(os.RemoveAll(filepath.Join(root, artifactDir)), os.CopyFS(filepath.Join(root, artifactDir), os.DirFS(bad.Dir))); err != nil {
			t.Fatal(err)
		}
	}
	if line, log, _ := start(t, swap); line != "" {
		t.Errorf("another's trust document: %q\n%s", line, log)
	}
	if line, log, _ := start(t, swap, "WAYBILL_TRUST_DIGEST="+string(bad.TrustDigest)); !strings.HasPrefix(line, "churn on http://") {
		t.Errorf("without the pin the attack fails all the same: %q\n%s", line, log)
	}
}

func flip(t *testing.T, file string) {
	t.Helper()
	b := must[[]byte](t)(os.ReadFile(file))
	b[len(b)/2] ^= 1
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}
