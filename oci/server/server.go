// Package server is the embedded registry: OCI distribution-spec 1.1 over one OCI layout per repository, on disk.
//
// It has no users and no passwords, so it listens on loopback unless told otherwise. On top of the specification it
// has conditional writes of tags: a manifest PUT with If-Match (a strong ETag, the quoted digest that the tag must
// have) or If-None-Match: * compares and moves the tag in one step and answers 412 when the tag is elsewhere.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// Limits.
const (
	DefaultMaxBlob = 64 << 30
	maxRepoName    = 200
	maxUploads     = 256
	uploadIdle     = time.Hour
)

// Options configure New.
type Options struct {
	FS      fsx.FS         // nil: fsx.OS{}
	Lock    store.LockFunc // nil: fsx.Lock
	MaxBlob int64          // bytes; 0: DefaultMaxBlob
	Public  bool           // answer requests for host names other than this machine's
	Log     func(Request)  // called after each request, concurrently; may be nil
}

// Request is one line of the access log.
type Request struct {
	Method, Path string
	Status       int
	Bytes        int64 // of the answer's body
	Duration     time.Duration
}

// Server is the handler. It is safe for concurrent use; other processes may use the layouts at the same time.
type Server struct {
	root string
	o    Options

	mu      sync.Mutex
	repos   map[string]*store.Store
	uploads map[string]*upload
	wrote   map[string]time.Time // when an upload last began, by repository
}

// New serves the repositories below root, which is made when missing.
func New(root string, o Options) (*Server, error) {
	if o.FS == nil {
		o.FS = fsx.OS{}
	}
	if o.MaxBlob == 0 {
		o.MaxBlob = DefaultMaxBlob
	}
	if err := o.FS.MkdirAll(root, 0o755); err != nil {
		return nil, diag.Wrap(diag.Failure, err, "open registry %s", root)
	}
	return &Server{root: root, o: o, repos: map[string]*store.Store{}, uploads: map[string]*upload{}, wrote: map[string]time.Time{}}, nil
}

// Close abandons open uploads and lets go of the stores. No request may be running.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, u := range s.uploads {
		errs = append(errs, u.w.Close())
	}
	for _, r := range s.repos {
		errs = append(errs, r.Close())
	}
	clear(s.uploads)
	clear(s.repos)
	return errors.Join(errs...)
}

// dirOf is the layout of a repository. The slash becomes a plus, which names cannot have, so that one repository's
// directory never lies in another's.
func (s *Server) dirOf(repo string) string {
	return filepath.Join(s.root, "repo-"+strings.ReplaceAll(repo, "/", "+"))
}

// repo opens a repository. Without create a missing one wraps fs.ErrNotExist.
func (s *Server) repo(ctx context.Context, name string, create bool) (*store.Store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.repos[name]; r != nil {
		return r, nil
	}
	r, err := store.Open(ctx, s.dirOf(name), store.Options{FS: s.o.FS, Lock: s.o.Lock, Create: create})
	if err != nil {
		return nil, err
	}
	if err := r.CleanTemp(ctx); err != nil {
		return nil, err
	}
	s.repos[name] = r
	return r, nil
}

// Repos lists the repositories on disk, sorted.
func (s *Server) Repos() ([]string, error) {
	es, err := s.o.FS.ReadDir(s.root)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "list registry %s", s.root)
	}
	out := []string{}
	for _, e := range es {
		if n, ok := strings.CutPrefix(e.Name(), "repo-"); ok && e.IsDir() {
			out = append(out, strings.ReplaceAll(n, "+", "/"))
		}
	}
	slices.Sort(out)
	return out, nil
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	lw := &logWriter{ResponseWriter: w, status: http.StatusOK}
	start := time.Now()
	defer func() {
		if s.o.Log != nil {
			s.o.Log(Request{r.Method, r.URL.Path, lw.status, lw.n, time.Since(start)})
		}
	}()
	lw.Header().Set("Docker-Distribution-API-Version", "registry/2.0")
	// A web page can make a browser send requests here under a name of its own (DNS rebinding).
	if !s.o.Public && !registry.Loopback(r.Host) {
		fail(lw, http.StatusForbidden, "DENIED", "this registry answers to loopback names only")
		return
	}
	rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
	if !ok {
		fail(lw, http.StatusNotFound, "UNSUPPORTED", "the API is below /v2/")
		return
	}
	if rest == "" {
		lw.Header().Set(registry.ConditionalHeader, "tags")
		reply(lw, r, http.StatusOK, "application/json", []byte("{}"))
		return
	}
	if rest == "_catalog" {
		s.catalog(lw, r)
		return
	}
	s.route(lw, r, rest)
}

// route splits <name>/<kind>/<reference>. Names may have the words of kinds as parts, so the last one counts.
func (s *Server) route(w http.ResponseWriter, r *http.Request, rest string) {
	type handler func(w http.ResponseWriter, r *http.Request, repo, ref string)
	kinds := []struct {
		sep string
		h   handler
	}{
		{"/blobs/uploads/", s.uploadsHandler}, {"/blobs/", s.blobs}, {"/manifests/", s.manifests},
		{"/tags/", s.tags}, {"/referrers/", s.referrers},
	}
	for _, k := range kinds {
		i := strings.LastIndex(rest, k.sep)
		if i < 0 || strings.Contains(rest[i+len(k.sep):], "/") {
			continue
		}
		repo := rest[:i]
		if !registry.ValidRepo(repo) || len(repo) > maxRepoName {
			fail(w, http.StatusBadRequest, "NAME_INVALID", "not a repository name")
			return
		}
		k.h(w, r, repo, rest[i+len(k.sep):])
		return
	}
	fail(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
}

func (s *Server) catalog(w http.ResponseWriter, r *http.Request) {
	if !allow(w, r, http.MethodGet) {
		return
	}
	repos, err := s.Repos()
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	page, ok := paginate(w, r, repos)
	if ok {
		replyJSON(w, r, map[string]any{"repositories": page})
	}
}

func (s *Server) tags(w http.ResponseWriter, r *http.Request, repo, ref string) {
	if ref != "list" {
		fail(w, http.StatusNotFound, "UNSUPPORTED", "no such endpoint")
		return
	}
	if !allow(w, r, http.MethodGet) {
		return
	}
	st, err := s.repo(r.Context(), repo, false)
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	tags, err := registry.NewLayout(st).Tags(r.Context())
	if err != nil {
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	if page, ok := paginate(w, r, tags); ok {
		replyJSON(w, r, map[string]any{"name": repo, "tags": page})
	}
}

// referrers lists with artifactType and annotations of each manifest (distribution-spec, listing referrers). A subject
// that is not there has no referrers, which is no error.
func (s *Server) referrers(w http.ResponseWriter, r *http.Request, repo, ref string) {
	if !allow(w, r, http.MethodGet, http.MethodHead) {
		return
	}
	d, err := artifact.ParseDigest(ref)
	if err != nil {
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", err.Error())
		return
	}
	x := artifact.Index{SchemaVersion: 2, MediaType: artifact.MediaTypeIndex, Manifests: []artifact.Descriptor{}}
	st, err := s.repo(r.Context(), repo, false)
	switch {
	case err == nil:
		if x.Manifests, err = st.Referrers(r.Context(), d); err != nil {
			failErr(w, err, "MANIFEST_UNKNOWN")
			return
		}
	case !errors.Is(err, fs.ErrNotExist):
		failErr(w, err, "NAME_UNKNOWN")
		return
	}
	if at := r.URL.Query().Get("artifactType"); at != "" {
		x.Manifests = slices.DeleteFunc(x.Manifests, func(d artifact.Descriptor) bool { return d.ArtifactType != at })
		w.Header().Set("OCI-Filters-Applied", "artifactType")
	}
	b, err := json.Marshal(x)
	if err != nil {
		failErr(w, err, "UNKNOWN")
		return
	}
	reply(w, r, http.StatusOK, artifact.MediaTypeIndex, b)
}

// Serve listens on addr and serves until ctx is done, then lets running requests finish for a few seconds. ready is
// called once with the address in use, which tells the port when addr ends in ":0".
func Serve(ctx context.Context, addr, root string, o Options, ready func(addr string)) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "serve a registry on %q", addr).Hint("waybill registry serve --addr 127.0.0.1:5000")
	}
	if !o.Public && !registry.Loopback(host) {
		return diag.New(diag.Usage, "serve a registry on %s: it has no passwords, so it listens on this machine only", addr).
			Hint("waybill registry serve --addr 127.0.0.1:%s", port)
	}
	s, err := New(root, o)
	if err != nil {
		return err
	}
	defer s.Close()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		if addrInUse(err) {
			return diag.Wrap(diag.Failure, err, "serve a registry on %s: the port is in use", addr).
				Hint("waybill registry serve --addr %s", net.JoinHostPort(host, "0"))
		}
		return diag.Wrap(diag.Failure, err, "serve a registry on %s", addr)
	}
	hs := &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	go func() { done <- hs.Serve(l) }()
	if ready != nil {
		ready(l.Addr().String())
	}
	select {
	case err := <-done:
		return diag.Wrap(diag.Failure, err, "serve a registry on %s", addr)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := hs.Shutdown(stop); err != nil {
		_ = hs.Close()
	}
	<-done
	return nil
}

type logWriter struct {
	http.ResponseWriter
	status int
	n      int64
}

func (l *logWriter) WriteHeader(code int) {
	l.status = code
	l.ResponseWriter.WriteHeader(code)
}

func (l *logWriter) Write(p []byte) (int, error) {
	n, err := l.ResponseWriter.Write(p)
	l.n += int64(n)
	return n, err
}

// ReadFrom lets the kernel send files.
func (l *logWriter) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(l.ResponseWriter, r)
	l.n += n
	return n, err
}

// Unwrap serves http.ResponseController.
func (l *logWriter) Unwrap() http.ResponseWriter { return l.ResponseWriter }

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	if slices.Contains(methods, r.Method) {
		return true
	}
	w.Header().Set("Allow", strings.Join(methods, ", "))
	fail(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "the method is not allowed here")
	return false
}

// fail writes an error in the form of the specification.
func fail(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": []map[string]string{{"code": code, "message": message}}})
}

// failErr maps an error; missing is the code for what does not exist.
func failErr(w http.ResponseWriter, err error, missing string) {
	var tooBig *http.MaxBytesError
	switch {
	case errors.As(err, &tooBig), errors.Is(err, errTooLarge):
		fail(w, http.StatusRequestEntityTooLarge, "SIZE_INVALID", err.Error())
	case errors.Is(err, fs.ErrNotExist):
		fail(w, http.StatusNotFound, missing, "it is not here")
	case errors.Is(err, store.ErrConflict):
		fail(w, http.StatusPreconditionFailed, "DENIED", err.Error())
	case diag.CodeOf(err) == diag.Verification:
		fail(w, http.StatusBadRequest, "DIGEST_INVALID", oneLine(err))
	default:
		fail(w, http.StatusInternalServerError, "UNKNOWN", err.Error())
	}
}

func oneLine(err error) string {
	var d *diag.Error
	if errors.As(err, &d) && len(d.Lines) > 0 {
		return fmt.Sprintf("%s (%s)", err, strings.Join(d.Lines, ", "))
	}
	return err.Error()
}

func replyJSON(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		failErr(w, err, "UNKNOWN")
		return
	}
	reply(w, r, http.StatusOK, "application/json", b)
}

func reply(w http.ResponseWriter, r *http.Request, status int, contentType string, b []byte) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Content-Length", fmt.Sprint(len(b)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(b)
	}
}
