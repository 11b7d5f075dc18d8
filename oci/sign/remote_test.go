package sign

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sigstore/cosign/v2/pkg/cosign"
	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	sgverify "github.com/sigstore/sigstore-go/pkg/verify"
	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/sigstore/sigstore/pkg/signature/kms"
	"github.com/sigstore/sigstore/pkg/signature/kms/cliplugin/handler"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// TestMain lets the test binary be sigstore's plugin program: under the name sigstore-kms-waybilltest it holds a key file.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "sigstore-kms-waybilltest") {
		if err := servePlugin(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// plugin is the KMS of the test: one PKCS #8 file that the key's URI names.
type plugin struct{ signature.SignerVerifier }

func (plugin) CreateKey(context.Context, string) (crypto.PublicKey, error) { return nil, os.ErrInvalid }
func (plugin) CryptoSigner(context.Context, func(error)) (crypto.Signer, crypto.SignerOpts, error) {
	return nil, nil, os.ErrInvalid
}
func (plugin) SupportedAlgorithms() []string { return []string{"any"} }
func (plugin) DefaultAlgorithm() string      { return "any" }

func servePlugin() error {
	args, err := handler.GetPluginArgs(os.Args)
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(args.InitOptions.KeyResourceID)
	if err != nil {
		return handler.WriteErrorResponse(os.Stdout, err)
	}
	priv, _, err := parseForeign("plugin", raw, func() ([]byte, error) { return nil, os.ErrInvalid })
	if err != nil {
		return err
	}
	sv, err := signature.LoadSignerVerifier(priv, crypto.SHA256)
	if err != nil {
		return err
	}
	_, err = handler.Dispatch(os.Stdout, os.Stdin, args, plugin{sv})
	return err
}

func verifyWithCosign(t *testing.T, raw, public []byte) {
	t.Helper()
	pub, _, err := trust.ParsePublic(public)
	if err != nil {
		t.Fatal(err)
	}
	sv, err := signature.LoadVerifier(pub, crypto.SHA256) // as "cosign verify --key" loads it
	if err != nil {
		t.Fatal(err)
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	digest, err := hex.DecodeString(subject.Hex())
	if err != nil {
		t.Fatal(err)
	}
	co := &cosign.CheckOpts{SigVerifier: sv, IgnoreTlog: true, IgnoreSCT: true, NewBundleFormat: true, TrustedMaterial: root.TrustedMaterialCollection{}}
	if _, err := cosign.VerifyNewBundle(t.Context(), co, sgverify.WithArtifactDigest("sha256", digest), &b); err != nil {
		t.Errorf("cosign: %v", err)
	}
}

// signsForAll registers a key, signs three times through its reference, and has the bundles verified here and by cosign.
func signsForAll(t *testing.T, uri string) (reference string) {
	t.Helper()
	sec := Secrets{Getenv: os.Getenv}
	public, id, err := Public(t.Context(), uri, sec)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Reference(uri, trust.RolePublisher, "service", public)
	if err != nil {
		t.Fatal(err)
	}
	reference = writeKey(t, ref)
	in, err := CheckRole(reference, trust.RolePublisher)
	if err != nil || in.ID != id || in.URI != uri || !bytes.Equal(in.Public, public) {
		t.Fatalf("%+v %v", in, err)
	}
	if _, err := OpenReference(t.Context(), reference, sec, trust.RoleGate); diag.CodeOf(err) != diag.Usage {
		t.Errorf("another role: %v", err)
	}
	k, err := OpenReference(t.Context(), reference, sec, trust.RolePublisher)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	doc := document(t, &KeyPair{ID: id, Role: trust.RolePublisher, Name: "service", Public: public}, now)
	s, err := evidence.NewStatement(evidence.TypeRelease, "churn", subject, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		raw, err := k.Sign(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify.Bundle(raw, doc, verify.Want{PredicateType: evidence.TypeRelease, Subject: subject, Model: "churn", Now: now}); err != nil {
			t.Error(err)
		}
		verifyWithCosign(t, raw, public)
	}
	// By the URI alone the trust document says the role; a key that it does not name has none.
	if k, err := OpenURI(t.Context(), uri, doc, sec, trust.RolePublisher); err != nil || k.Role() != trust.RolePublisher || k.KeyID() != id {
		t.Errorf("by URI: %v", err)
	}
	if _, err := OpenURI(t.Context(), uri, doc, sec, trust.RoleGate); diag.CodeOf(err) != diag.Usage {
		t.Errorf("by URI in another role: %v", err)
	}
	stranger, err := Generate(Ed25519, trust.RolePublisher, "other", nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenURI(t.Context(), uri, document(t, stranger, now), sec); diag.CodeOf(err) != diag.Usage {
		t.Errorf("a key without a role: %v", err)
	}
	doc.Revoked = append(doc.Revoked, id)
	if _, err := OpenURI(t.Context(), uri, doc, sec); diag.CodeOf(err) != diag.Usage || !strings.Contains(err.Error(), "revokes") {
		t.Errorf("a revoked key: %v", err)
	}
	return reference
}

func pkcs8File(t *testing.T, path string) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A key in a service of which only sigstore's plugin program knows.
func TestPluginKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("symbolic links need a privilege here")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	bin := t.TempDir()
	if err := os.Symlink(self, filepath.Join(bin, "sigstore-kms-waybilltest")); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	file := filepath.Join(t.TempDir(), "k.pem")
	pkcs8File(t, file)
	uri := "waybilltest://" + file
	ref := signsForAll(t, uri)
	sec := Secrets{Getenv: os.Getenv}
	k, err := OpenReference(t.Context(), ref, sec)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8File(t, file) // the service has another key under the name from here on
	if _, err := OpenReference(t.Context(), ref, sec); diag.CodeOf(err) != diag.Failure || !strings.Contains(diag.Render(err), "rotated") {
		t.Errorf("rotated key: %v", err)
	}
	s, err := evidence.NewStatement(evidence.TypeRelease, "churn", subject, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.Sign(t.Context(), s); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Errorf("a signature of another key goes out: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.Sign(ctx, s); err == nil {
		t.Error("signs although the context has ended")
	}
	if _, _, err := Public(t.Context(), "waybilltest:///nowhere", sec); diag.CodeOf(err) != diag.Failure {
		t.Errorf("no such key: %v", err)
	}
}

// Each scheme reaches its provider: what comes back is that provider's own complaint about the form of the URI. There is
// no emulator of Google's and Azure's services to sign with.
func TestProvidersAreThere(t *testing.T) {
	t.Setenv("AZURE_TENANT_ID", "")
	for uri, part := range map[string]string{
		"awskms://nothing":                "awskms://[ENDPOINT]",
		"gcpkms://nothing":                "gcpkms://projects",
		"azurekms://":                     "azurekms",
		"hashivault://a/b/c":              "hashivault",
		"openbao://a/b/c":                 "hashivault",
		"nosuchservice://x/y":             "sigstore-kms-nosuchservice",
		"pkcs11:object=x":                 "it names no token",
		"pkcs11:token=x":                  "it names no key",
		"pkcs11:token=a;x=b":              "is not known",
		"pkcs11:token=a;token=b;object=x": "twice",
	} {
		_, _, err := Public(t.Context(), uri, Secrets{Getenv: func(string) string { return "" }})
		if err == nil || !strings.Contains(diag.Render(err), part) {
			t.Errorf("%s: %v, want %q", uri, err, part)
		}
	}
}

func TestReferenceRefuses(t *testing.T) {
	kp, err := Generate(Ed25519, trust.RolePublisher, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() ([]byte, error){
		"a PIN": func() ([]byte, error) {
			return Reference("pkcs11:token=a;object=b?pin-value=1234", trust.RoleGate, "", kp.Public)
		},
		"a path": func() ([]byte, error) { return Reference("a.key", trust.RoleGate, "", kp.Public) },
		"a break": func() ([]byte, error) {
			return Reference("awskms:///a\nWaybill-Role: root", trust.RoleGate, "", kp.Public)
		},
		"device": func() ([]byte, error) { return Reference("awskms:///alias/a", trust.RoleDevice, "", kp.Public) },
		"no key": func() ([]byte, error) { return Reference("awskms:///alias/a", trust.RoleGate, "", []byte("x")) },
	} {
		if ref, err := f(); err == nil || ref != nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(diag.Render(err), "1234") {
			t.Errorf("the message tells the PIN: %v", err)
		}
	}
	ref, err := Reference("awskms:///alias/a", trust.RoleGate, "", kp.Public)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string][]byte{
		"no role":      bytes.Replace(ref, []byte("Waybill-Role: gate"), []byte("Waybill-Role: x"), 1),
		"no URI":       bytes.Replace(ref, []byte("awskms:///alias/a"), []byte("file"), 1),
		"a PIN in it":  bytes.Replace(ref, []byte("awskms:///alias/a"), []byte("pkcs11:token=a;object=b?pin-value=1"), 1),
		"a broken key": bytes.Replace(ref, []byte("MCow"), []byte("MCox"), 1),
	} {
		if _, err := Inspect(raw); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if got := Redact("pkcs11:token=a;object=b?module-path=/x&pin-value=1234"); strings.Contains(got, "1234") {
		t.Error(got)
	}
}

// serve starts a program that serves until the test ends, and gives what re finds in its output. PORT in an argument is
// a port that was free a moment ago, for programs that cannot take any: when another took it, the next one is tried.
func serve(t *testing.T, re string, name string, args ...string) string {
	t.Helper()
	for range 5 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		var with []string
		for _, a := range args {
			with = append(with, strings.ReplaceAll(a, "PORT", port))
		}
		addr, log := start(t, re, name, with...)
		if addr != "" {
			return addr
		}
		t.Logf("%s ended:\n%s", name, log)
	}
	t.Fatalf("%s does not start", name)
	return ""
}

// start gives an empty address and the output when the program ended.
func start(t *testing.T, re string, name string, args ...string) (addr, log string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("%s is not installed", name)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "HOME="+cmd.Dir)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	found := make(chan string, 1)
	done := make(chan string, 1)
	go func() {
		var log strings.Builder
		m := regexp.MustCompile(re)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			if log.Len() < 64<<10 {
				fmt.Fprintln(&log, sc.Text())
			}
			if hit := m.FindStringSubmatch(sc.Text()); hit != nil {
				select {
				case found <- hit[1]:
				default:
				}
			}
		}
		done <- log.String()
	}()
	t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // it was killed
		<-done
		_ = r.Close()
	})
	select {
	case addr := <-found:
		return addr, ""
	case log := <-done:
		done <- log
		return "", log
	case <-time.After(2 * time.Minute):
		t.Fatalf("%s does not say where it listens", name)
	}
	return "", ""
}

// A real OpenBao server, the open successor of Vault, with its transit engine.
func TestHashivaultKey(t *testing.T) {
	addr := serve(t, `(?i)listener.*addr: "([0-9.:]+)"`, "bao", "server", "-dev", "-dev-no-store-token", "-dev-root-token-id=root", "-dev-listen-address=127.0.0.1:PORT")
	t.Setenv("VAULT_ADDR", "http://"+addr)
	t.Setenv("VAULT_TOKEN", "root")
	api := func(path string, body any) {
		t.Helper()
		raw, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		var last error
		for range 600 { // it says where it listens a moment before it is unsealed
			rq, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+addr+"/v1/"+path, bytes.NewReader(raw))
			if err != nil {
				t.Fatal(err)
			}
			rq.Header.Set("X-Vault-Token", "root")
			rs, err := http.DefaultClient.Do(rq)
			if err == nil {
				_ = rs.Body.Close()
				if rs.StatusCode < 300 {
					return
				}
				err = fmt.Errorf("%s: %s", path, rs.Status)
			}
			last = err
			time.Sleep(100 * time.Millisecond)
		}
		t.Fatal(last)
	}
	api("sys/mounts/transit", map[string]string{"type": "transit"})
	for name, typ := range map[string]string{"release": "ecdsa-p256", "ed": "ed25519", "p384": "ecdsa-p384", "rsa": "rsa-2048"} {
		api("transit/keys/"+name, map[string]string{"type": typ})
	}
	ref := signsForAll(t, "hashivault://release")
	signsForAll(t, "openbao://release")
	signsForAll(t, "hashivault://ed")
	sec := Secrets{Getenv: os.Getenv}
	for uri, part := range map[string]string{"hashivault://p384": "only P-256", "hashivault://rsa": "only ECDSA P-256", "hashivault://none": "hashivault://none"} {
		if _, _, err := Public(t.Context(), uri, sec); err == nil || !strings.Contains(diag.Render(err), part) {
			t.Errorf("%s: %v", uri, err)
		}
	}
	api("transit/keys/release/rotate", map[string]string{})
	if _, err := OpenReference(t.Context(), ref, sec); diag.CodeOf(err) != diag.Failure || !strings.Contains(diag.Render(err), "rotated") {
		t.Errorf("rotated key: %v", err)
	}
	t.Setenv("VAULT_TOKEN", "wrong")
	if _, err := OpenReference(t.Context(), ref, sec); diag.CodeOf(err) != diag.Failure {
		t.Errorf("wrong token: %v", err)
	}
}

// moto's KMS, which signs with real keys behind the wire protocol of AWS.
func TestAWSKey(t *testing.T) {
	tool, err := exec.LookPath("moto_server") // a Python script: its first line names the interpreter that has moto
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("moto_server is not installed")
		}
		t.Skip("moto_server is not installed")
	}
	text, err := os.ReadFile(tool)
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	python, ok := strings.CutPrefix(first, "#!")
	if !ok {
		t.Fatalf("%s is not a script", tool)
	}
	script, err := filepath.Abs("testdata/moto_kms.py")
	if err != nil {
		t.Fatal(err)
	}
	addr := serve(t, `Running on https://([0-9.:]+)`, strings.TrimSpace(python), script, "-H", "127.0.0.1", "-p", "0", "-s")
	for k, v := range map[string]string{
		"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": "us-east-1", "AWS_TLS_INSECURE_SKIP_VERIFY": "1",
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CA_BUNDLE": "", "AWS_PROFILE": "", "AWS_CONFIG_FILE": filepath.Join(t.TempDir(), "none"), "AWS_SHARED_CREDENTIALS_FILE": filepath.Join(t.TempDir(), "none"),
	} {
		t.Setenv(k, v)
	}
	create := func(alias, spec string) string {
		t.Helper()
		uri := "awskms://" + addr + "/alias/" + alias
		sv, err := kms.Get(t.Context(), uri, crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := sv.CreateKey(t.Context(), spec); err != nil {
			t.Fatal(err)
		}
		return uri
	}
	signsForAll(t, create("release", "ECC_NIST_P256"))
	sec := Secrets{Getenv: os.Getenv}
	if _, _, err := Public(t.Context(), create("p384", "ECC_NIST_P384"), sec); diag.CodeOf(err) != diag.Usage || !strings.Contains(err.Error(), "only P-256") {
		t.Errorf("P-384: %v", err)
	}
	if _, _, err := Public(t.Context(), "awskms://"+addr+"/alias/none", sec); diag.CodeOf(err) != diag.Failure {
		t.Errorf("no such key: %v", err)
	}
}
