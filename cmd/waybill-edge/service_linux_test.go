package main

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
)

// The unit is one that systemd takes, and leaves little to attack.
func TestSystemdUnit(t *testing.T) {
	analyze := edgetest.Tool(t, "systemd-analyze")
	raw, err := os.ReadFile("../../examples/systemd/waybill-edge.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify", "WatchdogSec=", "User=waybill", "NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet=\n", "MemoryDenyWriteExecute=no", "RestrictAddressFamilies="} {
		if !strings.Contains(string(raw), "\n"+line) {
			t.Errorf("%q is missing", line)
		}
	}
	unit := filepath.Join(t.TempDir(), "waybill-edge.service")
	exe, err := os.Executable() // verify wants a program that is there
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(unit, []byte(strings.ReplaceAll(string(raw), "/usr/bin/waybill-edge", exe)), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(analyze, "verify", "--man=no", unit)
	cmd.Env = append(os.Environ(), "SYSTEMD_LOG_LEVEL=warning")
	if out, err := cmd.CombinedOutput(); err != nil || strings.Contains(string(out), "waybill-edge.service") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	out, err := exec.Command(analyze, "security", "--offline=yes", unit).CombinedOutput()
	if err != nil {
		t.Skipf("this systemd-analyze does not judge files: %v", err)
	}
	m := regexp.MustCompile(`Overall exposure level for waybill-edge\.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("%s", out)
	}
	if level, err := strconv.ParseFloat(string(m[1]), 64); err != nil || level > 2 {
		t.Errorf("exposure %s, at most 2 is wanted\n%s", m[1], out)
	}
}

// The agent runs as a user without any rights, whom root can ask and nobody else can.
func TestRunsWithoutRights(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("every test runs without root then")
	}
	const user, other = 65534, 65533
	p := edgetest.NewPublisher(t)
	v1 := p.Pack("v1")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(50e6), MinRequests: 1000})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	exe := filepath.Join(d.dir, "waybill-edge") // where that user may go
	if err := os.WriteFile(exe, raw, 0o755); err != nil {
		t.Fatal(err)
	}
	home := filepath.Dir(d.cfg)
	err = filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, user, user)
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := d.dir; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid uint32, args ...string) *exec.Cmd {
		cmd := exec.Command(exe, args...)
		cmd.Dir = d.dir
		cmd.Env = []string{"WAYBILL_EDGE_TEST_MAIN=1", "PATH=/nowhere", "HOME=/nowhere"}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd
	}
	d.run(as(user, "run", "--config", d.cfg))
	p.Publish(p.Change(v1))
	if out, err := d.do("poll"); err != nil {
		t.Fatalf("root asks: %v\n%s\n%s", err, out, d.log)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Errorf("%s answers, %v", got, err)
	}
	if out, err := as(user, "status", "--config", d.cfg).CombinedOutput(); err != nil || !strings.Contains(string(out), "committed") {
		t.Errorf("its own user asks: %v\n%s", err, out)
	}
	if out, err := as(other, "status", "--config", d.cfg).CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") || !strings.Contains(string(out), " waybill-edge status --config "+d.cfg) {
		t.Errorf("another user asks: %v\n%s", err, out)
	}
	// With directory and configuration opened up the socket still keeps others out, and with its mode opened too the agent does.
	for _, open := range []string{home, filepath.Join(home, "state"), d.cfg} {
		if err := os.Chmod(open, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		out, err := as(other, "poll", "--config", d.cfg).CombinedOutput()
		if err == nil {
			t.Errorf("another user gave an order: %s", out)
		}
		if err := os.Chmod(filepath.Join(home, "state", "control.sock"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := as(user, "doctor", "--config", d.cfg, "--offline").CombinedOutput(); err == nil || !strings.Contains(string(out), "chmod 700") {
		t.Errorf("the doctor sees the open directory: %v\n%s", err, out)
	}
	if err := d.stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(d.log.String(), "another user asked on the control socket") {
		t.Errorf("the log does not tell of the stranger:\n%s", d.log)
	}
}
