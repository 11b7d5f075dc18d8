package carrier

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
	ociserver "github.com/waybill-ml/waybill/oci/server"
)

func mirrorOf(t testing.TB, h http.Handler) *Mirror {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	m, err := NewMirror(s.URL, MirrorOptions{Names: []string{"churn"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.client.CloseIdleConnections)
	return m
}

// A download goes on where it stopped, at any byte, on any server: with ranges, without, and with answers that lie about them.
func TestMirrorResume(t *testing.T) {
	s := newShelf()
	content := bytes.Repeat([]byte("0123456789abcdef"), 64)
	blob := s.put(content)
	head := s.tag("churn:channel-prod", []byte(`{"n":1}`))
	dir := t.TempDir()
	s.folder(t, dir)
	files := http.FileServer(http.Dir(dir))
	plain := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		files.ServeHTTP(w, r)
	})
	for name, h := range map[string]http.Handler{"ranges": files, "no ranges": plain} {
		m := mirrorOf(t, h)
		if ds, err := m.Heads(t.Context(), "channel-prod"); err != nil || len(ds) != 1 || ds[0] != head {
			t.Fatal(name, ds, err)
		}
		for at := int64(0); at <= blob.Size; at += 7 {
			if b, err := read(t, m, blob, at); err != nil || !bytes.Equal(b, content[at:]) {
				t.Fatalf("%s, from %d: %d bytes, %v", name, at, len(b), err)
			}
		}
	}
	// The wrong range, in several ways: refused before a byte of it is taken. Without the check wrong bytes would be taken.
	for name, cr := range map[string]string{"another": "bytes 100-199/1024", "later": "bytes 600-1023/1024", "of something else": "bytes 512-2047/2048", "none": "", "noise": "bytes x"} {
		m := mirrorOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if cr != "" {
				w.Header().Set("Content-Range", cr)
			}
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(bytes.Repeat([]byte("x"), 512))
		}))
		if b, err := read(t, m, blob, 512); err == nil {
			t.Errorf("%s: %d bytes were taken", name, len(b))
		}
		m.checks.part = func(_ *http.Response, offset, _ int64) (int64, error) { return offset, nil }
		if b, err := read(t, m, blob, 512); err != nil || bytes.Equal(b, content[512:]) {
			t.Errorf("%s: without the check nothing shows: %v", name, err)
		}
	}
	// A whole answer that is not as long as it should be.
	m := mirrorOf(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(content[:100]) }))
	if _, err := read(t, m, blob, 0); err == nil {
		t.Error("another length was taken")
	}
}

// meter counts what goes over the connections of a listener, in both directions.
type meter struct {
	net.Listener
	bytes, conns atomic.Int64
}

func (m *meter) Accept() (net.Conn, error) {
	c, err := m.Listener.Accept()
	if err != nil {
		return nil, err
	}
	m.conns.Add(1)
	return meteredConn{c, m}, nil
}

type meteredConn struct {
	net.Conn
	m *meter
}

func (c meteredConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.m.bytes.Add(int64(n))
	return n, err
}

func (c meteredConn) Write(p []byte) (int, error) {
	c.m.bytes.Add(int64(len(p))) // before the other side can have read it, and the test have looked
	return c.Conn.Write(p)
}

func metered(t testing.TB, h http.Handler) (string, *meter) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	m := &meter{Listener: s.Listener}
	s.Listener = m
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, m
}

// A poll that finds nothing new costs less than a kilobyte, over one connection, with one request.
func TestIdlePoll(t *testing.T) {
	var asked atomic.Int64
	count := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { asked.Add(1); h.ServeHTTP(w, r) })
	}
	reg, err := ociserver.New(t.TempDir(), ociserver.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = reg.Close() })
	url, regMeter := metered(t, count(reg))
	repo, err := registry.NewRemote(url[len("http://"):], "ml/churn", registry.RemoteOptions{UserAgent: "waybill-edge/0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	empty, err := registry.PushBytes(t.Context(), repo, artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	if err != nil {
		t.Fatal(err)
	}
	manifest := fmt.Appendf(nil, `{"schemaVersion":2,"mediaType":%q,"artifactType":"x/y","config":{"mediaType":%q,"digest":%q,"size":2},"layers":[]}`, artifact.MediaTypeManifest, artifact.MediaTypeEmpty, empty.Digest)
	if _, err := repo.PushManifest(t.Context(), manifest, artifact.MediaTypeManifest, "channel-prod"); err != nil {
		t.Fatal(err)
	}
	s := newShelf()
	for i := range 200 {
		s.tag(fmt.Sprintf("churn:channel-prod.%d", i), fmt.Append(nil, i))
	}
	s.tag("churn:channel-prod", []byte(`{"n":1}`))
	dir := t.TempDir()
	s.folder(t, dir)
	murl, mirrorMeter := metered(t, count(http.FileServer(http.Dir(dir))))
	mirror, err := NewMirror(murl, MirrorOptions{UserAgent: "waybill-edge/0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		Place
		*meter
	}{"registry": {NewRegistry(repo), regMeter}, "mirror": {mirror, mirrorMeter}} {
		first, err := c.Heads(t.Context(), "channel-prod")
		if err != nil || len(first) != 1 {
			t.Fatal(name, first, err)
		}
		before, conns, requests := c.bytes.Load(), c.conns.Load(), asked.Load()
		const polls = 20
		for range polls {
			ds, err := c.Heads(t.Context(), "channel-prod")
			if err != nil || ds[0] != first[0] {
				t.Fatal(name, ds, err)
			}
		}
		each := (c.bytes.Load() - before) / polls
		t.Logf("%s: %d bytes a poll, both directions, headers included; %d new connections, %d requests in %d polls", name, each, c.conns.Load()-conns, asked.Load()-requests, polls)
		// On a busy machine net/http now and then gives up a connection whose writer is not heard of within 50 ms
		// (maxWriteWaitBeforeConnReuse); a client that keeps none dials for every poll.
		if each > 1024 || c.conns.Load()-conns > polls/5 || asked.Load()-requests != polls {
			t.Errorf("%s: %d bytes a poll, %d new connections", name, each, c.conns.Load()-conns)
		}
	}
}

func TestMirrorAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"portal": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") },
		"gzip":   func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Encoding", "gzip") },
		"loop":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) },
		"file": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(302)
		},
		"404":   http.NotFound,
		"large": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, artifact.MaxManifest+1)) },
	} {
		m := mirrorOf(t, h)
		if ds, err := m.Heads(t.Context(), "channel-prod"); err == nil {
			t.Errorf("%s: %v", name, ds)
		}
	}
	m := mirrorOf(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", "90")
		w.WriteHeader(http.StatusTooManyRequests)
	}))
	_, err := m.Heads(context.Background(), "x")
	var p *PaceError
	if !errors.As(err, &p) || p.Wait.Seconds() != 90 || !p.Limited {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "x", "ftp://a/b", "http://u:p@a/b", "http://a/b?c=d", "http:///x", "file:///etc"} {
		if _, err := NewMirror(bad, MirrorOptions{}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
