package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// bounded opens a journal whose files have 2 kB, three at most.
func bounded(t testing.TB, fsys fsx.FS, known Head) *Journal {
	t.Helper()
	j, damaged := open(t, fsys, known)
	if damaged != nil {
		t.Fatal(damaged)
	}
	j.Bound(2000, 3)
	return j
}

func names(t testing.TB, fsys fsx.FS) []string {
	t.Helper()
	es, err := fsys.ReadDir("j")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range es {
		out = append(out, e.Name())
	}
	return out
}

func long(t testing.TB, fsys fsx.FS, n int) Head {
	t.Helper()
	j := bounded(t, fsys, Head{})
	for i := range n {
		if _, err := j.Append(Entry{At: t0, Kind: "test", Reason: fmt.Sprint("reason ", i), Serial: uint64(i)}); err != nil {
			t.Fatal(err)
		}
		if i%7 == 6 {
			if _, err := j.Checkpoint(t0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return j.Head()
}

// Thousands of entries stay within the bound, the chain and the numbers go on over the files, and a restart goes on with them.
func TestRotation(t *testing.T) {
	m := newFS(t)
	head := long(t, m, 3000)
	if used := m.Used(); used > 4*2500 || len(names(t, m)) != 3 {
		t.Errorf("%d bytes in %v", used, names(t, m))
	}
	r, err := Verify(m, path, head, newKey())
	if err != nil || r.Head != head || r.Files != 3 || r.Oldest < 2900 || r.Checkpoints < 3 || head.Entries < 3400 {
		t.Fatalf("%+v, %v", r, err)
	}
	if _, err := Verify(m, path, Head{Entries: 5, Hash: strings.Repeat("0", 64)}, newKey()); err != nil {
		t.Errorf("a head from before what is kept: %v", err)
	}
	all, err := Read(m, path, 0)
	if err != nil || all[0].N != r.Oldest || all[len(all)-1].N != head.Entries || int64(len(all)) != head.Entries-r.Oldest+1 {
		t.Errorf("read all: %d entries, %v", len(all), err)
	}
	for _, n := range []int{1, 3, 12, 20} {
		last, err := Read(m, path, n)
		if err != nil || len(last) != n || last[n-1].N != head.Entries || last[0].N != head.Entries-int64(n)+1 {
			t.Errorf("read %d: %d, %v", n, len(last), err)
		}
	}
	j := bounded(t, m, head)
	if j.Head() != head || j.Serial() != 2999 {
		t.Errorf("reopened: %+v, serial %d", j.Head(), j.Serial())
	}
	next, err := j.Append(Entry{At: t0, Kind: "test"})
	if err != nil || next.Entries <= head.Entries {
		t.Fatal(err)
	}
	// A document that was saved before the file was begun names an entry in an older one, and one that is long gone.
	for n := r.Oldest; n <= head.Entries; n += 3 {
		for _, bad := range []bool{false, true} {
			h := Head{Entries: n, Hash: hashOf(t, m, n)}
			if bad {
				h.Hash = strings.Repeat("1", 64)
			}
			c := m.CrashClone(100, rand.New(rand.NewPCG(1, 1)))
			if _, damaged := open(t, c, h); (damaged != nil) != bad {
				t.Errorf("known entry %d, wrong %v: %v", n, bad, damaged)
			}
			if _, err := Verify(m, path, h, newKey()); (err != nil) != bad {
				t.Errorf("verify with entry %d, wrong %v: %v", n, bad, err)
			}
		}
	}
	if _, damaged := open(t, m, Head{Entries: next.Entries + 1, Hash: next.Hash}); damaged == nil {
		t.Error("a head past the end")
	}
}

func hashOf(t testing.TB, fsys fsx.FS, n int64) string {
	t.Helper()
	all, err := segments(fsys, path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range all {
		b, err := fsx.ReadFile(fsys, s.path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for l := range strings.Lines(string(b)) {
			if p := parseLine([]byte(strings.TrimSuffix(l, "\n"))); p.entry.N == n {
				return p.hash
			}
		}
	}
	t.Fatalf("no entry %d", n)
	return ""
}

// Everything that somebody without the device key can do to the files: each is found, with the file and the line or the entries.
func TestTamperedFiles(t *testing.T) {
	edit := func(name string, do func(lines []string) []string) func(t *testing.T, m *fsx.Mem, files []string) {
		return func(t *testing.T, m *fsx.Mem, files []string) {
			file := "j/" + map[string]string{"oldest": files[1], "middle": files[2], "newest": files[0]}[name]
			b, err := fsx.ReadFile(m, file, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			ls := do(strings.SplitAfter(string(b), "\n"))
			if err := fsx.WriteFileAtomic(m, file, []byte(strings.Join(ls, "")), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(i int) func(t *testing.T, m *fsx.Mem, files []string) {
		return func(t *testing.T, m *fsx.Mem, files []string) {
			if err := m.Remove("j/" + files[i]); err != nil {
				t.Fatal(err)
			}
		}
	}
	// rewrite changes an entry and computes all hashes after it anew, in one file.
	rewrite := func(lines []string) []string {
		out := lines[:1]
		prev := parseLine([]byte(strings.TrimSuffix(lines[0], "\n"))).hash
		for i, l := range lines[1 : len(lines)-1] {
			p := parseLine([]byte(strings.TrimSuffix(l, "\n")))
			if i == 1 {
				p.entry.Reason = "something else"
				p.body, _ = json.Marshal(p.entry)
			}
			prev = chain(prev, p.body)
			out = append(out, prev+" "+string(p.body)+"\n")
		}
		return out
	}
	for name, c := range map[string]struct {
		do   func(t *testing.T, m *fsx.Mem, files []string)
		want string
	}{
		"a letter":             {edit("middle", func(l []string) []string { l[3] = strings.Replace(l[3], "reason", "raeson", 1); return l }), ":4: entry"},
		"a line less":          {edit("oldest", func(l []string) []string { return append(l[:2:2], l[3:]...) }), ":3: entry"},
		"two lines swapped":    {edit("newest", func(l []string) []string { l[1], l[2] = l[2], l[1]; return l }), "journal.log:2: entry"},
		"the end of an older":  {edit("middle", func(l []string) []string { return l[:len(l)-3] }), "are missing"},
		"half a line of older": {edit("oldest", func(l []string) []string { l[len(l)-2] = l[len(l)-2][:40]; return l[:len(l)-1] }), "unfinished line"},
		"rewritten":            {edit("middle", rewrite), "checkpoint in entry"},
		"the first anchor":     {edit("oldest", func(l []string) []string { return l[1:] }), ":1: "},
		"the oldest file":      {remove(1), "they were kept when the newest file began"},
		"a middle file":        {remove(2), "are missing"},
		"the newest file":      {remove(0), "are missing"},
		"a file twice": {func(t *testing.T, m *fsx.Mem, files []string) {
			b, err := fsx.ReadFile(m, "j/"+files[2], 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			if err := fsx.WriteFileAtomic(m, segmentPath(path, 1), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "begins with entry"},
		"the newest cut to the anchor": {edit("newest", func(l []string) []string { return l[:1] }), "entries, at least"},
		"another device's": {func(t *testing.T, m *fsx.Mem, files []string) {
			other := newFS(t)
			j, _, err := Open(other, path, Head{}, otherKey{newKey()}, t0)
			if err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if _, err := j.Append(Entry{At: t0, Kind: "test"}); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := j.Checkpoint(t0); err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if err := m.Remove("j/" + f); err != nil {
					t.Fatal(err)
				}
			}
			replace(t, m, slurp(t, other))
		}, "wrong signature"},
	} {
		t.Run(name, func(t *testing.T) {
			m := newFS(t)
			head := long(t, m, 300)
			files := names(t, m)
			if len(files) != 3 {
				t.Fatalf("files %v", files)
			}
			if _, err := Verify(m, path, head, newKey()); err != nil {
				t.Fatal(err)
			}
			c.do(t, m, files)
			_, err := Verify(m, path, head, newKey())
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("found %v, want %q", err, c.want)
			}
		})
	}
}

type otherKey struct{ edKey }

func (otherKey) ID() string { return "device-b" }

// A damaged journal and all its files are set aside, a new one begins, and only a few such sets are kept.
func TestDamagedFilesAside(t *testing.T) {
	m := newFS(t)
	for range 6 {
		head := long(t, m, 300)
		b := slurp(t, m)
		b[len(b)/3] ^= 1
		replace(t, m, b)
		j, damaged := open(t, m, head)
		if damaged == nil || j.Head().Entries != 1 {
			t.Fatalf("not found: %v", damaged)
		}
		if _, err := Verify(m, path, j.Head(), newKey()); err != nil {
			t.Errorf("the new journal: %v", err)
		}
		if err := m.Remove(path); err != nil { // the next round begins anew
			t.Fatal(err)
		}
	}
	if ns := names(t, m); len(ns) != 9 {
		t.Errorf("%d files: %v", len(ns), ns)
	}
}

// Every operation of a journal that rotates fails once, or the process is killed there, and the power is cut: what was acknowledged
// is there and verifies.
func TestEveryOperationOfRotation(t *testing.T) {
	act := func(fsys fsx.FS, known Head) (acked Head) {
		acked = known
		j, damaged, err := Open(fsys, path, known, newKey(), t0)
		if err != nil || damaged != nil {
			return acked
		}
		j.Bound(1200, 2)
		for i := range 24 {
			if h, err := j.Append(Entry{At: t0, Kind: "test", Reason: fmt.Sprint(i)}); err == nil {
				acked = h
			}
			if i%6 == 5 {
				if h, err := j.Checkpoint(t0); err == nil {
					acked = h
				}
			}
		}
		_ = j.Close()
		return acked
	}
	base := newFS(t)
	known := act(base, Head{})
	f := fsx.NewFaulty(base.CrashClone(100, rand.New(rand.NewPCG(1, 1))))
	f.Arm(0, fsx.NoFault)
	act(f, known)
	steps := f.Count()
	runs := 0
	for _, kind := range []fsx.Fault{fsx.Kill, fsx.KillAfter, fsx.EIO, fsx.EIOAfter, fsx.ENOSPC, fsx.ShortWrite, fsx.LostSync} {
		for at := 1; at <= steps; at++ {
			for _, percent := range []int{0, 50, 100} {
				rng := rand.New(rand.NewPCG(uint64(at), uint64(percent)))
				m := base.CrashClone(100, rng)
				f := fsx.NewFaulty(m)
				f.Arm(at, kind)
				acked := act(f, known)
				crashed := m.CrashClone(percent, rng)
				runs++
				j, damaged, err := Open(crashed, path, acked, newKey(), t0)
				if err != nil || damaged != nil {
					t.Fatalf("%v at %d (%s), %d %%: %v, %v", kind, at, f.Fired(), percent, damaged, err)
				}
				j.Bound(1200, 2)
				for range 12 { // it goes on, over another file
					if _, err := j.Append(Entry{At: t0, Kind: "after"}); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := Verify(crashed, path, j.Head(), newKey()); err != nil {
					t.Fatalf("%v at %d (%s), %d %%: %v", kind, at, f.Fired(), percent, err)
				}
				if n := len(names(t, crashed)); n > 3 {
					t.Errorf("%v at %d: %d files", kind, at, n)
				}
			}
		}
	}
	t.Logf("%d operations, %d runs", steps, runs)
}

// The mutant: without the sync between giving the full file its new name and beginning the next, a power cut loses entries.
func TestRotationNeedsItsSync(t *testing.T) {
	lost := false
	for seed := range uint64(200) {
		m := newFS(t)
		j := bounded(t, m, Head{})
		for j.size < j.most {
			if _, err := j.Append(Entry{At: t0, Kind: "test"}); err != nil {
				t.Fatal(err)
			}
		}
		acked := j.Head()
		if err := m.Rename(path, segmentPath(path, 1)); err != nil {
			t.Fatal(err)
		}
		f, err := m.OpenAppend(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		crashed := m.CrashClone(50, rand.New(rand.NewPCG(seed, 1)))
		_, damaged, err := Open(crashed, path, acked, newKey(), t0)
		lost = lost || err != nil || damaged != nil
	}
	if !lost {
		t.Error("the mutant was not caught")
	}
}

func FuzzFiles(f *testing.F) {
	m := newFS(f)
	long(f, m, 60)
	for _, n := range names(f, m) {
		b, err := fsx.ReadFile(m, "j/"+n, 1<<20)
		if err != nil {
			f.Fatal(err)
		}
		ls := bytes.SplitAfter(b, []byte("\n"))
		f.Add(bytes.Join(ls[:2], nil), bytes.Join(ls[2:4], nil))
	}
	f.Add([]byte{}, []byte("0000 {}\n"))
	f.Add([]byte(strings.Repeat("0", 64)+` {"n":2,"kind":"segment","data":{"entries":1,"oldest":1}}`+"\n"), bytes.Repeat([]byte{0}, 600))
	f.Fuzz(func(t *testing.T, older, live []byte) {
		m := newFS(t)
		for p, b := range map[string][]byte{segmentPath(path, 1): older, path: live} {
			if err := fsx.WriteFileAtomic(m, p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		_, verr := Verify(m, path, Head{}, newKey())
		if _, err := Read(m, path, 10); err != nil && !errors.Is(err, ErrDamaged) {
			t.Errorf("read: %v", err)
		}
		j, damaged, err := Open(m, path, Head{}, newKey(), t0)
		if err != nil {
			t.Fatalf("open: %v", err)
		}
		if _, err := j.Append(Entry{At: t0, Kind: "test"}); err != nil {
			t.Fatalf("append (damaged: %v): %v", damaged, err)
		}
		if damaged != nil || verr == nil {
			if _, err := Verify(m, path, j.Head(), newKey()); err != nil {
				t.Errorf("after opening (%v, %v): %v", damaged, verr, err)
			}
		}
	})
}

// A rename that reports an error and took effect all the same: nothing is appended to a file without a beginning, and no file is
// given the name of another.
func TestRenamedAllTheSame(t *testing.T) {
	m := newFS(t)
	count := func(at int) (fired string) {
		m = newFS(t)
		f := fsx.NewFaulty(m)
		f.Arm(at, fsx.EIOAfter)
		j, damaged, err := Open(f, path, Head{}, newKey(), t0)
		if err != nil || damaged != nil {
			return f.Fired()
		}
		j.Bound(1200, 4)
		for range 24 {
			_, _ = j.Append(Entry{At: t0, Kind: "test"})
		}
		if _, err := Verify(m, path, j.Head(), newKey()); err != nil && strings.HasPrefix(f.Fired(), "rename") {
			t.Errorf("%s: %v, files %v", f.Fired(), err, names(t, m))
		}
		return f.Fired()
	}
	renames := 0
	for at := 1; ; at++ {
		fired := count(at)
		if fired == "" {
			break
		}
		if strings.HasPrefix(fired, "rename") {
			renames++
		}
	}
	if renames == 0 {
		t.Error("nothing was renamed")
	}
}
