package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// emulator is the program that runs binaries of another architecture here.
func emulator(t *testing.T, qemu string) string {
	t.Helper()
	for _, name := range []string{"qemu-" + qemu + "-static", "qemu-" + qemu} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatalf("qemu-%s-static is not installed", qemu)
	return ""
}

// TestOtherMachines runs the whole way on other processors under emulation: enroll, follow a signed channel, take a model and
// the next one, answer the same bits, go back, check the journal. On arm64 models are compiled, on the others interpreted.
func TestOtherMachines(t *testing.T) {
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") == "" {
		t.Skip("builds for three other platforms, which takes minutes: set WAYBILL_REQUIRE_TOOLS=1")
	}
	for _, m := range []struct{ goarch, qemu string }{{"arm64", "aarch64"}, {"arm", "arm"}, {"riscv64", "riscv64"}} {
		t.Run(m.goarch, func(t *testing.T) {
			emu := emulator(t, m.qemu)
			exe := filepath.Join(t.TempDir(), "waybill-edge")
			build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, ".")
			build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+m.goarch, "CGO_ENABLED=0")
			if out, err := build.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			p := edgetest.NewPublisher(t)
			v1, v2 := p.Pack("v1"), p.Pack(weighted+"1")
			trial := config.Trial{Duration: config.Duration(1), MinRequests: 5, MaxErrorRate: 0.01}

			here := enrolled(t, p, trial)
			there := enrolled(t, p, trial)
			there.exe = []string{emu, exe}
			dir := filepath.Dir(there.cfg)
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			emulated := func(args ...string) string {
				t.Helper()
				var stderr bytes.Buffer
				cmd := exec.CommandContext(t.Context(), emu, append([]string{exe}, args...)...)
				cmd.Stderr = &stderr
				out, err := cmd.Output()
				if err != nil {
					t.Fatalf("%v: %v\n%s\n%s", args, err, out, &stderr)
				}
				return string(out)
			}
			if got := emulated("version"); !strings.Contains(got, "linux/"+m.goarch) {
				t.Fatalf("this runs here: %s", got)
			}
			emulated("enroll", "--out", dir, "--label", "site=a", "--provision", filepath.Join(there.dir, "provisioning.json"))
			here.start()
			there.start()
			for _, v := range []struct {
				target string
				input  string
			}{{"v1", "X"}, {"weighted", "x"}} {
				target := v1
				if v.target != "v1" {
					target = v2
				}
				p.Publish(p.Change(target))
				if _, err := here.do("poll"); err != nil {
					t.Fatal(err)
				}
				emulated("poll", "--config", there.cfg)
				for n := range 3 {
					a, err := here.predictAs(v.input, n)
					if err != nil {
						t.Fatal(err)
					}
					b, err := there.predictAs(v.input, n)
					if err != nil {
						t.Fatalf("%v\n%s", err, there.log)
					}
					if a != b {
						t.Errorf("%s, row %d: %s here, %s there", v.target, n, a, b)
					}
				}
			}
			if got := strings.TrimSpace(emulated("rollback", "--config", there.cfg)); got != string(v1.Digest) {
				t.Errorf("rollback to %s", got)
			}
			if got, err := there.infer(); err != nil || got != v1.Digest {
				t.Errorf("after the rollback: %s, %v", got, err)
			}
			if err := there.stop(); err != nil {
				t.Errorf("SIGTERM: %v\n%s", err, there.log)
			}
			there.start() // and from what it has written, with the files hashed
			if got, err := there.infer(); err != nil || got != v1.Digest {
				t.Errorf("after a restart: %s, %v", got, err)
			}
			if err := there.stop(); err != nil {
				t.Errorf("SIGTERM: %v\n%s", err, there.log)
			}
			emulated("verify-journal", "--config", there.cfg)
		})
	}
}
