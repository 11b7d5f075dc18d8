package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Uploads. A blob below minChunked goes in one PUT, which every registry takes. A larger one goes in chunks, each a PATCH
// with Content-Range, so that a broken connection or a killed process costs at most what was under way: the address of the
// upload is kept in Transfers, and the registry is asked how far it came.
const (
	minChunked = 8 << 20
	chunkSize  = 64 << 20
)

// pushed tells how a blob came to be where it is.
type pushed struct {
	how  string // "present", "mounted", "sent"
	sent int64  // bytes of it that were sent now
}

// upload is one blob on its way.
type upload struct {
	r    *Remote
	d    artifact.Descriptor
	src  source
	save *session // where the address is kept; nil: nowhere

	loc     string // address for the next request; "": there is no upload yet
	at      int64  // bytes that the registry has
	unsure  bool   // at must be asked for
	best    int64  // the most that at ever was
	chunk   int64
	whole   bool // in one PUT
	last    bool // the final PUT was sent and not answered
	sent    int64
	started bool
	anew    bool // it was started again because what arrived was wrong
	tell    func(at int64)
}

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

// PushBlob implements Repository.
func (r *Remote) PushBlob(ctx context.Context, d artifact.Descriptor, open func() (io.ReadCloser, error)) error {
	_, err := r.push(ctx, d, &streamSource{d: d, from: open}, nil, nil)
	return err
}

// push brings a blob here in the cheapest way: it is there; it can be mounted from another repository of this registry,
// first those in from; it is sent. progress, if any, is told about every byte of it once.
func (r *Remote) push(ctx context.Context, d artifact.Descriptor, src source, from []string, progress func(n int64)) (pushed, error) {
	if err := checkDescriptor(d); err != nil {
		return pushed{}, err
	}
	defer src.reset()
	told := int64(0)
	tell := func(at int64) {
		if progress != nil && at > told {
			progress(at - told)
			told = at
		}
	}
	ok, err := r.has(ctx, d)
	if err != nil {
		return pushed{}, err
	}
	if ok {
		r.transfers.seen(d.Digest, r.host, r.repo)
		tell(d.Size)
		return pushed{how: "present"}, nil
	}
	u := &upload{r: r, d: d, src: src, chunk: r.chunkSize, tell: tell}
	u.whole = d.Size < r.chunkMin || r.noChunks.Load() || takesNoChunks(r.host)
	if !u.whole {
		if u.save = r.transfers.session(ctx, r.host, r.repo, d); u.save != nil {
			defer u.save.close()
			u.loc = u.save.location()
			u.unsure = u.loc != ""
		}
	}
	if u.loc == "" {
		ok, err := u.mount(ctx, from)
		if err != nil {
			return pushed{}, err
		}
		if ok {
			r.transfers.seen(d.Digest, r.host, r.repo)
			tell(d.Size)
			return pushed{how: "mounted"}, nil
		}
	}
	if err := u.run(ctx); err != nil {
		return pushed{"sent", u.sent}, err
	}
	tell(d.Size)
	u.save.done()
	r.transfers.seen(d.Digest, r.host, r.repo)
	return pushed{"sent", u.sent}, nil
}

// maxMounts bounds how many repositories are tried.
const maxMounts = 3

// mount tries the repositories in which the blob is said to be. A registry that does not have it there opens an upload
// instead (202), which is used.
func (u *upload) mount(ctx context.Context, from []string) (bool, error) {
	r := u.r
	tried := map[string]bool{r.repo: true}
	for _, repo := range append(from, r.transfers.known(u.d.Digest, r.host)...) {
		if tried[repo] || len(tried) > maxMounts || !ValidRepo(repo) {
			continue
		}
		tried[repo] = true
		q := url.Values{"mount": {string(u.d.Digest)}, "from": {repo}}
		resp, err := r.do(ctx, request{action: actPush, from: repo, method: http.MethodPost, url: "blobs/uploads/?" + q.Encode(),
			ok: []int{http.StatusCreated, http.StatusAccepted}})
		if err != nil {
			// A registry may refuse to mount what others may read; then the bytes are sent.
			if s := statusOf(err); s >= 400 && s < 500 && s != http.StatusTooManyRequests {
				continue
			}
			return false, err
		}
		_ = resp.Body.Close()
		if resp.StatusCode == http.StatusCreated {
			return true, nil
		}
		r.transfers.forget(u.d.Digest, r.host, repo)
		return false, u.opened(resp)
	}
	return false, nil
}

// opened takes the address of a new upload.
func (u *upload) opened(resp *http.Response) error {
	if n, err := strconv.ParseInt(resp.Header.Get("OCI-Chunk-Min-Length"), 10, 64); err == nil && n > 0 && n < 1<<40 {
		u.chunk = max(u.r.chunkSize, n)
	}
	u.at, u.unsure, u.last = 0, false, false
	return u.moved(resp)
}

// moved takes the address for the next request, which each answer gives anew.
func (u *upload) moved(resp *http.Response) error {
	loc, err := u.r.gate.resolve(resp, resp.Header.Get("Location"))
	if err != nil {
		return u.r.fail(request{}, err)
	}
	u.loc = loc.String()
	u.save.put(u.loc, u.at)
	return nil
}

// run sends the blob over as many connections and uploads as it takes, within the attempts of the policy; one that got
// further than all before starts to count anew.
func (u *upload) run(ctx context.Context) error {
	r := u.r
	for attempt := 1; ; attempt++ {
		before := u.best
		err := u.try(ctx)
		if err == nil {
			return nil
		}
		u.src.reset()
		var unread *sourceError
		if errors.As(err, &unread) {
			return unread.err
		}
		if u.best > before {
			attempt = 1
		}
		if ctx.Err() != nil {
			return r.fail(request{}, err)
		}
		again, wait := u.recover(err), r.retry.backoff(attempt)
		if statusOf(err) == http.StatusBadRequest && u.last {
			if again, err = u.altered(ctx, err); !again {
				return err
			}
		}
		if !again || attempt >= r.retry.Attempts {
			return err
		}
		r.notify(Notice{What: fmt.Sprintf("upload of %s at %d of %d bytes", u.d.Digest.Short(), u.at, u.d.Size), Why: cause(err),
			Wait: wait, Next: attempt + 1, Of: r.retry.Attempts})
		if err := sleep(ctx, wait); err != nil {
			return r.fail(request{}, err)
		}
		if u.last { // the answer to the final PUT was lost: perhaps all is well
			ok, err := r.has(ctx, u.d)
			if err != nil {
				return err
			}
			if ok {
				return nil
			}
			u.last = false
		}
	}
}

// cause is the innermost sentence, for a notice.
func cause(err error) string {
	var se *StatusError
	if errors.As(err, &se) {
		return fmt.Sprintf("%d %s", se.Status, strings.Join(append([]string{http.StatusText(se.Status)}, se.Codes...), " "))
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}

// recover decides whether an error may pass, and where the next attempt begins.
func (u *upload) recover(err error) bool {
	s := statusOf(err)
	switch {
	case s == 0 && transient(err), s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500 && s != http.StatusNotImplemented:
	case s == http.StatusNotFound, s == http.StatusRequestedRangeNotSatisfiable, s == http.StatusConflict:
		if !u.started { // no upload could be opened at all: the repository is not there
			return false
		}
	default:
		return false
	}
	if u.whole {
		u.restart() // nobody knows what a PUT left behind
	} else {
		u.unsure = u.loc != ""
	}
	return true
}

func (u *upload) restart() {
	u.loc, u.at, u.unsure = "", 0, false
	u.save.drop()
}

// altered deals with a registry that says that the content is not what its digest says. When it is right here, bytes
// were altered on the way, perhaps long ago in an upload that was taken up again: one more upload starts from nothing.
func (u *upload) altered(ctx context.Context, err error) (again bool, _ error) {
	u.restart()
	u.last = false
	if xerr := u.src.explain(ctx); xerr != nil {
		var unread *sourceError
		if errors.As(xerr, &unread) {
			xerr = unread.err
		}
		return false, xerr
	}
	if u.anew {
		return false, diag.Wrap(diag.Verification, err, "registry %s, repository %s: the content of %s was altered on the way, twice", u.r.host, u.r.repo, u.d.Digest).
			Line("here its digest is right")
	}
	u.anew = true
	u.r.notify(Notice{What: "upload of " + string(u.d.Digest), Why: "the registry got other bytes (" + err.Error() + "); here the digest is right, so the upload starts anew"})
	return true, err
}

// try goes on from where the upload is, to its end.
func (u *upload) try(ctx context.Context) error {
	if u.unsure {
		if err := u.status(ctx); err != nil {
			return err
		}
	}
	if u.loc == "" {
		resp, err := u.r.do(ctx, request{action: actPush, method: http.MethodPost, url: "blobs/uploads/", ok: []int{http.StatusAccepted}})
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if err := u.opened(resp); err != nil {
			return err
		}
	}
	u.started = true
	for !u.whole && u.at < u.d.Size {
		if err := u.patch(ctx); err != nil {
			return err
		}
		if u.loc == "" {
			return u.try(ctx) // the registry takes no chunks
		}
	}
	return u.finish(ctx)
}

// status asks how far the upload came (distribution-spec, end-13). An upload that is gone starts anew, which is said.
func (u *upload) status(ctx context.Context) error {
	lost := func(why string) error {
		u.r.notify(Notice{What: "upload of " + u.d.Digest.Short(), Why: "the registry does not go on with the upload that was begun (" + why + "); it starts anew"})
		u.restart()
		return nil
	}
	if base, err := u.r.gate.ready(ctx); err != nil {
		return u.r.fail(request{}, err)
	} else if loc, err := url.Parse(u.loc); err != nil || base.Scheme == "https" && loc.Scheme != "https" {
		return lost("its address is not usable")
	}
	resp, err := u.r.do(ctx, request{action: actPush, method: http.MethodGet, url: u.loc, ok: []int{http.StatusNoContent, http.StatusOK, http.StatusAccepted}})
	if err != nil {
		if s := statusOf(err); s >= 400 && s < 500 && s != http.StatusUnauthorized && s != http.StatusForbidden && s != http.StatusTooManyRequests && s != http.StatusRequestTimeout {
			return lost(cause(err))
		}
		return err
	}
	_ = resp.Body.Close()
	at, ok := received(resp.Header.Get("Range"))
	if !ok || at > u.d.Size {
		return lost("it does not say how far it came")
	}
	if u.sent == 0 && at > 0 {
		u.r.notify(Notice{What: "upload of " + u.d.Digest.Short(), Why: fmt.Sprintf("goes on at %d of %d bytes", at, u.d.Size)})
	}
	if u.started {
		u.arrived(at)
	}
	u.at, u.unsure = at, false
	u.best = max(u.best, at)
	if resp.Header.Get("Location") != "" {
		return u.moved(resp)
	}
	return nil
}

// received reads the Range of an upload: "0-99" are 100 bytes. "0-0" is what registries say of an upload that has nothing;
// of one that has a single byte the next chunk will tell.
func received(s string) (int64, bool) {
	s = strings.TrimPrefix(strings.TrimPrefix(s, "bytes="), "bytes ")
	from, to, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(to, 10, 64)
	if !ok || from != "0" || err != nil || n < 0 || n == 1<<63-1 {
		return 0, false
	}
	if n == 0 {
		return 0, true
	}
	return n + 1, true
}

// arrived notes how far the registry says that it came. What of a broken chunk it kept counts as sent.
func (u *upload) arrived(at int64) {
	u.sent += max(at-u.at, 0)
	u.at = at
	u.best = max(u.best, at)
	u.tell(at)
}

// patch sends one chunk (distribution-spec, end-5).
func (u *upload) patch(ctx context.Context) error {
	n := min(u.chunk, u.d.Size-u.at)
	resp, err := u.r.do(ctx, request{
		action: actPush, method: http.MethodPatch, url: u.loc, size: n,
		header: http.Header{"Content-Type": {"application/octet-stream"}, "Content-Range": {fmt.Sprintf("%d-%d", u.at, u.at+n-1)}},
		body:   func() (io.ReadCloser, error) { return u.src.piece(ctx, u.at, n) },
		ok:     []int{http.StatusAccepted, http.StatusCreated, http.StatusNoContent, http.StatusOK},
	})
	if err != nil {
		if s := statusOf(err); u.at == 0 && chunkRefusal(s) {
			u.r.notify(Notice{What: "upload of " + u.d.Digest.Short(), Why: "the registry takes no chunks (" + cause(err) + "); the blob goes in one piece, which cannot be resumed"})
			u.r.noChunks.Store(true)
			u.whole = true
			u.src.reset()
			u.restart()
			return nil
		}
		return err
	}
	_ = resp.Body.Close()
	at := u.at + n
	if h := resp.Header.Get("Range"); h != "" {
		if got, ok := received(h); ok && got != at && !(at == 1 && got == 0) {
			if got < u.at || got > at {
				return u.r.fail(request{}, fmt.Errorf("the registry says that it has %d bytes of an upload of which %d were sent", got, at))
			}
			u.src.reset() // it kept a part of the chunk
			at = got
		}
	}
	if at == u.at {
		return u.r.fail(request{}, fmt.Errorf("the registry kept nothing of a chunk of %d bytes: %w", n, io.ErrUnexpectedEOF))
	}
	u.arrived(at)
	if resp.Header.Get("Location") == "" { // the spec demands one; without, the address stays
		u.save.put(u.loc, u.at)
		return nil
	}
	return u.moved(resp)
}

// chunkRefusal: answers to a first chunk that mean that there will be no second. A 404 is one too, of registries that do
// not route PATCH.
func chunkRefusal(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusLengthRequired,
		http.StatusRequestedRangeNotSatisfiable, http.StatusUnsupportedMediaType, http.StatusNotImplemented, http.StatusRequestEntityTooLarge:
		return true
	}
	return false
}

// takesNoChunks: services known to refuse chunks of useful size, or to answer the first as if it were the last. They
// would be found out by their answers as well, after a chunk was sent in vain.
func takesNoChunks(host string) bool {
	host, _, _ = strings.Cut(strings.ToLower(host), ":")
	return host == "ghcr.io" || host == "gcr.io" || strings.HasSuffix(host, ".gcr.io") || strings.HasSuffix(host, ".pkg.dev") ||
		strings.Contains(host, ".dkr.ecr.") || host == "public.ecr.aws"
}

// finish commits the upload (distribution-spec, end-6), after what was read has been checked as far as it can be here.
func (u *upload) finish(ctx context.Context) error {
	loc, err := url.Parse(u.loc)
	if err != nil {
		return u.r.fail(request{}, err)
	}
	q := loc.Query()
	q.Set("digest", string(u.d.Digest))
	loc.RawQuery = q.Encode()
	req := request{action: actPush, method: http.MethodPut, url: loc.String(), ok: []int{http.StatusCreated, http.StatusNoContent, http.StatusOK},
		header: http.Header{"Content-Type": {"application/octet-stream"}}, body: func() (io.ReadCloser, error) { return http.NoBody, nil }}
	if u.whole {
		// The last byte goes out only when all of them were read and found to be right.
		req.size = u.d.Size
		req.body = func() (io.ReadCloser, error) {
			rc, err := u.src.piece(ctx, 0, u.d.Size)
			if err != nil {
				return nil, err
			}
			if _, ok := rc.(*section); ok {
				return rc, nil
			}
			return &checkedTail{rc: rc, left: u.d.Size, check: func() error { return u.src.complete(ctx) }}, nil
		}
	} else if err := u.src.complete(ctx); err != nil {
		u.restart()
		return err
	}
	u.last = true
	resp, err := u.r.do(ctx, req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if u.whole {
		u.arrived(u.d.Size)
	}
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != string(u.d.Digest) {
		return diag.New(diag.Verification, "registry %s, repository %s: it stored the blob under another digest", u.r.host, u.r.repo).
			Line("sent    %s", u.d.Digest).Line("stored  %s", got)
	}
	return nil
}

// checkedTail holds back the last byte of a body until check says that the content is right.
type checkedTail struct {
	rc    io.ReadCloser
	left  int64
	check func() error
	err   error
}

func (c *checkedTail) Read(p []byte) (int, error) {
	if c.err != nil || c.left == 0 {
		if c.err == nil {
			c.err = io.EOF
		}
		return 0, c.err
	}
	n, err := c.rc.Read(p[:min(int64(len(p)), c.left)])
	if c.left -= int64(n); c.left == 0 && (err == nil || errors.Is(err, io.EOF)) {
		if err := c.check(); err != nil {
			c.err = err
			return n - 1, err
		}
		return n, nil
	}
	c.err = err
	return n, err
}

func (c *checkedTail) Close() error { return c.rc.Close() }
