package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/store"
)

// Blob implements Repository. A transfer that breaks goes on where it stopped, with a range request.
func (r *Remote) Blob(ctx context.Context, d artifact.Descriptor) (io.ReadCloser, error) {
	if err := checkDescriptor(d); err != nil {
		return nil, err
	}
	b := &resuming{ctx: ctx, r: r, d: d, left: r.retry.Attempts}
	if err := b.open(); err != nil {
		return nil, err
	}
	return store.Verified(ctx, b, d, fmt.Sprintf("blob in registry %s, repository %s", r.host, r.repo)), nil
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
	b := &resuming{ctx: ctx, r: r, d: d, at: offset, left: r.retry.Attempts}
	if err := b.open(); err != nil {
		return nil, err
	}
	return b, nil
}

// resuming reads a blob over as many connections as it takes, within the attempts that are left.
type resuming struct {
	ctx  context.Context // of the Blob call that this reader serves
	r    *Remote
	d    artifact.Descriptor
	body io.ReadCloser
	at   int64
	left int
}

func (b *resuming) open() error {
	q := request{action: actPull, method: http.MethodGet, url: "blobs/" + string(b.d.Digest),
		ok: []int{http.StatusOK, http.StatusPartialContent}}
	if b.at > 0 {
		q.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-", b.at)}}
	}
	b.left--
	resp, err := b.r.do(b.ctx, q)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return diag.Wrap(diag.NotFound, fs.ErrNotExist, "registry %s, repository %s has no blob %s", b.r.host, b.r.repo, b.d.Digest)
		}
		return err
	}
	b.body = resp.Body
	if b.at > 0 {
		// Whatever the server claims, the hash over all bytes decides; a wrong offset only shows as a wrong digest.
		if resp.StatusCode == http.StatusOK {
			if _, err := io.CopyN(io.Discard, resp.Body, b.at); err != nil {
				return b.r.fail(request{}, err)
			}
		}
	}
	return nil
}

func (b *resuming) Read(p []byte) (int, error) {
	for {
		n, err := b.body.Read(p)
		b.at += int64(n)
		switch {
		case err == nil:
			return n, nil
		case b.at >= b.d.Size: // all is here; the hash decides whether it is right
			return n, io.EOF
		case n > 0: // the error comes again on the next read
			return n, nil
		case b.ctx.Err() != nil:
			return 0, b.ctx.Err()
		case b.left <= 0:
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return 0, io.EOF // short: the verifying reader says how short
			}
			return 0, b.r.fail(request{}, err)
		}
		// Nothing more came on this connection, though the blob is not complete.
		_ = b.body.Close()
		if serr := sleep(b.ctx, b.r.retry.backoff(max(1, b.r.retry.Attempts-b.left))); serr != nil {
			return 0, serr
		}
		if oerr := b.open(); statusOf(oerr) == http.StatusRequestedRangeNotSatisfiable {
			return 0, io.EOF // the server has no more than this
		} else if oerr != nil {
			return 0, oerr
		}
	}
}

func (b *resuming) Close() error { return b.body.Close() }
