package fsx

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"syscall"
	"testing"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// opened makes a file whose name is durable.
func opened(t *testing.T, m *Mem, name string) File {
	t.Helper()
	f, err := m.Create(name, 0o600)
	must(t, err)
	must(t, m.SyncDir("."))
	return f
}

// After a failed fsync the pages stay readable, later syncs succeed, and a power cut shows that they were never written.
func TestFailedSyncLosesPages(t *testing.T) {
	m := NewMem()
	fa := NewFaulty(m)
	f, err := fa.Create("x", 0o600)
	must(t, err)
	must(t, fa.SyncDir("."))
	_, err = f.Write([]byte("first"))
	must(t, err)
	must(t, f.Sync())
	_, err = f.Write(bytes.Repeat([]byte("s"), 2*memBlock))
	must(t, err)
	fa.Arm(1, LostSync)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the failing sync: %v", err)
	}
	must(t, f.Sync())
	if got, _ := read(t, m, "x"); got != "first"+strings.Repeat("s", 2*memBlock) {
		t.Errorf("readers see %d bytes", len(got))
	}
	after, err := read(t, m.CrashClone(100, rng(1)), "x")
	if err != nil || !strings.HasPrefix(after, "first\x00") || strings.Contains(after, "s\x00s") || strings.Count(after, "s") != 1 {
		t.Errorf("after the power cut: %d bytes, %d written, %v", len(after), strings.Count(after, "s"), err)
	}
	// Writing the same bytes again makes them dirty again.
	_, err = f.(*faultyFile).file.WriteAt(bytes.Repeat([]byte("s"), 2*memBlock), 5)
	must(t, err)
	must(t, f.Sync())
	if got, _ := read(t, m.CrashClone(0, rng(1)), "x"); strings.Count(got, "s") != 2*memBlock+1 {
		t.Errorf("written again: %d", strings.Count(got, "s"))
	}
}

// With Zeros a file has its new length and its old bytes.
func TestCutZeros(t *testing.T) {
	m := NewMem()
	f := opened(t, m, "x")
	_, err := f.Write([]byte("old"))
	must(t, err)
	must(t, f.Sync())
	_, err = f.Write([]byte("new"))
	must(t, err)
	if got, _ := read(t, m.Crash(Cut{Zeros: true}, rng(1)), "x"); got != "old\x00\x00\x00" {
		t.Errorf("%q", got)
	}
}

// Sectors of 4 KiB survive as a whole, blocks of 512 bytes one by one.
func TestCutSectors(t *testing.T) {
	m := NewMem()
	f := opened(t, m, "x")
	_, err := f.Write(make([]byte, 16<<10))
	must(t, err)
	must(t, f.Sync())
	_, err = f.WriteAt(bytes.Repeat([]byte{1}, 16<<10), 0)
	must(t, err)
	torn := func(sector int) (n int) {
		for seed := range uint64(20) {
			got, err := read(t, m.Crash(Cut{Percent: 50, Sector: sector}, rng(seed)), "x")
			must(t, err)
			for i := 0; i < len(got); i += 4096 {
				if s := strings.Count(got[i:i+4096], "\x01"); s != 0 && s != 4096 {
					n++
				}
			}
		}
		return n
	}
	if small, large := torn(512), torn(4096); small == 0 || large != 0 {
		t.Errorf("torn sectors of 4 KiB: %d with blocks of 512, %d with 4096", small, large)
	}
}

// A block that was written twice may come back with the first content: writes reach the disk in any order.
func TestCutOlderContent(t *testing.T) {
	m := NewMem()
	f := opened(t, m, "x")
	_, err := f.Write([]byte("a"))
	must(t, err)
	must(t, f.Sync())
	for _, s := range []string{"b", "c"} {
		_, err := f.WriteAt([]byte(s), 0)
		must(t, err)
	}
	seen := map[string]bool{}
	for seed := range uint64(100) {
		got, err := read(t, m.CrashClone(50, rng(seed)), "x")
		must(t, err)
		seen[got] = true
	}
	if !seen["a"] || !seen["b"] || !seen["c"] {
		t.Errorf("only %v", seen)
	}
}

// InOrder never keeps a change of names without those before it.
func TestCutInOrder(t *testing.T) {
	m := NewMem()
	for _, n := range []string{"a", "b", "c"} {
		write(t, m, n, n, true)
	}
	seen := map[string]bool{}
	for seed := range uint64(100) {
		es, err := m.Crash(Cut{Percent: 50, InOrder: true}, rng(seed)).ReadDir(".")
		must(t, err)
		var names string
		for _, e := range es {
			names += e.Name()
		}
		seen[names] = true
	}
	for _, want := range []string{"", "a", "ab", "abc"} {
		if !seen[want] {
			t.Errorf("never %q", want)
		}
		delete(seen, want)
	}
	if len(seen) > 0 {
		t.Errorf("out of order: %v", seen)
	}
}

// What survives depends on the random numbers alone, not on how temporary files are called.
func TestCrashIsRepeatable(t *testing.T) {
	make := func(tmp string) *Mem {
		m := NewMem()
		f := opened(t, m, tmp)
		_, err := f.Write(bytes.Repeat([]byte(tmp[:1]), 0))
		must(t, err)
		g := opened(t, m, "x")
		_, err = g.Write(bytes.Repeat([]byte{1}, 8*memBlock))
		must(t, err)
		_, err = f.Write(bytes.Repeat([]byte{1}, 8*memBlock))
		must(t, err)
		return m
	}
	for seed := range uint64(20) {
		a, _ := read(t, make("aaa").CrashClone(50, rng(seed)), "x")
		b, _ := read(t, make("zzz").CrashClone(50, rng(seed)), "x")
		if a != b {
			t.Fatalf("seed %d: another outcome with another name beside it", seed)
		}
	}
}

// A clone shares no bytes with the original that either could change.
func TestCrashCloneIsApart(t *testing.T) {
	m := NewMem()
	f := opened(t, m, "x")
	_, err := f.Write([]byte("abc"))
	must(t, err)
	must(t, f.Sync())
	c := m.CrashClone(0, nil)
	g, err := c.OpenAppend("x", 0o600)
	must(t, err)
	_, err = g.Write([]byte("from the clone"))
	must(t, err)
	_, err = f.Write([]byte("d"))
	must(t, err)
	_, err = f.WriteAt([]byte("Z"), 0)
	must(t, err)
	if got, _ := read(t, m, "x"); got != "Zbcd" {
		t.Errorf("original %q", got)
	}
	if got, _ := read(t, c, "x"); got != "abcfrom the clone" {
		t.Errorf("clone %q", got)
	}
	if got, _ := read(t, m.CrashClone(0, nil), "x"); got != "abc" {
		t.Errorf("durable %q", got)
	}
}

func TestLastingFaults(t *testing.T) {
	setup := func(kind Fault) (*Mem, *Faulty, File) {
		m := NewMem()
		write(t, m, "old", "12345", true)
		fa := NewFaulty(m)
		f, err := fa.Create("x", 0o600)
		must(t, err)
		fa.Arm(1, kind)
		return m, fa, f
	}
	t.Run("full disk", func(t *testing.T) {
		m, fa, f := setup(FullDisk)
		for range 2 {
			if n, err := f.Write([]byte("abc")); n != 0 || !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("%d, %v", n, err)
			}
		}
		if free, err := fa.FreeBytes("."); free != 0 || err != nil {
			t.Errorf("free %d, %v", free, err)
		}
		must(t, fa.Remove("old"))
		if n, err := f.Write([]byte("abc")); n != 3 || err != nil {
			t.Errorf("with space: %d, %v", n, err)
		}
		if n, err := f.Write([]byte("def")); n != 2 || !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("with two bytes left: %d, %v", n, err)
		}
		if got, _ := read(t, m, "x"); got != "abcde" {
			t.Errorf("%q", got)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		_, fa, f := setup(ReadOnly)
		_, err := f.Write([]byte("abc"))
		for _, err := range []error{err, f.Sync(), fa.Remove("old"), fa.Rename("old", "y"), fa.MkdirAll("d", 0o700), fa.SyncDir(".")} {
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("a change: %v", err)
			}
		}
		must(t, fa.MkdirAll(".", 0o700))
		if got, err := read(t, fa, "old"); got != "12345" || err != nil {
			t.Errorf("reading: %q, %v", got, err)
		}
	})
	t.Run("dead disk", func(t *testing.T) {
		_, fa, _ := setup(DeadDisk)
		_, err1 := fa.Open("old")
		_, err2 := fa.ReadDir(".")
		if !errors.Is(err1, syscall.EIO) || !errors.Is(err2, syscall.EIO) {
			t.Errorf("%v, %v", err1, err2)
		}
	})
}

// EIOAfter is the failed fsync of a directory whose rename everybody sees; Flip lies once.
func TestIndeterminateAndFlip(t *testing.T) {
	m := NewMem()
	write(t, m, "x", "12345", true)
	fa := NewFaulty(m)
	fa.Arm(1, EIOAfter)
	if err := fa.Rename("x", "y"); !errors.Is(err, syscall.EIO) {
		t.Error(err)
	}
	if _, err := m.Stat("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the rename did not happen")
	}
	fa.Arm(2, Flip)
	bad, err := read(t, fa, "y")
	if bad != "12245" || err != nil {
		t.Errorf("%q, %v", bad, err)
	}
	if good, _ := read(t, fa, "y"); good != "12345" {
		t.Errorf("the second time: %q", good)
	}
	fa.Arm(1, EIO)
	f, _ := m.Open("y")
	if err := (&faultyFile{f: fa, file: f, writes: true}).Close(); !errors.Is(err, syscall.EIO) {
		t.Errorf("close: %v", err)
	}
	if f.Close() == nil {
		t.Error("a failed close left the file open")
	}
}
