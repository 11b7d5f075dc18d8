package registry_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/store"
)

// The attacks of this file are refused, and each succeeds where the check that stands against it is left out.

// untar unpacks as a careless program does: every entry goes where its name says, through links that are there.
func untar(t *testing.T, archive []byte, dir string) {
	t.Helper()
	for _, e := range entriesOf(t, archive) {
		to := filepath.Join(dir, filepath.FromSlash(e.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if e.Typeflag == tar.TypeSymlink {
			if err := os.Symlink(e.Linkname, to); err != nil {
				t.Skip("no symbolic links here:", err)
			}
			continue
		}
		if err := os.WriteFile(to, e.data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A path or a link that leads out of an archive: a careless program writes outside of its folder. Load refuses the archive;
// without the check of entries it loads it, and still nothing lies where the archive said, since no name of it is used.
func TestArchivePathsWithoutCheck(t *testing.T) {
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	es := entriesOf(t, savedArchive(t, src, m))
	file := func(name string) entry {
		return entry{tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644}, []byte("evil")}
	}
	for name, more := range map[string][]entry{
		"path": {file("../evil")},
		"link": {{tar.Header{Typeflag: tar.TypeSymlink, Name: "blobs/link", Linkname: "../.."}, nil}, file("blobs/link/evil")},
	} {
		t.Run(name, func(t *testing.T) {
			b := tarOf(t, append(append([]entry{}, es...), more...))
			outer := t.TempDir()
			untar(t, b, filepath.Join(outer, "unpacked"))
			if _, err := os.Stat(filepath.Join(outer, "evil")); err != nil {
				t.Fatalf("the archive does not attack: %v", err)
			}
			s := storeIn(t, filepath.Join(outer, "a", "store"))
			if _, err := registry.Load(t.Context(), bytes.NewReader(b), s, ""); diag.CodeOf(err) != diag.Failure {
				t.Fatalf("loaded: %v", err)
			}
			o, err := registry.OpenArchiveWithout(t.Context(), "entries", bytes.NewReader(b), s, nil)
			if err != nil {
				t.Fatalf("refused without the check too: %v", err)
			}
			defer o.Close()
			ls, err := o.Listings("")
			if err != nil {
				t.Fatal(err)
			}
			if err := o.Commit(t.Context(), ls); err != nil {
				t.Fatal(err)
			}
			m.check(t, registry.NewLocal(s, "churn"), "1.0")
			err = filepath.WalkDir(filepath.Join(outer, "a"), func(p string, d fs.DirEntry, err error) error {
				if err == nil && strings.Contains(d.Name(), "evil") {
					t.Errorf("%s was written", p)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}

func storeIn(t *testing.T, dir string) *store.Store {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(t.Context(), dir, store.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// A few kilobytes that unpack to many megabytes: without the check of entries they are all made up and staged on the disk.
func TestArchiveBombWithoutCheck(t *testing.T) {
	const size = 24 << 20
	b := sparseBomb(t, artifact.DigestOf(make([]byte, size)), size)
	dst := local(t, "churn")
	if _, err := registry.Load(t.Context(), bytes.NewReader(b), dst.Store(), ""); err == nil || !strings.Contains(err.Error(), "sparse") {
		t.Fatalf("loaded: %v", err)
	}
	before := total(files(t, dst.Store().Dir()))
	o, err := registry.OpenArchiveWithout(t.Context(), "entries", bytes.NewReader(b), dst.Store(), nil)
	if err != nil {
		t.Fatalf("refused without the check too: %v", err)
	}
	defer o.Close()
	if grown := total(files(t, dst.Store().Dir())) - before; grown < size || len(b) > 8<<10 {
		t.Errorf("an archive of %d bytes took %d on the disk, want %d", len(b), grown, size)
	}
}

func total(files map[string]string) (n int) {
	for _, c := range files {
		n += len(c)
	}
	return n
}

// Parts of an archive that have a limit are read no further than that, and without the limits as far as they go.
func TestArchiveLimits(t *testing.T) {
	src := local(t, "churn")
	m := newModel(t, "1.0")
	d := m.push(t, src, "1.0")
	if _, err := src.Attach(t.Context(), d, bundle(1), "https://example.com/p"); err != nil {
		t.Fatal(err)
	}
	good := savedArchive(t, src, m)
	es := entriesOf(t, good)
	es[1].data = append(bytes.Clone(es[1].data), bytes.Repeat([]byte(" "), 4*artifact.MaxManifest)...)
	for name, c := range map[string]struct {
		b       []byte
		limit   int64
		without string // what a later check says
	}{
		"index.json": {tarOf(t, es), artifact.MaxManifest + 64<<10, "is larger than"},
		"zeros":      {append(bytes.Clone(good), make([]byte, 16<<20)...), int64(len(good)) + 2<<20, ""},
	} {
		t.Run(name, func(t *testing.T) {
			open := func(check string) (read int64, err error) {
				o, err := registry.OpenArchiveWithout(t.Context(), check, bytes.NewReader(c.b), nil, func(n int64) { read += n })
				if err == nil {
					err = o.Close()
				}
				return read, err
			}
			if read, err := open(""); err == nil || read > c.limit {
				t.Errorf("%d bytes read, at most %d wanted: %v", read, c.limit, err)
			}
			read, err := open("limits")
			if read != int64(len(c.b)) || (err == nil) != (c.without == "") || err != nil && !strings.Contains(err.Error(), c.without) {
				t.Errorf("without the limits %d of %d bytes were read: %v", read, len(c.b), err)
			}
		})
	}
}

// Paths of layers that lead out of the folder. Two checks stand against them: the path itself, and a root that no name
// and no link below it leaves.
func TestExtractWithoutChecks(t *testing.T) {
	r := local(t, "churn")
	m := newModel(t, "1.0")
	m.push(t, r, "1.0")
	parsed, _, err := registry.ReadModel(t.Context(), r, "1.0")
	if err != nil {
		t.Fatal(err)
	}
	at := func(path string) []artifact.Layer {
		l := parsed.ByRole(artifact.RoleInterface)[0]
		l.Path = path
		return []artifact.Layer{l}
	}
	there := func(p string) bool {
		_, err := os.Stat(p)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}
	outer := t.TempDir()
	dir, evil := filepath.Join(outer, "out"), filepath.Join(outer, "evil.json")
	if _, err := registry.Extract(t.Context(), r, at("../evil.json"), dir, registry.ExtractOptions{}); err == nil || there(evil) {
		t.Fatalf("%v; written: %v", err, there(evil))
	}
	// Without the check of the path the root holds; where the root is the folder above, it is written.
	if _, err := registry.ExtractUnchecked(t.Context(), r, at("../evil.json"), dir); err == nil || there(evil) {
		t.Errorf("the root did not hold: %v", err)
	}
	if _, err := registry.Extract(t.Context(), r, at("out/../evil.json"), outer, registry.ExtractOptions{}); err == nil || there(evil) {
		t.Errorf("%v; written: %v", err, there(evil))
	}
	if _, err := registry.ExtractUnchecked(t.Context(), r, at("out/../evil.json"), outer); err != nil || !there(evil) {
		t.Errorf("without both it is refused too: %v", err)
	}

	// A link that waits in the folder: only the root stands against it, as the folder above for a root shows.
	through := filepath.Join(outer, "through.json")
	if err := os.Symlink("..", filepath.Join(dir, "link")); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if _, err := registry.Extract(t.Context(), r, at("link/through.json"), dir, registry.ExtractOptions{}); err == nil || there(through) {
		t.Errorf("%v; written: %v", err, there(through))
	}
	if _, err := registry.Extract(t.Context(), r, at("out/link/through.json"), outer, registry.ExtractOptions{}); err != nil || !there(through) {
		t.Errorf("with a wider root it is refused too: %v", err)
	}
}

// received counts what came in bodies of answers.
type received struct {
	next http.RoundTripper
	n    atomic.Int64
}

func (c *received) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := c.next.RoundTrip(r)
	if err == nil {
		resp.Body = &receivedBody{resp.Body, c}
	}
	return resp, err
}

type receivedBody struct {
	io.ReadCloser
	c *received
}

func (b *receivedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.c.n.Add(int64(n))
	return n, err
}

const excess = 8 << 20 // how much more than its limit an answer has

// answers is a registry that gives one answer to every request below path, in pieces of which no length is told; with token
// it asks for a token first, and that is what it gives.
func answers(t *testing.T, path, mediaType string, body []byte, pad int, token bool) (*registry.Remote, *received) {
	t.Helper()
	h := func(w http.ResponseWriter, r *http.Request) {
		switch {
		case token && r.URL.Path == "/token":
		case token && r.Header.Get("Authorization") != "Bearer t":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, r.Host))
			w.WriteHeader(http.StatusUnauthorized)
			return
		case token:
			_, _ = io.WriteString(w, `{"tags":["of the token"]}`)
			return
		case !strings.Contains(r.URL.Path, path):
			_, _ = io.WriteString(w, "{}") // to the ping
			return
		}
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write(body)
		_ = http.NewResponseController(w).Flush()
		spaces := bytes.Repeat([]byte(" "), 1<<20)
		for left := pad; left > 0; left -= len(spaces) {
			if _, err := w.Write(spaces[:min(left, len(spaces))]); err != nil {
				return // the client had enough
			}
		}
	}
	s := httptest.NewServer(http.HandlerFunc(h))
	t.Cleanup(s.Close)
	c := &received{next: &http.Transport{}}
	t.Cleanup(c.next.(*http.Transport).CloseIdleConnections)
	o := fastOptions()
	o.Transport = c
	r, err := registry.NewRemote(strings.TrimPrefix(s.URL, "http://"), "ml/churn", o)
	if err != nil {
		t.Fatal(err)
	}
	return r, c
}

// Answers that are read into memory end at their limits. A client without them takes in all that comes.
func TestAnswersWithoutLimits(t *testing.T) {
	m := newModel(t, "1.0")
	index := []byte(`{"schemaVersion":2,"mediaType":"` + artifact.MediaTypeIndex + `","manifests":[]}`)
	tags := func(r *registry.Remote) error { _, err := r.Tags(t.Context()); return err }
	for name, c := range map[string]struct {
		path, mediaType string
		body            []byte
		limit           int
		token           bool
		ask             func(r *registry.Remote) error
		later           string // what a later check says, when all was taken in
	}{
		"manifest": {"/manifests/", artifact.MediaTypeManifest, m.manifest, artifact.MaxManifest, false,
			func(r *registry.Remote) error { _, err := r.Resolve(t.Context(), "1.0"); return err }, "larger than"},
		"record": {"/manifests/", artifact.MediaTypeManifest, m.manifest, 64 << 10, false,
			func(r *registry.Remote) error { _, _, err := r.GetBounded(t.Context(), "1.0", 64<<10); return err }, "larger than"},
		"referrers": {"/referrers/", artifact.MediaTypeIndex, index, artifact.MaxManifest, false,
			func(r *registry.Remote) error { _, err := r.Referrers(t.Context(), m.digest); return err }, "larger than"},
		"tags":  {"/tags/list", "application/json", []byte(`{"tags":["1.0"]}`), 16 << 20, false, tags, ""},
		"token": {"", "application/json", []byte(`{"token":"t"}`), 1 << 20, true, tags, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, got := answers(t, c.path, c.mediaType, c.body, c.limit+excess, c.token)
			if err := c.ask(r); err == nil || got.n.Load() > int64(c.limit)+1<<20 {
				t.Fatalf("%d bytes were taken in, the limit is %d: %v", got.n.Load(), c.limit, err)
			}
			r, got = answers(t, c.path, c.mediaType, c.body, c.limit+excess, c.token)
			r.Unlimited()
			err := c.ask(r)
			if got.n.Load() < int64(c.limit+excess) {
				t.Errorf("without the limit too, only %d bytes were taken in", got.n.Load())
			}
			if (err == nil) != (c.later == "") || err != nil && !strings.Contains(diag.Render(err), c.later) {
				t.Errorf("without the limit: %v", err)
			}
		})
	}
}

// A blob that was altered, or that does not end where its descriptor says. BlobFrom is what lies below the hash.
func TestBlobWithoutHash(t *testing.T) {
	good := noise(3, 1<<20)
	d := artifact.Descriptor{Digest: artifact.DigestOf(good), Size: int64(len(good))}
	altered := bytes.Clone(good)
	altered[len(altered)/2] ^= 1
	for name, c := range map[string]struct {
		body []byte
		pad  int
	}{"altered": {altered, 0}, "oversized": {good, excess}} {
		t.Run(name, func(t *testing.T) {
			r, got := answers(t, "/blobs/", "application/octet-stream", c.body, c.pad, false)
			if _, err := registry.ReadBlob(t.Context(), r, d, d.Size); diag.CodeOf(err) != diag.Verification || got.n.Load() > d.Size+1<<20 {
				t.Fatalf("%d bytes were taken in: %v", got.n.Load(), err)
			}
			rc, err := r.BlobFrom(t.Context(), d, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer rc.Close()
			b, err := io.ReadAll(rc)
			if err != nil || len(b) != len(c.body)+c.pad || !bytes.HasPrefix(b, c.body) {
				t.Errorf("without the hash: %d bytes, %v", len(b), err)
			}
		})
	}
	// What a caller is ready to hold: a blob that is right and too large for that is not asked for.
	r, got := answers(t, "/blobs/", "application/octet-stream", good, 0, false)
	if _, err := registry.ReadBlob(t.Context(), r, d, d.Size-1); diag.CodeOf(err) != diag.Verification || got.n.Load() != 0 {
		t.Errorf("%d bytes were taken in: %v", got.n.Load(), err)
	}
	if b, err := registry.ReadBlob(t.Context(), r, d, d.Size); err != nil || !bytes.Equal(b, good) {
		t.Errorf("without the limit: %v", err)
	}
}
