//go:build pkcs11key && cgo

package sign

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPKCS11Waybill takes the program, built with the tag, through a release whose key is on a token: registered, named in the trust
// document, signed with, verified by waybill and by stock cosign. A wrong PIN signs nothing, and cosign takes no other key.
func TestPKCS11Waybill(t *testing.T) {
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
	if _, err := exec.LookPath("cosign"); err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("cosign is not installed")
		}
		t.Skip("cosign is not installed")
	}
	tool("--keypairgen", "--key-type", "EC:prime256v1", "--label", "release", "--id", "01")
	tool("--keypairgen", "--key-type", "EC:edwards25519", "--label", "ed", "--id", "02")
	exe := filepath.Join(dir, "waybill")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-tags", "pkcs11key", "-o", exe, "../../cmd/waybill").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	command := func(ctx context.Context, pin, name string, args ...string) *exec.Cmd {
		c := exec.CommandContext(ctx, name, args...)
		c.Dir = dir
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "DOCKER_CONFIG=" + dir, "TUF_ROOT=" + dir, "WAYBILL_HOME=" + filepath.Join(dir, "home"),
			"WAYBILL_PASSWORD=secret", "WAYBILL_PKCS11_PIN=" + pin, "SOFTHSM2_CONF=" + conf}
		return c
	}
	try := func(pin, name string, args ...string) (string, error) {
		ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
		defer stop()
		out, err := command(ctx, pin, name, args...).CombinedOutput()
		return string(out), err
	}
	must := func(line string) {
		t.Helper()
		w := strings.Fields(line)
		if w[0] == "waybill" {
			w[0] = exe
		}
		if out, err := try(testPIN, w[0], w[1:]...); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	refused := func(pin, line string, code int, part string) (out string) {
		t.Helper()
		out, err := try(pin, exe, strings.Fields(line)...)
		var x *exec.ExitError
		if !errors.As(err, &x) || x.ExitCode() != code || !strings.Contains(out, part) {
			t.Errorf("waybill %s: %v\n%s", line, err, out)
		}
		return out
	}

	serve := command(t.Context(), "", exe, "registry", "serve", "--addr", "127.0.0.1:0", "--root", "reg", "--ready-file", "addr")
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = serve.Process.Kill(); _ = serve.Wait() })
	host := ""
	for end := time.Now().Add(time.Minute); host == ""; time.Sleep(10 * time.Millisecond) {
		if b, err := os.ReadFile(filepath.Join(dir, "addr")); err == nil {
			host = strings.TrimSpace(string(b))
		} else if time.Now().After(end) {
			t.Fatal("the registry does not come up")
		}
	}
	uri := func(object string) string {
		return fmt.Sprintf("pkcs11:token=waybill;object=%s?module-path=%s", object, module)
	}
	must("waybill pack " + filepath.Join(examples, "breast-cancer", "v1"))
	must("waybill keys generate --role root")
	must("waybill keys register " + uri("release") + " --role publisher --out release.key")
	must("waybill keys register " + uri("ed") + " --role publisher --out ed.key")
	must("waybill trust init --root root.pub")
	must("waybill trust add trust.yaml release.pub --role publisher")
	must("waybill trust add trust.yaml ed.pub --role publisher")
	must("waybill trust sign trust.yaml --key root.key")
	must("cosign trusted-root create --out root.json")
	for _, key := range []string{"release", "ed"} {
		ref := host + "/ml/" + key + ":1"
		must("waybill push breast-cancer:1.0.0 " + ref)
		const wrong = "99999999"
		if out := refused(wrong, "sign "+ref+" --key "+key+".key", 1, "wrong PIN"); strings.Contains(out, wrong) {
			t.Errorf("the message tells the PIN: %s", out)
		}
		refused(testPIN, "verify "+ref, 3, "release")
		must("waybill sign " + ref + " --key " + key + ".key")
		must("waybill verify " + ref)
		cosign := "--insecure-ignore-tlog --new-bundle-format --trusted-root root.json --allow-insecure-registry " + ref
		must("cosign verify --key " + key + ".pub " + cosign)
		other := map[string]string{"release": "ed", "ed": "release"}[key]
		if out, err := try("", "cosign", strings.Fields("verify --key "+other+".pub "+cosign)...); err == nil {
			t.Errorf("cosign accepts another key\n%s", out)
		}
	}
}
