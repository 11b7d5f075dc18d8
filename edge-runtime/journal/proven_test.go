package journal

import (
	"testing"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// Each file of a journal proves its entries by itself: damage in one costs what follows in that file, and no entry is taken twice.
func TestProven(t *testing.T) {
	whole := newFS(t)
	head := long(t, whole, 103)
	all, err := Read(whole, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	segs, err := segments(whole, path)
	if err != nil || len(segs) != 3 {
		t.Fatalf("%v, %v", segs, err)
	}
	spoil := func(m fsx.FS, s segment, at func(n int) int) {
		raw, err := fsx.ReadFile(m, s.path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		raw[at(len(raw))] ^= 4
		if err := fsx.WriteFileAtomic(m, s.path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	middle := func(n int) int { return n / 2 }
	begin := func(int) int { return 1 }
	for name, c := range map[string]struct {
		edit    func(m fsx.FS)
		some    [3]bool // whether entries of a file are there
		every   [3]bool // whether all are
		newest  bool    // whether the report is of the newest entry
		damaged bool
	}{
		"nothing":           {func(fsx.FS) {}, [3]bool{true, true, true}, [3]bool{true, true, true}, true, false},
		"the oldest":        {func(m fsx.FS) { spoil(m, segs[0], middle) }, [3]bool{true, true, true}, [3]bool{false, true, true}, true, true},
		"the one before":    {func(m fsx.FS) { spoil(m, segs[1], middle) }, [3]bool{true, true, true}, [3]bool{true, false, true}, true, true},
		"the newest":        {func(m fsx.FS) { spoil(m, segs[2], middle) }, [3]bool{true, true, true}, [3]bool{true, true, false}, false, true},
		"a first line":      {func(m fsx.FS) { spoil(m, segs[1], begin) }, [3]bool{true, false, true}, [3]bool{true, false, true}, true, true},
		"the middle gone":   {func(m fsx.FS) { _ = m.Remove(segs[1].path) }, [3]bool{true, false, true}, [3]bool{true, false, true}, true, true},
		"the oldest gone":   {func(m fsx.FS) { _ = m.Remove(segs[0].path) }, [3]bool{false, true, true}, [3]bool{false, true, true}, true, true},
		"all but a gap":     {func(m fsx.FS) { spoil(m, segs[0], begin); spoil(m, segs[2], begin) }, [3]bool{false, true, false}, [3]bool{false, true, false}, false, true},
		"everything":        {func(m fsx.FS) { spoil(m, segs[0], begin); spoil(m, segs[1], begin); spoil(m, segs[2], begin) }, [3]bool{}, [3]bool{}, false, true},
		"nothing was there": {func(m fsx.FS) { _ = m.Remove(segs[0].path); _ = m.Remove(segs[1].path); _ = m.Remove(segs[2].path) }, [3]bool{}, [3]bool{}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			m := whole.CrashClone(100, nil)
			c.edit(m)
			es, r, damage, err := Proven(m, path, newKey())
			if err != nil || (damage != nil) != c.damaged {
				t.Fatalf("%v, %v", damage, err)
			}
			if (r.Head == head) != c.newest {
				t.Errorf("head %+v, newest %+v", r.Head, head)
			}
			have := map[int64]Entry{}
			for i, e := range es {
				if i > 0 && e.N <= es[i-1].N {
					t.Errorf("entry %d after %d", e.N, es[i-1].N)
				}
				have[e.N] = e
			}
			var some, lacks [3]bool
			for _, e := range all {
				file := 0
				for file < 2 && (segs[file+1].first == 0 && e.N >= liveFirst(all, segs) || segs[file+1].first != 0 && e.N >= segs[file+1].first) {
					file++
				}
				got, ok := have[e.N]
				if some[file], lacks[file] = some[file] || ok, lacks[file] || !ok; ok && got.Reason != e.Reason {
					t.Errorf("entry %d says %q, was %q", e.N, got.Reason, e.Reason)
				}
			}
			for i := range 3 {
				if some[i] != c.some[i] || !lacks[i] != c.every[i] {
					t.Errorf("file %d: some entries %v, all %v", i, some[i], !lacks[i])
				}
			}
		})
	}
}

// liveFirst is the first entry of the file that is appended to: the newest anchor.
func liveFirst(all []Entry, segs []segment) (n int64) {
	for _, e := range all {
		if e.Kind == KindSegment && e.N > segs[1].first {
			n = e.N
		}
	}
	return n
}
