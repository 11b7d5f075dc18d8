// Package fetch brings one blob into one file: over as many connections and attempts as it takes, in parallel ranges where
// the other side has them, going on where an earlier process was killed, and with the file under its name only when all of
// its bytes have been hashed.
//
// Beside the final file there are three others while the work goes on: the partial file, of the blob's full size from the
// start; its state, which says which blocks of it were written; and a lock, which a second process waits for.
package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Part is an answer with bytes of a blob.
type Part struct {
	Body      io.ReadCloser
	From, To  int64  // what Body gives, in order: [From, To)
	Whole     bool   // no range: Body gives the blob from its start to its end, and more if the other side has more
	Validator string // strong ETag, or ""
}

// ErrRange says that the other side answered a range with something else than that range.
var ErrRange = errors.New("the answer is not the range that was asked for")

// Source gives bytes of blobs. What it gives has not been hashed.
type Source interface {
	// Open asks for the bytes [from, to) of d. With to < 0 it asks for the blob without naming a range. The part may end
	// earlier than asked, and may be the whole blob. A server that knows another validator sends the whole blob. The error wraps
	// ErrRange when ranges do not work there; any other error is final, since Open has repeated what may be repeated.
	Open(ctx context.Context, d artifact.Descriptor, from, to int64, validator string) (*Part, error)
	// Again decides, after a transfer broke, whether there is another attempt: it waits and returns nil, or returns the
	// error to end with. failures counts, from 1, those since bytes came last.
	Again(ctx context.Context, what string, err error, failures int) error
	// Where names the place in errors: "blob in registry X, repository Y".
	Where() string
}

// Slots is a number of connections, each with its buffer.
type Slots struct {
	n    int
	free chan []byte
}

// NewSlots makes n of them, at least one.
func NewSlots(n int) *Slots {
	n = max(n, 1)
	s := &Slots{n: n, free: make(chan []byte, n)}
	for range n {
		s.free <- nil // the buffer is made when it is needed
	}
	return s
}

// take waits for a slot; without one it returns nil when stop is closed.
func (s *Slots) take(ctx context.Context, stop <-chan struct{}) ([]byte, error) {
	select {
	case <-stop:
		return nil, nil
	case b := <-s.free:
		if b == nil {
			b = make([]byte, bufSize)
		}
		return b, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Slots) give(b []byte) { s.free <- b }

// Target is where the blob goes.
type Target struct {
	Root    *os.Root
	Name    string // the final file, below Root; its directory exists
	Partial string // the file it grows in, on the same file system; Partial+".state" and Partial+".lock" are used too
}

// Options refine File.
type Options struct {
	Slots    *Slots                    // the connections at a time, shared by all calls that have it; nil: 4 for this call
	Progress func(n int64)             // n bytes more are there, also those that an earlier process brought; may be nil
	Say      func(what, why string)    // something that a user should know; may be nil
	Replace  func(final string) error  // asked before a file that stands under the final name is replaced; nil: it is
	Durable  bool                      // wait until the content is on the disk before it gets its name; the name itself is the caller's to sync
	hook     func(event string, n int) // tests stop the world here
}

// Result tells what File did.
type Result struct {
	Present  bool  // the file was there, and right: nothing was fetched
	Fetched  int64 // bytes that came from the source, of attempts that were in vain too
	Resumed  int64 // bytes that an earlier process had fetched
	Restarts int   // how often everything was thrown away and fetched anew
}

// File brings d to t. On an error no file stands under the final name that did not stand there before; what was fetched stays
// in the partial file for the next call, unless it proved wrong. The error has code diag.Verification and names both
// digests when the content is not what d says.
//
// Any number of processes may call it for one target at once: one fetches, the others wait and find the file.
func File(ctx context.Context, src Source, d artifact.Descriptor, t Target, o Options) (res Result, err error) {
	if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
		return res, diag.Wrap(diag.Verification, err, "descriptor")
	}
	if d.Size < 0 || d.Size > maxSize {
		return res, diag.New(diag.Verification, "the descriptor of %s has the size %d", d.Digest, d.Size)
	}
	if o.Slots == nil {
		o.Slots = NewSlots(4)
	}
	if o.Progress == nil {
		o.Progress = func(int64) {}
	}
	if o.Say == nil {
		o.Say = func(string, string) {}
	}
	if o.hook == nil {
		o.hook = func(string, int) {}
	}
	what := "blob " + d.Digest.Short()
	release, err := fsx.LockRemovable(ctx, t.Root, t.Partial+".lock", func() {
		o.Say(what, "another process fetches it; waiting")
	})
	if err != nil {
		return res, t.writeError(err)
	}
	// The lock file goes when nothing is left that it would protect.
	keep := false
	defer func() {
		if rerr := release(!keep); err == nil && rerr != nil {
			err = t.writeError(rerr)
		}
	}()
	ok, err := t.has(ctx, d, o)
	if err != nil {
		return res, err
	}
	if ok {
		o.Progress(d.Size)
		_ = t.Root.Remove(t.Partial) // of a process that was killed just after it had finished
		_ = t.Root.Remove(t.Partial + ".state")
		return Result{Present: true}, nil
	}
	for {
		dl := &download{src: src, d: d, t: t, o: o, what: what}
		got, kept, err := dl.run(ctx, res.Restarts > 0)
		res.Fetched += dl.fetched
		res.Resumed = max(res.Resumed, dl.resumed)
		if err != nil {
			keep = kept
			return res, err
		}
		if got == d.Digest {
			return res, dl.commit()
		}
		dl.discard()
		mismatch := diag.New(diag.Verification, "%s: the content is not what its digest says", src.Where()).
			Line("want %s", d.Digest).Line("got  %s", got)
		if dl.answers <= 1 && dl.resumed == 0 {
			return res, mismatch // one answer, from its start to its end: the other side has these bytes
		}
		// Pieced together, by this process or with an earlier one: the pieces may be what is wrong. Once, and said.
		if res.Restarts++; res.Restarts > 1 {
			return res, mismatch
		}
		o.Say(what, fmt.Sprintf("the pieces have the digest %s; all of it is fetched again in one", got))
		o.Progress(-d.Size)
	}
}

// has looks for the final file and hashes it.
func (t Target) has(ctx context.Context, d artifact.Descriptor, o Options) (bool, error) {
	fi, err := t.Root.Lstat(t.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, t.writeError(err)
	}
	if fi.Mode().IsRegular() && fi.Size() == d.Size {
		f, err := t.Root.Open(t.Name)
		if err != nil {
			return false, t.writeError(err)
		}
		got, err := sum(ctx, f)
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return false, t.writeError(err)
		}
		if got == d.Digest {
			return true, nil
		}
	}
	if o.Replace != nil {
		return false, o.Replace(t.Name)
	}
	return false, nil
}

// sum hashes f to its end.
func sum(ctx context.Context, r io.Reader) (artifact.Digest, error) {
	h := sha256.New()
	buf := make([]byte, bufSize)
	for {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			return digestOf(h), nil
		}
		if err != nil {
			return "", err
		}
	}
}

func digestOf(h hash.Hash) artifact.Digest {
	return artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
}

func (t Target) path() string { return filepath.Join(t.Root.Name(), t.Name) }

// writeError says what could not be written.
func (t Target) writeError(err error) error {
	var de *diag.Error
	if errors.As(err, &de) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	e := diag.Wrap(diag.Failure, err, "write %s", t.path())
	if fsx.NoSpace(err) {
		if free, ferr := (fsx.OS{}).FreeBytes(t.Root.Name()); ferr == nil {
			_ = e.Line("%d bytes are free", free)
		}
	}
	return e
}
