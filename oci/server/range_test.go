package server_test

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/server"
)

func blobFile(root, repo string, d artifact.Digest) string {
	return filepath.Join(root, "repo-"+strings.ReplaceAll(repo, "/", "+"), "blobs", "sha256", d.Hex())
}

// Parts of blobs, as RFC 9110 has it: the right bytes under the right headers, or the whole blob, never something else.
func TestRanges(t *testing.T) {
	c, _ := start(t, t.TempDir(), server.Options{})
	b := make([]byte, 100_000)
	for i := range b {
		b[i] = byte(i * 31 >> 3)
	}
	d := artifact.DigestOf(b)
	c.do(http.StatusCreated, "POST", "/v2/ml/m/blobs/uploads/?digest="+string(d), b)
	path := "/v2/ml/m/blobs/" + string(d)
	tag := `"` + string(d) + `"`

	resp, got := c.do(http.StatusOK, "HEAD", path, nil)
	if len(got) != 0 || resp.ContentLength != int64(len(b)) || resp.Header.Get("ETag") != tag || resp.Header.Get("Accept-Ranges") != "bytes" {
		t.Errorf("HEAD: %d bytes, %v", len(got), resp.Header)
	}
	for _, x := range []struct {
		ranges   string
		from, to int // of the bytes that come
	}{{"bytes=0-0", 0, 1}, {"bytes=99999-", 99999, 100_000}, {"bytes=500-70000", 500, 70_001}, {"bytes=-10", 99_990, 100_000}, {"bytes=90000-900000", 90_000, 100_000}} {
		for _, match := range []string{"", tag} {
			resp, got := c.do(http.StatusPartialContent, "GET", path, nil, "Range", x.ranges, "If-Range", match)
			if want := fmt.Sprintf("bytes %d-%d/100000", x.from, x.to-1); !bytes.Equal(got, b[x.from:x.to]) || resp.Header.Get("Content-Range") != want {
				t.Errorf("%s: %d bytes, %s", x.ranges, len(got), resp.Header.Get("Content-Range"))
			}
		}
	}
	// Another version, nonsense, and more ranges than bytes: the whole.
	for _, h := range [][]string{{"Range", "bytes=5-9", "If-Range", `"sha256:00"`}, {"Range", "lines=5-9"}, {"Range", "bytes=" + strings.TrimSuffix(strings.Repeat("0-,", 3000), ",")}} {
		resp, err := c.get(path, h...)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		whole := resp.StatusCode == http.StatusOK && bytes.Equal(got, b)
		if err != nil || !whole && resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
			t.Errorf("%.40v: %d, %d bytes, %v", h, resp.StatusCode, len(got), err)
		}
	}
	resp, err := c.get(path, "Range", "bytes=100000-")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusRequestedRangeNotSatisfiable || resp.Header.Get("Content-Range") != "bytes */100000" {
		t.Errorf("past the end: %v", resp.Header)
	}
	c.do(http.StatusNotModified, "GET", path, nil, "If-None-Match", tag)

	resp, got = c.do(http.StatusPartialContent, "GET", path, nil, "Range", "bytes=0-9,1000-1999")
	mt, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || mt != "multipart/byteranges" {
		t.Fatalf("%s %v", mt, err)
	}
	mr := multipart.NewReader(bytes.NewReader(got), params["boundary"])
	for _, want := range [][]byte{b[:10], b[1000:2000]} {
		p, err := mr.NextPart()
		if err != nil {
			t.Fatal(err)
		}
		if part, err := io.ReadAll(p); err != nil || !bytes.Equal(part, want) {
			t.Errorf("part %s: %d bytes, %v", p.Header.Get("Content-Range"), len(part), err)
		}
	}
}

func (c client) get(path string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.base+path, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return http.DefaultClient.Do(req)
}

// A mount takes no second copy where files can have two names, and takes nothing over that is not what its digest says.
func TestMountShares(t *testing.T) {
	root := t.TempDir()
	c, _ := start(t, root, server.Options{})
	b := bytes.Repeat([]byte("weights "), 50_000)
	d := artifact.DigestOf(b)
	c.do(http.StatusCreated, "POST", "/v2/ml/a/blobs/uploads/?digest="+string(d), b)
	c.do(http.StatusCreated, "POST", "/v2/ml/b/blobs/uploads/?mount="+string(d)+"&from=ml/a", nil)
	if _, got := c.do(http.StatusOK, "GET", "/v2/ml/b/blobs/"+string(d), nil); !bytes.Equal(got, b) {
		t.Errorf("%d bytes", len(got))
	}
	// Deleted here, it stays there.
	c.do(http.StatusAccepted, "DELETE", "/v2/ml/a/blobs/"+string(d), nil)
	c.do(http.StatusOK, "HEAD", "/v2/ml/b/blobs/"+string(d), nil)
	if err := os.WriteFile(blobFile(root, "ml/b", d), bytes.Repeat([]byte("Weights "), 50_000), 0o600); err != nil {
		t.Fatal(err)
	}
	c.do(http.StatusBadRequest, "POST", "/v2/ml/c/blobs/uploads/?mount="+string(d)+"&from=ml/b", nil)
	c.do(http.StatusNotFound, "HEAD", "/v2/ml/c/blobs/"+string(d), nil)
}

// A server that starts again does not know the uploads of the one before: they are refused, the client begins again, and
// what they had written is gone.
func TestUploadsAfterARestart(t *testing.T) {
	root := t.TempDir()
	c, stop := start(t, root, server.Options{})
	b := bytes.Repeat([]byte("weights "), 5_000)
	d := artifact.DigestOf(b)
	resp, _ := c.do(http.StatusAccepted, "POST", "/v2/ml/a/blobs/uploads/", nil)
	where := resp.Header.Get("Location")
	c.do(http.StatusAccepted, "PATCH", where, b[:20_000])
	// As a process that is killed: its files stay, its locks end.
	dir := filepath.Join(root, "repo-ml+a", ".ingest")
	es, err := os.ReadDir(dir)
	if err != nil || len(es) != 1 {
		t.Fatalf("%v %v", es, err)
	}
	half, err := os.ReadFile(filepath.Join(dir, es[0].Name()))
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if err := os.WriteFile(filepath.Join(dir, es[0].Name()), half, 0o600); err != nil {
		t.Fatal(err)
	}
	c, _ = start(t, root, server.Options{})
	c.do(http.StatusNotFound, "PATCH", where, b[20_000:])
	c.do(http.StatusNotFound, "PUT", where+"?digest="+string(d), nil)
	c.do(http.StatusNotFound, "GET", where, nil)
	c.do(http.StatusCreated, "POST", "/v2/ml/a/blobs/uploads/?digest="+string(d), b)
	if es, err := os.ReadDir(dir); err != nil || len(es) != 0 {
		t.Errorf("left: %v %v", es, err)
	}
}
