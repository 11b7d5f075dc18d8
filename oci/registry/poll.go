package registry

import (
	"context"
	"net/http"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Seen is what a tag was when it was asked for last: its digest, and the entity tag by which the server can say that this
// has not changed. The zero Seen knows nothing.
type Seen struct {
	Digest artifact.Digest
	ETag   string
}

// Poll asks what a tag is now, as cheaply as the server lets it: HEAD with If-None-Match (RFC 9110, 13.1.2), answered 304
// while it is what was seen. Like HeadTag it gives the server's word.
func (r *Remote) Poll(ctx context.Context, tag string, was Seen) (Seen, error) {
	if !ValidTag(tag) {
		return Seen{}, diag.New(diag.Usage, "%q is not a valid tag", tag)
	}
	q := request{action: actPull, method: http.MethodHead, url: "manifests/" + tag, header: acceptManifests(), ok: []int{http.StatusOK}}
	if was.Digest != "" && was.ETag != "" {
		q.header.Set("If-None-Match", was.ETag)
		q.ok = append(q.ok, http.StatusNotModified)
	}
	resp, err := r.do(ctx, q)
	if err != nil {
		return Seen{}, refine(err, r.host+"/"+r.repo, tag)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return was, nil
	}
	now := Seen{ETag: resp.Header.Get("ETag")}
	if len(now.ETag) > maxETag {
		now.ETag = ""
	}
	if d, err := artifact.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		now.Digest = d
		return now, nil
	}
	// The header is optional in the spec: ask for the bytes then.
	d, err := r.Resolve(ctx, tag)
	now.Digest = d.Digest
	return now, err
}

// maxETag bounds what is sent back with every poll.
const maxETag = 256

// RetryAfter reads the header field of that name (RFC 9110, 10.2.3): seconds, or a date, which is compared with the server's
// own clock when it tells it. The wait is never negative and at most a century.
func RetryAfter(h http.Header, now time.Time) (time.Duration, bool) { return retryAfter(h, now) }

// ContentRange reads "bytes first-last/total" (RFC 9110, 14.4) into [first, end) and total, which is -1 for "*".
func ContentRange(s string) (first, end, total int64, ok bool) { return parseContentRange(s) }
