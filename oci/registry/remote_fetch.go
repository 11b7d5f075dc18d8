package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fetch"
)

// blobs gives the bytes of this repository's blobs to package fetch.
type blobs struct{ r *Remote }

var _ fetch.Source = blobs{}

// Where implements fetch.Source.
func (b blobs) Where() string {
	return fmt.Sprintf("blob in registry %s, repository %s", b.r.host, b.r.repo)
}

// Open implements fetch.Source (RFC 9110, 14: range requests).
func (b blobs) Open(ctx context.Context, d artifact.Descriptor, from, to int64, validator string) (*fetch.Part, error) {
	h := http.Header{"Accept-Encoding": {"identity"}} // bytes are counted and hashed as they lie there
	ranged := to >= 0 && (from > 0 || to < d.Size)
	if ranged {
		h.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
		if validator != "" {
			h.Set("If-Range", validator)
		}
	}
	resp, err := b.r.do(ctx, request{action: actPull, method: http.MethodGet, url: "blobs/" + string(d.Digest), header: h,
		ok: []int{http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable}})
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "registry %s, repository %s has no blob %s", b.r.host, b.r.repo, d.Digest)
		}
		return nil, err
	}
	p := &fetch.Part{Body: resp.Body, To: d.Size, Validator: strongETag(resp.Header.Get("ETag"))}
	bad := func(err error) (*fetch.Part, error) {
		_ = resp.Body.Close()
		return nil, err
	}
	switch {
	case resp.Header.Get("Content-Encoding") != "":
		return bad(diag.New(diag.Registry, "%s: it sends %s in the encoding %q, which was not asked for", b.Where(), d.Digest, resp.Header.Get("Content-Encoding")))
	case resp.StatusCode == http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
			return bad(diag.New(diag.Verification, "%s: %s has %d bytes", b.Where(), d.Digest, d.Size).Line("the registry has %d", resp.ContentLength))
		}
		// Asked for all of it and told its length, this is the range; else what comes must be measured.
		p.Whole = ranged || to < 0 || resp.ContentLength < 0
	case resp.StatusCode == http.StatusPartialContent && ranged:
		first, end, total, ok := parseContentRange(resp.Header.Get("Content-Range"))
		if !ok || first != from || end > to || total >= 0 && total != d.Size || resp.ContentLength >= 0 && resp.ContentLength != end-first {
			return bad(fmt.Errorf("%w: for bytes %d-%d of %d it sent Content-Range %q and %d bytes", fetch.ErrRange, from, to-1, d.Size,
				resp.Header.Get("Content-Range"), resp.ContentLength))
		}
		p.From, p.To = first, end
	case !ranged: // what was asked for cannot be answered so
		return bad(diag.New(diag.Registry, "%s: it answers %s to a request for all of %s", b.Where(), resp.Status, d.Digest))
	default:
		return bad(fmt.Errorf("%w: status %d to bytes %d-%d of %d", fetch.ErrRange, resp.StatusCode, from, to-1, d.Size))
	}
	return p, nil
}

// Again implements fetch.Source.
func (b blobs) Again(ctx context.Context, what string, err error, failures int) error {
	p := b.r.retry
	if failures >= p.Attempts || !transient(err) {
		return b.r.broken(err)
	}
	wait := p.backoff(failures)
	b.r.notify(Notice{What: what, Why: trimURL(err).Error(), Wait: wait, Next: failures + 1, Of: p.Attempts})
	return sleep(ctx, wait)
}

// broken makes the error of a transfer that was given up.
func (r *Remote) broken(err error) error {
	var de *diag.Error
	if errors.As(err, &de) || ctxCause(err) != nil {
		return r.fail(request{}, err)
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return diag.Wrap(diag.Registry, trimURL(err), "registry %s, repository %s: the transfer broke off", r.host, r.repo)
}

// parseContentRange reads "bytes first-last/total" (RFC 9110, 14.4) into [first, end) and total, which is -1 for "*".
func parseContentRange(s string) (first, end, total int64, ok bool) {
	unit, rest, ok := strings.Cut(s, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return 0, 0, 0, false
	}
	span, size, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, 0, 0, false
	}
	a, b, ok := strings.Cut(span, "-")
	if !ok {
		return 0, 0, 0, false
	}
	first, ok1 := digits(a)
	last, ok2 := digits(b)
	total, ok3 := int64(-1), true
	if size != "*" {
		total, ok3 = digits(size)
	}
	if !ok1 || !ok2 || !ok3 || last < first || total >= 0 && last >= total {
		return 0, 0, 0, false
	}
	return first, last + 1, total, true
}

func digits(s string) (int64, bool) {
	if s == "" || len(s) > 18 || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// strongETag gives back an entity tag that If-Range may carry (RFC 9110, 13.1.5), else "".
func strongETag(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' || strings.ContainsAny(s[1:len(s)-1], "\"\r\n") {
		return ""
	}
	return s
}
