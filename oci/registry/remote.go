package registry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/name"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ratelimit"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/fetch"
	"github.com/waybill-ml/waybill/oci/store"
)

// RemoteOptions configure access to registries.
type RemoteOptions struct {
	PlainHTTP bool              // allow http to hosts other than this machine
	Keychain  Keychain          // nil: no credentials
	TLS       TLSOptions        // of the transport, when Transport is nil
	Transport http.RoundTripper // nil: NewTransport() with TLS; retries are added to it
	UserAgent string            // nil: "waybill"
	Retry     RetryPolicy       // zero: DefaultRetry()

	Idle        time.Duration      // an unused connection is kept for so long, when Transport is nil; zero: a minute
	Stall       time.Duration      // a download that brings no byte for so long is taken up anew; zero: 30 seconds
	Connections int                // at a time for the ranges of blobs that are downloaded; zero: 4
	Limit       *ratelimit.Limiter // shared by everything that is sent and received; nil: none
	Transfers   *Transfers         // what is remembered between calls; nil: nothing
	// AskEachTime asks the Keychain at every login, so that a credential that was exchanged counts at once; otherwise once.
	AskEachTime bool
	LoginHint   string       // command for who is refused; "": docker login
	DownHint    string       // command for who cannot reach a registry on this machine; "": registry serve
	TokenHosts  []string     // token servers that may have the credentials though they are not under the registry's domain
	Notify      func(Notice) // hears of every repetition; called concurrently; nil: nobody does
}

// Remote is a repository in a registry.
type Remote struct {
	host, repo string
	reg        name.Registry
	gate       *gate
	http       *http.Client
	retry      RetryPolicy
	notify     func(Notice)
	loginHint  string
	downHint   string
	slots      *fetch.Slots // connections for the ranges of blobs
	transfers  *Transfers
	noChunks   atomic.Bool // the registry refused a chunk

	chunkMin, chunkSize int64 // smaller blobs go in one piece; of a chunk
}

var _ Place = (*Remote)(nil)

// NewRemote makes the repository; it connects when first used. One Remote keeps its credentials and connections, so
// keep it.
func NewRemote(host, repo string, o RemoteOptions) (*Remote, error) {
	plain := o.PlainHTTP || Loopback(host)
	var opts []name.Option
	if plain {
		opts = append(opts, name.Insecure)
	}
	reg, err := name.NewRegistry(host, opts...)
	if err != nil || !ValidRepo(repo) {
		return nil, diag.New(diag.Usage, "%s/%s is not a repository", host, repo)
	}
	if o.Keychain == nil {
		o.Keychain = Credentials{}
	}
	if o.Transport == nil {
		if o.Transport, err = o.TLS.transport(reg.RegistryStr(), o.Idle); err != nil {
			return nil, err
		}
	}
	if o.UserAgent == "" {
		o.UserAgent = "waybill"
	}
	if o.Retry.Attempts == 0 {
		o.Retry = DefaultRetry()
	}
	if o.Stall <= 0 {
		o.Stall = defaultStall
	}
	if o.Connections <= 0 {
		o.Connections = 4
	}
	if o.Notify == nil {
		o.Notify = func(Notice) {}
	}
	paced := &pacer{next: &schemeGuard{next: o.Transport, plain: o.PlainHTTP}, limit: o.Limit}
	once := &stallGuard{next: paced, limit: o.Stall}
	r := &Remote{host: host, repo: repo, reg: reg, retry: o.Retry, notify: o.Notify, loginHint: o.LoginHint, downHint: o.DownHint, slots: fetch.NewSlots(o.Connections), transfers: o.Transfers, chunkMin: minChunked, chunkSize: chunkSize}
	r.gate = &gate{
		host: reg.RegistryStr(), plain: plain, retry: o.Retry, agent: o.UserAgent, trusts: o.TokenHosts, askAgain: o.AskEachTime, rules: strict(), tokens: map[string]token{},
		next: &retrier{next: once, policy: o.Retry, notify: o.Notify}, once: once,
		creds: func(ctx context.Context) (Login, error) {
			return o.Keychain.Login(ctx, reg.RegistryStr(), repo)
		},
	}
	r.http = r.gate.client()
	return r, nil
}

// schemeGuard refuses plain http to other machines, also after a redirect and when a heuristic of the client library
// (private addresses, .local) would try it.
type schemeGuard struct {
	next  http.RoundTripper
	plain bool
}

func (g *schemeGuard) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Scheme != "https" && !g.plain && !Loopback(r.URL.Host) {
		return nil, fmt.Errorf("refused to talk plain http to %s (--plain-http allows it)", r.URL.Host)
	}
	return g.next.RoundTrip(r)
}

const (
	actPull = "pull"
	actPush = "push,pull"
)

// request is one call; body may be nil. It is opened anew for each attempt.
type request struct {
	action string
	from   string // a repository of this registry that must be readable too
	method string
	url    string // absolute, or a path below /v2/<repo>/
	header http.Header
	body   func() (io.ReadCloser, error)
	size   int64
	ok     []int // status codes that are no error
}

// do sends a request. Without an error the caller closes the body of the response.
func (r *Remote) do(ctx context.Context, q request) (*http.Response, error) {
	base, err := r.gate.ready(ctx)
	if err != nil {
		return nil, r.fail(q, err)
	}
	u := q.url
	if !strings.Contains(u, "://") {
		u = base.String() + "/v2/" + r.repo + "/" + u
	}
	scopes := []string{r.reg.Repo(r.repo).Scope(q.action)}
	if q.from != "" {
		scopes = append(scopes, r.reg.Repo(q.from).Scope(actPull))
	}
	req, err := http.NewRequestWithContext(withScopes(ctx, scopes), q.method, u, nil)
	if err != nil {
		return nil, r.fail(q, err)
	}
	for k, v := range q.header {
		req.Header[k] = v
	}
	if q.body != nil {
		req.Body, req.GetBody, req.ContentLength = &lazyBody{open: q.body}, q.body, q.size
		if q.size == 0 {
			req.Body, req.GetBody = http.NoBody, nil
		}
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, r.fail(q, err)
	}
	if slices.Contains(q.ok, resp.StatusCode) {
		return resp, nil
	}
	defer resp.Body.Close()
	err = r.fail(q, statusError(resp))
	var de *diag.Error
	if wait, ok := retryAfter(resp.Header, time.Now()); ok && wait > r.retry.MaxWait && errors.As(err, &de) {
		_ = de.Line("it asks to come back in %s; this waits %s at most", wait, r.retry.MaxWait)
	}
	return nil, err
}

// fail makes the error that a user reads.
func (r *Remote) fail(q request, err error) error {
	return r.gate.conceal(r.explain(err))
}

func (r *Remote) explain(err error) error {
	var de *diag.Error
	if errors.As(err, &de) {
		return err
	}
	what := fmt.Sprintf("registry %s, repository %s", r.host, r.repo)
	if ctxErr := ctxCause(err); ctxErr != nil {
		return diag.Wrap(diag.Interrupted, err, "%s", what)
	}
	switch statusOf(err) {
	case 0:
		var refused refusedError
		if errors.As(err, &refused) {
			return diag.Wrap(diag.Registry, trimURL(err), "%s", what).Hint("curl -sSI https://%s/v2/", r.host)
		}
		if untrusted(err) {
			return diag.Wrap(diag.Registry, trimURL(err), "registry %s: its certificate is not believed", r.host).
				Line("--ca-file FILE names the authority of a private registry").Hint("openssl s_client -connect %s -showcerts", r.gate.address())
		}
		e := diag.Wrap(diag.Registry, trimURL(err), "cannot reach registry %s", r.host)
		if Loopback(r.host) {
			if r.downHint != "" {
				return e.Hint("%s", r.downHint)
			}
			return e.Hint("waybill registry serve --addr %s", r.host)
		}
		return e.Hint("curl -sSf https://%s/v2/", r.host)
	case http.StatusUnauthorized, http.StatusForbidden:
		e := diag.Wrap(diag.Registry, err, "%s: access refused", what)
		if r.loginHint != "" {
			return e.Hint("%s", r.loginHint)
		}
		return e.Hint("docker login %s", r.host)
	case http.StatusNotFound:
		return diag.Wrap(diag.NotFound, notFoundError{err}, "%s", what)
	case http.StatusPreconditionFailed:
		return diag.Wrap(diag.Failure, errors.Join(store.ErrConflict, err), "%s", what)
	}
	return diag.Wrap(diag.Registry, err, "%s", what)
}

func ctxCause(err error) error {
	if errors.Is(err, context.Canceled) {
		return context.Canceled
	}
	return nil
}

// trimURL drops net/http's "Get \"https://...\":" in front of a cause.
func trimURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) && errors.Is(err, ue.Err) {
		return ue.Err
	}
	return err
}

// notFoundError makes a 404 match fs.ErrNotExist.
type notFoundError struct{ err error }

func (e notFoundError) Error() string        { return e.err.Error() }
func (e notFoundError) Unwrap() error        { return e.err }
func (e notFoundError) Is(target error) bool { return target == fs.ErrNotExist }

var manifestTypes = []string{
	artifact.MediaTypeManifest, artifact.MediaTypeIndex,
	"application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
}

func acceptManifests() http.Header { return http.Header{"Accept": manifestTypes} }

// Resolve implements Repository.
func (r *Remote) Resolve(ctx context.Context, tagOrDigest string) (artifact.Descriptor, error) {
	_, d, err := r.GetBounded(ctx, tagOrDigest, artifact.MaxManifest)
	return d, err
}

// Manifest implements Repository.
func (r *Remote) Manifest(ctx context.Context, d artifact.Digest) ([]byte, artifact.Descriptor, error) {
	if err := checkDescriptor(artifact.Descriptor{Digest: d}); err != nil { // a tag here would not be hashed
		return nil, artifact.Descriptor{}, err
	}
	return r.GetBounded(ctx, string(d), artifact.MaxManifest)
}

// GetBounded implements Follower.
func (r *Remote) GetBounded(ctx context.Context, tagOrDigest string, max int64) ([]byte, artifact.Descriptor, error) {
	b, mt, err := r.rawManifest(ctx, tagOrDigest, max)
	if err != nil {
		return nil, artifact.Descriptor{}, err
	}
	if want, err := artifact.ParseDigest(tagOrDigest); err == nil {
		if got := artifact.DigestOf(b); got != want {
			return nil, artifact.Descriptor{}, diag.New(diag.Verification, "registry %s, repository %s: the manifest is not what its digest says", r.host, r.repo).
				Line("want %s", want).Line("got  %s", got)
		}
	}
	doc, err := store.ParseDoc(b, mt)
	if err != nil {
		return nil, artifact.Descriptor{}, diag.Wrap(diag.Registry, err, "registry %s, repository %s, manifest %s", r.host, r.repo, tagOrDigest)
	}
	return b, doc.Descriptor, nil
}

func (r *Remote) rawManifest(ctx context.Context, tagOrDigest string, max int64) ([]byte, string, error) {
	if _, err := artifact.ParseDigest(tagOrDigest); err != nil && !ValidTag(tagOrDigest) {
		return nil, "", diag.New(diag.Usage, "%q is neither a tag nor a digest", tagOrDigest)
	}
	b, resp, err := r.document(ctx, request{
		action: actPull, method: http.MethodGet, url: "manifests/" + tagOrDigest, header: acceptManifests(), ok: []int{http.StatusOK},
	}, max)
	if errors.Is(err, errTooLarge) {
		return nil, "", tooLarge(r.host+"/"+r.repo, tagOrDigest, max)
	}
	if err != nil {
		return nil, "", refine(err, r.host+"/"+r.repo, tagOrDigest)
	}
	// Behind a tag the registry's own word is all there is to compare with: content that was altered there shows.
	if said, err := artifact.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil && ValidTag(tagOrDigest) {
		if got := artifact.DigestOf(b); got != said {
			return nil, "", diag.New(diag.Verification, "registry %s, repository %s: the manifest %s is not what the registry says it is", r.host, r.repo, tagOrDigest).
				Line("want %s", said).Line("got  %s", got)
		}
	}
	mt, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return b, mt, nil
}

// refine names the reference in a NotFound.
func refine(err error, repo, target string) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sep := ":"
	if strings.HasPrefix(target, "sha256:") {
		sep = "@"
	}
	why := "the registry says 404"
	var se *StatusError
	if errors.As(err, &se) && len(se.Codes) == 1 {
		why = "the registry says " + se.Codes[0]
	}
	return diag.Wrap(diag.NotFound, notFoundError{errors.New(why)}, "%s%s%s does not exist", repo, sep, target).
		Hint("waybill push NAME:TAG %s:TAG", repo)
}

// HeadTag implements Follower.
func (r *Remote) HeadTag(ctx context.Context, tag string) (artifact.Digest, error) {
	if !ValidTag(tag) {
		return "", diag.New(diag.Usage, "%q is not a valid tag", tag)
	}
	resp, err := r.do(ctx, request{
		action: actPull, method: http.MethodHead, url: "manifests/" + tag, header: acceptManifests(), ok: []int{http.StatusOK},
	})
	if err != nil {
		return "", refine(err, r.host+"/"+r.repo, tag)
	}
	defer resp.Body.Close()
	if d, err := artifact.ParseDigest(resp.Header.Get("Docker-Content-Digest")); err == nil {
		return d, nil
	}
	// The header is optional in the spec: ask for the bytes then.
	d, err := r.Resolve(ctx, tag)
	return d.Digest, err
}

// PushManifest implements Repository.
func (r *Remote) PushManifest(ctx context.Context, b []byte, mediaType, tag string) (artifact.Descriptor, error) {
	d, _, err := r.putManifest(ctx, b, mediaType, tag, nil)
	return d, err
}

// SwapTag implements Swapper. A registry that does not announce conditional writes only has its tag compared before.
func (r *Remote) SwapTag(ctx context.Context, b []byte, mediaType, tag string, old artifact.Digest) (artifact.Descriptor, bool, error) {
	now, err := r.Resolve(ctx, tag)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return artifact.Descriptor{}, false, err
	}
	if now.Digest != old {
		return artifact.Descriptor{}, false, diag.Wrap(diag.Failure, store.ErrConflict, "set %s/%s:%s", r.host, r.repo, tag).
			Line("it is at  %s", orNothing(now.Digest)).Line("expected  %s", orNothing(old))
	}
	h := http.Header{"If-None-Match": {"*"}}
	if old != "" {
		h = http.Header{"If-Match": {`"` + string(old) + `"`}}
	}
	d, resp, err := r.putManifest(ctx, b, mediaType, tag, h)
	return d, err == nil && resp.Get(ConditionalHeader) != "", err
}

// Conditional asks whether the registry compares and moves tags in one step; ours says so at the root of its API.
func (r *Remote) Conditional(ctx context.Context) (bool, error) {
	base, err := r.gate.ready(ctx)
	if err != nil {
		return false, err
	}
	resp, err := r.do(ctx, request{action: actPull, method: http.MethodGet, url: base.String() + "/v2/", ok: []int{http.StatusOK}})
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	return resp.Header.Get(ConditionalHeader) != "", nil
}

// ConditionalHeader is the response header by which a registry (ours does) says that it honoured If-Match and
// If-None-Match on a manifest PUT, and at the root of its API that it would.
const ConditionalHeader = "Waybill-Conditional-Put"

func orNothing(d artifact.Digest) string {
	if d == "" {
		return "nothing"
	}
	return string(d)
}

func (r *Remote) putManifest(ctx context.Context, b []byte, mediaType, tag string, cond http.Header) (artifact.Descriptor, http.Header, error) {
	doc, err := store.ParseDoc(b, mediaType)
	if err != nil {
		return artifact.Descriptor{}, nil, diag.Wrap(diag.Failure, err, "push manifest to %s/%s", r.host, r.repo)
	}
	d := doc.Descriptor
	target := string(d.Digest)
	if tag != "" {
		if !ValidTag(tag) {
			return d, nil, diag.New(diag.Usage, "%q is not a valid tag", tag)
		}
		target = tag
	}
	h, err := r.putRaw(ctx, target, b, d, cond)
	if err != nil {
		return d, h, err
	}
	if doc.Subject != "" {
		err = r.announce(ctx, b, doc, h)
	}
	return d, h, err
}

func (r *Remote) putRaw(ctx context.Context, target string, b []byte, d artifact.Descriptor, cond http.Header) (http.Header, error) {
	h := http.Header{"Content-Type": {d.MediaType}}
	for k, v := range cond {
		h[k] = v
	}
	resp, err := r.do(ctx, request{
		action: actPush, method: http.MethodPut, url: "manifests/" + target, header: h, size: int64(len(b)),
		body: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil },
		ok:   []int{http.StatusCreated, http.StatusOK, http.StatusAccepted},
	})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if got := resp.Header.Get("Docker-Content-Digest"); got != "" && got != string(d.Digest) {
		return nil, diag.New(diag.Verification, "registry %s, repository %s: it stored the manifest under another digest", r.host, r.repo).
			Line("sent    %s", d.Digest).Line("stored  %s", got)
	}
	return resp.Header, nil
}

// Attach implements Repository.
func (r *Remote) Attach(ctx context.Context, subject artifact.Descriptor, bundle []byte, predicateType string) (artifact.Descriptor, error) {
	return attach(ctx, r, subject, bundle, predicateType)
}
