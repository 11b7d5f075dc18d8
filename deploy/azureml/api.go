package azureml

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/runtime"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/redact"
)

// apiVersion is that of all resources.
const apiVersion = "2025-12-01"

// most is how much of an answer is read.
const most = 8 << 20

// errBusy is a 409: another change of the resource is under way, or its state does not allow this one.
var errBusy = fmt.Errorf("%w: the resource is being changed", deploy.ErrBusy)

// tokens remembers what was handed out, so that it can be taken out of texts. Safe for concurrent use.
type tokens struct {
	cred azcore.TokenCredential
	mu   sync.Mutex
	seen []string
}

// tokenError tells that no token was given, from an error of a call. It holds nothing of what was sent.
type tokenError struct{ why string }

func (e *tokenError) Error() string { return e.why }

// NonRetriable implements errorinfo.NonRetriable of azcore.
func (e *tokenError) NonRetriable() {}

// GetToken implements azcore.TokenCredential.
func (t *tokens) GetToken(ctx context.Context, o policy.TokenRequestOptions) (azcore.AccessToken, error) {
	tok, err := t.cred.GetToken(ctx, o)
	if err != nil {
		if ctx.Err() != nil {
			return tok, ctx.Err()
		}
		return azcore.AccessToken{}, &tokenError{"no access token is given"}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.seen, tok.Token) {
		if t.seen = append(t.seen, tok.Token); len(t.seen) > 8 {
			t.seen = t.seen[1:]
		}
	}
	return tok, nil
}

func (t *tokens) redact(s string) string {
	t.mu.Lock()
	seen := slices.Clone(t.seen)
	t.mu.Unlock()
	return redact.New(seen...).Text(s)
}

// client speaks with Azure Resource Manager.
type client struct {
	base   *url.URL
	pipe   runtime.Pipeline
	tokens *tokens
	policy retry.Policy
}

func newClient(cred azcore.TokenCredential, s Settings) (*client, error) {
	base, err := url.Parse(s.URL)
	if err != nil {
		return nil, err
	}
	c := &client{base: base, tokens: &tokens{cred: cred}, policy: retry.Policy{Max: s.Backoff, Base: min(s.Backoff, 250*time.Millisecond)}}
	// Repetitions are retry's, so that all targets have the same.
	auth := runtime.NewBearerTokenPolicy(c.tokens, []string{s.Audience + "/.default"}, &policy.BearerTokenOptions{InsecureAllowCredentialWithHTTP: loopback(base)})
	c.pipe = runtime.NewPipeline("waybill", "1", runtime.PipelineOptions{PerRetry: []policy.Policy{auth}}, &policy.ClientOptions{Retry: policy.RetryOptions{MaxRetries: -1}})
	return c, nil
}

// answer is a success.
type answer struct {
	code   int
	header http.Header
	body   []byte
}

// call makes one call, again where the platform asks for it. rawURL is a path, or an URL of the platform. All calls are safe to repeat.
func (c *client) call(ctx context.Context, what, method, rawURL string, body any) (*answer, error) {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("Azure ML: %s: %w", what, err)
		}
	}
	u, err := c.base.Parse(rawURL)
	if err != nil || u.Scheme != c.base.Scheme || u.Host != c.base.Host {
		// The token goes nowhere else, whatever an answer says.
		return nil, fmt.Errorf("%w: Azure ML: %s: the answer leads to another host", deploy.ErrUnavailable, what)
	}
	var out *answer
	err = retry.Do(ctx, c.policy, func(ctx context.Context) (err error) {
		out, err = c.once(ctx, what, method, u.String(), raw)
		return err
	})
	return out, err
}

func (c *client) once(ctx context.Context, what, method, u string, raw []byte) (*answer, error) {
	req, err := runtime.NewRequest(ctx, method, u)
	if err != nil {
		return nil, fmt.Errorf("Azure ML: %s: %w", what, err)
	}
	req.Raw().Header.Set("Accept", "application/json")
	if raw != nil {
		if err := req.SetBody(nopCloser{bytes.NewReader(raw)}, "application/json"); err != nil {
			return nil, fmt.Errorf("Azure ML: %s: %w", what, err)
		}
	}
	runtime.SkipBodyDownload(req)
	resp, err := c.pipe.Do(req)
	if err != nil {
		return nil, c.broken(ctx, what, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil {
		return nil, c.broken(ctx, what, err)
	}
	if len(body) > most {
		return nil, fmt.Errorf("%w: Azure ML: %s: the answer is larger than %d bytes", deploy.ErrUnavailable, what, most)
	}
	if resp.StatusCode < 300 {
		return &answer{resp.StatusCode, resp.Header, body}, nil
	}
	err = c.refused(what, resp.StatusCode, body, resp.Header)
	if d := retry.After(resp.Header, time.Now()); d > 0 {
		err = retry.Later(err, d)
	}
	return nil, err
}

// nopCloser makes a reader of a request's body.
type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// broken is a call without an answer.
func (c *client) broken(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("Azure ML: %s: %w", what, ctx.Err())
	}
	if e, ok := errors.AsType[*tokenError](err); ok {
		return fmt.Errorf("%w: Azure ML: %s: %s", deploy.ErrUnauthorized, what, e.why)
	}
	return fmt.Errorf("%w: Azure ML: %s: %s", deploy.ErrUnavailable, what, c.tokens.redact(err.Error()))
}

// problem is Resource Manager's error document.
type problem struct {
	Code, Message string
	Details       []problem
	InnerError    *problem
}

// codes are those of p and of what it wraps.
func (p *problem) codes() (out []string) {
	if p == nil {
		return nil
	}
	if p.Code != "" {
		out = append(out, p.Code)
	}
	for i := range p.Details {
		out = append(out, p.Details[i].codes()...)
	}
	return append(out, p.InnerError.codes()...)
}

func (p *problem) text() string {
	if p == nil {
		return "no reason is given"
	}
	s := p.Code + ": " + p.Message
	for i := range p.Details {
		s += "; " + p.Details[i].text()
	}
	if p.InnerError != nil && p.InnerError.Message != "" {
		s += "; " + p.InnerError.text()
	}
	return s
}

// refused is a call that the platform answered with an error.
func (c *client) refused(what string, code int, body []byte, h http.Header) error {
	var doc struct{ Error *problem }
	_ = json.Unmarshal(body, &doc) // a proxy's page has no code
	text := fmt.Sprintf("%d", code)
	if doc.Error != nil {
		text += " " + doc.Error.text()
	}
	if id := h.Get("x-ms-request-id"); id != "" {
		text += " (request " + id + ")"
	}
	text = c.tokens.redact(text)
	cause := cause(doc.Error)
	switch {
	case code == http.StatusUnauthorized:
		cause = deploy.ErrUnauthorized
	case code == http.StatusTooManyRequests:
		cause = deploy.ErrThrottled
	case code == http.StatusForbidden && !errors.Is(cause, deploy.ErrQuota):
		cause = deploy.ErrForbidden
	case code == http.StatusNotFound:
		cause = deploy.ErrGone
	case code == http.StatusRequestEntityTooLarge:
		cause = deploy.ErrTooLarge
	case cause == nil && (code == http.StatusConflict || code == http.StatusPreconditionFailed):
		cause = errBusy
	case code >= 500 || code == http.StatusRequestTimeout:
		cause = deploy.ErrUnavailable
	}
	if cause == nil {
		return fmt.Errorf("Azure ML: %s: %s", what, text)
	}
	return fmt.Errorf("%w: Azure ML: %s: %s", cause, what, text)
}

// ErrImage is an image that the platform cannot read.
var ErrImage = errors.New("the platform cannot read the image")

// cause tells what codes and words of Azure ML name; nil: nothing known.
func cause(p *problem) error {
	if p == nil {
		return nil
	}
	low := strings.ToLower(p.text())
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(low, w) })
	}
	codes := p.codes()
	is := func(names ...string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return slices.Contains(codes, n) })
	}
	switch {
	case is("ExpiredAuthenticationToken", "InvalidAuthenticationToken", "AuthenticationFailed"):
		return deploy.ErrUnauthorized
	case has("exec format error", "no match for platform", "does not match the specified platform", "unsupported architecture"):
		return deploy.ErrPlatform
	case has("no space left", "not enough disk", "image is too large", "exceeds the maximum image size", "insufficient disk"):
		return deploy.ErrTooLarge
	case is("OutOfQuota", "OutOfCapacity", "QuotaExceeded", "SkuNotAvailable"), has("not enough quota", "quota exceeded"):
		return deploy.ErrQuota
	case is("ImagePullFailure", "ImagePullBackOff"), has("unable to download", "failed to pull image", "manifest unknown", "container registry authorization"):
		return fmt.Errorf("%w: %w", deploy.ErrRelease, ErrImage)
	case is("AuthorizationFailed", "LinkedAuthorizationFailed", "RequestDisallowedByPolicy"):
		return deploy.ErrForbidden
	case is("ResourceNotReady"):
		return deploy.ErrUnhealthy
	}
	return nil
}

// await polls the operation that an answer began until it is done. An answer that began none is done. Its end is the operation's, or
// errLate when the time is over.
func (c *client) await(ctx context.Context, what string, a *answer, poll time.Duration, end time.Time) error {
	async := a.header.Get("Azure-AsyncOperation")
	at := async
	if at == "" && a.code == http.StatusAccepted {
		at = a.header.Get("Location")
	}
	for at != "" {
		if err := pause(ctx, max(poll, min(retry.After(a.header, time.Now()), time.Minute))); err != nil {
			return err
		}
		next, err := c.call(ctx, what, http.MethodGet, at, nil)
		if errors.Is(err, deploy.ErrGone) {
			return nil // forgotten operations are over; what came of it is read from the resource
		}
		if err != nil {
			return err
		}
		a = next
		if async == "" {
			if a.code != http.StatusAccepted {
				return nil
			}
			if l := a.header.Get("Location"); l != "" {
				at = l
			}
		} else {
			var op struct {
				Status string
				Error  *problem
			}
			if err := json.Unmarshal(a.body, &op); err != nil {
				return fmt.Errorf("%w: Azure ML: %s: the operation's status cannot be read", deploy.ErrUnavailable, what)
			}
			switch op.Status {
			case "Succeeded":
				return nil
			case "Failed", "Canceled":
				cause := cause(op.Error)
				if cause == nil {
					cause = deploy.ErrUnhealthy
				}
				return fmt.Errorf("%w: Azure ML: %s: %s", cause, what, c.tokens.redact(op.Error.text()))
			}
		}
		if time.Now().After(end) {
			return errLate
		}
	}
	return nil
}

// errLate: the time to wait is over.
var errLate = fmt.Errorf("%w: the time to wait is over", deploy.ErrUnhealthy)

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return fmt.Errorf("Azure ML: %w", ctx.Err())
	case <-t.C:
		return nil
	}
}
