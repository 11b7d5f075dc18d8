package server_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/random"
	ggcr "github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/server"
)

type client struct {
	t    *testing.T
	base string
}

func start(t *testing.T, root string, o server.Options) (client, func()) {
	t.Helper()
	s, err := server.New(root, o)
	if err != nil {
		t.Fatal(err)
	}
	hs := httptest.NewServer(s)
	var once sync.Once
	stop := func() { once.Do(func() { hs.Close(); s.Close() }) }
	t.Cleanup(stop)
	return client{t, hs.URL}, stop
}

// do sends a request and demands a status.
func (c client) do(want int, method, path string, body []byte, header ...string) (*http.Response, []byte) {
	c.t.Helper()
	if !strings.HasPrefix(path, "http") {
		path = c.base + path
	}
	req, err := http.NewRequestWithContext(c.t.Context(), method, path, bytes.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	if resp.StatusCode != want {
		c.t.Fatalf("%s %s: status %d, want %d: %s", method, path, resp.StatusCode, want, b)
	}
	if want >= 400 && method != http.MethodHead {
		var e struct {
			Errors []struct{ Code, Message string }
		}
		if err := json.Unmarshal(b, &e); err != nil || len(e.Errors) != 1 || e.Errors[0].Code == "" {
			c.t.Fatalf("%s %s: the error is not in the form of the specification: %s", method, path, b)
		}
	}
	return resp, b
}

func (c client) blob(repo string, b []byte) artifact.Descriptor {
	c.t.Helper()
	d := artifact.Descriptor{MediaType: "application/octet-stream", Digest: artifact.DigestOf(b), Size: int64(len(b))}
	c.do(201, "POST", "/v2/"+repo+"/blobs/uploads/?digest="+string(d.Digest), b)
	return d
}

// manifest makes one whose blobs are there.
func (c client) manifest(repo, content string, subject *artifact.Descriptor) []byte {
	c.t.Helper()
	cfg := c.blob(repo, []byte("{}"))
	cfg.MediaType = artifact.MediaTypeEmpty
	b, err := json.Marshal(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: "application/x." + content,
		Config: cfg, Layers: []artifact.Descriptor{c.blob(repo, []byte(content))}, Subject: subject, Annotations: map[string]string{"note": content}})
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c client) put(want int, repo, ref string, b []byte, header ...string) *http.Response {
	c.t.Helper()
	resp, _ := c.do(want, "PUT", "/v2/"+repo+"/manifests/"+ref, b, append(header, "Content-Type", artifact.MediaTypeManifest)...)
	return resp
}

func TestProtocol(t *testing.T) {
	root := t.TempDir()
	c, stop := start(t, root, server.Options{})
	resp, _ := c.do(200, "GET", "/v2/", nil)
	if resp.Header.Get("Docker-Distribution-API-Version") != "registry/2.0" {
		t.Error("no API version")
	}
	c.do(404, "GET", "/v2/a/b/tags/list", nil)
	m := c.manifest("a/b", "one", nil)
	d := artifact.DigestOf(m)
	for _, tag := range []string{"t1", "t2", "t3", "T4"} {
		resp = c.put(201, "a/b", tag, m)
	}
	if resp.Header.Get("Docker-Content-Digest") != string(d) || !strings.HasSuffix(resp.Header.Get("Location"), string(d)) {
		t.Errorf("headers of PUT: %v", resp.Header)
	}
	c.put(201, "a/b", string(d), m)
	c.put(400, "a/b", string(artifact.DigestOf(nil)), m)

	for _, ref := range []string{"t1", string(d)} {
		resp, b := c.do(200, "GET", "/v2/a/b/manifests/"+ref, nil)
		if !bytes.Equal(b, m) || resp.Header.Get("Content-Type") != artifact.MediaTypeManifest || resp.Header.Get("ETag") != `"`+string(d)+`"` {
			t.Errorf("GET %s: %v %s", ref, resp.Header, b)
		}
		resp, b = c.do(200, "HEAD", "/v2/a/b/manifests/"+ref, nil)
		if len(b) != 0 || resp.ContentLength != int64(len(m)) {
			t.Errorf("HEAD %s: length %d", ref, resp.ContentLength)
		}
		c.do(304, "GET", "/v2/a/b/manifests/"+ref, nil, "If-None-Match", `"`+string(d)+`"`)
		c.do(200, "GET", "/v2/a/b/manifests/"+ref, nil, "If-None-Match", `"sha256:0"`)
	}
	layer := artifact.DigestOf([]byte("one"))
	_, b := c.do(206, "GET", "/v2/a/b/blobs/"+string(layer), nil, "Range", "bytes=1-")
	if string(b) != "ne" {
		t.Errorf("range: %q", b)
	}
	c.do(304, "GET", "/v2/a/b/blobs/"+string(layer), nil, "If-None-Match", `"`+string(layer)+`"`)
	c.do(404, "HEAD", "/v2/a/b/blobs/"+string(artifact.DigestOf([]byte("none"))), nil)
	c.do(404, "HEAD", "/v2/other/blobs/"+string(layer), nil) // repositories are separate

	// Pagination.
	var all []string
	next := "/v2/a/b/tags/list?n=3"
	for range 3 {
		resp, b := c.do(200, "GET", next, nil)
		var p struct{ Tags []string }
		if err := json.Unmarshal(b, &p); err != nil || len(p.Tags) > 3 {
			t.Fatalf("%s %v", b, err)
		}
		all = append(all, p.Tags...)
		link := resp.Header.Get("Link")
		if link == "" {
			break
		}
		next = strings.TrimPrefix(strings.TrimSuffix(link, `>; rel="next"`), "<")
	}
	if !slices.Equal(all, []string{"T4", "t1", "t2", "t3"}) {
		t.Errorf("tags %v", all)
	}
	_, b = c.do(200, "GET", "/v2/a/b/tags/list?n=0", nil)
	if !strings.Contains(string(b), `"tags":[]`) {
		t.Errorf("n=0: %s", b)
	}
	c.do(400, "GET", "/v2/a/b/tags/list?n=x", nil)
	_, b = c.do(200, "GET", "/v2/_catalog", nil)
	if string(b) != `{"repositories":["a/b"]}` {
		t.Errorf("catalog %s", b)
	}

	// The content survives a restart.
	stop()
	c, _ = start(t, root, server.Options{})
	if _, b := c.do(200, "GET", "/v2/a/b/manifests/t1", nil); !bytes.Equal(b, m) {
		t.Error("lost on restart")
	}

	// Deleting.
	c.do(409, "DELETE", "/v2/a/b/blobs/"+string(layer), nil) // in use
	c.do(202, "DELETE", "/v2/a/b/manifests/t1", nil)
	c.do(404, "GET", "/v2/a/b/manifests/t1", nil)
	c.do(200, "GET", "/v2/a/b/manifests/t2", nil)
	c.do(202, "DELETE", "/v2/a/b/manifests/"+string(d), nil)
	for _, ref := range []string{"t2", string(d)} {
		c.do(404, "GET", "/v2/a/b/manifests/"+ref, nil)
		c.do(404, "DELETE", "/v2/a/b/manifests/"+ref, nil)
	}
	c.do(202, "DELETE", "/v2/a/b/blobs/"+string(layer), nil)
	c.do(404, "GET", "/v2/a/b/blobs/"+string(layer), nil)
}

func TestReferrersAPI(t *testing.T) {
	c, _ := start(t, t.TempDir(), server.Options{})
	read := func(d artifact.Digest, query string) (artifact.Index, *http.Response) {
		t.Helper()
		resp, b := c.do(200, "GET", "/v2/r/referrers/"+string(d)+query, nil)
		if ct := resp.Header.Get("Content-Type"); ct != artifact.MediaTypeIndex {
			t.Errorf("content type %q", ct)
		}
		x, err := artifact.ParseIndex(b)
		if err != nil || x.Manifests == nil {
			t.Fatalf("%s: %v", b, err)
		}
		return x, resp
	}
	if x, _ := read(artifact.DigestOf(nil), ""); len(x.Manifests) != 0 {
		t.Error("referrers of nothing in no repository")
	}
	m := c.manifest("r", "model", nil)
	c.put(201, "r", "1", m)
	subject := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf(m), Size: int64(len(m))}
	for _, kind := range []string{"sig", "sbom"} {
		b := c.manifest("r", kind, &subject)
		if resp := c.put(201, "r", string(artifact.DigestOf(b)), b); resp.Header.Get("OCI-Subject") != string(subject.Digest) {
			t.Errorf("OCI-Subject is %q", resp.Header.Get("OCI-Subject"))
		}
	}
	// A subject that is not there yet is allowed.
	early := artifact.Descriptor{MediaType: artifact.MediaTypeManifest, Digest: artifact.DigestOf([]byte("later")), Size: 5}
	b := c.manifest("r", "early", &early)
	c.put(201, "r", "early", b)
	if x, _ := read(early.Digest, ""); len(x.Manifests) != 1 {
		t.Error("no referrer of a subject that comes later")
	}
	x, resp := read(subject.Digest, "")
	if len(x.Manifests) != 2 || resp.Header.Get("OCI-Filters-Applied") != "" {
		t.Fatalf("%+v", x)
	}
	for _, d := range x.Manifests {
		if kind, ok := strings.CutPrefix(d.ArtifactType, "application/x."); !ok || d.Annotations["note"] != kind || d.Size == 0 {
			t.Errorf("descriptor %+v", d)
		}
	}
	x, resp = read(subject.Digest, "?artifactType=application/x.sbom")
	if len(x.Manifests) != 1 || x.Manifests[0].ArtifactType != "application/x.sbom" || resp.Header.Get("OCI-Filters-Applied") != "artifactType" {
		t.Errorf("filtered: %+v %v", x, resp.Header)
	}
	c.do(202, "DELETE", "/v2/r/manifests/"+string(x.Manifests[0].Digest), nil)
	if x, _ := read(subject.Digest, ""); len(x.Manifests) != 1 {
		t.Errorf("after delete: %+v", x)
	}
	c.do(400, "GET", "/v2/r/referrers/latest", nil)
}

func TestUploads(t *testing.T) {
	c, _ := start(t, t.TempDir(), server.Options{MaxBlob: 1000})
	data := bytes.Repeat([]byte("abc"), 100)
	d := artifact.DigestOf(data)
	open := func() string {
		resp, _ := c.do(202, "POST", "/v2/u/blobs/uploads/", nil)
		return c.base + resp.Header.Get("Location")
	}
	// In chunks, with one in the wrong place.
	loc := open()
	resp, _ := c.do(202, "PATCH", loc, data[:100], "Content-Range", "0-99")
	if resp.Header.Get("Range") != "0-99" {
		t.Errorf("Range %q", resp.Header.Get("Range"))
	}
	c.do(416, "PATCH", loc, data[200:], "Content-Range", "200-299")
	c.do(416, "PATCH", loc, data[100:], "Content-Range", "100-150")
	resp, _ = c.do(204, "GET", loc, nil)
	if resp.Header.Get("Range") != "0-99" {
		t.Errorf("Range %q", resp.Header.Get("Range"))
	}
	c.do(202, "PATCH", loc, data[100:200]) // streamed, without a range
	c.do(201, "PUT", loc+"?digest="+string(d), data[200:], "Content-Range", "200-299")
	c.do(404, "GET", loc, nil) // the session is over
	if _, b := c.do(200, "GET", "/v2/u/blobs/"+string(d), nil); !bytes.Equal(b, data) {
		t.Errorf("%d bytes", len(b))
	}
	// A wrong digest is refused, names both, and leaves nothing.
	other := artifact.DigestOf([]byte("other"))
	_, b := c.do(400, "PUT", open()+"?digest="+string(other), data)
	if !strings.Contains(string(b), string(other)) || !strings.Contains(string(b), string(d)) || !strings.Contains(string(b), "DIGEST_INVALID") {
		t.Errorf("%s", b)
	}
	c.do(404, "HEAD", "/v2/u/blobs/"+string(other), nil)
	for _, bad := range []string{"", "sha256:12", "sha512:" + other.Hex(), "md5:1"} {
		c.do(400, "PUT", open()+"?digest="+bad, data)
	}
	// Limits.
	c.do(413, "PUT", open()+"?digest="+string(d), make([]byte, 1001))
	loc = open()
	c.do(202, "PATCH", loc, make([]byte, 600))
	c.do(413, "PATCH", loc, make([]byte, 600))
	c.do(404, "GET", loc, nil)
	c.do(413, "PUT", "/v2/u/manifests/big", make([]byte, artifact.MaxManifest+1), "Content-Type", artifact.MediaTypeManifest)
	// Abandon, other people's sessions, unknown ones.
	loc = open()
	c.do(404, "GET", strings.Replace(loc, "/v2/u/", "/v2/other/", 1), nil)
	c.do(204, "DELETE", loc, nil)
	c.do(404, "PUT", loc+"?digest="+string(d), data)
	// Mount.
	c.do(201, "POST", "/v2/v/blobs/uploads/?mount="+string(d)+"&from=u", nil)
	c.do(200, "HEAD", "/v2/v/blobs/"+string(d), nil)
	c.do(202, "POST", "/v2/v/blobs/uploads/?mount="+string(other)+"&from=u", nil)
	c.do(202, "POST", "/v2/v/blobs/uploads/?mount="+string(d)+"&from=nowhere", nil)
	c.do(202, "POST", "/v2/v/blobs/uploads/?mount="+string(d)+"&from=../u", nil)
}

func TestRefusals(t *testing.T) {
	root := t.TempDir()
	c, _ := start(t, filepath.Join(root, "data"), server.Options{})
	m := c.manifest("r", "one", nil)
	for _, name := range []string{"..", "a/../b", "A", "a//b", "a/", "%2e%2e/x", "a%2f..%2fb", `a\b`, "-a", strings.Repeat("a", 201)} {
		for _, tail := range []string{"/manifests/t", "/blobs/uploads/", "/tags/list"} {
			method := map[string]string{"/manifests/t": "PUT", "/blobs/uploads/": "POST", "/tags/list": "GET"}[tail]
			req, err := http.NewRequestWithContext(t.Context(), method, c.base, bytes.NewReader(m))
			if err != nil {
				t.Fatal(err)
			}
			req.URL.Opaque = "//" + req.URL.Host + "/v2/" + name + tail // sent as it is, not cleaned
			req.Header.Set("Content-Type", artifact.MediaTypeManifest)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != 400 && resp.StatusCode != 404 {
				t.Errorf("%s /v2/%s%s: status %d", method, name, tail, resp.StatusCode)
			}
		}
	}
	es, err := os.ReadDir(root)
	if err != nil || len(es) != 1 {
		t.Errorf("files outside the root: %v %v", es, err)
	}
	c.put(400, "r", "-tag", m)
	c.put(400, "r", strings.Repeat("t", 129), m)
	c.do(400, "PUT", "/v2/r/manifests/t", m) // no content type
	c.do(400, "PUT", "/v2/r/manifests/t", m, "Content-Type", artifact.MediaTypeIndex)
	c.put(400, "r", "t", []byte("{}"))
	c.put(404, "r2", "t", m) // the blobs are in another repository
	c.do(404, "GET", "/v2/r/manifests/t", nil)
	c.do(405, "POST", "/v2/r/manifests/t", nil)
	c.do(405, "DELETE", "/v2/r/tags/list", nil)
	c.do(404, "GET", "/v1/", nil)
	c.do(404, "GET", "/v2/r/unknown/x", nil)
	// A page in a browser reaches loopback under a name of its own.
	c.do(403, "GET", "/v2/", nil, "Host", "evil.example:5000")
	c.do(200, "GET", "/v2/", nil, "Host", "localhost:5000")
	pub, _ := start(t, t.TempDir(), server.Options{Public: true})
	pub.do(200, "GET", "/v2/", nil, "Host", "reg.example:5000")
}

func TestConditionalPut(t *testing.T) {
	c, _ := start(t, t.TempDir(), server.Options{})
	const n = 8
	ms := make([][]byte, n+2)
	for i := range ms {
		ms[i] = c.manifest("r", fmt.Sprint(i), nil)
	}
	quoted := func(b []byte) string { return `"` + string(artifact.DigestOf(b)) + `"` }
	c.put(412, "r", "ch", ms[0], "If-Match", quoted(ms[0])) // nothing to match
	if resp := c.put(201, "r", "ch", ms[0], "If-None-Match", "*"); resp.Header.Get("Waybill-Conditional-Put") != "1" {
		t.Error("the condition is not confirmed")
	}
	c.put(412, "r", "ch", ms[1], "If-None-Match", "*")
	c.put(412, "r", "ch", ms[1], "If-Match", quoted(ms[1]))
	for _, bad := range []string{"*", "sha256:1", `W/` + quoted(ms[0]), quoted(ms[0]) + ", " + quoted(ms[1])} {
		c.put(400, "r", "ch", ms[1], "If-Match", bad)
	}
	c.put(400, "r", "ch", ms[1], "If-None-Match", quoted(ms[0]))
	if resp := c.put(201, "r", "plain", ms[1]); resp.Header.Get("Waybill-Conditional-Put") != "" {
		t.Error("a condition is confirmed that was not there")
	}
	// Of many that move the tag from the same place, one wins.
	var wg sync.WaitGroup
	status := make([]int, n)
	for i := range n {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(t.Context(), "PUT", c.base+"/v2/r/manifests/ch", bytes.NewReader(ms[i+1]))
			req.Header.Set("Content-Type", artifact.MediaTypeManifest)
			req.Header.Set("If-Match", quoted(ms[0]))
			resp, err := http.DefaultClient.Do(req)
			if err == nil {
				resp.Body.Close()
				status[i] = resp.StatusCode
			}
		})
	}
	wg.Wait()
	slices.Sort(status)
	if status[0] != 201 || status[1] != 412 || status[n-1] != 412 {
		t.Errorf("statuses %v: want one 201 and the rest 412", status)
	}
}

func TestConcurrentPushes(t *testing.T) {
	c, _ := start(t, t.TempDir(), server.Options{})
	const n = 12
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			c.put(201, "r", fmt.Sprint("t", i), c.manifest("r", fmt.Sprint("layer", i%4), nil))
		})
	}
	wg.Wait()
	_, b := c.do(200, "GET", "/v2/r/tags/list", nil)
	var p struct{ Tags []string }
	if err := json.Unmarshal(b, &p); err != nil || len(p.Tags) != n {
		t.Fatalf("%s %v", b, err)
	}
}

// The most used client library pushes and pulls images and an index.
func TestForeignClient(t *testing.T) {
	c, _ := start(t, t.TempDir(), server.Options{})
	host := strings.TrimPrefix(c.base, "http://")
	img, err := random.Image(5000, 3)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(host + "/foreign/image:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := ggcr.Write(ref, img, ggcr.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	got, err := ggcr.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	want, _ := img.Digest()
	if d, err := got.Digest(); err != nil || d != want {
		t.Fatalf("%s %v", d, err)
	}
	ls, err := got.Layers()
	if err != nil || len(ls) != 3 {
		t.Fatal(err)
	}
	for _, l := range ls {
		rc, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, rc); err != nil {
			t.Fatal(err)
		}
		rc.Close()
	}
	idx, err := random.Index(1000, 1, 2)
	if err != nil {
		t.Fatal(err)
	}
	iref, _ := name.ParseReference(host + "/foreign/index:1")
	if err := ggcr.WriteIndex(iref, idx); err != nil {
		t.Fatal(err)
	}
	x, err := ggcr.Index(iref)
	if err != nil {
		t.Fatal(err)
	}
	im, err := x.IndexManifest()
	if err != nil || len(im.Manifests) != 2 {
		t.Fatalf("%v", err)
	}
	if _, err := x.Image(im.Manifests[0].Digest); err != nil {
		t.Fatal(err)
	}
}

func TestServe(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr := make(chan string, 1)
	done := make(chan error, 1)
	root := t.TempDir()
	go func() {
		done <- server.Serve(ctx, "127.0.0.1:0", root, server.Options{}, func(a string) { addr <- a })
	}()
	var a string
	select {
	case a = <-addr:
	case err := <-done:
		t.Fatal(err)
	}
	client{t, "http://" + a}.do(200, "GET", "/v2/", nil)
	err := server.Serve(ctx, a, root, server.Options{}, nil)
	if err == nil || !strings.Contains(diag.Render(err), "the port is in use") || !strings.Contains(diag.Render(err), "hint: waybill registry serve --addr 127.0.0.1:0") {
		t.Errorf("busy port: %s", diag.Render(err))
	}
	for _, bad := range []string{"0.0.0.0:0", ":5000", "192.0.2.1:80", "nonsense"} {
		if err := server.Serve(ctx, bad, root, server.Options{}, nil); diag.CodeOf(err) != diag.Usage {
			t.Errorf("%s: %v", bad, err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if conn, err := net.Dial("tcp", a); err == nil {
		conn.Close()
		t.Error("still listening")
	} else if errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}
