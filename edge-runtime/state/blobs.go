package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// ErrDigest says that content does not have the digest or size it should have.
var ErrDigest = errors.New("content does not match its digest")

// Blobs is the content store of the device: one file per digest, mode 0400 in a directory of mode 0700, written once
// and never changed in place. Partial downloads wait below tmp and are continued.
type Blobs struct {
	fs  fsx.FS
	dir string // blobs/sha256
	tmp string
	fly *flights
}

// Blobs is the content store of s.
func (s *Store) Blobs() *Blobs {
	return &Blobs{fs: s.fs, dir: filepath.Join(s.dir, "blobs", "sha256"), tmp: filepath.Join(s.dir, "tmp"), fly: s.flights}
}

// Path is where the blob lies, or would.
func (b *Blobs) Path(d artifact.Digest) string { return filepath.Join(b.dir, d.Hex()) }

// Dir is the directory of the blobs.
func (b *Blobs) Dir() string { return b.dir }

// Has reports whether a file of that digest's name and size is there. Its content is not read.
func (b *Blobs) Has(d artifact.Digest, size int64) bool {
	info, err := b.fs.Stat(b.Path(d))
	return err == nil && info.Size() == size
}

// Missing is the number of bytes of d that still have to be fetched.
func (b *Blobs) Missing(d artifact.Digest, size int64) int64 {
	if b.Has(d, size) {
		return 0
	}
	if info, err := b.fs.Stat(b.partial(d)); err == nil && info.Size() <= size {
		return size - info.Size()
	}
	return size
}

func (b *Blobs) partial(d artifact.Digest) string { return filepath.Join(b.tmp, d.Hex()) }

// Fetch stores the content of d, of exactly size bytes, from open, which starts reading at an offset. Bytes are hashed
// as they are written; no more than size are read. Of several calls for one digest one fetches. An interrupted download is continued from what is on disk. On success the blob is durable
// under its digest. Content with another hash is removed and the error matches ErrDigest; where part of it was on disk before, it is
// first read once more from the beginning, since that part may be what is wrong.
func (b *Blobs) Fetch(ctx context.Context, d artifact.Digest, size int64, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) error {
	if b.Has(d, size) {
		// Its bytes were synced before it got this name; the name may be what failed to become durable then.
		if err := b.fs.SyncDir(b.dir); err != nil {
			return diag.Errorf("store %s: %w", d.Short(), err)
		}
		return nil
	}
	fl, n, wait, err := b.fly.join(ctx, d)
	if err != nil {
		return diag.Errorf("store %s: %w", d.Short(), err)
	}
	if wait {
		return b.Fetch(ctx, d, size, open)
	}
	defer b.fly.leave(d, n)
	partial := filepath.Join(b.tmp, partialName(d, n))
	f, err := b.fs.OpenAppend(partial, 0o600)
	if err != nil {
		return diag.Errorf("store %s: %w", d.Short(), err)
	}
	defer func() {
		if f != nil {
			_ = f.Close()
		}
	}()
	h := sha256.New()
	have, err := rehash(f, h, size)
	if err != nil {
		return diag.Errorf("store %s: %w", d.Short(), err)
	}
	if have < size {
		if err := b.append(ctx, f, h, fl, size-have, func() (io.ReadCloser, error) { return open(ctx, have) }); err != nil {
			// What arrived is kept for the next try; its hash is checked as a whole then.
			return diag.Errorf("store %s: %w", d.Short(), err)
		}
	}
	got := artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	if got != d && have > 0 { // a power cut may have left anything of what was not synced
		if err := f.Truncate(0); err != nil {
			return diag.Errorf("store %s: %w", d.Short(), err)
		}
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return diag.Errorf("store %s: %w", d.Short(), err)
		}
		h.Reset()
		if err := b.append(ctx, f, h, fl, size, func() (io.ReadCloser, error) { return open(ctx, 0) }); err != nil {
			return diag.Errorf("store %s: %w", d.Short(), err)
		}
		got = artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	}
	if got != d {
		_ = f.Close()
		f = nil
		_ = b.fs.Remove(partial)
		return diag.Errorf("%w: expected %s, the %d bytes received have %s", ErrDigest, d, size, got)
	}
	if err := f.Sync(); err != nil {
		// Its pages may count as clean now and be lost: a later sync of the same file would succeed and prove nothing.
		_ = f.Close()
		f = nil
		_ = b.fs.Remove(partial)
		return diag.Errorf("store %s: %w", d.Short(), err)
	}
	err = f.Close()
	f = nil
	if err == nil {
		err = b.fs.Chmod(partial, 0o400)
	}
	if err == nil {
		// A file of that name but another size is damaged: replaced as a whole.
		err = b.fs.Rename(partial, b.Path(d))
	}
	if err == nil {
		err = b.fs.SyncDir(b.dir)
	}
	if err != nil {
		return diag.Errorf("store %s: %w", d.Short(), err)
	}
	return nil
}

// rehash reads what a partial file holds into h and returns its length; a file that is too long is emptied.
func rehash(f fsx.File, h hash.Hash, size int64) (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if info.Size() > size {
		return 0, f.Truncate(0)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return 0, err
	}
	return io.Copy(h, io.LimitReader(f, info.Size()))
}

func (b *Blobs) append(ctx context.Context, f fsx.File, h hash.Hash, fl *flight, want int64, open func() (io.ReadCloser, error)) error {
	r, err := open()
	if err != nil {
		return err
	}
	defer r.Close()
	buf := make([]byte, 128<<10)
	for want > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf[:min(int64(len(buf)), want)])
		if n > 0 {
			if _, werr := f.Write(buf[:n]); werr != nil {
				return werr
			}
			h.Write(buf[:n])
			want -= int64(n)
			fl.bytes.Add(int64(n))
		}
		if errors.Is(err, io.EOF) && want > 0 {
			return diag.Errorf("%d bytes short: %w", want, io.ErrUnexpectedEOF)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	return nil // what a carrier sends beyond the size is never read
}

// Put stores bytes that are in memory.
func (b *Blobs) Put(ctx context.Context, data []byte) (artifact.Digest, error) {
	d := artifact.DigestOf(data)
	return d, b.Fetch(ctx, d, int64(len(data)), func(_ context.Context, offset int64) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(string(data[offset:]))), nil
	})
}

// Read returns the content of d after checking its hash; at most max bytes.
func (b *Blobs) Read(d artifact.Digest, max int64) ([]byte, error) {
	data, err := fsx.ReadFile(b.fs, b.Path(d), max)
	if err != nil {
		return nil, err
	}
	if artifact.DigestOf(data) != d {
		return nil, diag.Errorf("%w: %s on disk", ErrDigest, d)
	}
	return data, nil
}

// Check hashes the blob on disk again. The error matches ErrDigest or fs.ErrNotExist when it is not there as it should be.
func (b *Blobs) Check(ctx context.Context, d artifact.Digest, size int64) error {
	f, err := b.fs.Open(b.Path(d))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	buf := make([]byte, 128<<10)
	var total int64
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := f.Read(buf)
		h.Write(buf[:n])
		total += int64(n)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if got := artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))); got != d || total != size {
		return diag.Errorf("%w: %s on disk has %s, %d bytes", ErrDigest, d, got, total)
	}
	return nil
}

// Drop removes a blob, so that it is fetched again.
func (b *Blobs) Drop(d artifact.Digest) error {
	err := b.fs.Remove(b.Path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Sweep removes every blob that keep does not hold, and every partial download of them. It returns the bytes freed. The
// caller marks from the durable document: what it names must be in keep.
func (b *Blobs) Sweep(keep map[artifact.Digest]bool) (freed int64, err error) {
	for _, dir := range []string{b.dir, b.tmp} {
		es, err := b.fs.ReadDir(dir)
		if err != nil {
			return freed, diag.Errorf("sweep: %w", err)
		}
		for _, e := range es {
			if d, err := artifact.ParseDigest("sha256:" + strings.SplitN(e.Name(), ".", 2)[0]); err == nil && keep[d] {
				continue
			}
			info, err := e.Info()
			if err != nil {
				continue // gone meanwhile
			}
			if err := b.fs.Remove(filepath.Join(dir, e.Name())); err != nil {
				return freed, diag.Errorf("sweep: %w", err)
			}
			freed += info.Size()
		}
	}
	return freed, nil
}

// Free is the space left for downloads: what the file system has less reserve bytes, never below 0.
func (b *Blobs) Free(reserve uint64) (uint64, error) {
	n, err := b.fs.FreeBytes(b.dir)
	if err != nil {
		return 0, err
	}
	return n - min(n, reserve), nil
}
