package state

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const dir = "var/waybill"

func newFS(t testing.TB) *fsx.Mem {
	t.Helper()
	m := fsx.NewMem()
	if err := m.MkdirAll("var", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := m.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	return m
}

func setSeq(n int64) func(*Doc) error {
	return func(d *Doc) error { d.Channel("prod").Seq = n; return nil }
}

func TestEveryOperation(t *testing.T) {
	runs := 0
	for _, lazy := range []bool{false, true} {
		lost := 0
		for _, kind := range []fsx.Fault{fsx.EIO, fsx.ENOSPC, fsx.ShortWrite, fsx.Kill, fsx.KillAfter} {
			for at := 1; ; at++ {
				fired := ""
				for _, percent := range []int{0, 50, 100} {
					m := newFS(t)
					m.IgnoreSyncs(lazy)
					f := fsx.NewFaulty(m)
					f.Arm(at, kind)
					var acked, tried int64
					if s, err := Open(f, dir); err == nil {
						for n := int64(1); n <= 4; n++ {
							tried = n
							if err := s.Update(setSeq(n)); err == nil {
								acked = n
							} else if got := s.Doc().Channel("prod").Seq; got != n && got != acked {
								t.Errorf("%v at %d (%s): after a failed save of %d the document says %d", kind, at, f.Fired(), n, got)
							}
						}
					}
					fired = f.Fired()
					c := m.CrashClone(percent, rand.New(rand.NewPCG(uint64(at), uint64(percent))))
					s, err := Open(c, dir)
					var got int64
					if err == nil {
						got = s.Doc().Channel("prod").Seq
					}
					runs++
					if err != nil || got < acked || got > tried {
						lost++
						if !lazy {
							t.Errorf("%v at %d (%s), %d %%: acknowledged %d, tried %d, found %d, %v", kind, at, fired, percent, acked, tried, got, err)
						}
						continue
					}
					if err := s.Update(setSeq(9)); err != nil {
						t.Errorf("update after recovery: %v", err)
					}
				}
				if fired == "" {
					break
				}
			}
		}
		if lazy && lost == 0 {
			t.Error("the mutant without fsync was not caught")
		}
	}
	t.Logf("%d runs", runs)
}

func TestFullDiskUsesBallast(t *testing.T) {
	m := newFS(t)
	s, err := Open(m, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(setSeq(1)); err != nil {
		t.Fatal(err)
	}
	if err := s.Ballast().Ensure(); err != nil {
		t.Fatal(err)
	}
	m.SetCapacity(m.Used())
	for n := int64(2); n < 50; n++ {
		if err := s.Update(setSeq(n)); err != nil {
			t.Fatalf("save %d on a full disk: %v", n, err)
		}
	}
	// Without the ballast the same fails.
	m2 := newFS(t)
	s2, err := Open(m2, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s2.Update(setSeq(1)); err != nil {
		t.Fatal(err)
	}
	m2.SetCapacity(m2.Used())
	if err := s2.Update(setSeq(2)); err == nil {
		t.Error("saved on a full disk without a reserve")
	}
	// A full disk does not keep a restarted device from reading its state.
	if s3, err := Open(m2, dir); err != nil || s3.Doc().Channel("prod").Seq != 1 {
		t.Errorf("open on a full disk: %v", err)
	}
}

func TestDamagedDocument(t *testing.T) {
	m := newFS(t)
	s, err := Open(m, dir)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(1); n <= 3; n++ {
		if err := s.Update(setSeq(n)); err != nil {
			t.Fatal(err)
		}
	}
	spoil := func(serial uint64) {
		if err := fsx.WriteFileAtomic(m, s.file(serial), []byte("not a document"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	spoil(3)
	s2, err := Open(m, dir)
	if err != nil || s2.Doc().Channel("prod").Seq != 2 || len(s2.Notes()) == 0 {
		t.Fatalf("with the newest damaged: %v, %v", err, s2.Notes())
	}
	serials, err := s2.serials()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range serials {
		spoil(n)
	}
	if _, err := Open(m, dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("all damaged: %v", err)
	}
}

func TestUpdateRefused(t *testing.T) {
	s, err := Open(newFS(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if err := s.Update(func(d *Doc) error { d.Channel("x").Seq = 1; return no }); !errors.Is(err, no) {
		t.Error(err)
	}
	if len(s.Doc().Channels) != 0 || s.Doc().Serial != 0 {
		t.Error("a refused update left something")
	}
	d := s.Doc()
	d.Channel("y")
	if len(s.Doc().Channels) != 0 {
		t.Error("Doc is not a copy")
	}
}

// cutReader fails after n bytes.
type cutReader struct {
	r io.Reader
	n int
}

func (c *cutReader) Read(p []byte) (int, error) {
	if c.n <= 0 {
		return 0, errors.New("connection reset")
	}
	n, err := c.r.Read(p[:min(len(p), c.n)])
	c.n -= n
	return n, err
}

func TestBlobsResumeAndVerify(t *testing.T) {
	ctx := t.Context()
	m := newFS(t)
	s, err := Open(m, dir)
	if err != nil {
		t.Fatal(err)
	}
	b := s.Blobs()
	data := bytes.Repeat([]byte("0123456789abcdef"), 40000)
	d, size := artifact.DigestOf(data), int64(len(data))
	var offsets []int64
	from := func(data []byte, cut int) func(context.Context, int64) (io.ReadCloser, error) {
		return func(_ context.Context, off int64) (io.ReadCloser, error) {
			offsets = append(offsets, off)
			return io.NopCloser(&cutReader{bytes.NewReader(data[off:]), cut}), nil
		}
	}
	if err := b.Fetch(ctx, d, size, from(data, 300000)); err == nil {
		t.Fatal("a cut download succeeded")
	}
	if b.Has(d, size) || b.Missing(d, size) != size-300000 {
		t.Errorf("after the cut: missing %d", b.Missing(d, size))
	}
	if err := b.Fetch(ctx, d, size, from(data, 1<<30)); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(offsets) != "[0 300000]" {
		t.Errorf("offsets %v", offsets)
	}
	if err := b.Check(ctx, d, size); err != nil {
		t.Error(err)
	}
	if info, err := m.Stat(b.Path(d)); err != nil || info.Mode().Perm() != 0o400 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for name, bad := range map[string][]byte{
		"altered": append([]byte("X"), data[1:]...),
		"shifted": append([]byte("x"), data...),
	} {
		if err := b.Drop(d); err != nil {
			t.Fatal(err)
		}
		if err := b.Fetch(ctx, d, size, from(bad, 1<<30)); !errors.Is(err, ErrDigest) {
			t.Errorf("%s content: %v", name, err)
		}
		if b.Has(d, size) {
			t.Errorf("%s content was stored", name)
		}
		_, _ = b.Sweep(nil)
	}
	if err := b.Fetch(ctx, d, size, from(data[:100], 1<<30)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short content: %v", err)
	}
	// A bit that flips on the disk is found.
	d2, err := b.Put(ctx, []byte("small"))
	if err != nil {
		t.Fatal(err)
	}
	if err := fsx.WriteFileAtomic(m, b.Path(d2), []byte("smalL"), 0o400); err != nil {
		t.Fatal(err)
	}
	if err := b.Check(ctx, d2, 5); !errors.Is(err, ErrDigest) {
		t.Errorf("flipped bit: %v", err)
	}
	if _, err := b.Read(d2, 100); !errors.Is(err, ErrDigest) {
		t.Errorf("flipped bit: %v", err)
	}
}

// A blob whose name failed to become durable is not taken for stored by the next try.
func TestBlobNameIsMadeDurableAgain(t *testing.T) {
	m := newFS(t)
	f := fsx.NewFaulty(m)
	s, err := Open(f, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(setSeq(1)); err != nil {
		t.Fatal(err)
	}
	b := s.Blobs()
	for at := 1; ; at++ {
		data := fmt.Appendf(nil, "content %d", at)
		f.Arm(at, fsx.EIO)
		d, err := b.Put(t.Context(), data)
		fired := f.Fired()
		if err != nil {
			f.Arm(0, fsx.NoFault)
			_, err = b.Put(t.Context(), data)
		}
		if err != nil {
			t.Fatalf("%s: second try: %v", fired, err)
		}
		c, err := Open(m.CrashClone(0, rand.New(rand.NewPCG(1, 1))), dir)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Blobs().Check(t.Context(), d, int64(len(data))); err != nil {
			t.Errorf("after a failed %s and a second try: %v", fired, err)
		}
		if fired == "" {
			break
		}
	}
}

func TestSweep(t *testing.T) {
	s, err := Open(newFS(t), dir)
	if err != nil {
		t.Fatal(err)
	}
	b := s.Blobs()
	keep, err1 := b.Put(t.Context(), []byte("keep"))
	gone, err2 := b.Put(t.Context(), []byte("gone!"))
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	freed, err := b.Sweep(map[artifact.Digest]bool{keep: true})
	if err != nil || freed != 5 || !b.Has(keep, 4) || b.Has(gone, 5) {
		t.Errorf("freed %d, %v", freed, err)
	}
}

func TestBarredAndSlots(t *testing.T) {
	a, b := artifact.DigestOf([]byte("a")), artifact.DigestOf([]byte("b"))
	now := time.Unix(1, 0)
	c := &Channel{
		Current:    &Slot{Digest: a, Committed: now},
		Intent:     &Intent{Candidate: Slot{Digest: b}, Target: &Slot{Digest: a, Committed: now}},
		Quarantine: map[string]Quarantine{string(b): {Generation: 1, Seq: 5, Reason: "slow"}},
	}
	if len(c.Slots()) != 2 {
		t.Errorf("slots %v", c.Slots())
	}
	if _, ok := c.Committed(b); ok {
		t.Error("a candidate counts as committed")
	}
	if c.Barred(b, 1, 5) != "slow" || c.Barred(b, 1, 6) != "" || c.Barred(a, 1, 5) != "" {
		t.Error("quarantine holds for the wrong digest or seq")
	}
	c.Pinned = &Pin{Generation: 1, Seq: 5}
	if c.Barred(a, 1, 5) == "" || c.Barred(a, 1, 6) != "" || c.Barred(a, 2, 1) != "" {
		t.Error("pin holds for the wrong seq")
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	unlock, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Lock(dir); !errors.Is(err, ErrLocked) {
		t.Errorf("second owner: %v", err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	again, err := Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = again()
}

func TestReadOnly(t *testing.T) {
	m := newFS(t)
	if _, err := ReadOnly(m, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	s, err := Open(m, dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Update(setSeq(3)); err != nil {
		t.Fatal(err)
	}
	d, err := ReadOnly(m, dir)
	if err != nil || d.Channel("prod").Seq != 3 {
		t.Error(err)
	}
}

func FuzzParseDoc(f *testing.F) {
	f.Add([]byte("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n"))
	f.Add([]byte(strings.Repeat("0", 64) + "\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := parseDoc(b, 1); err == nil && d.Serial != 1 {
			t.Error("wrong serial accepted")
		}
	})
}

// A partial download that a power cut left with other bytes is no verdict on who sends: it is read again from the beginning, once.
func TestResumedGarbage(t *testing.T) {
	ctx := t.Context()
	m := newFS(t)
	s, err := Open(m, "s")
	if err != nil {
		t.Fatal(err)
	}
	b := s.Blobs()
	content := []byte(strings.Repeat("content ", 100))
	d := artifact.DigestOf(content)
	for _, garbage := range [][]byte{make([]byte, 40), make([]byte, len(content))} {
		if err := fsx.WriteFileAtomic(m, b.partial(d), garbage, 0o600); err != nil {
			t.Fatal(err)
		}
		var from []int64
		err = b.Fetch(ctx, d, int64(len(content)), func(_ context.Context, offset int64) (io.ReadCloser, error) {
			from = append(from, offset)
			return io.NopCloser(bytes.NewReader(content[offset:])), nil
		})
		if err != nil || !b.Has(d, int64(len(content))) || from[len(from)-1] != 0 {
			t.Errorf("%d bytes of garbage: %v, read from %v", len(garbage), err, from)
		}
		if err := b.Drop(d); err != nil {
			t.Fatal(err)
		}
	}
	opens := 0
	if err := fsx.WriteFileAtomic(m, b.partial(d), make([]byte, 40), 0o600); err != nil {
		t.Fatal(err)
	}
	err = b.Fetch(ctx, d, int64(len(content)), func(_ context.Context, offset int64) (io.ReadCloser, error) {
		opens++
		return io.NopCloser(bytes.NewReader(bytes.Repeat([]byte("x"), len(content)))), nil
	})
	if !errors.Is(err, ErrDigest) || opens != 2 {
		t.Errorf("wrong content: %v after %d tries", err, opens)
	}
}
