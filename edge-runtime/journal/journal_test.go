package journal

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
)

type edKey struct{ priv ed25519.PrivateKey }

func newKey() edKey                                 { return edKey{ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, 32))} }
func (k edKey) ID() string                          { return "device-a" }
func (k edKey) Sign(message []byte) ([]byte, error) { return ed25519.Sign(k.priv, message), nil }
func (k edKey) Check(device string, message, signature []byte) error {
	if device != k.ID() || !ed25519.Verify(k.priv.Public().(ed25519.PublicKey), message, signature) {
		return errors.New("wrong signature")
	}
	return nil
}

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

const path = "j/journal.log"

func newFS(t testing.TB) *fsx.Mem {
	t.Helper()
	m := fsx.NewMem()
	if err := m.MkdirAll("j", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t testing.TB, fsys fsx.FS, known Head) (*Journal, error) {
	t.Helper()
	j, damaged, err := Open(fsys, path, known, newKey(), t0)
	if err != nil {
		t.Fatal(err)
	}
	return j, damaged
}

func fill(t testing.TB, fsys fsx.FS, n int) Head {
	t.Helper()
	j, damaged := open(t, fsys, Head{})
	if damaged != nil {
		t.Fatal(damaged)
	}
	for i := range n {
		if _, err := j.Append(Entry{At: t0, Kind: "test", Reason: fmt.Sprint(i), Serial: uint64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.Checkpoint(t0); err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	return j.Head()
}

func slurp(t testing.TB, fsys fsx.FS) []byte {
	t.Helper()
	b, err := fsx.ReadFile(fsys, path, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func replace(t testing.TB, fsys fsx.FS, b []byte) {
	t.Helper()
	if err := fsx.WriteFileAtomic(fsys, path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAppendAndVerify(t *testing.T) {
	m := newFS(t)
	head := fill(t, m, 5)
	r, err := Verify(m, path, head, newKey())
	if err != nil || r.Head.Entries != 6 || r.Checkpoints != 1 || r.Signed != 5 || r.Torn {
		t.Fatalf("%+v, %v", r, err)
	}
	j, _ := open(t, m, head)
	if j.Serial() != 4 || j.Head() != head {
		t.Errorf("reopened: serial %d, head %+v", j.Serial(), j.Head())
	}
	last, err := j.Tail(2)
	if err != nil || len(last) != 2 || last[0].Reason != "4" || last[1].Kind != KindCheckpoint {
		t.Errorf("tail %+v, %v", last, err)
	}
}

// Every way of editing the file, each found; and unfound once the check that finds it is left out.
func TestTampering(t *testing.T) {
	lines := func(b []byte) []string { return strings.SplitAfter(string(b), "\n") }
	rechain := func(ls []string) []byte {
		var out []byte
		prev := ""
		for _, l := range ls {
			if _, body, ok := strings.Cut(strings.TrimSuffix(l, "\n"), " "); ok {
				prev = chain(prev, []byte(body))
				out = append(out, prev+" "+body+"\n"...)
			}
		}
		return out
	}
	for name, edit := range map[string]func([]byte) []byte{
		"change an entry": func(b []byte) []byte { return bytes.Replace(b, []byte(`"reason":"2"`), []byte(`"reason":"9"`), 1) },
		"drop an entry":   func(b []byte) []byte { l := lines(b); return []byte(strings.Join(append(l[:2:2], l[3:]...), "")) },
		"swap entries":    func(b []byte) []byte { l := lines(b); l[1], l[2] = l[2], l[1]; return []byte(strings.Join(l, "")) },
		"cut the end":     func(b []byte) []byte { l := lines(b); return []byte(strings.Join(l[:3], "")) },
		"empty it":        func([]byte) []byte { return nil },
		"change and rehash all": func(b []byte) []byte {
			return rechain(lines(bytes.Replace(b, []byte(`"reason":"2"`), []byte(`"reason":"9"`), 1)))
		},
		"garbage inside": func(b []byte) []byte { l := lines(b); l[2] = "garbage\n"; return []byte(strings.Join(l, "")) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newFS(t)
			head := fill(t, m, 5)
			replace(t, m, edit(slurp(t, m)))
			if _, err := Verify(m, path, head, newKey()); !errors.Is(err, ErrDamaged) {
				t.Errorf("Verify: %v", err)
			}
			j, damaged := open(t, m, head)
			if damaged == nil {
				t.Fatal("Open took it for whole")
			}
			es, err := j.Tail(0)
			if err != nil || len(es) != 1 || es[0].Kind != KindDamaged {
				t.Errorf("new journal: %+v, %v", es, err)
			}
			if _, err := m.Stat(path + ".damaged-1"); err != nil && name != "empty it" {
				t.Errorf("damaged journal was not kept: %v", err)
			}
		})
	}
	// Without the head known from elsewhere, a cut end is not visible; without signatures, a rewritten file is not.
	m := newFS(t)
	fill(t, m, 5)
	whole := slurp(t, m)
	replace(t, m, []byte(strings.Join(lines(whole)[:3], "")))
	if _, err := Verify(m, path, Head{}, newKey()); err != nil {
		t.Errorf("cut end without a known head: %v", err)
	}
	replace(t, m, rechain(lines(bytes.Replace(whole, []byte(`"reason":"2"`), []byte(`"reason":"9"`), 1))[:5]))
	if _, err := Verify(m, path, Head{}, newKey()); err != nil {
		t.Errorf("rewritten without checkpoints and head: %v", err)
	}
}

func TestTornTail(t *testing.T) {
	m := newFS(t)
	head := fill(t, m, 3)
	whole := slurp(t, m)
	for cut := range 40 {
		m := newFS(t)
		fill(t, m, 3)
		f, err := m.OpenAppend(path, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(whole[:cut+1]); err != nil {
			t.Fatal(err)
		}
		j, damaged := open(t, m, head)
		if damaged != nil || j.Head() != head {
			t.Fatalf("torn after %d bytes: %v, head %+v", cut+1, damaged, j.Head())
		}
		if _, err := j.Append(Entry{At: t0, Kind: "next"}); err != nil {
			t.Fatal(err)
		}
		if r, err := Verify(m, path, j.Head(), newKey()); err != nil || r.Head.Entries != head.Entries+1 {
			t.Fatalf("after recovery: %+v, %v", r, err)
		}
	}
}

// At every operation of a few appends: fail or die, cut the power, reopen. Acknowledged entries stay, in order.
func TestEveryOperation(t *testing.T) {
	run := func(m *fsx.Mem, arm func(*fsx.Faulty)) (acked int64, f *fsx.Faulty) {
		f = fsx.NewFaulty(m)
		j, _, err := Open(f, path, Head{}, newKey(), t0)
		if err != nil {
			return 0, f
		}
		arm(f)
		for i := range 4 {
			if h, err := j.Append(Entry{At: t0, Kind: "test", Reason: strings.Repeat("x", 200*i)}); err == nil {
				acked = h.Entries
			}
		}
		return acked, f
	}
	runs, lost := 0, 0
	for _, lazy := range []bool{false, true} {
		lost = 0
		for _, kind := range []fsx.Fault{fsx.EIO, fsx.ENOSPC, fsx.ShortWrite, fsx.Kill, fsx.KillAfter} {
			for at := 1; ; at++ {
				var fired string
				for _, percent := range []int{0, 50, 100} {
					m := newFS(t)
					m.IgnoreSyncs(lazy)
					acked, f := run(m, func(f *fsx.Faulty) { f.Arm(at, kind) })
					fired = f.Fired()
					c := m.CrashClone(percent, rand.New(rand.NewPCG(uint64(at), uint64(percent))))
					j, damaged, err := Open(c, path, Head{}, newKey(), t0)
					if err != nil {
						t.Fatal(err)
					}
					runs++
					if damaged != nil || j.Head().Entries < acked {
						lost++
						if !lazy {
							t.Errorf("%v at %d (%s), %d %%: acked %d, found %d, %v", kind, at, fired, percent, acked, j.Head().Entries, damaged)
						}
						continue
					}
					if _, err := j.Append(Entry{At: t0, Kind: "after"}); err != nil {
						t.Fatal(err)
					}
					if _, err := Verify(c, path, j.Head(), newKey()); err != nil {
						t.Errorf("%v at %d, %d %%: %v", kind, at, percent, err)
					}
				}
				if fired == "" {
					break
				}
			}
		}
	}
	if lost == 0 {
		t.Error("the mutant without fsync was not caught")
	}
	t.Logf("%d runs, mutant without fsync: %d losses", runs, lost)
}

func FuzzScan(f *testing.F) {
	m := newFS(f)
	fill(f, m, 3)
	f.Add(slurp(f, m))
	f.Add([]byte("x\n"))
	f.Add([]byte(strings.Repeat("a", 64) + " {}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newFS(t)
		replace(t, m, b)
		s, err := scanAt(m, segment{path: path}, nil, nil)
		if err == nil && s.good > int64(len(b)) {
			t.Errorf("%d good bytes of %d", s.good, len(b))
		}
		j, damaged, err := Open(m, path, Head{}, newKey(), t0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := j.Append(Entry{At: t0, Kind: "k"}); err != nil {
			t.Fatal(err, damaged)
		}
		if _, err := Verify(m, path, j.Head(), acceptAll{}); err != nil && damaged == nil && !strings.Contains(err.Error(), "checkpoint") {
			t.Error(err)
		}
	})
}

type acceptAll struct{}

func (acceptAll) Check(string, []byte, []byte) error { return nil }
