package mlflow

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/redact"
)

const secretToken = "s3cret-token-0123456789"

// A server that says the token back does not get it into a message; without the masking it does.
func TestTokenIsMasked(t *testing.T) {
	s := connect(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, `{"message": "unknown: `+strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")+`"}`, http.StatusForbidden)
	}, "MLFLOW_TRACKING_TOKEN", secretToken)
	said := func() bool {
		t.Helper()
		_, err := s.Model(t.Context(), "models:/churn/3")
		if diag.CodeOf(err) != diag.Registry {
			t.Fatal(err)
		}
		return strings.Contains(diag.Render(err), secretToken)
	}
	if said() {
		t.Error("the message has the token")
	}
	s.hide = redact.New()
	if !said() {
		t.Error("nothing masks the token, and it is not in the message: this test shows nothing")
	}
}

// A redirection is not followed: neither is the token sent elsewhere nor a model taken from there. A client that follows does both.
func TestRedirectsAreRefused(t *testing.T) {
	var got []string // requests are one after the other
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		switch {
		case strings.HasSuffix(r.URL.Path, "/model-versions/get"):
			fmt.Fprint(w, `{"model_version": {"name": "churn", "version": "3", "status": "READY"}}`)
		default:
			fmt.Fprint(w, good)
		}
	}))
	t.Cleanup(elsewhere.Close)
	s := connect(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+r.URL.RequestURI(), http.StatusFound)
	}, "MLFLOW_TRACKING_TOKEN", secretToken)
	if _, err := s.Model(t.Context(), "models:/churn/3"); diag.CodeOf(err) != diag.Registry || len(got) != 0 {
		t.Errorf("%v, asked elsewhere with %q", err, got)
	}
	s.http.CheckRedirect = nil
	m, err := s.Model(t.Context(), "models:/churn/3")
	if len(got) == 0 || got[0] != "Bearer "+secretToken {
		t.Errorf("a client that follows sends %q elsewhere: this test shows nothing (%+v, %v)", got, m, err)
	}
}
