package carrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// Mirror is an OCI layout behind a web server that knows nothing of it: URL/index.json and URL/blobs/sha256/*. Any server
// of files does; with ranges a download goes on where it broke off. It gets no credentials.
type Mirror struct {
	base   *url.URL
	names  []string
	client *http.Client
	agent  string
	checks checks

	mu       sync.Mutex
	index    *index // as it was seen last
	etag     string
	modified string
}

// checks are what is demanded of answers. Tests leave one out to see what it keeps out.
type checks struct {
	part func(resp *http.Response, offset, size int64) (first int64, err error)
}

// MirrorOptions refine a Mirror.
type MirrorOptions struct {
	Transport http.RoundTripper // nil: registry.NewTransport()
	UserAgent string
	Names     []string // under which the channel's tags may stand in a layout of several models
}

// NewMirror makes a place of an address with http or https.
func NewMirror(address string, o MirrorOptions) (*Mirror, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("%q is no address such as https://mirror.example/churn", address)
	}
	u.Path = strings.TrimSuffix(u.Path, "/")
	if o.Transport == nil {
		o.Transport = registry.NewTransport()
	}
	return &Mirror{
		base: u, names: o.Names, agent: o.UserAgent, checks: checks{part: part},
		client: &http.Client{Transport: o.Transport, CheckRedirect: redirects},
	}, nil
}

// redirects follows a few, and none from https to http or to what is no web address.
func redirects(req *http.Request, via []*http.Request) error {
	last := via[len(via)-1].URL
	switch {
	case len(via) >= 5:
		return errors.New("more than 5 redirects")
	case req.URL.Scheme != "https" && (last.Scheme == "https" || req.URL.Scheme != "http"):
		return fmt.Errorf("refused: %s redirects from %s to %s", last.Host, last.Scheme, req.URL.Scheme)
	}
	req.Header.Del("Referer")
	return nil
}

func (m *Mirror) get(ctx context.Context, path string, h http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base.JoinPath(path).String(), nil)
	if err != nil {
		return nil, err
	}
	for k, v := range h {
		req.Header[k] = v
	}
	req.Header.Set("Accept-Encoding", "identity") // bytes are counted and hashed as they lie there
	if m.agent != "" {
		req.Header.Set("User-Agent", m.agent)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return nil, err
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s sends %s in an encoding that was not asked for", m.base.Host, path)
	}
	return resp, nil
}

// answer makes an error of a status that was not wanted, and closes the body.
func (m *Mirror) answer(resp *http.Response, path string) error {
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	if resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone {
		return notFound("%s has no %s", m.base.Host, path)
	}
	wait, _ := registry.RetryAfter(resp.Header, time.Now())
	return paced(fmt.Errorf("%s answers %d to GET %s", m.base.Host, resp.StatusCode, path), wait, resp.StatusCode == http.StatusTooManyRequests)
}

// page tells a web page that came in place of a file, as from a network that wants its user to log in first: what is wrong is
// easier to find then. It closes the body on an error. Content that has the right size is left to its hash.
func (m *Mirror) page(resp *http.Response, size int64) error {
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") || size > 0 && resp.ContentLength == size {
		return nil
	}
	var b [512]byte
	n, _ := io.ReadFull(resp.Body, b[:])
	if strings.HasPrefix(http.DetectContentType(b[:n]), "text/html") {
		_ = resp.Body.Close()
		return fmt.Errorf("%s answers with a web page (text/html), as networks do that want a log-in first", m.base.Host)
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(b[:n]), resp.Body), resp.Body}
	return nil
}

const indexFile = "index.json"

// Heads implements Place: a conditional GET of the index (RFC 9110, 13.1), which costs a few hundred bytes while nothing
// changes.
func (m *Mirror) Heads(ctx context.Context, tag string) ([]artifact.Digest, error) {
	ds, cached, err := m.heads(ctx, tag)
	if cached && errors.Is(err, fs.ErrNotExist) {
		m.forget() // what is confirmed may have been altered on its way
		ds, _, err = m.heads(ctx, tag)
	}
	return ds, err
}

// forget drops the index, so that the next look fetches it anew.
func (m *Mirror) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.etag, m.modified = nil, "", ""
}

// heads also tells whether the answer confirmed an index that was known.
func (m *Mirror) heads(ctx context.Context, tag string) (ds []artifact.Digest, cached bool, err error) {
	m.mu.Lock()
	was, h := m.index, http.Header{}
	if was != nil && m.etag != "" {
		h.Set("If-None-Match", m.etag)
	} else if was != nil && m.modified != "" {
		h.Set("If-Modified-Since", m.modified)
	}
	m.mu.Unlock()
	resp, err := m.get(ctx, indexFile, h)
	if err != nil {
		return nil, false, err
	}
	x := was
	switch {
	case resp.StatusCode == http.StatusNotModified && was != nil && len(h) > 0:
		cached = true
		_ = resp.Body.Close()
	case resp.StatusCode == http.StatusOK:
		if err := m.page(resp, -1); err != nil {
			return nil, false, err
		}
		if x, err = m.read(resp); err != nil {
			return nil, false, fmt.Errorf("%s: %w", m.base.Host, err)
		}
	default:
		err := m.answer(resp, indexFile)
		if errors.Is(err, fs.ErrNotExist) {
			// A place that has no layout at all is misconfigured or gone: not a channel without a record.
			err = fmt.Errorf("there is no %s at %s", indexFile, m.base.Redacted())
		}
		return nil, false, err
	}
	if ds := x.heads(tag, m.names); len(ds) > 0 {
		return ds, cached, nil
	}
	return nil, cached, notFound("%s has no tag %s", m.base.Host, tag)
}

func (m *Mirror) read(resp *http.Response) (*index, error) {
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, artifact.MaxManifest+1))
	if err != nil {
		return nil, err
	}
	if resp.ContentLength >= 0 && int64(len(raw)) < resp.ContentLength {
		return nil, io.ErrUnexpectedEOF
	}
	x, err := parseIndex(raw) // refuses what is too large
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.index, m.etag, m.modified = x, short(resp.Header.Get("ETag")), short(resp.Header.Get("Last-Modified"))
	return x, nil
}

// short keeps what is sent back with every poll small.
func short(s string) string {
	if len(s) > 256 {
		return ""
	}
	return s
}

// Open implements Place.
func (m *Mirror) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	path, h := blobPath(d.Digest), http.Header{}
	if offset > 0 {
		// A digest's content cannot change, so no If-Range: a server that has something else there is found out by the hash.
		h.Set("Range", fmt.Sprintf("bytes=%d-", offset))
	}
	resp, err := m.get(ctx, path, h)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		_ = m.answer(resp, path)
		if resp, err = m.get(ctx, path, nil); err != nil { // it has fewer bytes, or no ranges: all of it then
			return nil, err
		}
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusPartialContent {
		m.forget() // the digest may have been altered on its way
		return nil, m.answer(resp, path)
	}
	if err := m.page(resp, d.Size); err != nil {
		return nil, err
	}
	first, err := m.checks.part(resp, offset, d.Size)
	if err != nil {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("%s: %s: %w", m.base.Host, path, err)
	}
	return &skipping{resp.Body, offset - first}, nil
}

// part checks which bytes an answer brings: from where on, and how many.
func part(resp *http.Response, offset, size int64) (first int64, err error) {
	if resp.StatusCode == http.StatusOK {
		if n := resp.ContentLength; size > 0 && n >= 0 && n != size {
			return 0, fmt.Errorf("it has %d bytes, not %d", n, size)
		}
		return 0, nil
	}
	first, end, total, ok := registry.ContentRange(resp.Header.Get("Content-Range"))
	switch {
	case offset == 0:
		return 0, errors.New("a part came of what was asked for as a whole")
	case !ok || first > offset || end <= offset:
		return 0, fmt.Errorf("for the bytes from %d on came Content-Range %q", offset, short(resp.Header.Get("Content-Range")))
	case size > 0 && (total >= 0 && total != size || end > size):
		return 0, fmt.Errorf("it has %d bytes, not %d", total, size)
	case resp.ContentLength >= 0 && resp.ContentLength != end-first:
		return 0, fmt.Errorf("Content-Range %q came with %d bytes", short(resp.Header.Get("Content-Range")), resp.ContentLength)
	}
	return first, nil
}

// skipping drops the first bytes of a body.
type skipping struct {
	io.ReadCloser
	skip int64
}

func (s *skipping) Read(p []byte) (int, error) {
	for s.skip > 0 {
		n, err := s.ReadCloser.Read(p[:min(int64(len(p)), s.skip)])
		s.skip -= int64(n)
		if err != nil {
			if errors.Is(err, io.EOF) && s.skip > 0 {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	return s.ReadCloser.Read(p)
}
