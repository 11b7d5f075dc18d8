package google

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

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/redact"
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

// fail names the cause of a client's error. The text keeps Google's status and message without what is secret in it.
func (c *Caller) fail(ctx context.Context, what string, err error) (time.Duration, error) {
	if ctx.Err() != nil {
		return 0, fmt.Errorf("%s: %s: %w", c.platform, what, ctx.Err())
	}
	if e, ok := errors.AsType[*tokenError](err); ok {
		cause := deploy.ErrUnauthorized
		if e.network {
			cause = deploy.ErrUnavailable
		}
		return 0, fmt.Errorf("%w: %s: %s: %s", cause, c.platform, what, c.tokens.redact(e.Error()))
	}
	e, ok := errors.AsType[*googleapi.Error](err)
	if !ok {
		return 0, fmt.Errorf("%w: %s: %s: %s", deploy.ErrUnavailable, c.platform, what, c.tokens.redact(err.Error()))
	}
	status, reasons := details(e)
	cause := causeOf(e.Code, status, reasons, e.Message)
	text := c.tokens.redact(strings.TrimSpace(fmt.Sprintf("%d %s: %s", e.Code, status, e.Message)))
	after := retry.After(e.Header, time.Now())
	if cause == nil {
		return after, fmt.Errorf("%s: %s: %s", c.platform, what, text)
	}
	return after, fmt.Errorf("%w: %s: %s: %s", cause, c.platform, what, text)
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
		return ErrExists
	case code == http.StatusConflict || code == http.StatusPreconditionFailed || status == "ABORTED":
		return ErrStale
	case code == http.StatusNotFound:
		return deploy.ErrGone
	case code >= 500:
		return deploy.ErrUnavailable
	}
	return TextCause(message)
}

// TextCause tells what only the words of a message tell; nil: nothing known.
func TextCause(message string) error {
	low := strings.ToLower(message)
	has := func(words ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(low, w) })
	}
	switch {
	case has("must support amd64", "exec format error", "architecture"):
		return deploy.ErrPlatform
	case has("etag"):
		return ErrStale
	case has("other operations running", "another operation is in progress", "operation in progress"):
		return deploy.ErrBusy
	case has("too large", "larger than", "exceeds the maximum", "size limit"):
		return deploy.ErrTooLarge
	case has("image") && has("not found", "cannot be found", "does not exist", "permission to read", "cannot be accessed", "must have permission"):
		return fmt.Errorf("%w: %w", deploy.ErrRelease, ErrImage)
	case has("quota", "limit reached", "limit exceeded"):
		return deploy.ErrQuota
	}
	return nil
}

// CodeCause is the cause of an operation that failed, by its code of google.rpc.Code and its words; nil: nothing known.
func CodeCause(code int64, message string) error {
	switch code {
	case 7, 16:
		if cause := TextCause(message); cause != nil { // an image that the platform may not read
			return cause
		}
		if code == 16 {
			return deploy.ErrUnauthorized
		}
		return deploy.ErrForbidden
	case 8:
		return deploy.ErrQuota
	case 14:
		return deploy.ErrUnavailable
	}
	return TextCause(message)
}

// Missing tells whether a client's error says that the resource is not there.
func Missing(err error) bool {
	e, ok := errors.AsType[*googleapi.Error](err)
	return ok && e.Code == http.StatusNotFound
}
