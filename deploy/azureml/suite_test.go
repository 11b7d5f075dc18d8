package azureml_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/azureml"
	"github.com/waybill-ml/waybill/deploy/targettest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// cred gives tokens for the audience that is asked for.
type cred struct{ err error }

func (c cred) GetToken(_ context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: token(strings.TrimSuffix(o.Scopes[0], "/.default")), ExpiresOn: time.Now().Add(24 * time.Hour)}, c.err
}

func release(n int) deploy.Release {
	image := "acme.azurecr.io/models/churn@" + string(artifact.DigestOf(fmt.Appendf(nil, "image %d", n)))
	return deploy.Release{Digest: artifact.DigestOf(fmt.Appendf(nil, "model %d", n)), Model: "churn", Ver: fmt.Sprintf("1.%d", n), Image: image, Arches: []string{"amd64"}}
}

func settings(url string) azureml.Settings {
	return azureml.Settings{
		Subscription: "00000000-1111-2222-3333-444444444444", ResourceGroup: "acme-rg", Workspace: "acme-ml", Location: "westeurope", Endpoint: "churn",
		Env: map[string]string{"WAYBILL_LOG": "json"}, URL: url, Poll: time.Millisecond, Backoff: time.Millisecond,
	}
}

func open(tb testing.TB, c azcore.TokenCredential, s azureml.Settings) *azureml.Target {
	tb.Helper()
	t, err := azureml.New(c, s)
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

func serve(tb testing.TB, wrap func(http.Handler) http.Handler) *server {
	s := newServer(tb)
	srv := httptest.NewServer(wrap(s))
	s.url = srv.URL
	tb.Cleanup(func() {
		srv.Close()
		for _, b := range s.bad {
			tb.Error(b)
		}
	})
	return s
}

func fixture(tb testing.TB, w *targettest.Wire) *targettest.Fixture {
	s := serve(tb, w.Handler)
	of, image := map[string]artifact.Digest{}, map[artifact.Digest]string{}
	for n := 1; n <= 4; n++ {
		r := release(n)
		of[r.Image], image[r.Digest] = r.Digest, r.Image
	}
	return &targettest.Fixture{
		Target: func(log *slog.Logger) deploy.Target {
			x := settings(s.url)
			x.Log = log
			return open(tb, cred{}, x)
		},
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
				problem(w, 429, "TooManyRequests", "The request is being throttled: "+message)
			case errors.Is(cause, deploy.ErrUnavailable):
				problem(w, 503, "ServiceUnavailable", "The service is busy: "+message)
			case errors.Is(cause, deploy.ErrForbidden):
				problem(w, 403, "AuthorizationFailed", "The client does not have authorization to perform action 'Microsoft.MachineLearningServices/workspaces/onlineEndpoints/write': "+message)
			case errors.Is(cause, deploy.ErrUnauthorized):
				problem(w, 401, "ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time: "+message)
			}
		},
		Secrets: []string{token(audience)},
	}
}

func TestSuite(t *testing.T) { targettest.Run(t, targettest.Harness{New: fixture}) }
