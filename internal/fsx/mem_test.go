package fsx

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"syscall"
	"testing"
)

func write(t *testing.T, fsys FS, name, data string, sync bool) {
	t.Helper()
	f, err := fsys.Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte(data)); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, fsys FS, name string) (string, error) {
	t.Helper()
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	return string(b), err
}

func rng(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

func TestMemPowerCut(t *testing.T) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m := NewMem()
	must(m.MkdirAll("a/b", 0o700))
	must(m.SyncDir("."))
	must(m.SyncDir("a"))
	write(t, m, "a/b/named", "synced", true)
	must(m.SyncDir("a/b"))
	write(t, m, "a/b/unnamed", "data synced, name not", true)
	write(t, m, "a/b/neither", "nothing synced", false)

	c := m.CrashClone(0, rng(1))
	if got, err := read(t, c, "a/b/named"); err != nil || got != "synced" {
		t.Errorf("synced file after a power cut: %q, %v", got, err)
	}
	for _, n := range []string{"a/b/unnamed", "a/b/neither"} {
		if _, err := c.Stat(n); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s survived without SyncDir: %v", n, err)
		}
	}
	must(m.SyncDir("a/b"))
	c = m.CrashClone(0, rng(1))
	if got, _ := read(t, c, "a/b/unnamed"); got != "data synced, name not" {
		t.Errorf("after SyncDir: %q", got)
	}
	if got, err := read(t, c, "a/b/neither"); err != nil || got != "" {
		t.Errorf("unsynced data survived at 0 %%: %q, %v", got, err)
	}
	if got, _ := read(t, m.CrashClone(100, rng(1)), "a/b/neither"); got != "nothing synced" {
		t.Errorf("unsynced data lost at 100 %%: %q", got)
	}

	// A rename is whole or not at all, and old names stay until SyncDir.
	must(m.Rename("a/b/unnamed", "a/b/named"))
	seen := map[string]bool{}
	for seed := range uint64(50) {
		c := m.CrashClone(50, rng(seed))
		got, err := read(t, c, "a/b/named")
		if err != nil {
			t.Fatalf("rename lost both files: %v", err)
		}
		_, oldErr := c.Stat("a/b/unnamed")
		if (got == "synced") != (oldErr == nil) {
			t.Fatalf("half a rename: named=%q, old name: %v", got, oldErr)
		}
		seen[got] = true
	}
	if len(seen) != 2 {
		t.Errorf("50 %% gave only %v", seen)
	}
	must(m.SyncDir("a/b"))
	if got, _ := read(t, m.CrashClone(0, rng(1)), "a/b/named"); got != "data synced, name not" {
		t.Errorf("synced rename lost: %q", got)
	}
	must(m.Remove("a/b/named"))
	if _, err := m.CrashClone(0, rng(1)).Stat("a/b/named"); err != nil {
		t.Errorf("unsynced remove was durable: %v", err)
	}
	m.IgnoreSyncs(true)
	must(m.SyncDir("a/b"))
	if _, err := m.CrashClone(0, rng(1)).Stat("a/b/named"); err != nil {
		t.Errorf("ignored SyncDir had an effect: %v", err)
	}
}

func TestMemTornWrites(t *testing.T) {
	m := NewMem()
	f, err := m.Create("x", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4*memBlock)
	for i := range data {
		data[i] = 1
	}
	if _, err := f.Write(data); err != nil {
		t.Fatal(err)
	}
	torn := false
	for seed := range uint64(20) {
		got, err := read(t, m.CrashClone(50, rng(seed)), "x")
		if err != nil {
			t.Fatal(err)
		}
		ones := 0
		for _, b := range []byte(got) {
			ones += int(b)
		}
		torn = torn || (ones > 0 && ones < len(data))
	}
	if !torn {
		t.Error("no power cut tore the file")
	}
}

func TestMemCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(10)
	f, err := m.Create("x", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	n, err := f.Write(make([]byte, 16))
	if n != 10 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("write past the capacity: %d, %v", n, err)
	}
	if free, _ := m.FreeBytes("."); free != 0 {
		t.Errorf("free %d", free)
	}
	if err := m.Remove("x"); err != nil {
		t.Fatal(err)
	}
	if free, _ := m.FreeBytes("."); free != 10 {
		t.Errorf("free after remove %d", free)
	}
}

func TestFaultyEveryOp(t *testing.T) {
	script := func(fsys FS) error {
		f, err := fsys.Create("x.tmp", 0o600)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := f.Write([]byte("12345678")); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		if err := fsys.Rename("x.tmp", "x"); err != nil {
			return err
		}
		return fsys.SyncDir(".")
	}
	clean := NewFaulty(NewMem())
	// The sixth is the close at the end, whose error nobody looks at.
	if err := script(clean); err != nil || clean.Count() != 6 {
		t.Fatalf("clean run: %d operations, %v", clean.Count(), err)
	}
	for _, kind := range []Fault{EIO, ENOSPC, ShortWrite, Kill, KillAfter} {
		for at := 1; at <= 5; at++ {
			m := NewMem()
			f := NewFaulty(m)
			f.Arm(at, kind)
			if err := script(f); err == nil || f.Fired() == "" {
				t.Fatalf("%v at %d: no failure", kind, at)
			}
			if _, err := m.Stat("x"); (err == nil) != (at == 5 || at == 4 && kind == KillAfter) {
				t.Errorf("%v at %d (%s): renamed: %v", kind, at, f.Fired(), err)
			}
			if dead := kind == Kill || kind == KillAfter; dead != f.Dead() || dead != errors.Is(f.Remove("x.tmp"), ErrKilled) {
				t.Errorf("%v at %d: dead %v", kind, at, f.Dead())
			}
		}
	}
	m := NewMem()
	f := NewFaulty(m)
	f.Arm(2, ShortWrite)
	if err := script(f); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if got, _ := read(t, m, "x.tmp"); got != "1234" {
		t.Errorf("short write left %q", got)
	}
}
