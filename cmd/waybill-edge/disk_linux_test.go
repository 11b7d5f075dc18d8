package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"golang.org/x/sys/unix"
)

// onTmpfs moves an enrolled device onto a file system of its own.
func onTmpfs(t *testing.T, d *edge, options string) (dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root to mount")
	}
	dir = filepath.Join(t.TempDir(), "disk")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if d.exit != nil {
			d.kill()
		}
		_ = unix.Unmount(dir, unix.MNT_DETACH)
	})
	if err := os.CopyFS(filepath.Join(dir, "edge"), os.DirFS(filepath.Dir(d.cfg))); err != nil {
		t.Fatal(err)
	}
	for name, mode := range map[string]os.FileMode{"edge": 0o700, "edge/device.key": 0o600} {
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	d.cfg = filepath.Join(dir, "edge", "config.json")
	return dir
}

// A disk that was remounted read-only for its errors: a restart serves what is on it.
func TestReadOnlyDisk(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1, v2 := p.Pack("v1"), p.Pack("v2")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	dir := onTmpfs(t, d, "size=64m,mode=700")
	d.start()
	p.Publish(p.Change(v1))
	if _, err := d.do("poll"); err != nil {
		t.Fatal(err)
	}
	// Read-only in the middle of its life: the update fails, what serves goes on.
	p.Publish(p.Change(v2))
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("no remount here: %v", err)
	}
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("on a read-only disk: %s, %v\n%s", got, err, d.log)
	}
	if err := d.stop(); err != nil {
		t.Errorf("stop: %v\n%s", err, d.log)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	d.start()
	if _, err := d.do("poll"); err != nil {
		t.Errorf("with a disk again: %v", err)
	}
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Errorf("with a disk again: %s, %v", got, err)
	}
}

// fill leaves no byte free in dir.
func fill(t *testing.T, dir string) (empty func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for b := make([]byte, 64<<10); len(b) > 0; {
		if _, err := f.Write(b); err != nil {
			b = b[:len(b)/2]
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

// A full disk: the update fails and the model before goes on; a rollback by hand works and is kept over a restart; with space the
// update comes.
func TestFullRealDisk(t *testing.T) {
	p := edgetest.NewPublisher(t)
	v1, v2, v3 := p.Pack("v1"), p.Pack("v2"), p.Pack("v3")
	d := enrolled(t, p, config.Trial{Duration: config.Duration(time.Millisecond)})
	dir := onTmpfs(t, d, "size=64m,mode=700")
	d.start()
	for _, v := range []artifact.Digest{v1.Digest, v2.Digest} {
		target := v1
		if v == v2.Digest {
			target = v2
		}
		p.Publish(p.Change(target))
		if _, err := d.do("poll"); err != nil {
			t.Fatal(err)
		}
	}
	empty := fill(t, dir)
	p.Publish(p.Change(v3))
	if _, err := d.do("poll"); err == nil {
		t.Error("an update on a full disk")
	}
	if got, err := d.infer(); err != nil || got != v2.Digest {
		t.Fatalf("on a full disk: %s, %v", got, err)
	}
	if out, err := d.do("rollback"); err != nil {
		t.Fatalf("rollback on a full disk: %v %s\n%s", err, out, d.log)
	}
	d.kill()
	d.start()
	if got, err := d.infer(); err != nil || got != v1.Digest {
		t.Fatalf("after a restart on a full disk: %s, %v\n%s", got, err, d.log)
	}
	empty()
	p.Publish(p.Change(v3))
	if _, err := d.do("poll"); err != nil {
		t.Errorf("with space again: %v\n%s", err, d.log)
	}
	if got, err := d.infer(); err != nil || got != v3.Digest {
		t.Errorf("with space again: %s, %v", got, err)
	}
}
