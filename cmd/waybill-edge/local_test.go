package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
	policydevice "github.com/waybill-ml/waybill/policy/device"
)

// examplePolicy compiles examples/device-policy as `waybill policy pack --device` does.
func examplePolicy(t *testing.T) *policydevice.Module {
	t.Helper()
	b, err := bundle.FromFS(os.DirFS("../../examples/device-policy"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := policydevice.Compile(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// host is a folder that looks to waybill-edge like /proc and /sys of a device.
func host(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for n, c := range files {
		n = filepath.Join(dir, filepath.FromSlash(n))
		if err := os.MkdirAll(filepath.Dir(n), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(n, []byte(c), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func (d *edge) configure(edit func(c *config.Config)) {
	d.t.Helper()
	c, err := config.Load(d.cfg)
	if err != nil {
		d.t.Fatal(err)
	}
	edit(c)
	raw, err := artifact.Canonical(c)
	if err == nil {
		err = os.WriteFile(d.cfg, raw, 0o600)
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// The example policy on a device with a real process: it waits at 12 % of battery, downloads at 80 %, and activates when there is
// memory for the model; a restart serves what it had; a policy that nobody pinned, or that is broken, allows nothing.
func TestDevicePolicy(t *testing.T) {
	p := edgetest.NewPublisher(t)
	m := examplePolicy(t)
	p.Doc.Policies = append(p.Doc.Policies, m.Digest)
	d := enrolled(t, p, config.Trial{Duration: config.Duration(10 * time.Millisecond), MinRequests: 1000, MaxErrorRate: 0.5})
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	p.Publish(p.Change(v1))
	d.start()
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err, d.log)
	}
	if err := d.stop(); err != nil && !strings.Contains(err.Error(), "killed") {
		t.Fatal(err)
	}

	bat := "sys/class/power_supply/BAT0/"
	root := host(t, map[string]string{
		bat + "type": "Battery", bat + "capacity": "12", bat + "status": "Discharging",
		"proc/meminfo":   "",
		"proc/net/route": "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\neth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0\n", "sys/class/net/eth0/operstate": "up",
	})
	file := filepath.Join(filepath.Dir(d.cfg), "device-policy.wasm")
	write := func(code []byte) {
		t.Helper()
		if err := os.WriteFile(file, code, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(m.Code)
	d.configure(func(c *config.Config) {
		c.DevicePolicy, c.Sensors = "device-policy.wasm", config.Sensors{Root: root, Metered: []string{}}
		c.Labels["hours"] = "any" // whatever the clock says while this test runs
	})
	p.Publish(p.Change(v2))

	waits := func(why string) {
		t.Helper()
		out, err := d.do("poll")
		if err != nil || !strings.Contains(out, "waiting: prod v2") || !strings.Contains(strings.Join(strings.Fields(out), " "), why) {
			t.Fatalf("poll: %v\n%s\n%s", err, out, d.log)
		}
		if _, reason, ok := strings.Cut(why, ": "); ok {
			why = reason
		}
		c := d.status()
		if c.Waiting == nil || c.Waiting.Slot.Digest != v2.Digest || !strings.Contains(c.Waiting.Reason, why) || c.Current.Digest != v1.Digest || len(c.Quarantine) != 0 || c.LastRefusal != nil {
			t.Fatalf("status %+v", c)
		}
		if got, err := d.infer(); err != nil || got != v1.Digest {
			t.Fatalf("while it waits %s answers, %v", got, err)
		}
	}
	restart := func() {
		t.Helper()
		if err := d.stop(); err != nil && !strings.Contains(err.Error(), "killed") {
			t.Fatal(err)
		}
		d.start()
	}
	set := func(name, value string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, filepath.FromSlash(bat+name)), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	memory := func(free int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, "proc", "meminfo"), fmt.Appendf(nil, "MemTotal: 8000000 kB\nMemAvailable: %d kB\n", free), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d.start()
	waits("download: battery 12 %, needs 30 % or mains")
	restart()
	waits("download: battery 12 %")
	set("status", "?") // neither charging nor discharging: on mains, as far as anybody can tell, but 12 % stay 12 %
	set("status", "Unknown")
	waits("download: neither battery nor power supply can be read")

	planted := append([]byte(nil), m.Code...)
	planted = append(planted, 0, 2, 1, 'x') // a custom section: the same policy, another digest
	write(planted)
	restart()
	waits("does not pin the policy of this device")
	write([]byte("no module"))
	restart()
	waits("the device policy can't be used")
	write(m.Code)
	restart()

	set("status", "Discharging")
	set("capacity", "80")
	memory(1000)
	waits("activate: the model needs")
	memory(6000000)
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err, d.log)
	}
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Fatalf("%s answers, %v", got, err)
	}
	// Going back never waits.
	set("capacity", "1")
	if _, err := d.do("rollback"); err != nil {
		t.Fatal(err)
	}
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("after the rollback %s answers, %v", got, err)
	}
}

func TestEnrollDevicePolicy(t *testing.T) {
	p := edgetest.NewPublisher(t)
	m := examplePolicy(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "p.wasm")
	if err := os.WriteFile(file, m.Code, 0o600); err != nil {
		t.Fatal(err)
	}
	d := enrolled(t, p, config.Trial{})
	out := filepath.Join(dir, "edge")
	prov := filepath.Join(d.dir, "provisioning.json")
	if _, err := command1(t, "enroll", "--out", out, "--provision", prov, "--device-policy", file); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(filepath.Join(out, "config.json"))
	if err != nil || c.DevicePolicy != filepath.Join(out, "device-policy.wasm") {
		t.Fatalf("%v %q", err, c.DevicePolicy)
	}
	if raw, err := os.ReadFile(c.DevicePolicy); err != nil || artifact.DigestOf(raw) != m.Digest {
		t.Errorf("copied policy: %v", err)
	}
	raw, err := os.ReadFile(prov)
	if err != nil {
		t.Fatal(err)
	}
	with := strings.Replace(string(raw), `"class":"edge-s"`, `"class":"edge-s","device_policy":"p.wasm","sensors":{"root":"/host","metered":[]}`, 1)
	if err := os.WriteFile(filepath.Join(dir, "provisioning.json"), []byte(with), 0o600); err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(dir, "edge2")
	if _, err := command1(t, "enroll", "--out", second, "--provision", filepath.Join(dir, "provisioning.json")); err != nil {
		t.Fatal(err)
	}
	c, err = config.Load(filepath.Join(second, "config.json"))
	if err != nil || c.DevicePolicy == "" || c.Sensors.Root != "/host" || c.Sensors.Metered == nil {
		t.Errorf("%v %+v", err, c)
	}
	if _, err := command1(t, "enroll", "--out", filepath.Join(dir, "edge3"), "--provision", prov, "--device-policy", filepath.Join(dir, "nowhere")); err == nil {
		t.Error("a policy that is not there is accepted")
	}
	bad := strings.Replace(with, `"metered":[]`, `"metered":["["]`, 1)
	if err := os.WriteFile(filepath.Join(dir, "provisioning.json"), []byte(bad), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := command1(t, "enroll", "--out", filepath.Join(dir, "edge4"), "--provision", filepath.Join(dir, "provisioning.json")); err == nil || !strings.Contains(err.Error(), "sensors.metered") {
		t.Errorf("a broken pattern: %v", err)
	}
}
