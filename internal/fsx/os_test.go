package fsx_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
)

func TestOSWriteFileAtomic(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state.json")
	for _, want := range []string{"one", "two, longer", ""} {
		if err := fsx.WriteFileAtomic(fsx.OS{}, path, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := fsx.ReadFile(fsx.OS{}, path, 100)
		if err != nil || string(got) != want {
			t.Fatalf("got %q, %v; want %q", got, err, want)
		}
	}
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1 {
		t.Fatalf("a temporary file was left: %v %v", es, err)
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, filepath.Join(dir, "none", "f"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("missing directory: got %v", err)
	}
}

// A failed rename (a directory stands in the way) leaves neither a partial file nor a temporary one.
func TestWriteFileAtomicFailureLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "child"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, path, []byte("x"), 0o600); err == nil {
		t.Fatal("replaced a directory")
	}
	es, _ := os.ReadDir(dir)
	if len(es) != 1 || es[0].Name() != "taken" {
		t.Fatalf("left behind: %v", es)
	}
}

func TestOS(t *testing.T) {
	o := fsx.OS{}
	dir := filepath.Join(t.TempDir(), "a", "b")
	if err := o.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, "f")
	f, err := o.Create(p, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := o.Create(p, 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second Create: %v", err)
	}
	if _, err := f.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close(), o.SyncDir(dir)); err != nil {
		t.Fatal(err)
	}
	a, err := o.OpenAppend(p, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write([]byte(" world")); err != nil {
		t.Fatal(err)
	}
	var b [11]byte
	if _, err := a.ReadAt(b[:], 0); err != nil || string(b[:]) != "hello world" {
		t.Fatalf("%q %v", b, err)
	}
	a.Close()
	if err := o.Rename(p, p+"2"); err != nil {
		t.Fatal(err)
	}
	if nf, err := o.Open(p); !errors.Is(err, fs.ErrNotExist) || nf != nil {
		t.Fatalf("Open of a missing file: %v %v", nf, err)
	}
	if n, err := o.FreeBytes(dir); err != nil || n == 0 {
		t.Fatalf("FreeBytes: %d %v", n, err)
	}
	if _, err := fsx.ReadFile(o, p+"2", 10); err == nil {
		t.Fatal("ReadFile passed its limit")
	}
	if got, err := fsx.ReadFile(o, p+"2", 11); err != nil || !bytes.Equal(got, b[:]) {
		t.Fatalf("%q %v", got, err)
	}
	if err := o.Remove(p + "2"); err != nil {
		t.Fatal(err)
	}
}
