package vertex_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"golang.org/x/oauth2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google/googletest"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/deploy/vertex"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const token = "ya29.a0Ae4lvC1+secret/token=92"

func release(n int) deploy.Release {
	image := "europe-west4-docker.pkg.dev/acme-ml/models/churn@" + string(artifact.DigestOf(fmt.Appendf(nil, "image %d", n)))
	return deploy.Release{Digest: artifact.DigestOf(fmt.Appendf(nil, "model %d", n)), Model: "churn", Ver: fmt.Sprintf("1.%d", n), Image: image, Arches: []string{"amd64", "arm64"}}
}

func settings(url string) vertex.Settings {
	return vertex.Settings{Project: "acme-ml", Region: "europe-west4", Endpoint: "churn", MaxReplicas: 3, Env: map[string]string{"WAYBILL_LOG": "json"}, API: url, Poll: 50 * time.Microsecond, Backoff: 100 * time.Microsecond}
}

func open(tb testing.TB, s vertex.Settings, log *slog.Logger) *vertex.Target {
	tb.Helper()
	s.Log = log
	t, err := vertex.New(tb.Context(), oauth2.StaticTokenSource(&oauth2.Token{AccessToken: token}), s)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func fixture(tb testing.TB, w *targettest.Wire, hide bool) *targettest.Fixture {
	s := newServer(tb, token)
	s.hide = hide
	srv := httptest.NewServer(w.Handler(s))
	tb.Cleanup(func() {
		srv.Close()
		for _, b := range s.bad {
			tb.Error(b)
		}
	})
	of, image := map[string]artifact.Digest{}, map[artifact.Digest]string{}
	for n := 1; n <= 4; n++ {
		r := release(n)
		of[r.Image], image[r.Digest] = r.Digest, r.Image
	}
	return &targettest.Fixture{
		Target:  func(log *slog.Logger) deploy.Target { return open(tb, settings(srv.URL), log) },
		Release: release,
		Serving: func() map[artifact.Digest]int { return s.serving(of) },
		Rest:    s.rest,
		Dump:    s.dump,
		Sick: func(d artifact.Digest, cause error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.sick[image[d]] = cause
		},
		Forget: func(d artifact.Digest) { s.forget(image[d]) },
		Meddle: s.meddle,
		Fail: func(w http.ResponseWriter, _ *http.Request, cause error, message string) {
			switch {
			case errors.Is(cause, deploy.ErrThrottled):
				googletest.Problem(w, 429, "RESOURCE_EXHAUSTED", "Quota exceeded for quota metric 'Resource management (CRUD) requests' and limit 'Resource management (CRUD) requests per minute per region': "+message, "RATE_LIMIT_EXCEEDED")
			case errors.Is(cause, deploy.ErrUnavailable):
				googletest.Problem(w, 503, "UNAVAILABLE", "The service is currently unavailable: "+message)
			case errors.Is(cause, deploy.ErrForbidden):
				googletest.Problem(w, 403, "PERMISSION_DENIED", "Permission 'aiplatform.endpoints.deploy' denied: "+message, "IAM_PERMISSION_DENIED")
			case errors.Is(cause, deploy.ErrUnauthorized):
				googletest.Problem(w, 401, "UNAUTHENTICATED", "Request had invalid authentication credentials: "+message, "ACCESS_TOKEN_EXPIRED")
			}
		},
		Secrets: []string{token},
	}
}

func TestSuite(t *testing.T) {
	targettest.Run(t, targettest.Harness{New: func(tb testing.TB, w *targettest.Wire) *targettest.Fixture { return fixture(tb, w, false) }})
}
