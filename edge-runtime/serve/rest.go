package serve

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"mime"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
)

// headerLength is the header of the binary tensor extension: how many bytes of the body are JSON.
const headerLength = "Inference-Header-Content-Length"

// inferREST answers one inference over REST.
func (s *Server) inferREST(w http.ResponseWriter, r *http.Request) error {
	arrived := time.Now()
	if err := s.begin(); err != nil {
		s.cfg.Metrics.Request("", "", http.StatusServiceUnavailable)
		return err
	}
	defer s.finish()
	raw, release, err := s.readBody(w, r, arrived)
	defer release()
	if err != nil {
		return s.turnedAway(r.Context(), "", err)
	}
	binary, jsonLen, err := bodyForm(r, raw)
	if err != nil {
		return s.turnedAway(r.Context(), "", err)
	}
	in := &incoming{protocol: "rest", model: r.PathValue("model"), version: r.PathValue("version"), arrived: arrived}
	var answer []byte
	var header int
	if binary && jsonLen == 0 {
		in.decode = func(ports *codecPorts) (*request, error) { return decodeRaw(raw, ports) }
	} else {
		wr, err := parseRequest(raw[:jsonLen])
		if err == nil {
			in.params, err = wr.params()
		}
		if err != nil {
			return s.turnedAway(r.Context(), "", fail(http.StatusBadRequest, "%w", err))
		}
		in.decode = func(ports *codecPorts) (*request, error) { return wr.decode(raw[jsonLen:], ports) }
	}
	in.encode = func(sl *slot, req *request, outs []engine.Tensor) (err error) {
		answer, header, err = encodeResponse(sl, req, outs)
		return err
	}
	err = s.infer(r.Context(), in, func(sl *slot) { w.Header().Set(DigestHeader, sl.Digest()) })
	if err != nil {
		return err
	}
	if header < 0 {
		w.Header().Set("Content-Type", "application/json")
	} else {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set(headerLength, strconv.Itoa(header))
	}
	writeBody(w, http.StatusOK, answer)
	return nil
}

// bodyForm tells whether the body has binary tensors, and how much of it is JSON (0: none, it is one raw tensor).
func bodyForm(r *http.Request, raw []byte) (binary bool, jsonLen int, err error) {
	h := r.Header.Values(headerLength)
	if len(h) == 0 {
		return false, len(raw), checkJSON(r)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(h[0]), 10, 63)
	switch {
	case len(h) > 1:
		return false, 0, fail(http.StatusBadRequest, "the header %s stands there %d times", headerLength, len(h))
	case err != nil:
		return false, 0, fail(http.StatusBadRequest, "the header %s is %q, which is no length", headerLength, h[0])
	case n > uint64(len(raw)):
		return false, 0, fail(http.StatusBadRequest, "the header %s says %d, the body has only %d bytes", headerLength, n, len(raw))
	}
	return true, int(n), nil
}

// checkJSON: a body without binary tensors is JSON in UTF-8. A missing Content-Type passes: many clients send none. So does the
// one that curl -d and Python's urllib put there unless told otherwise, but not from a web page: a browser lets every site post
// that type to this machine without asking it first, and always says Origin then.
func checkJSON(r *http.Request) error {
	ct := r.Header.Get("Content-Type")
	if ct == "" {
		return nil
	}
	t, p, err := mime.ParseMediaType(ct)
	if err == nil && t == "application/x-www-form-urlencoded" && r.Header.Get("Origin") == "" {
		return nil
	}
	if err != nil || t != "application/json" {
		return fail(http.StatusUnsupportedMediaType, "content type %q is not supported; send application/json, or binary tensors with the header %s", ct, headerLength)
	}
	if cs := p["charset"]; cs != "" && !strings.EqualFold(cs, "utf-8") {
		return fail(http.StatusUnsupportedMediaType, "charset %q is not supported; send UTF-8", cs)
	}
	return nil
}

// errBuffers refuses a request for which there is no memory.
func errBuffers() error {
	return &httpError{
		status: http.StatusTooManyRequests, err: errors.New("the requests that are being received take all the memory that there is for them"),
		retry: time.Second, reason: "memory",
	}
}

// body reads a request's body within the server's bounds: so many bytes, within so much time, and all bodies together no
// more than MaxBuffered. It counts what it has given until release.
type body struct {
	io.ReadCloser
	s    *Server
	held int64
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.held += int64(n)
	if b.s.buffered.Add(int64(n)) > b.s.cfg.MaxBuffered {
		return n, errBuffers()
	}
	return n, err
}

func (b *body) release() {
	b.s.buffered.Add(-b.held)
	b.held = 0
}

// readBody reads and decompresses a whole request. release gives its memory back to the others, also after an error.
func (s *Server) readBody(w http.ResponseWriter, r *http.Request, arrived time.Time) (raw []byte, release func(), err error) {
	none := func() {}
	if r.ContentLength > s.cfg.MaxBody {
		return nil, none, tooLarge(s.cfg.MaxBody)
	}
	// Both deadlines are of the connection for HTTP/1: the one for writing holds until the next request sets its own.
	rc := http.NewResponseController(w)
	deadline := arrived.Add(s.cfg.BodyTimeout)
	_ = rc.SetReadDeadline(deadline) // not every ResponseWriter can, those of net/http do
	_ = rc.SetWriteDeadline(deadline.Add(s.cfg.Timeout + time.Minute))
	b := &body{ReadCloser: http.MaxBytesReader(w, r.Body, s.cfg.MaxBody), s: s}
	var src io.Reader = b
	switch enc := strings.ToLower(r.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip":
		src, err = gzip.NewReader(b)
	case "deflate":
		src, err = zlib.NewReader(b)
	default:
		return nil, none, fail(http.StatusUnsupportedMediaType, "content encoding %q is not supported; gzip and deflate are", enc)
	}
	if err == nil && src != io.Reader(b) { // what it decompresses to counts too
		d := &body{ReadCloser: io.NopCloser(io.LimitReader(src, s.cfg.MaxBody+1)), s: s}
		raw, err = readAll(d, 0)
		if err == nil && int64(len(raw)) > s.cfg.MaxBody {
			err = tooLarge(s.cfg.MaxBody)
		}
		b.release()
		b = d
	} else if err == nil {
		raw, err = readAll(b, r.ContentLength)
	}
	if err == nil {
		_ = rc.SetReadDeadline(time.Time{}) // from here on it would end the inference; after an error it ends the wait for the rest
	}
	var tooBig *http.MaxBytesError
	var own *httpError
	switch {
	case err == nil || errors.As(err, &own):
	case errors.As(err, &tooBig):
		err = tooLarge(tooBig.Limit)
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = &httpError{status: http.StatusRequestTimeout, err: diag.Errorf("the request did not arrive within %s", s.cfg.BodyTimeout), reason: "slow"}
	case r.Context().Err() != nil:
		err = &httpError{status: statusClientClosedRequest, err: diag.Errorf("the request could not be read: %w", err), reason: "client"}
	default:
		err = fail(http.StatusBadRequest, "the request could not be read: %w", err)
	}
	return raw, b.release, err
}

func tooLarge(limit int64) error {
	return fail(http.StatusRequestEntityTooLarge, "the request is larger than %d bytes", limit)
}

// readAll is io.ReadAll that starts with room for what is announced, but not for more than a client could send at once.
func readAll(r io.Reader, announced int64) ([]byte, error) {
	b := make([]byte, 0, min(max(announced, 0)+1, 64<<10)+511)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return b, err
		}
	}
}
