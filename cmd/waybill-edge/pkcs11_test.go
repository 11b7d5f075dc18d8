//go:build pkcs11key && cgo && linux

package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/fleet"
)

// A device whose key lies on a token (SoftHSM) lives through update, checkpoint, report, restart and rollback with it; when the
// token is taken away, what serves goes on serving, and doctor says what is missing.
func TestPKCS11Run(t *testing.T) {
	module := "/usr/lib/softhsm/libsofthsm2.so"
	if _, err := os.Stat(module); err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("softhsm2 is not installed")
		}
		t.Skip("softhsm2 is not installed")
	}
	dir := t.TempDir()
	tokens := filepath.Join(dir, "tokens")
	conf := filepath.Join(dir, "softhsm2.conf")
	pin := filepath.Join(dir, "pin")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{conf: "directories.tokendir = " + tokens + "\nobjectstore.backend = file\nlog.level = ERROR\n", pin: "1234\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("SOFTHSM2_CONF", conf)
	for _, args := range [][]string{
		{"softhsm2-util", "--init-token", "--free", "--label", "waybill", "--pin", "1234", "--so-pin", "5678"},
		{"pkcs11-tool", "--module", module, "--token-label", "waybill", "--login", "--pin", "1234", "--keypairgen", "--key-type", "EC:prime256v1", "--label", "device", "--id", "01"},
	} {
		if out, err := exec.CommandContext(t.Context(), edgetest.Tool(t, args[0]), args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	uri := "pkcs11:token=waybill;object=device?module-path=" + module + "&pin-source=file:" + pin
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(50 * time.Millisecond), MinRequests: 1000})
	// The same configuration for a device of its own, whose key is the token's.
	provision := filepath.Join(d.dir, "provisioning.json")
	out := filepath.Join(d.dir, "token")
	id, err := command1(t, "enroll", "--out", out, "--key", uri, "--provision", provision)
	if err != nil {
		t.Fatal(err)
	}
	id = strings.TrimSpace(id)
	d.cfg = filepath.Join(out, "config.json")
	if _, err := os.Stat(filepath.Join(out, "device.key")); err == nil {
		t.Error("a key was written beside the token's")
	}
	// Commands in processes of their own: the library reads its folder once in each.
	edge := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, edgeBinary(t), append([]string{args[0], "--config", d.cfg}, args[1:]...)...)
		cmd.Env = append(os.Environ(), "WAYBILL_EDGE_TEST_MAIN=1")
		raw, err := cmd.CombinedOutput()
		return string(raw), err
	}
	update := func(x artifact.Digest) {
		t.Helper()
		if text, err := edge("poll"); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		if got, err := d.infer(); err != nil || got != x {
			t.Fatalf("answers with %s, %v; want %s", got.Short(), err, x.Short())
		}
	}
	d.start()
	p.Publish(p.Change(v1))
	update(v1.Digest)
	p.Publish(p.Change(v2))
	update(v2.Digest)
	edgetest.Eventually(t, "a report that the token signed stands under the device's tag", func() bool {
		m, _, err := p.Repo.GetBounded(t.Context(), fleet.StatusTag("prod", id), artifact.MaxManifest)
		return err == nil && strings.Contains(string(m), evidence.TypeStatus)
	})
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	signed := func() {
		t.Helper()
		if text, err := edge("verify-journal"); err != nil || !strings.Contains(text, "of device "+id[:12]) || strings.Contains(text, " 0 checkpoints") {
			t.Fatalf("verify-journal: %v\n%s", err, text)
		}
	}
	signed()
	d.start()
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Fatalf("after a restart: %s, %v", got.Short(), err)
	}
	if text, err := edge("rollback"); err != nil {
		t.Fatalf("rollback: %v\n%s", err, text)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("after the rollback: %s, %v", got.Short(), err)
	}
	signed()
	// Somebody takes the token away.
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	if text, err := edge("poll"); err != nil {
		t.Logf("poll without the token: %v\n%s", err, text)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("without the token: %s, %v", got.Short(), err)
	}
	if text, err := edge("doctor", "--offline"); err == nil || !strings.Contains(text, "fail  key") {
		t.Errorf("doctor without the token: %v\n%s", err, text)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stop without the token: %v\n%s", err, d.log)
	}
	text, err := edge("status")
	if err != nil || !strings.Contains(text, "not verified") {
		t.Errorf("status without the token: %v\n%s", err, text)
	}
	// It is put back: the same device.
	if err := os.Remove(tokens); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("with the token back: %s, %v", got.Short(), err)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	signed()
	raw, err := fsx.ReadFile(fsx.OS{}, d.cfg, config.MaxSize)
	if err != nil || strings.Contains(string(raw), "1234") {
		t.Errorf("the PIN stands in the configuration: %v", err)
	}
}
