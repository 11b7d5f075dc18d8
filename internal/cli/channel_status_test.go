package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/registry"
)

// reporters is a registry with what so many devices left, some of it junk, that takes a while for each answer; most is how many
// requests it had at once.
func reporters(t testing.TB, n int, takes time.Duration) (p registry.Place, tags []string, most func() int) {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	content := map[string][]byte{}
	for i := range n {
		report := fmt.Appendf(nil, "report of device %d", i)
		d := artifact.DigestOf(report)
		m := artifact.Manifest{
			SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: artifact.MediaTypeBundle,
			Config: artifact.Descriptor{MediaType: artifact.MediaTypeEmpty, Digest: artifact.EmptyDigest, Size: 2},
			Layers: []artifact.Descriptor{{MediaType: artifact.MediaTypeBundle, Digest: d, Size: int64(len(report))}},
		}
		if i%10 == 9 {
			m.ArtifactType = "application/x-junk"
		}
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		tag := fmt.Sprintf("status-prod-%04d", i)
		tags = append(tags, tag)
		content["/v2/ml/churn/manifests/"+tag], content["/v2/ml/churn/blobs/"+string(d)] = raw, report
	}
	var mu sync.Mutex
	now, peak := 0, 0
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		now++
		peak = max(peak, now)
		mu.Unlock()
		time.Sleep(takes)
		b, ok := content[r.URL.Path]
		switch {
		case ok:
			w.Header().Set("Content-Type", artifact.MediaTypeManifest)
			w.Header().Set("Docker-Content-Digest", string(artifact.DigestOf(b)))
			_, _ = w.Write(b)
		case r.URL.Path != "/v2/":
			w.WriteHeader(http.StatusNotFound)
		}
		mu.Lock()
		now--
		mu.Unlock()
	}))
	t.Cleanup(h.Close)
	ref, err := registry.ParseRef(strings.TrimPrefix(h.URL, "http://") + "/ml/churn")
	if err != nil {
		t.Fatal(err)
	}
	if p, err = registry.Open(t.Context(), ref, registry.Options{}); err != nil {
		t.Fatal(err)
	}
	return p, tags, func() int { mu.Lock(); defer mu.Unlock(); return peak }
}

// Reports are read a few at a time, never more, and come in the order of their tags whatever answered first.
func TestReportsAreReadTogether(t *testing.T) {
	p, tags, most := reporters(t, 150, time.Millisecond)
	var got []string
	junk := 0
	err := readReports(t.Context(), p, tags, statusReaders, func(where string, raw []byte) {
		got = append(got, where)
		var i int
		if _, err := fmt.Sscanf(where, "status-prod-%d", &i); err != nil {
			t.Error(err)
		}
		switch {
		case raw == nil:
			junk++
		case string(raw) != fmt.Sprintf("report of device %d", i):
			t.Errorf("%s: %s", where, raw)
		}
	})
	if err != nil || !slices.Equal(got, tags) || junk != 15 {
		t.Errorf("%d of %d, %d junk: %v", len(got), len(tags), junk, err)
	}
	if n := most(); n < 2 || n > statusReaders {
		t.Errorf("%d requests at once", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := readReports(ctx, p, tags, statusReaders, func(string, []byte) {}); err == nil {
		t.Error("it goes on after the end")
	}
}

// What 2,000 devices left, in a registry 5 ms away.
func BenchmarkReports(b *testing.B) {
	p, tags, _ := reporters(b, 2000, 5*time.Millisecond)
	for _, n := range []int{1, statusReaders} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if err := readReports(b.Context(), p, tags, n, func(string, []byte) {}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
