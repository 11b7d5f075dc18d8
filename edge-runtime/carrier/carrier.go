// Package carrier brings bytes to a device: from a registry, a static web server, a folder or a file on a stick. None of
// them is trusted with anything: what comes is hashed and verified by whoever asked for it. A Set makes one carrier of
// several, asks the better one first, and goes on with the next where one fails.
package carrier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Place is one place that bytes may come from. Implementations are safe for concurrent use.
type Place interface {
	// Heads gives the manifest digests under a tag, best first: one, or several where a place holds several archives. It is
	// the place's word. An error that matches fs.ErrNotExist says that the place has no such tag, ErrAbsent that the place
	// itself is not there, which is no failure.
	Heads(ctx context.Context, tag string) ([]artifact.Digest, error)
	// Open reads the content of d from offset on. Manifests are told from blobs by their media type; their size may be 0,
	// which is not known. What is read may be anything.
	Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error)
}

// ErrAbsent says that a place is not there now, like a stick that nobody plugged in.
var ErrAbsent = errors.New("it is not there now")

// PaceError is an answer that asks for patience.
type PaceError struct {
	Err     error
	Wait    time.Duration // that the server asks for; 0: it does not say
	Limited bool          // it said: too many requests
}

func (e *PaceError) Error() string { return e.Err.Error() }
func (e *PaceError) Unwrap() error { return e.Err }

// Pace tells a schedule what the server said.
func (e *PaceError) Pace() (retryAfter time.Duration, limited bool) { return e.Wait, e.Limited }

func paced(err error, wait time.Duration, limited bool) error {
	if err == nil || wait <= 0 && !limited {
		return err
	}
	return &PaceError{err, wait, limited}
}

// notFound is an error that matches fs.ErrNotExist.
func notFound(format string, args ...any) error {
	return fmt.Errorf("%w: %s", fs.ErrNotExist, fmt.Sprintf(format, args...))
}
