package registry

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

// A registry that repeats what it was shown, in an error or in an address, does not bring it into messages.
func TestRepeatedSecretsAreConcealed(t *testing.T) {
	const password, long = "hunter2-hunter2", "tok-0123456789abcdefghijklmnopqrstuvwxyz"
	for _, c := range []struct {
		name   string
		status int
		tell   func(r *http.Request) string
		auth   Login
	}{
		{"the password, 403", http.StatusForbidden, func(*http.Request) string { return "no: " + password }, Login{Username: "d", Password: password}},
		{"the header, 401", http.StatusUnauthorized, func(r *http.Request) string { return r.Header.Get("Authorization") }, Login{Username: "d", Password: password}},
		{"a token that is cut off", http.StatusBadRequest, func(*http.Request) string { return strings.Repeat("x", 180) + long }, Login{RegistryToken: long}},
		{"404", http.StatusNotFound, func(*http.Request) string { return password }, Login{Username: "d", Password: password}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") == "" {
					w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				w.WriteHeader(c.status)
				_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": c.tell(r)[:min(len(c.tell(r)), 60)], "message": c.tell(r)}}})
			}))
			defer h.Close()
			host := strings.TrimPrefix(h.URL, "http://")
			r, err := NewRemote(host, "ml/churn", RemoteOptions{Keychain: static{c.auth}, Retry: RetryPolicy{Attempts: 1}})
			if err != nil {
				t.Fatal(err)
			}
			_, _, err = r.Manifest(t.Context(), "sha256:"+"aa"+"00000000000000000000000000000000000000000000000000000000000000")
			if err == nil {
				t.Fatal("no error")
			}
			text := diag.Render(err)
			for _, s := range []string{password, long[:14], "ZDpodW50ZXIy"} {
				if strings.Contains(text, s) {
					t.Errorf("the message holds %q: %s", s, text)
				}
			}
			if want := map[int]diag.Code{404: diag.NotFound}[c.status]; want != 0 && (diag.CodeOf(err) != want || !errors.Is(err, fs.ErrNotExist)) || want == 0 && diag.CodeOf(err) != diag.Registry {
				t.Errorf("code %d: %s", diag.CodeOf(err), text)
			}
			if bare := r.explain(&StatusError{Status: c.status, Message: c.tell(&http.Request{Header: http.Header{}}) + password + long}); !strings.Contains(bare.Error(), password) {
				t.Error("without the check the message would not hold it either: this shows nothing")
			}
		})
	}
}

type static struct{ c Login }

func (s static) Login(context.Context, string, string) (Login, error) {
	return s.c, nil
}

// A keychain that is asked each time may have another answer.
func TestCredentialIsExchanged(t *testing.T) {
	var want string
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != want {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(`{"name":"ml/churn","tags":[]}`))
	}))
	defer h.Close()
	for _, each := range []bool{true, false} {
		k := &changing{"first"}
		want = "first"
		r, err := NewRemote(strings.TrimPrefix(h.URL, "http://"), "ml/churn", RemoteOptions{Keychain: k, AskEachTime: each, LoginHint: "waybill-edge enroll", Retry: RetryPolicy{Attempts: 1}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Tags(t.Context()); err != nil {
			t.Fatal(err)
		}
		want, k.password = "second", "second"
		if _, err := r.Tags(t.Context()); (err == nil) != each {
			t.Errorf("asked each time %v: %v", each, err)
		} else if err != nil && (diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "hint: waybill-edge enroll")) {
			t.Errorf("%s", diag.Render(err))
		}
	}
}

type changing struct{ password string }

func (c *changing) Login(context.Context, string, string) (Login, error) {
	return Login{Username: "d", Password: c.password}, nil
}
