package server

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"net/url"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

var errTooLarge = errors.New("larger than the limit of this registry")

// paginate applies n and last, and writes the Link header; ok is false when it has answered already.
func paginate(w http.ResponseWriter, r *http.Request, all []string) (page []string, ok bool) {
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		all = all[sort.SearchStrings(all, last+"\x00"):]
	}
	if ns := q.Get("n"); ns != "" {
		n, err := strconv.Atoi(ns)
		if err != nil || n < 0 {
			fail(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is not a count")
			return nil, false
		}
		if n < len(all) {
			all = all[:n]
			if n > 0 {
				next := url.Values{"n": {ns}, "last": {all[n-1]}}
				w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, next.Encode()))
			}
		}
	}
	return all, true
}

func (s *Server) blobs(w http.ResponseWriter, r *http.Request, repo, ref string) {
	if !allow(w, r, http.MethodGet, http.MethodHead, http.MethodDelete) {
		return
	}
	d, err := artifact.ParseDigest(ref)
	if err != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	st, err := s.repo(r.Context(), repo, false)
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	if r.Method == http.MethodDelete {
		err := st.DeleteBlob(r.Context(), d)
		switch {
		case err == nil:
			w.WriteHeader(http.StatusAccepted)
		case errors.Is(err, fs.ErrNotExist):
			failErr(w, err, "BLOB_UNKNOWN")
		default:
			fail(w, http.StatusConflict, "DENIED", err.Error())
		}
		return
	}
	f, err := st.OpenRaw(r.Context(), d) // the client hashes; range requests could not be checked here
	if err != nil {
		failErr(w, err, "BLOB_UNKNOWN")
		return
	}
	defer f.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", etag(d))
	http.ServeContent(w, r, "", time.Time{}, f)
}

// etag is strong: the digest names the bytes.
func etag(d artifact.Digest) string { return `"` + string(d) + `"` }

// etagMatches applies an If-None-Match list (RFC 9110, weak comparison) to a digest.
func etagMatches(header string, d artifact.Digest) bool {
	for part := range strings.SplitSeq(header, ",") {
		if part = strings.TrimSpace(part); part == "*" || strings.TrimPrefix(part, "W/") == etag(d) {
			return true
		}
	}
	return false
}

func (s *Server) manifests(w http.ResponseWriter, r *http.Request, repo, ref string) {
	if !allow(w, r, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete) {
		return
	}
	dig, derr := artifact.ParseDigest(ref)
	if derr != nil && !registry.ValidTag(ref) {
		fail(w, http.StatusBadRequest, "TAG_INVALID", "neither a tag nor a sha256 digest")
		return
	}
	if r.Method == http.MethodPut {
		s.putManifest(w, r, repo, ref, dig)
		return
	}
	st, err := s.repo(r.Context(), repo, false)
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	if r.Method == http.MethodDelete {
		if dig != "" {
			_, err = st.Remove(r.Context(), dig)
		} else {
			_, _, err = st.Untag(r.Context(), ref)
		}
		if err != nil {
			failErr(w, err, "MANIFEST_UNKNOWN")
			return
		}
		w.WriteHeader(http.StatusAccepted)
		return
	}
	d, err := st.Resolve(r.Context(), ref)
	if err != nil {
		failErr(w, err, "MANIFEST_UNKNOWN")
		return
	}
	h := w.Header()
	h.Set("ETag", etag(d.Digest))
	h.Set("Docker-Content-Digest", string(d.Digest))
	if inm := r.Header.Get("If-None-Match"); inm != "" && etagMatches(inm, d.Digest) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	// Sent as it lies there, like a blob: who reads it hashes it, and learns of damage from both digests.
	f, err := st.OpenRaw(r.Context(), d.Digest)
	if err != nil {
		failErr(w, err, "MANIFEST_UNKNOWN")
		return
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, artifact.MaxManifest))
	if err != nil {
		failErr(w, err, "MANIFEST_UNKNOWN")
		return
	}
	reply(w, r, http.StatusOK, d.MediaType, b)
}

func (s *Server) putManifest(w http.ResponseWriter, r *http.Request, repo, ref string, dig artifact.Digest) {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, artifact.MaxManifest))
	if err != nil {
		failErr(w, err, "MANIFEST_INVALID")
		return
	}
	mt, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", "the Content-Type is missing")
		return
	}
	doc, err := store.ParseDoc(b, mt)
	if err != nil {
		fail(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
		return
	}
	var o store.PutOptions
	if dig == "" {
		o.Ref = ref
		if o.Expect, err = expectation(r.Header); err != nil {
			fail(w, http.StatusBadRequest, "MANIFEST_INVALID", err.Error())
			return
		}
	} else if dig != doc.Descriptor.Digest {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", fmt.Sprintf("the content has digest %s, not %s", doc.Descriptor.Digest, dig))
		return
	}
	st, err := s.repo(r.Context(), repo, true)
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	d, err := st.PutManifest(r.Context(), b, mt, o)
	if errors.Is(err, fs.ErrNotExist) {
		for _, n := range append(doc.Blobs, doc.Children...) {
			if _, ok, herr := st.Has(n.Digest); herr == nil && !ok {
				fail(w, http.StatusNotFound, "MANIFEST_BLOB_UNKNOWN", string(n.Digest)+" is not in this repository")
				return
			}
		}
	}
	if err != nil {
		failErr(w, err, "MANIFEST_BLOB_UNKNOWN")
		return
	}
	h := w.Header()
	if o.Expect != nil {
		h.Set(registry.ConditionalHeader, "1")
	}
	if doc.Subject != "" {
		h.Set("OCI-Subject", string(doc.Subject))
	}
	h.Set("Docker-Content-Digest", string(d.Digest))
	h.Set("ETag", etag(d.Digest))
	h.Set("Location", "/v2/"+repo+"/manifests/"+string(d.Digest))
	w.WriteHeader(http.StatusCreated)
}

// expectation reads If-Match and If-None-Match of a tag PUT.
func expectation(h http.Header) (*artifact.Digest, error) {
	im, inm := h.Get("If-Match"), h.Get("If-None-Match")
	switch {
	case im != "" && inm != "":
		return nil, errors.New("If-Match and If-None-Match exclude each other here")
	case inm == "*":
		var none artifact.Digest
		return &none, nil
	case inm != "":
		return nil, errors.New("If-None-Match of a PUT can only be *")
	case im != "":
		d, err := artifact.ParseDigest(strings.Trim(im, `"`))
		if err != nil || im != etag(d) {
			return nil, errors.New("If-Match must be one strong ETag, the quoted digest")
		}
		return &d, nil
	}
	return nil, nil
}

// copyBlob takes a blob over from another repository of this registry, hashing it on the way.
func (s *Server) copyBlob(r *http.Request, repo, from string, d artifact.Digest) error {
	src, err := s.repo(r.Context(), from, false)
	if err != nil {
		return err
	}
	if _, ok, err := src.Has(d); err != nil {
		return err
	} else if !ok {
		return diag.Wrap(diag.NotFound, fs.ErrNotExist, "%s has no blob %s", from, d)
	}
	dst, err := s.repo(r.Context(), repo, true)
	if err != nil {
		return err
	}
	return dst.Share(r.Context(), src, d)
}

// limited fails, rather than ends, when more than n bytes come.
type limited struct {
	r io.Reader
	n int64
}

func (l *limited) Read(p []byte) (int, error) {
	if l.n < 0 {
		return 0, errTooLarge
	}
	if int64(len(p)) > l.n+1 {
		p = p[:l.n+1]
	}
	n, err := l.r.Read(p)
	if l.n -= int64(n); l.n < 0 {
		return 0, errTooLarge
	}
	return n, err
}
