package targettest

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"net/http/httptest"

	"log/slog"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// box is a small platform: revisions that become ready after some reads, and one service document under an etag.
type box struct {
	mu     sync.Mutex
	revs   []*boxRev
	svc    boxService
	sick   map[artifact.Digest]error // by the digest of the image
	images map[string]artifact.Digest
}

type boxRev struct {
	ID     string
	Image  string
	Digest artifact.Digest // the label
	State  string          // pending, ready, failed
	Reads  int             `json:"-"`
}

type boxService struct {
	Etag     int
	Shares   map[string]int
	Memory   int
	Previous string
	Canary   string
}

type boxState struct {
	Service   boxService
	Revisions []*boxRev
}

const boxToken = "box-7f3a+secret/token=91"

// step lets time pass.
func (b *box) step() {
	for _, r := range b.revs {
		if r.State != "pending" {
			continue
		}
		if r.Reads++; r.Reads < 3 {
			continue
		}
		switch b.sick[b.runs(r)] {
		case nil:
			r.State = "ready"
		case deploy.ErrUnhealthy:
			r.State = "failed"
		}
	}
}

// runs is whose code r is.
func (b *box) runs(r *boxRev) artifact.Digest { return b.images[r.Image] }

func (b *box) rev(id string) *boxRev {
	if i := slices.IndexFunc(b.revs, func(r *boxRev) bool { return r.ID == id }); i >= 0 {
		return b.revs[i]
	}
	return nil
}

func boxFail(w http.ResponseWriter, code int, word, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": word, "message": message})
}

func (b *box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+boxToken {
		boxFail(w, 401, "Unauthorized", "no")
		return
	}
	name := strings.TrimPrefix(r.URL.Path, "/revisions/")
	switch r.Method + " " + strings.TrimSuffix(r.URL.Path, name) {
	case "GET ":
		b.step()
		_ = json.NewEncoder(w).Encode(boxState{b.svc, b.revs})
	case "POST /revisions/":
		var in boxRev
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			boxFail(w, 400, "BadRequest", err.Error())
			return
		}
		switch b.sick[b.images[in.Image]] {
		case deploy.ErrPlatform:
			boxFail(w, 422, "Architecture", "exec format")
		case deploy.ErrTooLarge:
			boxFail(w, 413, "TooLarge", "10 MB")
		case deploy.ErrQuota:
			boxFail(w, 403, "QuotaExceeded", "5 revisions")
		default:
			if b.rev(name) != nil {
				boxFail(w, 409, "Exists", name)
				return
			}
			b.revs = append(b.revs, &boxRev{ID: name, Image: in.Image, Digest: in.Digest, State: "pending"})
			w.WriteHeader(201)
		}
	case "DELETE /revisions/":
		if b.svc.Shares[name] > 0 {
			boxFail(w, 409, "InUse", name)
			return
		}
		b.revs = slices.DeleteFunc(b.revs, func(r *boxRev) bool { return r.ID == name })
	case "PUT ":
		var in boxService
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			boxFail(w, 400, "BadRequest", err.Error())
			return
		}
		if m := r.Header.Get("If-Match"); m != "" && m != strconv.Itoa(b.svc.Etag) {
			boxFail(w, 412, "Changed", "etag")
			return
		}
		for id := range in.Shares {
			if b.rev(id) == nil {
				boxFail(w, 404, "NoRevision", id)
				return
			}
		}
		in.Etag = b.svc.Etag + 1
		b.svc = in
	default:
		boxFail(w, 405, "Method", r.Method+" "+r.URL.Path)
	}
}

// harness makes boxes with a target that has defects d.
func boxHarness(d defects) Harness {
	return Harness{Portable: d.portable || d.claims, New: func(tb testing.TB, wire *Wire) *Fixture {
		b := &box{sick: map[artifact.Digest]error{}, images: map[string]artifact.Digest{}}
		srv := httptest.NewServer(wire.Handler(b))
		tb.Cleanup(srv.Close)
		release := func(n int) deploy.Release {
			image := "reg.example/ml/churn@" + string(artifact.DigestOf(fmt.Appendf(nil, "image %d", n)))
			arches := []string{"arm64", "amd64"}
			if d.portable {
				arches = nil
			}
			return deploy.Release{Digest: artifact.DigestOf(fmt.Appendf(nil, "model %d", n)), Model: "churn", Ver: strconv.Itoa(n), Image: image, Arches: arches}
		}
		for n := range 6 {
			b.images[release(n).Image] = release(n).Digest
		}
		locked := func(f func()) {
			b.mu.Lock()
			defer b.mu.Unlock()
			f()
		}
		return &Fixture{
			Target: func(log *slog.Logger) deploy.Target {
				t := &boxTarget{url: srv.URL, token: boxToken, log: log, defects: d, client: srv.Client()}
				if d.noCanary {
					return struct{ deploy.Target }{t}
				}
				return t
			},
			Release: release,
			Serving: func() map[artifact.Digest]int {
				out := map[artifact.Digest]int{}
				locked(func() {
					for id, weight := range b.svc.Shares {
						if r := b.rev(id); r != nil && weight > 0 {
							out[b.runs(r)] += weight
						}
					}
				})
				return out
			},
			Rest: func() {
				locked(func() {
					for range 8 {
						b.step()
					}
				})
			},
			Dump: func() string {
				var raw []byte
				locked(func() { raw, _ = json.MarshalIndent(boxState{b.svc, b.revs}, "", " ") })
				return string(raw)
			},
			Sick: func(d artifact.Digest, cause error) { locked(func() { b.sick[d] = cause }) },
			Forget: func(d artifact.Digest) {
				locked(func() {
					b.revs = slices.DeleteFunc(b.revs, func(r *boxRev) bool { return b.runs(r) == d && b.svc.Shares[r.ID] == 0 })
				})
			},
			Meddle: func() { locked(func() { b.svc.Memory = 128; b.svc.Etag++ }) },
			Fail: func(w http.ResponseWriter, _ *http.Request, cause error, message string) {
				code := map[error]int{deploy.ErrThrottled: 429, deploy.ErrUnavailable: 503, deploy.ErrForbidden: 403, deploy.ErrUnauthorized: 401}[cause]
				boxFail(w, code, http.StatusText(code), message)
			},
			Secrets: []string{boxToken},
		}
	}}
}

// total of shares.
func total(m map[string]int) int {
	n := 0
	for v := range maps.Values(m) {
		n += v
	}
	return n
}
