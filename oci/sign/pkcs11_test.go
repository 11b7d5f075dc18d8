//go:build pkcs11key && cgo

package sign

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

const testPIN = "1234"

// hsm makes a SoftHSM token "waybill" in a folder of its own and gives the library. The folder is named by the
// environment, so tests of one process share it: objects have a label of their own per test.
func hsm(t *testing.T) (module string, tool func(args ...string)) {
	t.Helper()
	missing := func(what string) {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed", what)
		}
		t.Skipf("%s is not installed", what)
	}
	for _, p := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(p); err == nil {
			module = p
		}
	}
	if module == "" {
		missing("softhsm2")
	}
	for _, p := range []string{"softhsm2-util", "pkcs11-tool"} {
		if _, err := exec.LookPath(p); err != nil {
			missing(p)
		}
	}
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	run("softhsm2-util", "--init-token", "--free", "--label", "waybill", "--pin", testPIN, "--so-pin", "5678")
	return module, func(args ...string) {
		t.Helper()
		run("pkcs11-tool", append([]string{"--module", module, "--token-label", "waybill", "--login", "--pin", testPIN}, args...)...)
	}
}

func pin(p string) Secrets {
	return Secrets{Getenv: func(n string) string {
		if n == "WAYBILL_PKCS11_PIN" {
			return p
		}
		return ""
	}}
}

// TestPKCS11 runs against SoftHSM in one function: the library reads its folder once per process.
func TestPKCS11(t *testing.T) {
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+filepath.Join(dir, "tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	module, tool := hsm(t)
	uri := func(object string) string {
		return fmt.Sprintf("pkcs11:token=waybill;object=%s?module-path=%s", object, module)
	}
	for _, k := range []struct{ label, typ, id string }{
		{"release", "EC:prime256v1", "01"}, {"ed", "EC:edwards25519", "02"}, {"twin", "EC:prime256v1", "03"}, {"twin", "EC:prime256v1", "04"},
		{"p384", "EC:secp384r1", "05"}, {"rsa", "rsa:2048", "06"},
	} {
		tool("--keypairgen", "--key-type", k.typ, "--label", k.label, "--id", k.id)
	}

	for _, object := range []string{"release", "ed", "twin;id=%03"} {
		t.Run("sign with "+object, func(t *testing.T) {
			public, id, err := Public(t.Context(), uri(object), pin(testPIN))
			if err != nil {
				t.Fatal(err)
			}
			ref, err := Reference(uri(object), trust.RolePublisher, "hsm", public)
			if err != nil {
				t.Fatal(err)
			}
			path := writeKey(t, ref)
			k, err := OpenReference(t.Context(), path, pin(testPIN), trust.RolePublisher)
			if err != nil {
				t.Fatal(err)
			}
			s, err := evidence.NewStatement(evidence.TypeRelease, "churn", subject, struct{}{})
			if err != nil {
				t.Fatal(err)
			}
			now := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
			doc := document(t, &KeyPair{ID: id, Role: trust.RolePublisher, Name: "hsm", Public: public}, now)
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
			if _, err := OpenReference(t.Context(), path, pin(testPIN), trust.RoleGate); diag.CodeOf(err) != diag.Usage {
				t.Errorf("another role: %v", err)
			}
		})
	}

	pinFile := filepath.Join(dir, "pin")
	if err := os.WriteFile(pinFile, []byte(testPIN+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	asked := 0
	for _, c := range []struct {
		name, uri string
		sec       Secrets
		code      diag.Code
		part      string
	}{
		{"PIN in the URI", uri("release") + "&pin-value=" + testPIN, pin(""), 0, ""},
		{"PIN in a file", uri("release") + "&pin-source=file:" + pinFile, pin(""), 0, ""},
		{"PIN by prompt", uri("release"), Secrets{Getenv: func(string) string { return "" }, Ask: func(string) ([]byte, error) { asked++; return []byte(testPIN), nil }}, 0, ""},
		{"no PIN", uri("release"), pin(""), diag.Usage, "WAYBILL_PKCS11_PIN"},
		{"another token", strings.Replace(uri("release"), "token=waybill", "token=gone", 1), pin(testPIN), diag.NotFound, "the token is not there"},
		{"no such key", uri("none"), pin(testPIN), diag.NotFound, "no private key"},
		{"several keys", uri("twin"), pin(testPIN), diag.Usage, "2 keys of the token fit"},
		{"P-384", uri("p384"), pin(testPIN), diag.Usage, "only P-256"},
		{"RSA", uri("rsa"), pin(testPIN), diag.Usage, "RSA"},
		{"a library that is none", strings.Replace(uri("release"), module, pinFile, 1), pin(testPIN), diag.Usage, "not a PKCS #11 library"},
		{"no library", strings.Replace(uri("release"), module, "/nowhere.so", 1), pin(testPIN), diag.NotFound, "is not there"},
		{"wrong PIN", uri("release"), pin("9999"), diag.Failure, "wrong PIN"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, _, err := Public(t.Context(), c.uri, c.sec)
			if diag.CodeOf(err) != c.code || c.code != 0 && !strings.Contains(diag.Render(err), c.part) {
				t.Errorf("got %v (code %d), want %q", err, diag.CodeOf(err), c.part)
			}
			if err != nil && (strings.Contains(diag.Render(err), testPIN) || strings.Contains(diag.Render(err), "9999")) {
				t.Errorf("the message tells the PIN: %v", err)
			}
		})
	}
	if asked != 1 {
		t.Errorf("asked %d times for the PIN", asked)
	}

	// A key that takes the place of another under the same name is noticed.
	public, _, err := Public(t.Context(), uri("release"), pin(testPIN))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Reference(uri("release"), trust.RolePublisher, "", public)
	if err != nil {
		t.Fatal(err)
	}
	open, err := OpenReference(t.Context(), writeKey(t, ref), pin(testPIN))
	if err != nil {
		t.Fatal(err)
	}
	for _, class := range []string{"privkey", "pubkey"} {
		tool("--delete-object", "--type", class, "--label", "release")
	}
	tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "release", "--id", "07")
	if _, err := OpenReference(t.Context(), writeKey(t, ref), pin(testPIN)); diag.CodeOf(err) != diag.Failure || !strings.Contains(diag.Render(err), "rotated") {
		t.Errorf("rotated key: %v", err)
	}
	s, err := evidence.NewStatement(evidence.TypeRelease, "churn", subject, struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := open.Sign(t.Context(), s); err == nil || raw != nil {
		t.Error("a key that was swapped after it was opened signs")
	}
}
