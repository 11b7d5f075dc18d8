package cloudflare

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/deploy"
)

// named are the errors that an answer can be.
func named() []error {
	return []error{deploy.ErrRelease, deploy.ErrConflict, deploy.ErrUnhealthy, deploy.ErrUnauthorized, deploy.ErrForbidden, deploy.ErrQuota, deploy.ErrTooLarge,
		deploy.ErrPlatform, deploy.ErrGone, deploy.ErrNotFound, deploy.ErrThrottled, deploy.ErrUnavailable, deploy.ErrBusy, errAbsent}
}

// Each code is exactly one named error, or none, and the platform's own words, code and ray are in its text.
func TestCodes(t *testing.T) {
	tested := map[int]bool{}
	for _, c := range []struct {
		status, code int
		is           error
		hint         string
	}{
		{400, 9106, deploy.ErrUnauthorized, "did not arrive"},
		{403, 9109, deploy.ErrUnauthorized, "CLOUDFLARE_API_TOKEN"},
		{400, 10000, deploy.ErrUnauthorized, "CLOUDFLARE_API_TOKEN"},
		{403, 10000, deploy.ErrUnauthorized, "CLOUDFLARE_API_TOKEN"},
		{400, 7003, nil, "account's id"},
		{404, 7003, nil, "account's id"}, // not that the Worker is absent
		{403, 10015, deploy.ErrForbidden, "not entitled"},
		{403, 10023, deploy.ErrForbidden, ""},
		{404, 10007, errAbsent, ""},
		{412, 10018, deploy.ErrConflict, ""},
		{409, 10035, deploy.ErrBusy, ""},
		{403, 10037, deploy.ErrQuota, "as many Workers"},
		{403, 10075, deploy.ErrQuota, "Workers Paid"},
		{413, 10027, deploy.ErrTooLarge, ""},
		{400, 10021, deploy.ErrUnhealthy, "start"},
		{400, 10006, deploy.ErrRelease, "parsed"},
		{400, 10068, deploy.ErrRelease, "handler"},
		{400, 10069, deploy.ErrRelease, "handler"},
		// Codes without a known meaning: the status has it, or nothing.
		{400, 99999, nil, ""},
		{409, 99999, nil, ""},
		{400, 10144, nil, ""}, // a binding's service is absent, not a version
		{401, 99999, deploy.ErrUnauthorized, ""},
		{403, 99999, deploy.ErrForbidden, ""},
		{404, 99999, errAbsent, ""},
		{413, 99999, deploy.ErrTooLarge, ""},
		{429, 99999, deploy.ErrThrottled, ""},
		{503, 99999, deploy.ErrUnavailable, ""},
	} {
		tested[c.code] = true
		calls := 0
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			calls++
			refuse(w, c.status, c.code, "words of the platform")
		}))
		_, err := target(t, srv.URL, nil).deployments(t.Context())
		srv.Close()
		name := fmt.Sprintf("%d with code %d", c.status, c.code)
		if err == nil {
			t.Errorf("%s: no error", name)
			continue
		}
		for _, e := range named() {
			if errors.Is(err, e) != (e == c.is) {
				t.Errorf("%s: %v, want it to be %v", name, err, c.is)
			}
		}
		for _, part := range []string{"words of the platform", fmt.Sprintf("code %d", c.code), "ray 8c0ffee", c.hint} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
		if again := errors.Is(err, deploy.ErrThrottled) || errors.Is(err, deploy.ErrUnavailable); again != (calls > 1) {
			t.Errorf("%s: asked %d times", name, calls)
		}
	}
	tested[6111] = true // below
	for code := range meanings() {
		if !tested[code] {
			t.Errorf("code %d is not tested", code)
		}
	}
}

// What is behind an error has a meaning too.
func TestCodeInChain(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_, _ = w.Write([]byte(`{"success":false,"errors":[{"code":6003,"message":"Invalid request headers","error_chain":[{"code":6111,"message":"Invalid format for Authorization header"}]}]}`))
	}))
	defer srv.Close()
	_, err := target(t, srv.URL, nil).deployments(t.Context())
	if !errors.Is(err, deploy.ErrUnauthorized) || !strings.Contains(err.Error(), "Authorization header (code 6111)") || !strings.Contains(err.Error(), "Invalid request headers (code 6003)") {
		t.Error(err)
	}
}

// Answers that are no JSON, as of a proxy, and good answers that the API calls failed.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		is     error
	}{
		{502, "<html>", deploy.ErrUnavailable},
		{400, "<html>", nil},
		{200, "<html>", nil},
		{200, `{"success":false,"errors":[{"code":10037,"message":"m"}]}`, deploy.ErrQuota},
		{200, `{"success":true,"result":7}`, nil},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = w.Write([]byte(c.body))
		}))
		_, err := target(t, srv.URL, nil).deployments(t.Context())
		srv.Close()
		if err == nil {
			t.Errorf("%d %s: no error", c.status, c.body)
			continue
		}
		for _, e := range named() {
			if errors.Is(err, e) != (e == c.is) {
				t.Errorf("%d %s: %v, want it to be %v", c.status, c.body, err, c.is)
			}
		}
	}
}
