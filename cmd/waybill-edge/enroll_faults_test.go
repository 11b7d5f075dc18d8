package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"sync"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/enroll"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// Two enrolments of one folder at once are one device.
func TestEnrollAtOnce(t *testing.T) {
	out := filepath.Join(t.TempDir(), "edge")
	var wg sync.WaitGroup
	ids := make([]string, 4)
	for i := range ids {
		wg.Go(func() {
			id, err := command1(t, "enroll", "--out", out, "--class", "edge-s", "--label", fmt.Sprint("n=", i))
			if err != nil {
				t.Error(err)
			}
			ids[i] = id
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || len(strings.TrimSpace(id)) != 64 {
			t.Errorf("%q", ids)
		}
	}
}

// What would make another device of one, or give it to somebody else, is refused.
func TestEnrollRefuses(t *testing.T) {
	p := edgetest.NewPublisher(t)
	g := closeRegistry(t, p, "x")
	dir := t.TempDir()
	out := filepath.Join(dir, "edge")
	enrollAs := func(args ...string) error {
		_, err := command1(t, append([]string{"enroll", "--out", out}, args...)...)
		return err
	}
	if err := enrollAs("--class", "edge-s"); err != nil {
		t.Fatal(err)
	}
	want := func(what string, err error, code diag.Code, part string) {
		t.Helper()
		if diag.CodeOf(err) != code || !strings.Contains(err.Error(), part) {
			t.Errorf("%s: code %d, %v; want %d and %q", what, diag.CodeOf(err), err, code, part)
		}
	}
	want("the file of another device", enrollAs("--provision", g.provision(t, p, dir, func(x *config.Provisioning) { x.Device = strings.Repeat("a", 64) })), diag.Usage, "is for device aaaaaaaaaaaa")
	want("a key on a token", enrollAs("--key", "pkcs11:token=t;object=o"), diag.Usage, "pkcs11")
	want("a key in a TPM", enrollAs("--key", "tpm:0x81000001"), diag.Usage, "tpm2-pkcs11")
	want("a PIN in the configuration", enrollAs("--key", "pkcs11:token=t;object=o?pin-value=1234"), diag.Usage, "pin-source")
	want("a key file by name", enrollAs("--provision", g.provision(t, p, dir, func(x *config.Provisioning) { x.Key = "other.key" })), diag.Usage, "is not the URI of a token")
	if _, err := os.Stat(filepath.Join(out, enroll.ConfigFile)); err == nil {
		t.Error("a configuration was written")
	}
	key := filepath.Join(out, enroll.KeyFile)
	if err := os.Rename(key, key+".away"); err != nil {
		t.Fatal(err)
	}
	want("the key is gone", enrollAs(), diag.Failure, "is gone")
	if err := os.Rename(key+".away", key); err != nil {
		t.Fatal(err)
	}
	if err := enrollAs(); err != nil {
		t.Errorf("what the device said before is enough: %v", err)
	}
	other := filepath.Join(dir, "other")
	if _, err := command1(t, "enroll", "--out", other, "--class", "edge-s"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(other, enroll.KeyFile))
	if err == nil {
		err = os.WriteFile(key, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	want("the key of another device", enrollAs(), diag.Usage, "is that of device")
	if goruntime.GOOS == "windows" {
		return
	}
	if err := os.Chmod(other, 0o777); err != nil {
		t.Fatal(err)
	}
	out = other
	want("a folder that others may write to", enrollAs(), diag.Failure, "chmod 700")
	if os.Geteuid() == 0 {
		if err := errors.Join(os.Chmod(other, 0o700), os.Chown(other, 12345, -1)); err != nil {
			t.Fatal(err)
		}
		want("a folder of somebody else", enrollAs(), diag.Failure, "belongs to user 12345")
	}
}
