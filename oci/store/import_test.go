package store_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// noise is content of which no part equals another.
func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

func openReferring(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), dir, store.Options{Create: true, References: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func importFile(t *testing.T, s *store.Store, path string, o store.ImportOptions) (store.Imported, error) {
	t.Helper()
	f, err := fsx.OS{}.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	return s.Import(t.Context(), f, path, o)
}

func writeFile(t *testing.T, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readBlob(s *store.Store, d artifact.Digest, size int) ([]byte, error) {
	rc, err := s.Blob(context.Background(), artifact.Descriptor{Digest: d, Size: int64(size)})
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return io.ReadAll(rc)
}

func TestImport(t *testing.T) {
	for _, size := range []int{0, 1, 300_000, 5<<20 + 7} {
		content := noise(size)
		want := artifact.DigestOf(content)
		for _, how := range []store.How{store.HowAuto, store.HowCopy, store.HowHardlink, store.HowReference} {
			dir := t.TempDir()
			s := openReferring(t, filepath.Join(dir, "store"))
			path := writeFile(t, filepath.Join(dir, "model.bin"), content)
			var seen bytes.Buffer
			var counted int64
			in, err := importFile(t, s, path, store.ImportOptions{How: how, Want: want,
				Tee:      func(p []byte) error { seen.Write(p); return nil },
				Progress: func(n int64) { counted += n }})
			if err != nil {
				t.Fatalf("%d bytes, %q: %v", size, how, err)
			}
			if in.Digest != want || in.Size != int64(size) || in.How == store.HowAuto || (how != store.HowAuto && in.How != how) {
				t.Fatalf("%d bytes, %q: %+v", size, how, in)
			}
			if !bytes.Equal(seen.Bytes(), content) || counted != int64(size) {
				t.Fatalf("%d bytes, %q: %d bytes were shown, %d counted", size, how, seen.Len(), counted)
			}
			if b, err := readBlob(s, want, size); err != nil || !bytes.Equal(b, content) {
				t.Fatalf("%d bytes, %q: %d bytes come back, %v", size, how, len(b), err)
			}
			if n, ok, err := s.Has(want); err != nil || !ok || n != int64(size) {
				t.Fatalf("%d bytes, %q: Has: %d %v %v", size, how, n, ok, err)
			}
			// Nothing else is left, and a reference is no second copy.
			es, err := os.ReadDir(filepath.Join(s.Dir(), ".ingest"))
			if err != nil || len(es) != 0 {
				t.Fatalf("%q left %v %v", how, es, err)
			}
			if _, err := os.Stat(s.BlobPath(want)); (err == nil) != (how != store.HowReference) {
				t.Fatalf("%q: blob file: %v", how, err)
			}
		}
	}
}

func TestImportRefuses(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, filepath.Join(dir, "model.bin"), noise(400_000))
	own := open(t, filepath.Join(dir, "own"))
	for _, how := range []store.How{store.HowHardlink, store.HowReference} {
		if _, err := importFile(t, own, path, store.ImportOptions{How: how}); diag.CodeOf(err) != diag.Usage {
			t.Errorf("%s into a store without references: %v", how, err)
		}
	}
	s := openReferring(t, filepath.Join(dir, "store"))
	other := artifact.DigestOf([]byte("other"))
	enough := errors.New("enough")
	for _, how := range []store.How{store.HowAuto, store.HowCopy, store.HowHardlink, store.HowReference} {
		if _, err := importFile(t, s, path, store.ImportOptions{How: how, Want: other}); diag.CodeOf(err) != diag.Verification || !strings.Contains(diag.Render(err), string(other)) {
			t.Errorf("%q with another digest: %v", how, err)
		}
		if _, err := importFile(t, s, path, store.ImportOptions{How: how, Tee: func([]byte) error { return enough }}); !errors.Is(err, enough) {
			t.Errorf("%q with a refusing observer: %v", how, err)
		}
	}
	if _, err := importFile(t, s, dir, store.ImportOptions{}); diag.CodeOf(err) != diag.Usage {
		t.Errorf("a directory: %v", err)
	}
	if _, err := importFile(t, s, path, store.ImportOptions{How: "magic"}); diag.CodeOf(err) != diag.Usage {
		t.Errorf("an unknown way: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := s.Import(ctx, f, path, store.ImportOptions{How: store.HowCopy}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	u, err := s.Stat(t.Context())
	if err != nil || u.Blobs != 0 || u.References != 0 {
		t.Errorf("refused imports left something: %+v %v", u, err)
	}
	if es, err := os.ReadDir(filepath.Join(s.Dir(), ".ingest")); err != nil || len(es) != 0 {
		t.Errorf("refused imports left %v %v", es, err)
	}
}

// A file that was changed behind a reference is found at the next open when its identity shows it, and by the hash of what
// is read when it does not; both digests are named.
func TestReferenceToAChangedFile(t *testing.T) {
	dir := t.TempDir()
	content := noise(1 << 20)
	want := artifact.DigestOf(content)
	path := writeFile(t, filepath.Join(dir, "model.bin"), content)
	s := openReferring(t, filepath.Join(dir, "store"))
	if _, err := importFile(t, s, path, store.ImportOptions{How: store.HowReference}); err != nil {
		t.Fatal(err)
	}
	named := func(what string, err error, got artifact.Digest) {
		t.Helper()
		msg := diag.Render(err)
		if diag.CodeOf(err) != diag.Verification || !strings.Contains(msg, string(want)) || !strings.Contains(msg, string(got)) ||
			!strings.Contains(msg, path) || !strings.Contains(msg, "hint: waybill pack") {
			t.Errorf("%s: %s", what, msg)
		}
	}
	changed := bytes.Clone(content)
	changed[700_000] ^= 1

	// While it is being read: the descriptor that was opened before sees the change.
	rc, err := s.Blob(t.Context(), artifact.Descriptor{Digest: want, Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(changed[700_000:700_001], 700_000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	// The clock of a file system may tick every few milliseconds only: the change must show all the same.
	later := time.Now().Add(time.Minute)
	if err := os.Chtimes(path, later, later); err != nil {
		t.Fatal(err)
	}
	_, err = io.ReadAll(rc)
	rc.Close()
	named("changed while it is read", err, artifact.DigestOf(changed))

	// Before it is opened.
	_, err = readBlob(s, want, 1<<20)
	named("changed before", err, artifact.DigestOf(changed))
	_, err = s.OpenRaw(t.Context(), want)
	named("changed before, opened raw", err, artifact.DigestOf(changed))
	if _, ok, err := s.Has(want); ok || err != nil {
		t.Errorf("Has of a changed file: %v %v", ok, err)
	}
	writeFile(t, path, content[:1<<19])
	_, err = readBlob(s, want, 1<<20)
	named("shortened", err, artifact.DigestOf(content[:1<<19]))

	// Put back with other times: the content decides, and is looked at once.
	writeFile(t, path, content)
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(path, old, old); err != nil {
		t.Fatal(err)
	}
	if b, err := readBlob(s, want, 1<<20); err != nil || !bytes.Equal(b, content) {
		t.Fatalf("put back: %v", err)
	}
	if _, ok, err := s.Has(want); !ok || err != nil {
		t.Errorf("the new identity was not recorded: %v %v", ok, err)
	}

	// Moved away.
	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if _, err := readBlob(s, want, 1<<20); diag.CodeOf(err) != diag.NotFound || !strings.Contains(diag.Render(err), path) {
		t.Errorf("moved away: %v", err)
	}
}

// Without the comparison of identities a change is still caught by the hash, never by luck; and without the hash too the
// changed bytes come through, which shows that these two are what catches it.
func TestReferenceChecksAreWhatCatches(t *testing.T) {
	mem := fsx.NewMem()
	if err := mem.MkdirAll("/src", 0o700); err != nil {
		t.Fatal(err)
	}
	src, err := mem.Create("/src/model.bin", 0o600)
	if err != nil {
		t.Fatal(err)
	}
	content := noise(100_000)
	if _, err := src.Write(content); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "windows" {
		t.Skip("the paths of the file system in memory are not absolute on Windows")
	}
	blind := blindFS{mem}
	s, err := store.Open(t.Context(), "/store", store.Options{FS: blind, Lock: noLock, Create: true, References: true})
	if err != nil {
		t.Fatal(err)
	}
	f, err := blind.Open("/src/model.bin")
	if err != nil {
		t.Fatal(err)
	}
	in, err := s.Import(t.Context(), f, "/src/model.bin", store.ImportOptions{How: store.HowReference})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.WriteAt([]byte("x"), 5000); err != nil {
		t.Fatal(err)
	}
	raw, err := s.OpenRaw(t.Context(), in.Digest) // identity blinded, no hash
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(raw); err != nil || bytes.Equal(b, content) {
		t.Fatalf("the change did not come through: %v", err)
	}
	if _, err := readBlob(s, in.Digest, len(content)); diag.CodeOf(err) != diag.Verification {
		t.Fatalf("identity blinded, hashed: %v", err)
	}
}

// blindFS hides when a file was changed.
type blindFS struct{ *fsx.Mem }

func (b blindFS) Open(name string) (fsx.File, error) {
	f, err := b.Mem.Open(name)
	if err != nil {
		return nil, err
	}
	return blindFile{f}, nil
}

type blindFile struct{ fsx.File }

func (f blindFile) Stat() (fs.FileInfo, error) {
	fi, err := f.File.Stat()
	if err != nil {
		return nil, err
	}
	return blindInfo{fi}, nil
}

type blindInfo struct{ fs.FileInfo }

func (blindInfo) ModTime() time.Time { return time.Unix(0, 0) }

// A layout from elsewhere cannot make us read files of this machine.
func TestForeignReferencesAreIgnored(t *testing.T) {
	dir := t.TempDir()
	secret := writeFile(t, filepath.Join(dir, "secret"), noise(200_000))
	s := openReferring(t, filepath.Join(dir, "store"))
	in, err := importFile(t, s, secret, store.ImportOptions{How: store.HowReference})
	if err != nil {
		t.Fatal(err)
	}
	given := open(t, s.Dir()) // the same directory as a plain layout, as if somebody had sent it
	if _, err := readBlob(given, in.Digest, 200_000); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a plain layout follows a reference: %v", err)
	}
	if _, ok, err := given.Has(in.Digest); ok || err != nil {
		t.Fatalf("%v %v", ok, err)
	}
	if b, err := readBlob(s, in.Digest, 200_000); err != nil || len(b) != 200_000 { // what the check keeps out
		t.Fatal(err)
	}
}

func TestOwn(t *testing.T) {
	dir := t.TempDir()
	content := noise(300_000)
	path := writeFile(t, filepath.Join(dir, "model.bin"), content)
	s := openReferring(t, filepath.Join(dir, "store"))
	in, err := importFile(t, s, path, store.ImportOptions{How: store.HowReference})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Own(t.Context(), artifact.DigestOf([]byte("another"))); err != nil || len(got) != 0 {
		t.Fatalf("%v %v", got, err)
	}
	if got, err := s.Own(t.Context()); err != nil || len(got) != 1 || got[0].Digest != in.Digest {
		t.Fatalf("%v %v", got, err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if b, err := readBlob(s, in.Digest, len(content)); err != nil || !bytes.Equal(b, content) {
		t.Fatal(err)
	}
	if got, err := s.Own(t.Context()); err != nil || len(got) != 0 {
		t.Fatalf("twice: %v %v", got, err)
	}
}

// Many imports at once, of one content and of several, through one Store.
func TestImportAtOnce(t *testing.T) {
	dir := t.TempDir()
	s := openReferring(t, filepath.Join(dir, "store"))
	var wg sync.WaitGroup
	errs := make([]error, 12)
	for i := range errs { // a file each: a hard link changes its file's identity
		path := writeFile(t, filepath.Join(dir, "m"+string(rune('a'+i))), noise(600_000+i%3))
		how := []store.How{store.HowAuto, store.HowCopy, store.HowReference, store.HowHardlink}[i/3]
		wg.Go(func() {
			f, err := os.Open(path)
			if err != nil {
				errs[i] = err
				return
			}
			defer f.Close()
			_, errs[i] = s.Import(context.Background(), f, path, store.ImportOptions{How: how})
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		b := noise(600_000 + i)
		if got, err := readBlob(s, artifact.DigestOf(b), len(b)); err != nil || !bytes.Equal(got, b) {
			t.Fatal(err)
		}
	}
}

// On a file system that can clone, HowAuto shares blocks: the store stays right when the file is changed.
func TestReflink(t *testing.T) {
	dir := reflinkDir(t)
	content := noise(2 << 20)
	path := writeFile(t, filepath.Join(dir, "model.bin"), content)
	s := open(t, filepath.Join(dir, "store"))
	in, err := importFile(t, s, path, store.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if in.How != store.HowReflink {
		t.Fatalf("imported by %s", in.How)
	}
	writeFile(t, path, []byte("changed"))
	if b, err := readBlob(s, in.Digest, len(content)); err != nil || !bytes.Equal(b, content) {
		t.Fatal(err)
	}
}

// reflinkDir is a folder on a file system that clones: the one of WAYBILL_REFLINK_DIR, the temporary one, or one in a file
// that root mounts for the test.
func reflinkDir(t *testing.T) string {
	t.Helper()
	can := func(dir string) bool {
		f, err := os.Open(writeFile(t, filepath.Join(dir, "probe"), []byte("x")))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return fsx.OS{}.Clone(f, filepath.Join(dir, "probe2")) == nil
	}
	if d := os.Getenv("WAYBILL_REFLINK_DIR"); d != "" {
		d, err := os.MkdirTemp(d, "waybill")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(d) })
		return d
	}
	dir := t.TempDir()
	if can(dir) {
		return dir
	}
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil || runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("no file system that clones here (set WAYBILL_REFLINK_DIR, or run as root with xfsprogs)")
	}
	img := filepath.Join(dir, "img")
	if err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, 400<<20)); err != nil {
		t.Fatal(err)
	}
	mnt := filepath.Join(dir, "mnt")
	if err := os.Mkdir(mnt, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{{mkfs, "-q", "-m", "reflink=1", img}, {"mount", "-o", "loop", img, mnt}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Skipf("no file system that clones here: %s: %s", strings.Join(c, " "), out)
		}
	}
	t.Cleanup(func() { _ = exec.Command("umount", mnt).Run() })
	return mnt
}
