package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Writer takes in one blob. It is not safe for concurrent use. Close it in any case; without a Commit before, that
// removes what was written.
type Writer struct {
	s    *Store
	f    fsx.File
	h    hash.Hash
	n    int64
	what string // names the content in errors
	hint func(*diag.Error) *diag.Error
	done bool
}

// NewWriter starts a blob.
func (s *Store) NewWriter(ctx context.Context) (*Writer, error) {
	if err := s.Hold(ctx); err != nil {
		return nil, err
	}
	f, err := s.temp()
	if err != nil {
		return nil, err
	}
	return &Writer{s: s, f: f, h: sha256.New(), what: "content written to store " + s.dir}, nil
}

// temp makes a temporary file.
func (s *Store) temp() (fsx.File, error) {
	base := s.leaseName() // tells prune whose it is
	if base == "" {
		return nil, diag.New(diag.Failure, "store %s was closed while it was written to", s.dir)
	}
	f, err := fsx.CreateTemp(s.fs, s.path(ingestDir), base, 0o644)
	if errors.Is(err, fs.ErrNotExist) { // a layout that another tool made
		if err = s.mkdir(s.path(ingestDir)); err == nil {
			f, err = fsx.CreateTemp(s.fs, s.path(ingestDir), base, 0o644)
		}
	}
	if err != nil {
		return nil, s.writeError(err, "write to store")
	}
	return f, nil
}

// tempName reserves the name of a temporary file for who makes it in another way.
func (s *Store) tempName() (string, error) {
	f, err := s.temp()
	if err != nil {
		return "", err
	}
	name := f.Name()
	if err := f.Close(); err != nil {
		_ = s.fs.Remove(name)
		return "", s.writeError(err, "write to store")
	}
	if err := s.fs.Remove(name); err != nil {
		return "", s.writeError(err, "write to store")
	}
	return name, nil
}

// writeError tells a full disk from other failures, since the user can do something about it.
func (s *Store) writeError(err error, format string, args ...any) error {
	e := diag.Wrap(diag.Failure, err, "%s %s", fmt.Sprintf(format, args...), s.dir)
	if noSpace(err) {
		if free, ferr := s.fs.FreeBytes(s.dir); ferr == nil {
			_ = e.Line("%d bytes are free", free)
		}
		return e.Hint("waybill store prune --untagged")
	}
	return e
}

// Write appends to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.Write(p)
	w.h.Write(p[:n])
	w.n += int64(n)
	if err != nil {
		return n, w.s.writeError(err, "write to store")
	}
	return n, nil
}

// ReadFrom implements io.ReaderFrom: reading and writing go on while another core hashes.
func (w *Writer) ReadFrom(r io.Reader) (int64, error) {
	n, err := pump(r, w.h, writerFunc(func(p []byte) (int, error) {
		n, err := w.f.Write(p)
		if err != nil {
			err = w.s.writeError(err, "write to store")
		}
		return n, err
	}))
	w.n += n
	return n, err
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Size is the number of bytes written so far.
func (w *Writer) Size() int64 { return w.n }

// Commit makes the blob durable under its digest, which must be want unless want is empty. The name itself becomes
// durable with the next PutManifest.
func (w *Writer) Commit(want artifact.Digest) (artifact.Digest, int64, error) {
	got := sum(w.h)
	if want != "" && got != want {
		return got, w.n, w.hinted(mismatch(want, got, w.what))
	}
	tmp := w.f.Name()
	err := w.f.Sync()
	if cerr := w.f.Close(); err == nil {
		err = cerr
	}
	w.done = true
	if err != nil {
		_ = w.s.fs.Remove(tmp)
		return got, w.n, w.s.writeError(err, "write blob %s to store", got)
	}
	return got, w.n, w.s.name(tmp, got)
}

// name gives the temporary file tmp, whose content is durable and has the digest d, its place. On an error it is removed.
func (s *Store) name(tmp string, d artifact.Digest) error {
	// Over an existing blob of that name too: this one was hashed just now, that one may have been damaged since.
	err := s.pin(d) // before the blob has its name
	if err != nil {
		_ = s.fs.Remove(tmp)
		return err
	}
	err = s.fs.Rename(tmp, s.BlobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		if err = s.mkdir(s.path("blobs", "sha256")); err == nil {
			err = s.fs.Rename(tmp, s.BlobPath(d))
		}
	}
	if err != nil {
		_ = s.fs.Remove(tmp)
		return s.writeError(err, "write blob %s to store", d)
	}
	return nil
}

func (w *Writer) hinted(e *diag.Error) error {
	if w.hint != nil {
		return w.hint(e)
	}
	return e
}

// Close abandons the blob unless Commit took it.
func (w *Writer) Close() error {
	if w.done {
		return nil
	}
	w.done = true
	return errors.Join(w.f.Close(), w.s.fs.Remove(w.f.Name()))
}

// PutBlob stores what r gives, up to its end, and returns digest and size. When want has a digest, the content must
// match it and its size.
func (s *Store) PutBlob(ctx context.Context, r io.Reader, want artifact.Descriptor) (artifact.Digest, int64, error) {
	if want.Digest != "" && want.Size < 0 {
		return "", 0, diag.New(diag.Verification, "the descriptor of %s has the negative size %d", want.Digest, want.Size)
	}
	w, err := s.NewWriter(ctx)
	if err != nil {
		return "", 0, err
	}
	defer w.Close()
	if want.Digest != "" {
		// The writer hashes anyway: a verifying reader of the same content need not do it too.
		if v, ok := r.(*verified); ok && v.n == 0 && v.err == nil && v.d.Digest == want.Digest {
			r, w.what, w.hint = v.r, v.what, v.hint
		}
		r = io.LimitReader(r, want.Size+1)
	}
	if _, err := w.ReadFrom(ctxReader{ctx, r}); err != nil {
		return "", w.n, err
	}
	if want.Digest != "" && w.n != want.Size {
		return "", w.n, w.hinted(sizeMismatch(want, w.n, w.what))
	}
	return w.Commit(want.Digest)
}

// PutBytes stores b and describes it.
func (s *Store) PutBytes(ctx context.Context, mediaType string, b []byte) (artifact.Descriptor, error) {
	d := artifact.Descriptor{MediaType: mediaType, Digest: artifact.DigestOf(b), Size: int64(len(b))}
	_, _, err := s.PutBlob(ctx, bytes.NewReader(b), d)
	return d, err
}

// checkDigest stands before everything that makes a file name of a digest.
func checkDigest(d artifact.Digest) error {
	if _, err := artifact.ParseDigest(string(d)); err != nil {
		return diag.Wrap(diag.Verification, err, "read from a store")
	}
	return nil
}

// Has tells whether a blob is there, and its size. It does not hash. A blob that is a reference is there as long as its
// file has the recorded identity.
func (s *Store) Has(d artifact.Digest) (size int64, ok bool, err error) {
	if err := checkDigest(d); err != nil {
		return 0, false, err
	}
	fi, err := s.fs.Stat(s.BlobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		r, err := s.reference(d)
		if err != nil || r == nil || !s.current(r) {
			return 0, false, err
		}
		return r.Identity.Size, true, nil
	}
	if err != nil {
		return 0, false, diag.Wrap(diag.Failure, err, "look for blob %s in store %s", d, s.dir)
	}
	return fi.Size(), true, nil
}

// Blob opens a blob. The reader hashes what it gives and fails at the end when digest or size are not those of d; do not
// act on the content before its io.EOF.
func (s *Store) Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	f, r, err := s.open(ctx, d.Digest)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return Verified(ctx, f, d, "blob in store "+s.dir), nil
	}
	rc := Verified(ctx, f, d, r.what())
	rc.(*verified).hint = r.hint
	return rc, nil
}

// OpenRaw opens a blob without hashing it: for who hands the bytes to something that hashes them itself and refuses
// others, as a registry does. When that refuses, Check says what is wrong here. Of a reference the identity of the file
// is checked, as always.
func (s *Store) OpenRaw(ctx context.Context, d artifact.Digest) (fsx.File, error) {
	f, _, err := s.open(ctx, d)
	return f, err
}

// Check hashes a blob. The error has code diag.Verification and names both digests when it is not what d says.
func (s *Store) Check(ctx context.Context, d artifact.Descriptor) error {
	rc, err := s.Blob(ctx, d)
	if err != nil {
		return err
	}
	defer rc.Close()
	buf := make([]byte, min(copySize, max(d.Size, 0)+1))
	for err == nil {
		_, err = rc.Read(buf)
	}
	return eof(err)
}

// open gives the file of a blob, and the reference that led to it, or nil.
func (s *Store) open(ctx context.Context, d artifact.Digest) (fsx.File, *reference, error) {
	if err := checkDigest(d); err != nil {
		return nil, nil, err
	}
	f, err := s.fs.Open(s.BlobPath(d))
	if err == nil {
		return f, nil, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, diag.Wrap(diag.Failure, err, "open blob %s in store %s", d, s.dir)
	}
	r, err := s.reference(d)
	if err != nil {
		return nil, nil, err
	}
	if r == nil {
		return nil, nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "store %s has no blob %s", s.dir, d)
	}
	f, err = s.openReference(ctx, r)
	return f, r, err
}

// Verified wraps r so that it gives exactly the content that d describes: it stops at d.Size+1 bytes at the latest and
// returns an error of code diag.Verification, naming what was wanted and what came, instead of io.EOF when size or
// digest differ. It returns ctx's error once ctx is done. what names the content in errors ("blob in store X").
func Verified(ctx context.Context, r io.ReadCloser, d artifact.Descriptor, what string) io.ReadCloser {
	if d.Size < 0 {
		return &verified{r: r, ctx: ctx, err: diag.New(diag.Verification, "%s: the descriptor of %s has the negative size %d", what, d.Digest, d.Size)}
	}
	return &verified{ctx: ctx, r: r, d: d, what: what, h: sha256.New()}
}

type verified struct {
	ctx  context.Context // of one read, which this value is: it lives no longer than the call it serves
	r    io.ReadCloser
	d    artifact.Descriptor
	what string
	hint func(*diag.Error) *diag.Error // adds what helps; may be nil
	h    hash.Hash
	n    int64
	err  error
}

func (v *verified) Read(p []byte) (int, error) {
	if v.err != nil {
		return 0, v.err
	}
	if err := v.ctx.Err(); err != nil {
		return 0, err
	}
	if room := v.d.Size + 1 - v.n; int64(len(p)) > room {
		p = p[:room]
	}
	n, err := v.r.Read(p)
	v.h.Write(p[:n])
	v.n += int64(n)
	switch {
	case v.n > v.d.Size:
		v.err = v.hinted(sizeMismatch(v.d, v.n, v.what))
		return 0, v.err
	case errors.Is(err, io.EOF):
		v.err = v.finish()
		return n, v.err
	case err != nil:
		v.err = err
	}
	return n, err
}

func (v *verified) finish() error {
	if v.n != v.d.Size {
		return v.hinted(sizeMismatch(v.d, v.n, v.what))
	}
	if got := sum(v.h); got != v.d.Digest {
		return v.hinted(mismatch(v.d.Digest, got, v.what))
	}
	return io.EOF
}

func (v *verified) hinted(e *diag.Error) error {
	if v.hint != nil {
		return v.hint(e)
	}
	return e
}

func (v *verified) Close() error { return v.r.Close() }

func mismatch(want, got artifact.Digest, what string) *diag.Error {
	return diag.New(diag.Verification, "%s: the content is not what its digest says", what).
		Line("want %s", want).Line("got  %s", got)
}

func sizeMismatch(want artifact.Descriptor, got int64, what string) *diag.Error {
	e := diag.New(diag.Verification, "%s: %s has %d bytes", what, want.Digest, want.Size)
	if got > want.Size {
		return e.Line("more than that came")
	}
	return e.Line("only %d came", got)
}

// ReadAll reads a verified stream of a size that the caller has bounded.
func ReadAll(r io.ReadCloser, d artifact.Descriptor, max int64) ([]byte, error) {
	defer r.Close()
	if d.Size < 0 || d.Size > max {
		return nil, diag.New(diag.Verification, "%s has %d bytes, more than the limit of %d", d.Digest, d.Size, max)
	}
	b := bytes.NewBuffer(make([]byte, 0, d.Size))
	if _, err := b.ReadFrom(r); err != nil {
		return nil, fmt.Errorf("read %s: %w", d.Digest, err)
	}
	return b.Bytes(), nil
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
