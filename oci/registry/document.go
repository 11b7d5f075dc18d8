package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/waybill-ml/waybill/internal/diag"
)

// document reads a whole answer of at most max bytes, and asks again when it breaks off. The body of the response is
// closed; it is nil when the status is one of q.ok besides 200.
func (r *Remote) document(ctx context.Context, q request, max int64) ([]byte, *http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := r.do(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		if resp.StatusCode != http.StatusOK {
			_ = resp.Body.Close()
			return nil, resp, nil
		}
		b, err := readAll(resp.Body, r.gate.rules.limit(max))
		if err == nil && resp.ContentLength > int64(len(b)) {
			err = io.ErrUnexpectedEOF
		}
		if err == nil {
			return b, resp, nil
		}
		if attempt >= r.retry.Attempts || ctx.Err() != nil || !transient(err) {
			return nil, nil, r.fail(q, err)
		}
		wait := r.retry.backoff(attempt)
		r.notify(Notice{What: fmt.Sprintf("%s %s", q.method, resp.Request.URL.Path), Why: err.Error(), Wait: wait, Next: attempt + 1, Of: r.retry.Attempts})
		if err := sleep(ctx, wait); err != nil {
			return nil, nil, r.fail(q, err)
		}
	}
}

var errTooLarge = errors.New("the answer is larger than that")

// readAll reads to the end, which must come within max bytes.
func readAll(rc io.ReadCloser, max int64) ([]byte, error) {
	defer rc.Close()
	var b bytes.Buffer
	n, err := b.ReadFrom(io.LimitReader(rc, max+1))
	if err != nil {
		return nil, err
	}
	if n > max {
		return nil, diag.Wrap(diag.Registry, errTooLarge, "limit of %d bytes", max)
	}
	return b.Bytes(), nil
}
