package registry

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"net/url"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// has asks whether a blob is there.
func (r *Remote) has(ctx context.Context, d artifact.Descriptor) (bool, error) {
	resp, err := r.do(ctx, request{action: actPush, method: http.MethodHead, url: "blobs/" + string(d.Digest), ok: []int{http.StatusOK}})
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	_ = resp.Body.Close()
	return true, nil
}

// PushBlob implements Repository: HEAD, then POST and one PUT, which every registry takes.
func (r *Remote) PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error {
	if err := checkDescriptor(d); err != nil {
		return err
	}
	ok, err := r.has(ctx, d)
	if ok || err != nil {
		return err
	}
	for attempt := 1; ; attempt++ {
		if err = r.upload(ctx, d, open); err == nil {
			return nil
		}
		s := statusOf(err)
		again := attempt < r.retry.Attempts && ctx.Err() == nil && (s == 0 && transient(err) || s == http.StatusNotFound ||
			s == http.StatusTooManyRequests || s >= 500 || s == http.StatusRequestedRangeNotSatisfiable)
		if !again {
			return err
		}
		if serr := sleep(ctx, r.retry.backoff(attempt)); serr != nil {
			return serr
		}
	}
}

func (r *Remote) upload(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error {
	resp, err := r.do(ctx, request{action: actPush, method: http.MethodPost, url: "blobs/uploads/", ok: []int{http.StatusAccepted}})
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	loc, err := r.location(resp, d.Digest)
	if err != nil {
		return err
	}
	resp, err = r.do(ctx, request{
		action: actPush, method: http.MethodPut, url: loc, size: d.Size, body: open,
		header: http.Header{"Content-Type": {"application/octet-stream"}}, ok: []int{http.StatusCreated},
	})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != string(d.Digest) {
		return diag.New(diag.Verification, "registry %s, repository %s: it stored the blob under another digest", r.host, r.repo).
			Line("sent    %s", d.Digest).Line("stored  %s", got)
	}
	return nil
}

// location is the upload URL of a session with the digest added.
func (r *Remote) location(resp *http.Response, d artifact.Digest) (string, error) {
	u, err := r.gate.resolve(resp, resp.Header.Get("Location"))
	if err != nil {
		return "", r.fail(request{}, err)
	}
	q := u.Query()
	q.Set("digest", string(d))
	u.RawQuery = q.Encode()
	return u.String(), nil
}

// mount tries to take a blob from another repository of this registry without a transfer.
func (r *Remote) mount(ctx context.Context, d artifact.Descriptor, from string) (bool, error) {
	q := url.Values{"mount": {string(d.Digest)}, "from": {from}}
	resp, err := r.do(ctx, request{action: actPush, from: from, method: http.MethodPost, url: "blobs/uploads/?" + q.Encode(),
		ok: []int{http.StatusCreated, http.StatusAccepted}})
	if err != nil {
		// A registry may refuse to mount what we may read; then the bytes are sent.
		if s := statusOf(err); s >= 400 && s < 500 {
			return false, nil
		}
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusCreated {
		return true, nil
	}
	// An upload session was opened instead: give it back. A registry without DELETE lets it expire.
	if u, perr := url.Parse(resp.Header.Get("Location")); perr == nil && u.String() != "" && resp.Request != nil {
		if del, derr := r.do(ctx, request{action: actPush, method: http.MethodDelete, url: resp.Request.URL.ResolveReference(u).String(),
			ok: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted, http.StatusNotFound, http.StatusMethodNotAllowed}}); derr == nil {
			_ = del.Body.Close()
		}
	}
	return false, nil
}
