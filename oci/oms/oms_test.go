package oms

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

func layers(files map[string]string) []artifact.Layer {
	var ls []artifact.Layer
	for name, content := range files {
		ls = append(ls, artifact.Layer{Role: artifact.RoleDoc, Path: name, Digest: artifact.DigestOf([]byte(content)), Size: int64(len(content))})
	}
	return ls
}

// signed makes a key bundle over a payload with the hash that a curve does not always come with.
func signed(t *testing.T, k *ecdsa.PrivateKey, h crypto.Hash, payload []byte) []byte {
	t.Helper()
	m := h.New()
	m.Write(evidence.PAE(evidence.PayloadType, payload))
	sig, err := ecdsa.SignASN1(rand.Reader, k, m.Sum(nil))
	if err != nil {
		t.Fatal(err)
	}
	hint, err := Hint(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := evidence.EncodeHinted(hint, payload, sig)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func newKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The list is sorted by code point, which neither UTF-16 nor folders do, and the root is the hash of the raw digests.
func TestNew(t *testing.T) {
	s, err := New("m", layers(map[string]string{"a/b": "1", "a-b": "2", "A": "3", "\uffee": "4", "\U0001F600": "5", "é": "6"}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Check(s)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range p.Resources {
		names = append(names, r.Name)
	}
	if got := strings.Join(names, " "); got != "A a-b a/b é \uffee \U0001F600" {
		t.Errorf("order %q", got)
	}
	want := sha256.New()
	for _, c := range []string{"3", "2", "1", "6", "4", "5"} {
		d := sha256.Sum256([]byte(c))
		want.Write(d[:])
	}
	if s.SubjectDigest().Hex() != hex.EncodeToString(want.Sum(nil)) {
		t.Errorf("root %s", s.SubjectDigest())
	}
	const predicate = `{"resources":[{"name":"f","digest":"6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b","algorithm":"sha256"}],` +
		`"serialization":{"method":"files","hash_type":"sha256","allow_symlinks":false,"ignore_paths":[".git",".gitattributes",".github",".gitignore"]}}`
	if s, err = New("m", layers(map[string]string{"f": "1"})); err != nil || string(s.Predicate) != predicate {
		t.Errorf("%v\n%s", err, s.Predicate)
	}
	for name, files := range map[string]map[string]string{"no files": {}, "a file that OMS leaves out": {".gitignore": "x"}, "a path outside": {"../x": "x"}} {
		if _, err := New("m", layers(files)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestVerifyKey(t *testing.T) {
	s, err := New("m", layers(map[string]string{"f": "1"}))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	k256, k384, k521, other := newKey(t, elliptic.P256()), newKey(t, elliptic.P384()), newKey(t, elliptic.P521()), newKey(t, elliptic.P256())
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	ed, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		raw  []byte
		pub  crypto.PublicKey
		want string // part of the error; empty: verified
	}{
		{"P-256", signed(t, k256, crypto.SHA256, payload), &k256.PublicKey, ""},
		{"P-384", signed(t, k384, crypto.SHA384, payload), &k384.PublicKey, ""},
		{"P-521", signed(t, k521, crypto.SHA512, payload), &k521.PublicKey, ""},
		{"P-384 with the hash of P-256", signed(t, k384, crypto.SHA256, payload), &k384.PublicKey, "does not fit"},
		{"P-256 with a longer hash", signed(t, k256, crypto.SHA512, payload), &k256.PublicKey, "does not fit"},
		{"another key", signed(t, k256, crypto.SHA256, payload), &other.PublicKey, "names another key"},
		{"P-224", signed(t, k256, crypto.SHA256, payload), &newKey(t, elliptic.P224()).PublicKey, "P-224"},
		{"RSA", signed(t, k256, crypto.SHA256, payload), &rs.PublicKey, "ECDSA only"},
		{"Ed25519", signed(t, k256, crypto.SHA256, payload), ed, "ECDSA only"},
		{"one byte of the payload", []byte(strings.Replace(string(signed(t, k256, crypto.SHA256, payload)), `"sig":"ME`, `"sig":"MF`, 1)), &k256.PublicKey, "does not fit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, err := Parse(c.raw)
			if err != nil {
				t.Fatal(err)
			}
			err = b.VerifyKey(c.pub)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if b.VerifyChain(nil) == nil {
				t.Error("a key bundle passes as one with a certificate")
			}
		})
	}
}

// What the list may hold. The paths are those that would lead out of a folder, or mean two places on two systems.
func TestLists(t *testing.T) {
	k := newKey(t, elliptic.P256())
	d := strings.Repeat("ab", 32)
	list := func(resources, serialization string) []byte {
		p := `{"resources":[` + resources + `],"serialization":{` + serialization + `}}`
		var pr Predicate
		root := artifact.DigestOf(nil)
		if json.Unmarshal([]byte(p), &pr) == nil {
			if r, err := pr.Root(); err == nil {
				root = r
			}
		}
		return signed(t, k, crypto.SHA256, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":"`+root.Hex()+`"}}],"predicateType":"https://model_signing/signature/v1.0","predicate":`+p+`}`))
	}
	file := func(name string) string {
		n, _ := json.Marshal(name)
		return `{"name":` + string(n) + `,"digest":"` + d + `","algorithm":"sha256"}`
	}
	const plain = `"method":"files","hash_type":"sha256","allow_symlinks":false`
	for _, c := range []struct {
		name string
		raw  []byte
		ok   bool
	}{
		{"plain", list(file("a/b.bin"), plain), true},
		{"a name with spaces and dots", list(file("a b/..c/d.e"), plain), true},
		{"unicode, composed and not", list(file("é")+","+file("e\u0301"), plain), true},
		{"more members in a resource", list(strings.Replace(file("a"), "{", `{"size":1,`, 1), plain), true},
		{"up", list(file("../a"), plain), false},
		{"up in between", list(file("a/../../b"), plain), false},
		{"absolute", list(file("/etc/passwd"), plain), false},
		{"drive", list(file("C:/x"), plain), false},
		{"backslash", list(file(`a\b`), plain), false},
		{"empty", list(file(""), plain), false},
		{"dot", list(file("."), plain), false},
		{"dot segment", list(file("./a"), plain), false},
		{"double slash", list(file("a//b"), plain), false},
		{"trailing slash", list(file("a/"), plain), false},
		{"line break", list(file("a\nb"), plain), false},
		{"twice", list(file("a")+","+file("a"), plain), false},
		{"no files", list("", plain), false},
		{"symlinks", list(file("a"), `"method":"files","hash_type":"sha256","allow_symlinks":true`), false},
		{"shards", list(file("a:0:1"), `"method":"shards","hash_type":"sha256","allow_symlinks":false,"shard_size":1`), false},
		{"shard size", list(file("a"), plain+`,"shard_size":1`), false},
		{"another hash", list(file("a"), `"method":"files","hash_type":"blake3","allow_symlinks":false`), false},
		{"another hash in a resource", list(strings.Replace(file("a"), "sha256", "blake2b", 1), plain), false},
		{"short digest", list(strings.Replace(file("a"), d, "ab", 1), plain), false},
		{"unknown member", list(file("a"), plain+`,"x":1`), false},
		{"ignores everything", list(file("a"), plain+`,"ignore_paths":["."]`), false},
		{"ignores outside", list(file("a"), plain+`,"ignore_paths":["../x"]`), false},
	} {
		if _, err := Parse(c.raw); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	wrong := signed(t, k, crypto.SHA256, []byte(`{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"m","digest":{"sha256":"`+d+`"}}],"predicateType":"https://model_signing/signature/v1.0","predicate":{"resources":[`+file("a")+`],"serialization":{`+plain+`}}}`))
	if _, err := Parse(wrong); err == nil || !strings.Contains(err.Error(), "hash to") {
		t.Errorf("a subject that is not the root: %v", err)
	}
}

func TestMatches(t *testing.T) {
	s, err := New("m", layers(map[string]string{"a": "1", "b": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Check(s)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		files map[string]string
		ok    bool
	}{
		"the same":    {map[string]string{"a": "1", "b": "2"}, true},
		"one more":    {map[string]string{"a": "1", "b": "2", "c": "3"}, false},
		"one fewer":   {map[string]string{"a": "1"}, false},
		"one altered": {map[string]string{"a": "1", "b": "3"}, false},
		"renamed":     {map[string]string{"a": "1", "c": "2"}, false},
		"none":        {nil, false},
	} {
		if err := p.Matches(layers(c.files)); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFolder(t *testing.T) {
	s, err := New("m", layers(map[string]string{"a": "1", "sub/b": "2"}))
	if err != nil {
		t.Fatal(err)
	}
	p, err := Check(s)
	if err != nil {
		t.Fatal(err)
	}
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("1"), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(name, content string) func(dir string) error {
		return func(dir string) error {
			f := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(f), 0o755); err != nil {
				return err
			}
			return os.WriteFile(f, []byte(content), 0o600)
		}
	}
	link := func(name, to string) func(dir string) error {
		return func(dir string) error {
			f := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.RemoveAll(f); err != nil {
				return err
			}
			return os.Symlink(to, f)
		}
	}
	for _, c := range []struct {
		name   string
		change func(dir string) error
		ignore []string
		want   string
	}{
		{"as signed", write("a", "1"), nil, ""},
		{"altered", write("a", "2"), nil, "altered: a"},
		{"extra", write("sub/c", "3"), nil, "not signed: sub/c"},
		{"extra, ignored by the signer", write(".git/x", "3"), nil, ""},
		{"a name that begins like an ignored one", write(".gitx", "3"), nil, "not signed: .gitx"},
		{"an ignored name in a folder", write("sub/.gitignore", "3"), nil, "not signed: sub/.gitignore"},
		{"extra, ignored by the caller", write("sub/c", "3"), []string{"sub/c"}, ""},
		{"a signed file cannot be ignored", write("a", "2"), []string{"a"}, "altered: a"},
		{"missing", func(dir string) error { return os.Remove(filepath.Join(dir, "a")) }, nil, "missing: a"},
		{"link to the same content outside", link("a", outside), nil, "not a plain file: a"},
		{"link to a file of the model", link("c", "a"), nil, "not a plain file: c"},
		{"link to a folder", link("sub", t.TempDir()), nil, "missing: sub/b; not a plain file: sub"},
		{"folder in place of a file", func(dir string) error {
			return os.Rename(filepath.Join(dir, "sub"), filepath.Join(dir, "a2"))
		}, nil, "missing: sub/b; not signed: a2/b"},
		{"unicode twin", write("ａ", "1"), nil, "not signed: ａ"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && strings.Contains(c.name, "link") {
				t.Skip("symbolic links need a privilege here")
			}
			dir := t.TempDir()
			for _, f := range []func(string) error{write("a", "1"), write("sub/b", "2"), c.change} {
				if err := f(dir); err != nil {
					t.Fatal(err)
				}
			}
			f, err := p.CheckFolder(t.Context(), dir, c.ignore)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.String(); got != c.want || f.OK() != (c.want == "") {
				t.Errorf("got %q, want %q", got, c.want)
			}
			// What a reader that follows links sees: the attack passes there.
			if c.name == "link to the same content outside" {
				if b, err := os.ReadFile(filepath.Join(dir, "a")); err != nil || artifact.DigestOf(b).Hex() != p.Resources[0].Digest {
					t.Errorf("the attack does not work without the check: %v", err)
				}
			}
		})
	}
}

func schemas(t *testing.T, sub string) string {
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS is not set")
	}
	return filepath.Join(dir, sub)
}

// The test vectors of the specification.
func TestVectors(t *testing.T) {
	dir := schemas(t, "ossf-model-signing-spec/test-vectors/v1.0")
	n := 0
	for _, c := range []struct {
		folder string
		ok     bool
	}{{"valid", true}, {"invalid", false}, {"invalid-payload", false}} {
		files, err := filepath.Glob(filepath.Join(dir, c.folder, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			b, err := Parse(raw)
			if (err == nil) != c.ok {
				t.Errorf("%s/%s: %v", c.folder, filepath.Base(f), err)
			}
			if c.ok && err == nil && string(b.Method) != strings.TrimSuffix(filepath.Base(f), ".bundle.json") {
				t.Errorf("%s: method %s", f, b.Method)
			}
			n++
		}
	}
	if n != 8 {
		t.Errorf("%d vectors, want 8", n)
	}
}

// Folders that the reference signer made, with their files.
func TestReferenceSigner(t *testing.T) {
	dir := schemas(t, "sigstore-model-transparency")
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	pubText := string(read("keys/certificate/signing-key-pub.pem"))
	pub, err := ParsePublic([]byte(pubText[strings.Index(pubText, "-----BEGIN"):]))
	if err != nil {
		t.Fatal(err)
	}
	parse := func(name string) *x509.Certificate {
		b, _ := pem.Decode(read(name))
		c, err := x509.ParseCertificate(b.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	ca := parse("keys/certificate/ca-cert.pem")
	for _, m := range []string{"elliptic-key", "certificate"} {
		b, err := Parse(read("v1.1.0-" + m + "/model.sig"))
		if err != nil {
			t.Fatal(err)
		}
		if m == "certificate" {
			err = b.VerifyChain([]*x509.Certificate{ca})
			if b.VerifyChain(nil) == nil {
				t.Error("verifies without an authority")
			}
		} else {
			err = b.VerifyKey(pub)
		}
		if err != nil {
			t.Errorf("%s: %v", m, err)
		}
		f, err := b.Predicate.CheckFolder(t.Context(), filepath.Join(dir, "v1.1.0-"+m), nil)
		if err != nil || !f.OK() || f.Files != 2 {
			t.Errorf("%s: %v %v", m, f, err)
		}
	}
	for _, v := range []string{"v0.2.0-certificate", "v0.3.1-certificate", "v0.3.1-elliptic-key", "v1.0.0-elliptic-key", "v1.0.1-elliptic-key", "v1.0.1-certificate"} {
		if _, err := Parse(read(v + "/model.sig")); err == nil || !strings.Contains(err.Error(), "older than v1.1.0") {
			t.Errorf("%s: %v", v, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	s, err := New("m", layers(map[string]string{"a": "1"}))
	if err != nil {
		f.Fatal(err)
	}
	payload, err := s.Encode()
	if err != nil {
		f.Fatal(err)
	}
	hint, err := Hint(&k.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := evidence.EncodeHinted(hint, payload, []byte("sig"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := Parse(raw)
		if err != nil {
			return
		}
		for _, r := range b.Predicate.Resources {
			if !filepath.IsLocal(filepath.FromSlash(r.Name)) {
				t.Errorf("path %q leads out", r.Name)
			}
		}
		if b.VerifyKey(&k.PublicKey) == nil {
			t.Error("verified without the key")
		}
	})
}
