package cloudrun

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"
	run "google.golang.org/api/run/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/redact"
)

// ErrImage is wrapped, beside deploy.ErrRelease, when the platform does not find the image or may not read it.
var ErrImage = errors.New("the platform cannot fetch the image")

// errStale is an etag that is no longer the service's; errExists a name that is taken.
var (
	errStale  = errors.New("the etag is not that of the service")
	errExists = errors.New("it exists already")
)

// tokens remembers what was handed out, so that it can be taken out of texts. Safe for concurrent use.
type tokens struct {
	source oauth2.TokenSource
	mu     sync.Mutex
	seen   []string
}

// tokenError tells that no token was given, from an error of a call.
type tokenError struct {
	error
	network bool
}

// Token implements oauth2.TokenSource. Its errors never hold what was sent.
func (t *tokens) Token() (*oauth2.Token, error) {
	tok, err := t.source.Token()
	if err != nil {
		if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
			down := e.Response != nil && (e.Response.StatusCode >= 500 || e.Response.StatusCode == http.StatusTooManyRequests)
			return nil, &tokenError{fmt.Errorf("no access token is given: %s %s", e.ErrorCode, e.ErrorDescription), down}
		}
		if _, ok := errors.AsType[interface {
			error
			Timeout() bool
		}](err); ok {
			return nil, &tokenError{errors.New("the server that gives access tokens does not answer"), true}
		}
		return nil, &tokenError{errors.New("no access token is given"), false}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !slices.Contains(t.seen, tok.AccessToken) {
		if t.seen = append(t.seen, tok.AccessToken); len(t.seen) > 8 {
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

// call does one request, again where the platform asks for it. f is given the time for one attempt.
func (t *Target) call(ctx context.Context, what string, f func(ctx context.Context) error) error {
	return retry.Do(ctx, retry.Policy{Base: min(t.s.Backoff, 250*time.Millisecond), Max: t.s.Backoff}, func(ctx context.Context) error {
		one, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		err := f(one)
		if err == nil {
			return nil
		}
		after, err := t.fail(ctx, what, err)
		t.s.Log.Debug("Cloud Run call failed", "what", what, "error", err.Error())
		return retry.Later(err, after)
	})
}

// fail names the cause of a client's error. The text keeps Google's status and message without what is secret in it.
func (t *Target) fail(ctx context.Context, what string, err error) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, fmt.Errorf("Cloud Run: %s: %w", what, ctx.Err())
	}
	if e, ok := errors.AsType[*tokenError](err); ok {
		cause := deploy.ErrUnauthorized
		if e.network {
			cause = deploy.ErrUnavailable
		}
		return 0, fmt.Errorf("%w: Cloud Run: %s: %s", cause, what, t.tokens.redact(e.Error()))
	}
	e, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return 0, fmt.Errorf("%w: Cloud Run: %s: %s", deploy.ErrUnavailable, what, t.tokens.redact(err.Error()))
	}
	status, reasons := details(e)
	cause := causeOf(e.Code, status, reasons, e.Message)
	text := t.tokens.redact(strings.TrimSpace(fmt.Sprintf("%d %s: %s", e.Code, status, e.Message)))
	after := retry.After(e.Header, time.Now())
	if cause == nil {
		return after, fmt.Errorf("Cloud Run: %s: %s", what, text)
	}
	return after, fmt.Errorf("%w: Cloud Run: %s: %s", cause, what, text)
}

// details reads the status and the reasons of Google's error document.
func details(e *googleapi.Error) (status string, reasons []string) {
	var doc struct {
		Error struct {
			Status  string
			Details []struct{ Reason string }
		}
	}
	_ = json.Unmarshal([]byte(e.Body), &doc)
	for _, d := range doc.Error.Details {
		if d.Reason != "" {
			reasons = append(reasons, d.Reason)
		}
	}
	for _, x := range e.Errors {
		reasons = append(reasons, x.Reason)
	}
	return doc.Error.Status, reasons
}

// causeOf is nil where none of deploy's fits.
func causeOf(code int, status string, reasons []string, message string) error {
	low := strings.ToLower(message)
	paced := slices.ContainsFunc(reasons, func(r string) bool {
		return r == "RATE_LIMIT_EXCEEDED" || r == "rateLimitExceeded" || r == "userRateLimitExceeded"
	}) || strings.Contains(low, "per minute") || strings.Contains(low, "rate limit")
	switch {
	case code == http.StatusUnauthorized:
		return deploy.ErrUnauthorized
	case (code == http.StatusForbidden || code == http.StatusTooManyRequests) && paced:
		return deploy.ErrThrottled
	case code == http.StatusTooManyRequests || status == "RESOURCE_EXHAUSTED" || code == http.StatusForbidden && slices.Contains(reasons, "quotaExceeded"):
		if strings.Contains(low, "quota") || strings.Contains(low, "limit") || slices.Contains(reasons, "quotaExceeded") {
			return deploy.ErrQuota
		}
		return deploy.ErrThrottled
	case code == http.StatusForbidden:
		return deploy.ErrForbidden
	case code == http.StatusRequestEntityTooLarge:
		return deploy.ErrTooLarge
	case status == "ALREADY_EXISTS":
		return errExists
	case code == http.StatusConflict || code == http.StatusPreconditionFailed || status == "ABORTED":
		return errStale
	case code == http.StatusNotFound:
		return deploy.ErrGone
	case code >= 500:
		return deploy.ErrUnavailable
	}
	return textCause(low)
}

// textCause tells what only the words of a message tell; nil: nothing known. low is in small letters.
func textCause(low string) error {
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(low, w) })
	}
	switch {
	case has("must support amd64", "exec format error", "architecture"):
		return deploy.ErrPlatform
	case has("too large", "larger than", "exceeds the maximum", "size limit"):
		return deploy.ErrTooLarge
	case has("image") && has("not found", "does not exist", "permission to read", "cannot be accessed", "must have permission"):
		return fmt.Errorf("%w: %w", deploy.ErrRelease, ErrImage)
	case has("quota", "limit reached", "limit exceeded"):
		return deploy.ErrQuota
	}
	return nil
}

// conditionCause is why a revision does not come up, by its condition.
func conditionCause(c *run.GoogleCloudRunV2Condition) error {
	switch c.Reason {
	case "CONTAINER_MISSING", "CONTAINER_PERMISSION_DENIED", "CONTAINER_IMAGE_UNAUTHORIZED":
		return fmt.Errorf("%w: %w", deploy.ErrRelease, ErrImage)
	case "SECRETS_ACCESS_CHECK_FAILED", "ENCRYPTION_KEY_PERMISSION_DENIED", "CONTAINER_IMAGE_AUTHORIZATION_CHECK_FAILED":
		return deploy.ErrForbidden
	}
	if c.RevisionReason == "ACTIVE_REVISION_LIMIT_REACHED" {
		return deploy.ErrQuota
	}
	if c.RevisionReason != "HEALTH_CHECK_CONTAINER_ERROR" || strings.Contains(c.Message, "exec format error") {
		if cause := textCause(strings.ToLower(c.Message)); cause != nil {
			return cause
		}
	}
	return deploy.ErrUnhealthy
}
