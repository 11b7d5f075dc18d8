package artifact_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func layer(role artifact.Role, path, content string) artifact.Layer {
	l := artifact.Layer{Role: role, Path: path, Digest: artifact.DigestOf([]byte(content)), Size: int64(len(content))}
	if role == artifact.RoleModule {
		l.Target = artifact.TargetAny
	}
	return l
}

func layers() []artifact.Layer {
	web := layer(artifact.RoleModule, "web/model.wasm", "w")
	web.Target = artifact.TargetWeb
	golden := layer(artifact.RoleGolden, "golden.json", "g")
	golden.Personal = artifact.PersonalNone
	return []artifact.Layer{
		web, golden, layer(artifact.RoleModule, "model.wasm", "m"), layer(artifact.RoleInterface, "interface.json", "i"),
		layer(artifact.RoleWeights, "weights.bin", "W"), layer(artifact.RoleStep, "steps/a.wasm", "a"), layer(artifact.RoleStep, "steps/b.wasm", "b"),
		layer(artifact.RoleBaseline, "baseline.json", "B"), layer(artifact.RoleSource, "source/model.onnx", "s"),
		layer(artifact.RoleDoc, "README.md", "d"), layer(artifact.RoleDoc, "LICENSE", "l"),
	}
}

func config() artifact.Config {
	return artifact.Config{
		Descriptor: artifact.ModelDescriptor{Name: "churn", Version: "1.0", Licenses: []string{"Apache-2.0"}, Authors: []string{"ml <team>"}},
		Model: artifact.ModelConfig{Format: "wasm", Architecture: "gradient-boosted-trees", Precision: "float32",
			Capabilities: &artifact.ModelCapabilities{InputTypes: []string{"other"}, OutputTypes: []string{"other"}}},
	}
}

func build(t testing.TB) (manifest, conf []byte) {
	t.Helper()
	m, c, err := artifact.BuildModel(config(), layers(), map[string]string{"org.opencontainers.image.version": "1.0"})
	if err != nil {
		t.Fatal(err)
	}
	return m, c
}

func TestBuildAndParse(t *testing.T) {
	b, c := build(t)
	ls := layers()
	slices.Reverse(ls)
	b2, c2, err := artifact.BuildModel(config(), ls, map[string]string{"org.opencontainers.image.version": "1.0"})
	if err != nil || !bytes.Equal(b, b2) || !bytes.Equal(c, c2) {
		t.Fatalf("the order of the arguments shows in the bytes: %v", err)
	}
	// The bytes are an identity: they must not change by accident.
	if got, want := artifact.DigestOf(b), artifact.Digest("sha256:140d9c7acaeb8285a3fca7f6ae4c45b89876059b64479468f5d21c7559d2efab"); got != want {
		t.Errorf("manifest has digest %s, want %s:\n%s", got, want, b)
	}
	m, err := artifact.ParseModel(b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := artifact.ParseConfig(c, m); err != nil {
		t.Fatal(err)
	}
	if len(m.OnDevice()) != 8 || len(m.ByRole(artifact.RoleStep)) != 2 {
		t.Errorf("on device %d, steps %d", len(m.OnDevice()), len(m.ByRole(artifact.RoleStep)))
	}
	if l, err := m.Module(artifact.TargetWeb); err != nil || l.Path != "web/model.wasm" {
		t.Errorf("web module %+v %v", l, err)
	}
	if l, err := m.One(artifact.RoleGolden); err != nil || l.Personal != artifact.PersonalNone {
		t.Errorf("golden %+v %v", l, err)
	}
	if _, err := m.One(artifact.RoleDoc); err == nil {
		t.Error("One of two docs")
	}
}

func TestBuildRefuses(t *testing.T) {
	add := func(l artifact.Layer) func([]artifact.Layer) []artifact.Layer {
		return func(ls []artifact.Layer) []artifact.Layer { return append(ls, l) }
	}
	edit := func(path string, f func(*artifact.Layer)) func([]artifact.Layer) []artifact.Layer {
		return func(ls []artifact.Layer) []artifact.Layer {
			for i := range ls {
				if ls[i].Path == path {
					f(&ls[i])
				}
			}
			return ls
		}
	}
	drop := func(r artifact.Role) func([]artifact.Layer) []artifact.Layer {
		return func(ls []artifact.Layer) []artifact.Layer {
			return slices.DeleteFunc(ls, func(l artifact.Layer) bool { return l.Role == r })
		}
	}
	for name, c := range map[string]struct {
		change func([]artifact.Layer) []artifact.Layer
		want   string
	}{
		"unknown role":         {add(layer("extra", "x", "x")), `unknown role "extra"`},
		"doubled interface":    {add(layer(artifact.RoleInterface, "i2.json", "x")), "more than 1 layer of role interface"},
		"doubled module":       {add(layer(artifact.RoleModule, "m2.wasm", "x")), "more than 1 layer of role module for target any"},
		"doubled path":         {add(layer(artifact.RoleDoc, "README.md", "x")), "unique path"},
		"case collision":       {add(layer(artifact.RoleDoc, "readme.MD", "x")), "differ in case only"},
		"no module":            {drop(artifact.RoleModule), "without one of role module"},
		"no interface":         {drop(artifact.RoleInterface), "no layer of role interface"},
		"path leaves":          {add(layer(artifact.RoleDoc, "../x", "x")), "not a relative"},
		"absolute path":        {add(layer(artifact.RoleDoc, "/x", "x")), "not a relative"},
		"backslash":            {add(layer(artifact.RoleDoc, `a\b`, "x")), "some systems forbid"},
		"windows device":       {add(layer(artifact.RoleDoc, "a/NUL.txt", "x")), "Windows reserves"},
		"target on a doc":      {edit("README.md", func(l *artifact.Layer) { l.Target = "any" }), "has no target"},
		"unknown target":       {edit("model.wasm", func(l *artifact.Layer) { l.Target = "gpu" }), "unknown target"},
		"personal on a module": {edit("model.wasm", func(l *artifact.Layer) { l.Personal = "none" }), "does not declare personal data"},
		"personal nonsense":    {edit("golden.json", func(l *artifact.Layer) { l.Personal = "maybe" }), "personal-data"},
		"huge interface":       {edit("interface.json", func(l *artifact.Layer) { l.Size = artifact.MaxInterface + 1 }), "interface document has"},
		"bad digest":           {edit("LICENSE", func(l *artifact.Layer) { l.Digest = "sha256:12" }), "not a sha256 digest"},
	} {
		_, _, err := artifact.BuildModel(config(), c.change(layers()), nil)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	cfg := config()
	cfg.Descriptor.Name = ""
	if _, _, err := artifact.BuildModel(cfg, layers(), nil); err == nil {
		t.Error("built a model without a name")
	}
}

// Whatever a manifest from outside says, the strict rules hold for it too.
func TestParseRefuses(t *testing.T) {
	good, conf := build(t)
	m, err := artifact.ParseModel(good)
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(m map[string]any, layers []any)) []byte {
		var v map[string]any
		if err := json.Unmarshal(good, &v); err != nil {
			t.Fatal(err)
		}
		f(v, v["layers"].([]any))
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ann := func(l any) map[string]any { return l.(map[string]any)["annotations"].(map[string]any) }
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"foreign artifact":  {change(func(m map[string]any, _ []any) { m["artifactType"] = "x/y" }), "not a model artifact"},
		"foreign config":    {change(func(m map[string]any, _ []any) { m["config"].(map[string]any)["mediaType"] = "x/y" }), "not a model artifact"},
		"unsorted":          {change(func(_ map[string]any, l []any) { l[0], l[1] = l[1], l[0] }), "not sorted"},
		"unknown role":      {change(func(_ map[string]any, l []any) { ann(l[0])["dev.waybill.role"] = "bonus" }), `unknown role "bonus"`},
		"no role":           {change(func(_ map[string]any, l []any) { delete(ann(l[0]), "dev.waybill.role") }), "unknown role"},
		"other media type":  {change(func(_ map[string]any, l []any) { l[0].(map[string]any)["mediaType"] = artifact.MediaTypeWeight }), "media type"},
		"two names":         {change(func(_ map[string]any, l []any) { ann(l[0])["org.cncf.model.filepath"] = "other" }), "filepath"},
		"sha512":            {change(func(_ map[string]any, l []any) { l[0].(map[string]any)["digest"] = "sha512:00" }), "not a sha256 digest"},
		"negative size":     {change(func(_ map[string]any, l []any) { l[0].(map[string]any)["size"] = -1 }), "negative size"},
		"a subject":         {change(func(m map[string]any, _ []any) { m["subject"] = m["config"] }), "no subject"},
		"schema version 1":  {change(func(m map[string]any, _ []any) { m["schemaVersion"] = 1 }), "schemaVersion"},
		"index":             {change(func(m map[string]any, _ []any) { m["mediaType"] = artifact.MediaTypeIndex }), "media type"},
		"member twice":      {bytes.Replace(good, []byte(`"layers":`), []byte(`"layers":[],"layers":`), 1), "stands twice"},
		"member twice fold": {bytes.Replace(good, []byte(`"layers":`), []byte(`"Layers":[],"layers":`), 1), "stands twice"},
		"data after it":     {append(bytes.Clone(good), "{}"...), "data after"},
		"truncated":         {good[:len(good)-3], "not valid JSON"},
		"too large":         {append(bytes.Clone(good), bytes.Repeat([]byte(" "), artifact.MaxManifest)...), "larger than"},
		"nested":            {fmt.Appendf(nil, `{"x":%s1%s}`, strings.Repeat("[", 100), strings.Repeat("]", 100)), "deeper"},
	} {
		_, err := artifact.ParseModel(c.b)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for name, f := range map[string]func(string) string{
		"unknown member": func(s string) string { return strings.Replace(s, `"config":{`, `"config":{"x":1,`, 1) },
		"fewer diffIds":  func(s string) string { return strings.Replace(s, `"`+string(m.Layers[0].Digest)+`",`, "", 1) },
		"other diffId": func(s string) string {
			return strings.Replace(s, string(m.Layers[0].Digest), string(m.Layers[1].Digest), 1)
		},
	} {
		if _, err := artifact.ParseConfig([]byte(f(string(conf))), m); err == nil {
			t.Errorf("config with %s: accepted", name)
		}
	}
}

func TestBuildReferrer(t *testing.T) {
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf([]byte("m")), Size: 1,
		ArtifactType: artifact.ArtifactType, Annotations: map[string]string{"must": "not be copied"}}
	b, err := artifact.BuildReferrer(subject, []byte("bundle"), "https://example.com/p")
	if err != nil {
		t.Fatal(err)
	}
	want := `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json",` +
		`"config":{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2,"artifactType":"application/vnd.dev.sigstore.bundle.v0.3+json"},` +
		`"layers":[{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"` + string(artifact.DigestOf([]byte("bundle"))) + `","size":6}],` +
		`"subject":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"` + string(subject.Digest) + `","size":1},` +
		`"annotations":{"dev.sigstore.bundle.content":"dsse-envelope","dev.sigstore.bundle.predicateType":"https://example.com/p"}}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
	m, err := artifact.ParseManifest(b)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := artifact.ReferrerTag(m, artifact.DigestOf(b)), "sha256-"+subject.Digest.Hex()+"."+artifact.DigestOf([]byte("bundle")).Short(); got != want {
		t.Errorf("tag %s, want %s", got, want)
	}
	if _, err := artifact.BuildReferrer(subject, make([]byte, artifact.MaxBundle+1), "x"); err == nil {
		t.Error("attached a bundle that no reader would take")
	}
}

// schemas compiles the published schemas in a folder, without a network.
func schemas(t *testing.T, dir string, draft *jsonschema.Draft) func(file string) *jsonschema.Schema {
	t.Helper()
	root := os.Getenv("WAYBILL_SCHEMAS")
	if root == "" {
		t.Skip("WAYBILL_SCHEMAS is not set: the published schemas are not at hand")
	}
	c := jsonschema.NewCompiler()
	c.DefaultDraft(draft)
	c.AssertFormat()
	err := filepath.WalkDir(filepath.Join(root, dir), func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Ext(p) != ".json" || strings.Contains(p, "vectors") || strings.Contains(p, "examples") {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if err := c.AddResource("https://opencontainers.org/schema/image/"+filepath.Base(p), doc); err != nil {
			return err
		}
		// The descriptors refer to their neighbours below their own id.
		for _, sub := range []string{"manifest/", "index/", "descriptor/", "../"} {
			if err := c.AddResource("https://opencontainers.org/schema"+path.Join("/image", sub, filepath.Base(p)), doc); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return func(file string) *jsonschema.Schema {
		s, err := c.Compile((&url.URL{Scheme: "https", Host: "opencontainers.org", Path: "/schema/image/" + file}).String())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func validate(t *testing.T, s *jsonschema.Schema, b []byte) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestModelPackSchema(t *testing.T) {
	s := schemas(t, "modelpack-model-spec", jsonschema.Draft2020)("config-schema.json")
	_, c := build(t)
	if err := validate(t, s, c); err != nil {
		t.Fatal(err)
	}
	// The vectors pass and fail as filed, so the schema is in force; our reader agrees about the valid ones.
	for _, kind := range []string{"valid", "invalid"} {
		files, err := filepath.Glob(filepath.Join(os.Getenv("WAYBILL_SCHEMAS"), "modelpack-model-spec", "vectors", kind, "*.json"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no vectors: %v", err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			if err := validate(t, s, b); (err == nil) != (kind == "valid") {
				t.Errorf("%s: %v", f, err)
			}
		}
	}
}

func TestImageSpecSchema(t *testing.T) {
	compile := schemas(t, "oci-image-spec", jsonschema.Draft4)
	s := compile("image-manifest-schema.json")
	m, _ := build(t)
	if err := validate(t, s, m); err != nil {
		t.Error(err)
	}
	r, err := artifact.BuildReferrer(artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf(m), Size: int64(len(m))}, []byte("b"), "https://example.com/p")
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, s, r); err != nil {
		t.Error(err)
	}
	if err := validate(t, s, bytes.Replace(m, []byte(`"schemaVersion":2`), []byte(`"schemaVersion":3`), 1)); err == nil {
		t.Error("the schema is not in force")
	}
}

func FuzzParseModel(f *testing.F) {
	b, c := build(f)
	f.Add(b, c)
	f.Add([]byte(`{"schemaVersion":2}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, b, c []byte) {
		m, err := artifact.ParseModel(b)
		if err != nil {
			return
		}
		for _, l := range m.Layers {
			if !filepath.IsLocal(filepath.FromSlash(l.Path)) {
				t.Fatalf("path %q leaves the directory", l.Path)
			}
			_ = l.Digest.Hex()
		}
		cfg, err := artifact.ParseConfig(c, m)
		if err != nil {
			return
		}
		// What was accepted can be built again.
		if _, _, err := artifact.BuildModel(cfg, m.Layers, m.Manifest.Annotations); err != nil {
			t.Fatal(err)
		}
	})
}
