//go:build unix

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/edge-runtime/doctor"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/ui"
)

// healthy is a machine on which every check is content.
func healthy() doctor.System {
	return doctor.System{
		Disk: func(string) (doctor.DiskFacts, error) {
			return doctor.DiskFacts{Kind: "ext4", Free: 1 << 30, Total: 1 << 34, Inodes: 1 << 20, InodesTotal: 1 << 21}, nil
		},
		Write:  func(string) error { return nil },
		Synced: func() (bool, bool) { return true, true },
		RTC:    func() (bool, bool) { return true, true },
		Limits: func(int) doctor.LimitFacts {
			return doctor.LimitFacts{Descriptors: 65536, Memory: 1 << 32, MemoryBy: "a test"}
		},
		Engine: func(context.Context, engine.Mode) (engine.Mode, error) { return engine.Compiler, nil },
		Total:  func() (uint64, bool) { return 1 << 33, true },
	}
}

func certificate(t *testing.T, file string, ends time.Time) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Unix(0, 0), NotAfter: ends}
	der, err := x509.CreateCertificate(rand.Reader, tpl, tpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each check is broken once, on a device that passes all of them.
func TestDoctorFindsWhatIsBroken(t *testing.T) {
	p := edgetest.NewPublisher(t)
	p.Doc.Expires = p.Now.Add(60 * 24 * time.Hour)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(100 * time.Millisecond), MinRequests: 1000})
	d.start()
	for _, v := range []int{1, 2} {
		target := v1
		if v == 2 {
			target = v2
		}
		p.Publish(p.Change(target))
		if _, err := d.do("poll"); err != nil {
			t.Fatal(err)
		}
	}
	home := filepath.Dir(d.cfg)
	dir := filepath.Join(home, "state")
	diagnose := func(edit func(*doctor.Doctor)) *doctor.Diagnosis {
		x := doctor.New(d.cfg)
		x.Sys = healthy()
		if edit != nil {
			edit(x)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		before := contents(t, home)
		out, err := x.Diagnose(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if after := contents(t, home); after != before && !out.AgentRunning { // an agent that runs writes what it has to write
			t.Errorf("the doctor changed something:\n%s\n%s", before, after)
		}
		return out
	}
	find := func(x *doctor.Diagnosis, check string, v doctor.Verdict) *doctor.Finding {
		for i, f := range x.Checks {
			if f.Check == check && f.Status == v {
				return &x.Checks[i]
			}
		}
		return nil
	}
	for _, f := range diagnose(nil).Checks {
		if f.Status != doctor.Good && f.Check != "watchdog" {
			t.Errorf("the agent runs: %+v", f)
		}
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Load(d.cfg)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := state.ReadOnly(fsx.OS{}, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range diagnose(nil).Checks {
		if f.Status != doctor.Good && f.Check != "agent" {
			t.Errorf("the agent is down: %+v", f)
		}
	}
	newest := filepath.Join(dir, "state."+lastState(t, dir))
	module := blobFile(t, dir, v2.Digest.Hex())
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	chmod := func(name string, mode os.FileMode) func() func() {
		return func() func() {
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(name, mode); err != nil {
				t.Fatal(err)
			}
			return func() { _ = os.Chmod(name, info.Mode().Perm()) }
		}
	}
	edit := func(name string, change func([]byte) []byte) func() func() {
		return func() func() {
			raw, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(name)
			if err != nil {
				t.Fatal(err)
			}
			put := func(b []byte) {
				_ = os.Chmod(name, 0o600)
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
				_ = os.Chmod(name, info.Mode().Perm())
			}
			put(change(bytes.Clone(raw)))
			return func() { put(raw) }
		}
	}
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	configure := func(change func(*config.Config)) func() func() {
		return edit(d.cfg, func(b []byte) []byte {
			var c config.Config
			if err := json.Unmarshal(b, &c); err != nil {
				t.Fatal(err)
			}
			change(&c)
			out, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			return out
		})
	}
	machine := func(change func(*doctor.System)) func(*doctor.Doctor) {
		return func(x *doctor.Doctor) { change(&x.Sys) }
	}
	disk := func(change func(*doctor.DiskFacts)) func(*doctor.Doctor) {
		return machine(func(s *doctor.System) {
			f, _ := s.Disk("")
			change(&f)
			s.Disk = func(string) (doctor.DiskFacts, error) { return f, nil }
		})
	}
	old := filepath.Join(home, "old.pem")
	certificate(t, old, time.Now().Add(-time.Hour))
	ending := filepath.Join(home, "ending.pem")
	certificate(t, ending, time.Now().Add(48*time.Hour))
	for _, c := range []struct {
		name   string
		breaks func() func()
		with   func(*doctor.Doctor)
		check  string
		status doctor.Verdict
		what   string
	}{
		{"configuration that is no JSON", edit(d.cfg, func(b []byte) []byte { return b[:len(b)/2] }), nil, "config", doctor.Bad, ""},
		{"configuration that others may write", chmod(d.cfg, 0o666), nil, "config", doctor.Bad, "0666"},
		{"key that others may read", chmod(cfg.Key, 0o644), nil, "key", doctor.Bad, "may be read by others"},
		{"key that is no key", edit(cfg.Key, flip), nil, "key", doctor.Bad, ""},
		{"trust document altered", edit(cfg.Trust.File, flip), nil, "trust", doctor.Bad, ""},
		{"trust document about to expire", nil, func(x *doctor.Doctor) { x.Now = x.Now.Add(50 * 24 * time.Hour) }, "trust", doctor.Doubt, "expires in"},
		{"trust document expired", nil, func(x *doctor.Doctor) { x.Now = x.Now.Add(61 * 24 * time.Hour) }, "trust", doctor.Doubt, "expired"},
		{"clock behind", nil, func(x *doctor.Doctor) { x.Now = x.Now.Add(-50 * time.Hour) }, "clock", doctor.Doubt, "behind the last signed time"},
		{"clock not synchronised", nil, machine(func(s *doctor.System) { s.Synced = func() (bool, bool) { return false, true } }), "clock sync", doctor.Doubt, ""},
		{"no real-time clock", nil, machine(func(s *doctor.System) { s.RTC = func() (bool, bool) { return false, true } }), "clock rtc", doctor.Doubt, ""},
		{"state directory open to others", chmod(dir, 0o755), nil, "state dir", doctor.Bad, "0755"},
		{"read-only disk", nil, disk(func(f *doctor.DiskFacts) { f.ReadOnly = true }), "disk", doctor.Bad, "read-only"},
		{"FAT", nil, disk(func(f *doctor.DiskFacts) { f.Kind, f.NoLocks = "vfat", true }), "disk", doctor.Bad, "vfat"},
		{"NFS", nil, disk(func(f *doctor.DiskFacts) { f.Kind, f.Network = "nfs", true }), "disk", doctor.Doubt, "network"},
		{"state in memory", nil, disk(func(f *doctor.DiskFacts) { f.Kind, f.VolatileMemory = "tmpfs", true }), "disk", doctor.Doubt, "memory"},
		{"disk that does not sync", nil, machine(func(s *doctor.System) {
			s.Write = func(string) error { return errors.New("fsync: input/output error") }
		}), "disk write", doctor.Bad, "fsync"},
		{"full disk", nil, disk(func(f *doctor.DiskFacts) { f.Free = 1000 }), "disk space", doctor.Bad, "1.0 kB free"},
		{"nearly full disk", nil, disk(func(f *doctor.DiskFacts) { f.Free = 10 << 20 }), "disk space", doctor.Doubt, ""},
		{"no inodes", nil, disk(func(f *doctor.DiskFacts) { f.Inodes = 3 }), "disk inodes", doctor.Bad, ""},
		{"newest state document damaged", edit(newest, flip), nil, "state", doctor.Doubt, "checksum"},
		{"record that is stale", nil, func(x *doctor.Doctor) { x.Now = x.Now.Add(10 * 24 * time.Hour) }, "record prod", doctor.Doubt, "STALE"},
		{"accepted record altered", edit(filepath.Join(dir, "blobs", "sha256", doc.Channels["prod"].Record.Hex()), flip), nil, "record prod", doctor.Bad, "does not match its digest"},
		{"module altered", edit(module, flip), nil, "files prod", doctor.Bad, "does not match its digest"},
		{"former manifest gone", func() func() { return gone(t, filepath.Join(dir, "blobs", "sha256", v1.Digest.Hex())) }, nil, "files prod", doctor.Doubt, "no such file"},
		{"journal altered", edit(config.JournalPath(cfg), func(b []byte) []byte { return bytes.Replace(b, []byte(`"seq":1`), []byte(`"seq":7`), 1) }), nil, "journal", doctor.Bad, "damaged"},
		{"journal half-written", edit(config.JournalPath(cfg), func(b []byte) []byte { return append(b, "0000"...) }), nil, "journal", doctor.Doubt, "being written"},
		{"journal put aside", func() func() {
			f := config.JournalPath(cfg) + ".damaged-1"
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			return func() { _ = os.Remove(f) }
		}, nil, "journal", doctor.Doubt, "put aside"},
		{"cache that others may write", chmod(filepath.Join(dir, "cache"), 0o777), nil, "compile cache", doctor.Bad, "0777"},
		{"cache secret that others may read", chmod(filepath.Join(dir, "cache.secret"), 0o644), nil, "compile cache", doctor.Bad, "0644"},
		{"registry gone", nil, func(x *doctor.Doctor) {
			x.Reach = func(context.Context, *config.Channel, config.Carrier) (string, error) {
				return "", diag.Wrap(diag.Registry, syscall.ECONNREFUSED, "HEAD")
			}
		}, "carrier prod", doctor.Bad, "refused"},
		{"registry at a port where nobody listens", configure(func(c *config.Config) { c.Channels[0].Registry = "127.0.0.1:1" }), nil, "carrier prod", doctor.Bad, ""},
		{"folder that nobody has brought", configure(func(c *config.Config) {
			c.Channels[0].Registry, c.Channels[0].Repo = "", ""
			c.Channels[0].Carriers = []config.Carrier{{Folder: filepath.Join(home, "stick")}}
		}), nil, "carrier prod", doctor.Skipped, "not there now"},
		{"a maintenance window", configure(func(c *config.Config) { c.Windows, c.Timezone = []string{"Mon-Sun 00:00-24:00"}, "UTC" }), nil, "windows prod", doctor.Good, "open now"},
		{"window of the channel that is closed now", configure(func(c *config.Config) { c.Channels[0].Windows, c.Channels[0].Timezone = closedNow(), "UTC" }), nil, "windows prod", doctor.Good, "the next opens in"},
		{"window while the clock is behind", configure(func(c *config.Config) { c.Windows = []string{"02:00-05:00"} }), func(x *doctor.Doctor) { x.Now = x.Now.Add(-50 * time.Hour) }, "windows prod", doctor.Doubt, "behind the last signed time"},
		{"window that cannot be read", configure(func(c *config.Config) { c.Windows = []string{"Moon 02:00-05:00"} }), nil, "config", doctor.Bad, "is no day"},
		{"time zone that is not there", configure(func(c *config.Config) {
			c.Windows, c.Timezone = []string{"02:00-05:00"}, "Nowhere/At_All"
		}), nil, "windows prod", doctor.Bad, "does not know it"},
		{"bandwidth that is no number", edit(d.cfg, func(b []byte) []byte { return bytes.Replace(b, []byte("{"), []byte(`{"bandwidth":"fast",`), 1) }), nil, "config", doctor.Bad, "is not a number of bytes"},
		{"bandwidth", configure(func(c *config.Config) { c.Bandwidth = 512_000 }), nil, "bandwidth prod", doctor.Good, "512 kB/s"},
		{"an update that takes weeks", configure(func(c *config.Config) {
			c.Channels[0].Bandwidth, c.Windows = 1000, []string{"Mon 02:00-02:01"}
		}), nil, "bandwidth prod", doctor.Doubt, "takes"},
		{"port in use", configure(func(c *config.Config) { c.Listen = busy.Addr().String() }), nil, "port", doctor.Bad, "in use"},
		{"client certificate expired", configure(func(c *config.Config) { c.Channels[0].ClientCert = old }), func(x *doctor.Doctor) { x.Offline = true }, "certificate", doctor.Bad, "expired"},
		{"authority about to end", configure(func(c *config.Config) { c.Channels[0].CAFile = ending }), func(x *doctor.Doctor) { x.Offline = true }, "certificate", doctor.Doubt, "ends on"},
		{"file that holds no certificate", configure(func(c *config.Config) { c.Channels[0].CAFile = c.Key }), func(x *doctor.Doctor) { x.Offline = true }, "certificate", doctor.Bad, "no certificate"},
		{"no compiled code", nil, machine(func(s *doctor.System) {
			s.Engine = func(context.Context, engine.Mode) (engine.Mode, error) { return engine.Interpreter, nil }
		}), "engine", doctor.Doubt, "interpreted"},
		{"compiler demanded and not allowed", nil, machine(func(s *doctor.System) {
			s.Engine = func(context.Context, engine.Mode) (engine.Mode, error) {
				return 0, errors.New("mprotect: permission denied")
			}
		}), "engine", doctor.Bad, "mprotect"},
		{"few descriptors", nil, machine(func(s *doctor.System) {
			s.Limits = func(int) doctor.LimitFacts { return doctor.LimitFacts{Descriptors: 256} }
		}), "descriptors", doctor.Doubt, "256"},
		{"little memory", nil, machine(func(s *doctor.System) {
			s.Limits = func(int) doctor.LimitFacts {
				return doctor.LimitFacts{Memory: 100 << 20, MemoryBy: "the control group /x"}
			}
		}), "memory", doctor.Doubt, "105 MB"},
		{"hardly any memory", nil, machine(func(s *doctor.System) {
			s.Limits = func(int) doctor.LimitFacts { return doctor.LimitFacts{Memory: 10 << 20, MemoryBy: "x"} }
		}), "memory", doctor.Bad, ""},
		{"state of another device", func() func() {
			return edit(cfg.Key, func([]byte) []byte { return otherKey(t) })()
		}, nil, "state", doctor.Bad, "belongs to device"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.breaks != nil {
				defer c.breaks()()
			}
			x := diagnose(c.with)
			f := find(x, c.check, c.status)
			if f == nil || !strings.Contains(f.What, c.what) {
				t.Errorf("%s %s with %q is missing in %+v", c.check, c.status, c.what, x.Checks)
			}
			var b bytes.Buffer
			if err := doctor.Print(&b, x.Checks, 100); err != nil {
				t.Fatal(err)
			}
			for l := range strings.Lines(b.String()) {
				if ui.Width(strings.TrimSuffix(l, "\n")) > 100 {
					t.Errorf("%d columns: %s", ui.Width(l), l)
				}
			}
		})
	}
	// As a command, also without a network: it fails exactly when something is broken.
	out, err := command1(t, "doctor", "--config", d.cfg, "--offline", "--output", "json")
	if got := diag.CodeOf(err); got != diag.OK && !strings.Contains(out, `"status": "fail"`) {
		t.Errorf("exit code %d: %v\n%s", got, err, out)
	}
	var x doctor.Diagnosis
	if err := json.Unmarshal([]byte(out), &x); err != nil || x.Schema != doctor.Schema || len(x.Checks) < 15 || x.AgentRunning {
		t.Errorf("%v: %s", err, out)
	}
	undo := edit(module, flip)()
	defer undo()
	out, err = command1(t, "doctor", "--config", d.cfg, "--offline")
	if diag.CodeOf(err) != diag.Failure || !strings.Contains(out, "fail  files prod") || !strings.Contains(out, "help: waybill-edge rollback") {
		t.Errorf("with a broken file: %v\n%s", err, out)
	}
}

func lastState(t *testing.T, dir string) string {
	t.Helper()
	docs, err := filepath.Glob(filepath.Join(dir, "state.0*"))
	if err != nil || len(docs) == 0 {
		t.Fatalf("%v, %v", docs, err)
	}
	return strings.TrimPrefix(filepath.Base(docs[len(docs)-1]), "state.")
}

// blobFile is the largest layer that the manifest names.
func blobFile(t *testing.T, dir, manifest string) string {
	t.Helper()
	blobs := filepath.Join(dir, "blobs", "sha256")
	raw, err := os.ReadFile(filepath.Join(blobs, manifest))
	if err != nil {
		t.Fatal(err)
	}
	es, err := os.ReadDir(blobs)
	if err != nil {
		t.Fatal(err)
	}
	best, size := "", int64(0)
	for _, e := range es {
		if info, err := e.Info(); err == nil && bytes.Contains(raw, []byte(e.Name())) && info.Size() > size {
			best, size = filepath.Join(blobs, e.Name()), info.Size()
		}
	}
	return best
}

func gone(t *testing.T, file string) func() {
	t.Helper()
	if err := os.Rename(file, file+".aside"); err != nil {
		t.Fatal(err)
	}
	return func() { _ = os.Rename(file+".aside", file) }
}

func otherKey(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	if _, err := command1(t, "enroll", "--out", dir, "--class", "x"); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "device.key"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// closedNow is a window of an hour that begins in twelve hours.
func closedNow() []string {
	h := (time.Now().UTC().Hour() + 12) % 24
	return []string{fmt.Sprintf("%02d:00-%02d:00", h, h+1)}
}
