package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fetch"
	"github.com/waybill-ml/waybill/oci/store"
)

// Blob implements Repository. A transfer that breaks goes on where it stopped, with a range request.
func (r *Remote) Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	b := &resuming{ctx: ctx, r: r, d: d}
	if err := b.open(); err != nil {
		return nil, err
	}
	return store.Verified(ctx, b, d, blobs{r}.Where()), nil
}

// checkDescriptor stands before everything that puts a digest into a URL.
func checkDescriptor(d artifact.Descriptor) error {
	if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
		return diag.Wrap(diag.Verification, err, "descriptor")
	}
	if d.Size < 0 {
		return diag.New(diag.Verification, "the descriptor of %s has the negative size %d", d.Digest, d.Size)
	}
	return nil
}

// BlobFrom reads a blob from offset on, which must be below its size. What it returns has not been hashed: the caller holds
// the bytes before offset, so only the caller can.
func (r *Remote) BlobFrom(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	b := &resuming{ctx: ctx, r: r, d: d, at: offset}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// gotOn is how much must come between two failures for the second to count as the first: else a registry that gives a byte
// at a time would be asked for ever.
const gotOn = 64 << 10

// resuming reads a blob over as many connections as it takes.
type resuming struct {
	ctx       context.Context // of the Blob call that this reader serves
	r         *Remote
	d         artifact.Descriptor
	body      io.ReadCloser
	validator string
	at        int64
	whole     bool  // ranges do not work here
	failures  int   // since so much came that the transfer got on
	came      int64 // since the last failure
}

func (b *resuming) open() error {
	to := b.d.Size
	if b.whole {
		to = -1
	}
	p, err := blobs{b.r}.Open(b.ctx, b.d, b.at, to, b.validator)
	if errors.Is(err, fetch.ErrRange) && !b.whole {
		b.whole = true
		b.r.notify(Notice{What: "blob " + b.d.Digest.Short(), Why: err.Error() + "; going on without ranges"})
		p, err = blobs{b.r}.Open(b.ctx, b.d, 0, -1, "")
	}
	if err != nil {
		return err
	}
	b.body, b.validator = p.Body, p.Validator
	if b.at > p.From {
		if _, err := io.CopyN(io.Discard, p.Body, b.at-p.From); err != nil {
			_ = p.Body.Close()
			return b.r.broken(err)
		}
	}
	return nil
}

func (b *resuming) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.at += int64(n)
		if b.came += int64(n); n > 0 && err != nil && b.at < b.d.Size {
			err = nil // the error comes again on the next read
		}
		switch {
		case err == nil:
			return n, nil
		case b.at >= b.d.Size: // all is here; the hash decides whether it is right
			return n, io.EOF
		case b.ctx.Err() != nil:
			return 0, b.ctx.Err()
		}
		// Nothing more came on this connection, though the blob is not complete.
		_ = b.body.Close()
		b.body = http.NoBody
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if b.came >= gotOn {
			b.failures = 0
		}
		b.failures++
		b.came = 0
		what := fmt.Sprintf("blob %s at %d of %d bytes", b.d.Digest.Short(), b.at, b.d.Size)
		if aerr := (blobs{b.r}).Again(b.ctx, what, err, b.failures); aerr != nil {
			return 0, aerr
		}
		if oerr := b.open(); oerr != nil {
			return 0, oerr
		}
	}
}

func (b *resuming) Close() error { return b.body.Close() }
