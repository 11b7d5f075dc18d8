package registry

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// source gives a blob in pieces, to one upload at a time.
type source interface {
	// piece gives the bytes from off to off+n. The piece before must have been closed.
	piece(ctx context.Context, off, n int64) (io.ReadCloser, error)
	// complete tells, after the last piece, that what was given is the blob. Until then nothing may be committed.
	complete(ctx context.Context) error
	// explain looks for the reason when the registry says that it got something else. nil: none was found here.
	explain(ctx context.Context) error
	// reset ends what is being read; pieces may be asked for again.
	reset()
}

// sourceError is a failure to read what is to be sent: no attempt to send it again helps.
type sourceError struct{ err error }

func (e *sourceError) Error() string { return e.err.Error() }
func (e *sourceError) Unwrap() error { return e.err }

func unreadable(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return &sourceError{err}
}

// fileSource is a blob in a store on this machine. Its bytes go from the file to the connection and are not hashed again
// on the way: the store hashed them when they came in, and the registry hashes what it gets before it takes it. What can
// change in between is a file that the store only refers to, so the identity of the file is compared before each piece
// and again before the upload is committed.
type fileSource struct {
	s  *store.Store
	d  artifact.Descriptor
	id *fsx.Identity // at the first piece
}

// open opens the file, which must be the one that was opened before. A store that refers to a file has compared it with
// its own record here already.
func (f *fileSource) open(ctx context.Context) (*os.File, error) {
	x, err := f.s.OpenRaw(ctx, f.d.Digest)
	if err != nil {
		return nil, err
	}
	o, ok := x.(*os.File)
	if !ok {
		_ = x.Close()
		return nil, errors.ErrUnsupported
	}
	id, err := fsx.Identify(o)
	switch {
	case err != nil:
	case id.Size != f.d.Size:
		err = diag.New(diag.Verification, "blob in store %s: %s has %d bytes", f.s.Dir(), f.d.Digest, f.d.Size).
			Line("its file has %d", id.Size).Hint("waybill store verify")
	case f.id != nil && *f.id != id:
		// Renamed over, or written to. A store may replace a blob by the same bytes; anything else is an error.
		if err = f.s.Check(ctx, f.d); err == nil {
			f.id = &id
		}
	default:
		f.id = &id
	}
	if err != nil {
		_ = o.Close()
		return nil, err
	}
	return o, nil
}

func (f *fileSource) piece(ctx context.Context, off, n int64) (io.ReadCloser, error) {
	o, err := f.open(ctx)
	if err != nil {
		return nil, unreadable(err)
	}
	if _, err := o.Seek(off, io.SeekStart); err != nil {
		_ = o.Close()
		return nil, unreadable(err)
	}
	return &section{f: o, end: off + n}, nil
}

func (f *fileSource) complete(ctx context.Context) error {
	before := f.id
	o, err := f.open(ctx)
	if err != nil {
		return unreadable(err)
	}
	if err := o.Close(); err != nil {
		return unreadable(err)
	}
	if before != nil && *before != *f.id {
		return diag.New(diag.Failure, "blob %s: its file was replaced while it was sent", f.d.Digest)
	}
	return nil
}

func (f *fileSource) explain(ctx context.Context) error { return f.s.Check(ctx, f.d) }

func (f *fileSource) reset() {}

// section reads a file up to an offset. net/http and the kernel may take the bytes from the descriptor itself (sendfile),
// which moves its offset, so the offset is what counts.
type section struct {
	f   *os.File
	end int64
}

func (s *section) Read(p []byte) (int, error) {
	at, err := s.f.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if at >= s.end {
		return 0, io.EOF
	}
	return s.f.Read(p[:min(int64(len(p)), s.end-at)])
}

func (s *section) Close() error { return s.f.Close() }

// SyscallConn implements syscall.Conn.
func (s *section) SyscallConn() (syscall.RawConn, error) { return s.f.SyscallConn() }

// streamSource is a blob that comes from elsewhere and is hashed as it passes: open gives a reader that fails, instead of
// ending, when the content is not what d says.
type streamSource struct {
	d    artifact.Descriptor
	from func() (io.ReadCloser, error)

	mu  sync.Mutex
	cur *stream
}

// stream is one reading of the blob from its beginning.
type stream struct {
	rc   io.ReadCloser
	mu   sync.Mutex // a connection that failed may still be reading when the next piece is asked for
	at   int64
	dead bool
}

func (s *streamSource) reader(off int64) (*stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != nil && s.cur.position() > off {
		s.cur.end()
		s.cur = nil
	}
	if s.cur == nil {
		rc, err := s.from()
		if err != nil {
			return nil, unreadable(err)
		}
		s.cur = &stream{rc: rc}
	}
	// What the registry has already is read all the same: only the hash over all of it says what it is.
	if _, err := io.CopyN(io.Discard, s.cur, off-s.cur.position()); err != nil {
		s.cur.end()
		s.cur = nil
		if errors.Is(err, io.EOF) {
			err = unreadable(io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	return s.cur, nil
}

func (s *streamSource) piece(_ context.Context, off, n int64) (io.ReadCloser, error) {
	x, err := s.reader(off)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.LimitReader(x, n)), nil
}

func (s *streamSource) complete(context.Context) error {
	x, err := s.reader(s.d.Size)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, x) // the hash is compared at the end
	s.reset()
	if err == nil && n > 0 {
		err = unreadable(diag.New(diag.Verification, "%s has %d bytes, and more came", s.d.Digest, s.d.Size))
	}
	return err
}

func (s *streamSource) explain(ctx context.Context) error {
	s.reset()
	return s.complete(ctx)
}

func (s *streamSource) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cur != nil {
		s.cur.end()
		s.cur = nil
	}
}

func (x *stream) position() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.at
}

func (x *stream) Read(p []byte) (int, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.dead {
		return 0, os.ErrClosed
	}
	n, err := x.rc.Read(p)
	x.at += int64(n)
	return n, unreadable(err)
}

func (x *stream) end() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.dead {
		x.dead = true
		_ = x.rc.Close()
	}
}

// lazyBody opens the body of a request when it is read. net/http takes a new body for each attempt, and this one mostly
// is never read.
type lazyBody struct {
	open func() (io.ReadCloser, error)
	rc   io.ReadCloser
}

func (l *lazyBody) Read(p []byte) (int, error) {
	if l.rc == nil {
		var err error
		if l.rc, err = l.open(); err != nil {
			return 0, err
		}
	}
	return l.rc.Read(p)
}

func (l *lazyBody) Close() error {
	if l.rc == nil {
		return nil
	}
	return l.rc.Close()
}
