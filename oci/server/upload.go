package server

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// upload is one session. Sessions live in memory and their bytes in a temporary file: a restart forgets them, and the
// client starts again, as the specification provides.
type upload struct {
	repo string
	mu   sync.Mutex // held while bytes move
	w    *store.Writer
	used time.Time // guarded by Server.mu
}

func (s *Server) uploadsHandler(w http.ResponseWriter, r *http.Request, repo, id string) {
	if id == "" {
		if allow(w, r, http.MethodPost) {
			s.startUpload(w, r, repo)
		}
		return
	}
	if !allow(w, r, http.MethodGet, http.MethodPatch, http.MethodPut, http.MethodDelete) {
		return
	}
	s.mu.Lock()
	u := s.uploads[id]
	if u != nil {
		u.used = time.Now()
	}
	s.mu.Unlock()
	if u == nil || u.repo != repo {
		fail(w, http.StatusNotFound, "BLOB_UPLOAD_UNKNOWN", "no such upload")
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	switch r.Method {
	case http.MethodGet:
		s.status(w, repo, id, u, http.StatusNoContent)
	case http.MethodPatch:
		if s.receive(w, r, id, u) {
			s.status(w, repo, id, u, http.StatusAccepted)
		}
	case http.MethodPut:
		s.finishUpload(w, r, id, u)
	case http.MethodDelete:
		s.forget(id)
		if err := u.w.Close(); err != nil {
			failErr(w, err, "BLOB_UPLOAD_UNKNOWN")
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}
}

func (s *Server) startUpload(w http.ResponseWriter, r *http.Request, repo string) {
	q := r.URL.Query()
	if from := q.Get("from"); q.Get("mount") != "" && registry.ValidRepo(from) && len(from) <= maxRepoName {
		d, err := artifact.ParseDigest(q.Get("mount"))
		if err != nil {
			fail(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
			return
		}
		err = s.copyBlob(r, repo, from, d)
		if err == nil {
			created(w, repo, d)
			return
		}
		if !errors.Is(err, fs.ErrNotExist) {
			failErr(w, err, "BLOB_UNKNOWN")
			return
		} // not there: the client gets an upload session instead, as the specification says
	}
	st, err := s.repo(r.Context(), repo, true)
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	if !s.dropIdle(repo) {
		w.Header().Set("Retry-After", "5")
		fail(w, http.StatusTooManyRequests, "TOOMANYREQUESTS", "too many open uploads")
		return
	}
	bw, err := st.NewWriter(r.Context())
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	id, u := hex.EncodeToString(raw[:]), &upload{repo: repo, w: bw, used: time.Now()}
	s.mu.Lock()
	s.uploads[id] = u
	s.mu.Unlock()
	if q.Get("digest") != "" { // the whole blob in one POST
		u.mu.Lock()
		defer u.mu.Unlock()
		s.finishUpload(w, r, id, u)
		return
	}
	s.status(w, repo, id, u, http.StatusAccepted)
}

// dropIdle forgets sessions that nobody used for long, lets go of repositories that nobody wrote to for as long, and tells
// whether there is room for one more session, in repo.
func (s *Server) dropIdle(repo string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrote[repo] = time.Now()
	for id, u := range s.uploads {
		if time.Since(u.used) > uploadIdle && u.mu.TryLock() {
			_ = u.w.Close()
			delete(s.uploads, id)
			u.mu.Unlock()
		}
	}
	open := map[string]bool{}
	for _, u := range s.uploads {
		open[u.repo] = true
	}
	for repo, when := range s.wrote { // what was pushed there and never named may be pruned from now on
		if st := s.repos[repo]; st != nil && !open[repo] && time.Since(when) > uploadIdle {
			_ = st.Close()
			delete(s.wrote, repo)
		}
	}
	return len(s.uploads) < maxUploads
}

func (s *Server) forget(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.uploads, id)
}

func (s *Server) status(w http.ResponseWriter, repo, id string, u *upload, code int) {
	h := w.Header()
	h.Set("Location", "/v2/"+repo+"/blobs/uploads/"+id)
	h.Set("Range", fmt.Sprintf("0-%d", max(u.w.Size()-1, 0)))
	h.Set("Docker-Upload-UUID", id)
	h.Set("OCI-Chunk-Min-Length", "1")
	h.Set("Content-Length", "0")
	w.WriteHeader(code)
}

// receive appends the body. What came before a broken connection is kept: the client may ask how much and go on.
func (s *Server) receive(w http.ResponseWriter, r *http.Request, id string, u *upload) bool {
	if cr := r.Header.Get("Content-Range"); cr != "" {
		from, to, ok := strings.Cut(cr, "-")
		a, err1 := strconv.ParseInt(from, 10, 64)
		b, err2 := strconv.ParseInt(to, 10, 64)
		if !ok || err1 != nil || err2 != nil || a != u.w.Size() || b < a-1 || (r.ContentLength >= 0 && r.ContentLength != b-a+1) {
			h := w.Header()
			h.Set("Location", "/v2/"+u.repo+"/blobs/uploads/"+id)
			h.Set("Range", fmt.Sprintf("0-%d", max(u.w.Size()-1, 0)))
			fail(w, http.StatusRequestedRangeNotSatisfiable, "BLOB_UPLOAD_INVALID", "the chunk does not continue the upload")
			return false
		}
	}
	if _, err := io.Copy(u.w, &limited{r.Body, s.o.MaxBlob - u.w.Size()}); err != nil {
		if errors.Is(err, errTooLarge) {
			s.forget(id)
			_ = u.w.Close()
		}
		failErr(w, err, "BLOB_UPLOAD_UNKNOWN")
		return false
	}
	return true
}

func (s *Server) finishUpload(w http.ResponseWriter, r *http.Request, id string, u *upload) {
	d, err := artifact.ParseDigest(r.URL.Query().Get("digest"))
	if err != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	if !s.receive(w, r, id, u) {
		return
	}
	s.forget(id)
	defer u.w.Close()
	if _, _, err := u.w.Commit(d); err != nil {
		failErr(w, err, "BLOB_UPLOAD_UNKNOWN")
		return
	}
	created(w, u.repo, d)
}

func created(w http.ResponseWriter, repo string, d artifact.Digest) {
	h := w.Header()
	h.Set("Location", "/v2/"+repo+"/blobs/"+string(d))
	h.Set("Docker-Content-Digest", string(d))
	h.Set("Content-Length", "0")
	w.WriteHeader(http.StatusCreated)
}
