package report

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// maxAnswer bounds what is read of an answer, and so how long one can be.
const maxAnswer = 64 << 10

// HTTP is a sink that POSTs the bundle as it is. Every attempt at one report has the same Idempotency-Key.
type HTTP struct {
	URL       string
	Transport http.RoundTripper
	Token     func() (string, error) // asked for each attempt; nil: none
	UserAgent string
	Now       func() time.Time // nil: time.Now
}

// CheckURL tells whether reports may go to an address: https, or http where plain allows it; without a password in it.
func CheckURL(s string, plain func(host string) bool) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return errors.New("it is no web address") // which may hold a password
	case u.User != nil:
		return fmt.Errorf("a user name stands in the address of %s; use token_file", u.Host)
	case u.Scheme == "http" && plain(u.Host), u.Scheme == "https":
		return nil
	}
	return fmt.Errorf("%s://%s is not https", u.Scheme, u.Host)
}

// ID implements Sink.
func (h *HTTP) ID() string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return "http"
	}
	return "http " + u.Scheme + "://" + u.Host + u.Path // a query may hold a secret
}

// Send implements Sink.
func (h *HTTP) Send(ctx context.Context, i Item) error {
	return h.Post(ctx, i.Bundle, artifact.MediaTypeBundle, i.Key())
}

// Post sends one document.
func (h *HTTP) Post(ctx context.Context, body []byte, mediaType, key string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, strings.NewReader(string(body)))
	if err != nil {
		return errors.New("the address cannot be used")
	}
	req.Header.Set("Content-Type", mediaType)
	req.Header.Set("Idempotency-Key", `"`+key+`"`)
	req.Header.Set("User-Agent", h.UserAgent)
	if h.Token != nil {
		token, err := h.Token()
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	}
	client := http.Client{Transport: h.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // without the address
		}
		return fmt.Errorf("%s: %w", h.ID(), err)
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // so that the connection can be used again
	if resp.StatusCode/100 == 2 {
		return nil
	}
	// The answer's text and its headers are not told: a server may repeat the token in them.
	err = fmt.Errorf("%s: answered %d %s", h.ID(), resp.StatusCode, http.StatusText(resp.StatusCode))
	if resp.StatusCode/100 == 3 {
		err = fmt.Errorf("%s: answered %d, and a report follows no redirect", h.ID(), resp.StatusCode)
	}
	if wait := h.after(resp.Header.Get("Retry-After")); wait > 0 {
		return &RetryAfter{wait, err}
	}
	return err
}

// after reads Retry-After (RFC 9110, 10.2.3): seconds or a date.
func (h *HTTP) after(s string) time.Duration {
	if s = strings.TrimSpace(s); s == "" {
		return 0
	}
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return time.Duration(n) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		now := time.Now
		if h.Now != nil {
			now = h.Now
		}
		return at.Sub(now())
	}
	return 0
}
