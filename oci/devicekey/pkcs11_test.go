//go:build pkcs11key && cgo

package devicekey_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/devicekey"
)

// A device whose key lies on a token (SoftHSM) signs checkpoints and reports as one with a file does, with both kinds of
// keys. One function: the library reads its folder once per process.
func TestPKCS11(t *testing.T) {
	missing := func(what string) {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("%s is not installed", what)
		}
		t.Skipf("%s is not installed", what)
	}
	var module string
	for _, p := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/libsofthsm2.so", "/opt/homebrew/lib/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(p); err == nil {
			module = p
		}
	}
	if module == "" {
		missing("softhsm2")
	}
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.Mkdir(filepath.Join(dir, "tokens"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+filepath.Join(dir, "tokens")+"\nobjectstore.backend = file\nlog.level = ERROR\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	run := func(name string, args ...string) {
		t.Helper()
		if _, err := exec.LookPath(name); err != nil {
			missing(name)
		}
		if out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}
	const pin = "1234"
	run("softhsm2-util", "--init-token", "--free", "--label", "waybill", "--pin", pin, "--so-pin", "5678")
	file := filepath.Join(dir, "pin")
	if err := os.WriteFile(file, []byte(pin+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for id, typ := range map[string]string{"01": "EC:prime256v1", "02": "EC:edwards25519"} {
		run("pkcs11-tool", "--module", module, "--token-label", "waybill", "--login", "--pin", pin, "--keypairgen", "--key-type", typ, "--label", "device"+id, "--id", id)
		uri := "pkcs11:token=waybill;object=device" + id + "?module-path=" + module
		k, err := devicekey.Open(t.Context(), uri+"&pin-source=file:"+file, func(string) string { return "" })
		if err != nil {
			t.Fatalf("%s: %s", typ, diag.Render(err))
		}
		pub, err := k.Public()
		if err != nil {
			t.Fatal(err)
		}
		sig, err := k.SignRaw("journal", []byte("head"))
		if err != nil {
			t.Fatal(err)
		}
		if err := devicekey.VerifyRaw(pub, "journal", []byte("head"), sig); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		checkStatus(t, k)
		if _, err := devicekey.Open(t.Context(), uri, func(n string) string { return map[string]string{"WAYBILL_PKCS11_PIN": "9999"}[n] }); diag.CodeOf(err) != diag.Failure || strings.Contains(diag.Render(err), "9999") {
			t.Errorf("wrong PIN: %v", err)
		}
	}
}
