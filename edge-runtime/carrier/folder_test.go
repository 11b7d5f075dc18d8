package carrier

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

func read(t testing.TB, p Place, d artifact.Descriptor, offset int64) ([]byte, error) {
	t.Helper()
	r, err := p.Open(t.Context(), d, offset)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

func TestFolder(t *testing.T) {
	s := newShelf()
	blob := s.put(bytes.Repeat([]byte("0123456789"), 1000))
	head := s.tag("churn:channel-prod", []byte(`{"schemaVersion":2}`))
	s.tag("ppe:channel-prod", []byte(`{"schemaVersion":2,"x":1}`))
	dirs := map[string]func(dir string) string{
		"layout":           func(dir string) string { s.folder(t, dir); return dir },
		"layout below":     func(dir string) string { s.folder(t, filepath.Join(dir, "waybill")); return dir },
		"archive":          func(dir string) string { put(t, dir, "stick.tar", s.archive(t)); return dir },
		"archive as place": func(dir string) string { put(t, dir, "x", s.archive(t)); return filepath.Join(dir, "x") },
	}
	for name, lay := range dirs {
		t.Run(name, func(t *testing.T) {
			f := NewFolder(lay(t.TempDir()), "churn")
			for range 2 { // from the file, and with the table of contents known
				ds, err := f.Heads(t.Context(), "channel-prod")
				if err != nil || len(ds) != 1 || ds[0] != head {
					t.Fatal(ds, err)
				}
				for _, at := range []int64{0, 1, 9999, 10000} {
					if b, err := read(t, f, blob, at); err != nil || !bytes.Equal(b, s.blobs[blob.Digest][at:]) {
						t.Fatalf("from %d: %d bytes, %v", at, len(b), err)
					}
				}
			}
			if _, err := f.Heads(t.Context(), "channel-test"); !errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrAbsent) {
				t.Error(err)
			}
			if _, err := read(t, f, artifact.Descriptor{Digest: artifact.DigestOf(nil)}, 0); !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
			other := NewFolder(f.path, "nobody")
			if ds, err := other.Heads(t.Context(), "channel-prod"); err != nil || len(ds) != 2 {
				t.Errorf("under no name that is wanted: %v, %v", ds, err)
			}
		})
	}
}

func put(t testing.TB, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// A stick is there or not, and is replaced by another one between two looks.
func TestFolderComesAndGoes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "media")
	f := NewFolder(dir, "churn")
	if _, err := f.Heads(t.Context(), "channel-prod"); !errors.Is(err, ErrAbsent) {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Heads(t.Context(), "channel-prod"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("an empty mount point: %v", err)
		}
		s := newShelf()
		blob := s.put(bytes.Repeat([]byte{byte(i)}, 1<<20))
		head := s.tag("churn:channel-prod", fmt.Appendf(nil, `{"n":%d}`, i))
		put(t, dir, "waybill.tar", s.archive(t))
		if ds, err := f.Heads(t.Context(), "channel-prod"); err != nil || len(ds) != 1 || ds[0] != head {
			t.Fatal(ds, err)
		}
		r, err := f.Open(t.Context(), blob, 0)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 1000)
		if _, err := io.ReadFull(r, buf); err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" { // there a file that is open stays
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
		}
		_ = r.Close()
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := read(t, f, blob, 0); !errors.Is(err, ErrAbsent) {
			t.Fatalf("after it was taken out: %v", err)
		}
	}
	if runtime.GOOS == "linux" {
		es, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip(err)
		}
		for _, e := range es {
			if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && filepath.Dir(to) == dir {
				t.Errorf("%s is still open: the stick could not be taken out", to)
			}
		}
	}
}

// Junk on a stick neither leads out of it nor stops what is right there from being found.
func TestFolderJunk(t *testing.T) {
	s := newShelf()
	blob := s.put([]byte("the model"))
	head := s.tag("churn:channel-prod", []byte(`{"n":1}`))
	outside := t.TempDir()
	secret := s.put([]byte("secret of the device")) // its digest is known, its file lies elsewhere
	put(t, outside, "secret", []byte("secret of the device"))
	dir := t.TempDir()
	good := newShelf()
	good.blobs[blob.Digest], good.lines = s.blobs[blob.Digest], s.lines
	good.blobs[head] = s.blobs[head]
	put(t, dir, "zz.tar", good.archive(t))
	put(t, dir, "empty.tar", nil)
	put(t, dir, "noise.tar", bytes.Repeat([]byte("noise"), 1000))
	put(t, dir, "cut.tar", good.archive(t)[:2000])
	if err := os.Mkdir(filepath.Join(dir, "folder.tar"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "index.json", []byte("not json"))
	if err := os.MkdirAll(filepath.Join(dir, "waybill", "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "waybill/index.json", s.index(t))
	link := func(to, name string) {
		if err := os.Symlink(to, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
			t.Skipf("this user makes no links here: %v", err)
		}
	}
	link(filepath.Join(outside, "secret"), "waybill/"+blobPath(secret.Digest))
	link("/dev/zero", "link.tar")
	link(dir, "loop")
	if f, err := os.Create(filepath.Join(dir, "huge.tar")); err == nil {
		_ = f.Truncate(1 << 40) // sparse; where that is too much it stays empty
		_ = f.Close()
	}
	if mkfifo, err := exec.LookPath("mkfifo"); err == nil {
		for _, name := range []string{"pipe.tar", "waybill/" + blobPath(artifact.DigestOf([]byte("pipe")))} {
			if err := exec.CommandContext(t.Context(), mkfifo, filepath.Join(dir, name)).Run(); err != nil {
				t.Log(err)
			}
		}
	}
	for i := range 2000 {
		put(t, dir, fmt.Sprintf("%04d.jpg", i), nil)
	}
	f := NewFolder(dir, "churn")
	done := make(chan error, 1)
	go func() {
		ds, err := f.Heads(t.Context(), "channel-prod")
		if err == nil && (len(ds) != 1 || ds[0] != head) {
			err = fmt.Errorf("heads %v", ds)
		}
		if b, rerr := read(t, f, blob, 0); rerr != nil || string(b) != "the model" {
			err = errors.Join(err, rerr, fmt.Errorf("read %q", b))
		}
		if b, rerr := read(t, f, secret, 0); rerr == nil {
			err = errors.Join(err, fmt.Errorf("a link led to %q", b))
		}
		if b, rerr := read(t, f, artifact.Descriptor{Digest: artifact.DigestOf([]byte("pipe"))}, 0); rerr == nil {
			err = errors.Join(err, fmt.Errorf("a pipe gave %q", b))
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("a stick makes the device wait")
	}
	// Without os.Root and Lstat the link would have been followed.
	if b, err := os.ReadFile(filepath.Join(dir, "waybill", filepath.FromSlash(blobPath(secret.Digest)))); err != nil || string(b) != "secret of the device" {
		t.Fatalf("the link leads nowhere: %v", err)
	}
}

// Two archives on one stick, one of them damaged: the right copy is taken.
func TestFolderDamagedCopy(t *testing.T) {
	s := newShelf()
	blob := s.put(bytes.Repeat([]byte("model"), 1000))
	s.tag("churn:channel-prod", []byte(`{"n":1}`))
	good := s.archive(t)
	bad := bytes.Replace(good, []byte("modelmodelmodel"), []byte("modelMODELmodel"), 1)
	for _, order := range [][2][]byte{{good, bad}, {bad, good}} {
		dir := t.TempDir()
		put(t, dir, "waybill.tar", order[0])
		put(t, dir, "x.tar", order[1])
		b, err := read(t, NewFolder(dir), blob, 0)
		if err != nil || artifact.DigestOf(b) != blob.Digest {
			t.Errorf("%d bytes, %v", len(b), err)
		}
	}
}

// A tar is read where it lies: whatever it holds, what comes of it lies inside the file and has the size that it says.
func FuzzArchive(f *testing.F) {
	s := newShelf()
	s.put([]byte("the model"))
	s.tag("churn:channel-prod", []byte(`{"n":1}`))
	good := s.archive(f)
	f.Add(good)
	f.Add(good[:len(good)-1024])
	f.Add(bytes.Replace(good, []byte("blobs/sha256/"), []byte("../../sha256/"), 1))
	f.Add(bytes.Replace(good, []byte("00000000011"), []byte("77777777777"), 1))
	f.Add(good[:700])                                // ends inside of the first entry
	f.Add(append(bytes.Clone(good[:1024]), good...)) // one entry twice
	f.Add(make([]byte, 2048))                        // only the end
	for _, kind := range []byte("12357gxLKSV\x00") { // links, devices, folders, extended headers, long names, sparse files
		f.Add(reheaded(good, func(h []byte) { h[156] = kind }))
	}
	for _, size := range []string{"00000000000\x00", "77777777777\x00", "\x80\x00\x00\x00\x7f\xff\xff\xff\xff\xff\xff\xff", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", "-1\x00         "} {
		f.Add(reheaded(good, func(h []byte) { copy(h[124:136], size) }))
	}
	for _, name := range []string{"/etc/passwd", "..", "", "blobs/sha256/", "blobs\\sha256\\x", "index.json", "oci-layout"} {
		f.Add(reheaded(good, func(h []byte) { clear(h[:100]); copy(h, name) }))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		a, err := readArchive(t.Context(), r, int64(len(b)))
		if err != nil {
			return
		}
		for d, e := range a.blobs {
			if e.at < 0 || e.size < 0 || e.at+e.size > int64(len(b)) {
				t.Fatalf("%s lies at %d, %d bytes, in a file of %d", d, e.at, e.size, len(b))
			}
		}
		a.heads("channel-prod", []string{"churn"})
	})
}

// reheaded is an archive whose first header is changed and has a right checksum.
func reheaded(good []byte, change func(header []byte)) []byte {
	b := bytes.Clone(good)
	h := b[:512]
	change(h)
	copy(h[148:156], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:156], fmt.Sprintf("%06o\x00 ", sum))
	return b
}

// An archive of very many entries is refused, not read into memory.
func TestArchiveEntries(t *testing.T) {
	s := newShelf()
	for i := range maxEntries {
		s.put(fmt.Append(nil, i))
	}
	s.tag("churn:channel-prod", []byte(`{"n":1}`))
	b := s.archive(t)
	if _, err := readArchive(t.Context(), bytes.NewReader(b), int64(len(b))); err == nil {
		t.Error("any number of entries")
	}
}
