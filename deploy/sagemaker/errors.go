package sagemaker

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/internal/redact"
)

// says tells whether the platform refused a request with a text: SageMaker has one code for most of its refusals.
func says(err error, text string) bool {
	var api smithy.APIError
	return errors.As(err, &api) && api.ErrorCode() == "ValidationException" && strings.Contains(strings.ToLower(api.ErrorMessage()), text)
}

func code(err error) string {
	var api smithy.APIError
	if errors.As(err, &api) {
		return api.ErrorCode()
	}
	return ""
}

// missing tells that a thing does not exist.
func missing(err error) bool {
	return says(err, "could not find") || code(err) == "ResourceNotFound"
}

// exists tells that a thing of this name was created before.
func exists(err error) bool { return says(err, "already exist") }

// busy tells that a change of the endpoint is under way.
func busy(err error) bool {
	return says(err, "in-progress") || code(err) == "ConflictException" || code(err) == "ResourceInUse"
}

// fail names the cause of an SDK's error. The text keeps the platform's code, message and request id, without what is secret in it:
// proxies and careless services quote requests.
func (t *Target) fail(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	text := err.Error()
	status, id := 0, ""
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		status, id = re.HTTPStatusCode(), re.ServiceRequestID()
	}
	code := ""
	var api smithy.APIError
	if errors.As(err, &api) {
		code = api.ErrorCode()
		text = fmt.Sprintf("%s: %s", code, api.ErrorMessage())
		if id != "" {
			text += " (request " + id + ")"
		}
	}
	cause := causeOf(code, status, text)
	if code == "" && cause == deploy.ErrUnavailable && (strings.Contains(text, "get identity") || strings.Contains(text, "credentials")) {
		cause = deploy.ErrUnauthorized // there are none, or their source does not give them
	}
	text = t.redactor(ctx).Text(text)
	if cause == nil {
		return fmt.Errorf("SageMaker: %s: %s", what, text)
	}
	return fmt.Errorf("%w: %s: %s", cause, what, text)
}

// causeOf is nil where none of deploy's fits.
func causeOf(code string, status int, text string) error {
	low := strings.ToLower(text)
	switch code {
	case "ConflictException", "ResourceInUse":
		return deploy.ErrBusy
	case "ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded":
		return deploy.ErrThrottled
	case "AccessDeniedException", "AccessDenied":
		return deploy.ErrForbidden
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId", "MissingAuthenticationTokenException",
		"MissingAuthenticationToken", "MissingAuthenticationTokenError", "IncompleteSignature", "SignatureDoesNotMatch", "NotAuthorized", "OptInRequired":
		return deploy.ErrUnauthorized
	case "ResourceLimitExceeded", "ServiceQuotaExceededException", "LimitExceededException":
		return deploy.ErrQuota
	case "ResourceNotFound":
		return deploy.ErrGone
	case "ValidationException", "ValidationError":
		if strings.Contains(low, "in-progress") {
			return deploy.ErrBusy
		}
		return textCause(low)
	}
	switch {
	case status == http.StatusTooManyRequests:
		return deploy.ErrThrottled
	case status == http.StatusUnauthorized:
		return deploy.ErrUnauthorized
	case status == http.StatusForbidden:
		return deploy.ErrForbidden
	case status == http.StatusRequestEntityTooLarge:
		return deploy.ErrTooLarge
	case status >= 500 || status == 0 && code == "":
		return deploy.ErrUnavailable
	}
	return nil
}

// textCause finds a cause in a message in lower case: those of refusals and FailureReasons, which have no codes. nil: none.
func textCause(low string) error {
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(low, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("architecture", "exec format error", "manifest media type", "unsupported manifest"):
		return deploy.ErrPlatform
	case has("greater than supported size", "larger than", "exceeds the maximum", "too large", "image size"):
		return deploy.ErrTooLarge
	case has("service limit", "service quota", "limit exceeded", "insufficientinstancecapacity", "insufficient capacity", "capacity error"):
		return deploy.ErrQuota
	case has("could not assume role", "not authorized", "access denied", "accessdenied", "does not grant", "pass role", "passrole"):
		return deploy.ErrForbidden
	case has("requested image", "repository does not exist", "image not found"):
		return deploy.ErrRelease
	}
	return nil
}

// failed is the error behind the reason that the platform gives for an update or creation that did not come to a good end.
func (t *Target) failed(ctx context.Context, what, reason string) error {
	cause := textCause(strings.ToLower(reason))
	if cause == nil {
		cause = deploy.ErrUnhealthy
	}
	if reason == "" {
		reason = "SageMaker gives no reason; the container's log is in CloudWatch under /aws/sagemaker/Endpoints/" + t.s.Endpoint
	}
	return fmt.Errorf("%w: %s: %s", cause, what, t.redactor(ctx).Text(reason))
}

func (t *Target) redactor(ctx context.Context) *redact.Redactor {
	if t.creds == nil {
		return redact.New()
	}
	c, err := t.creds.Retrieve(ctx)
	if err != nil {
		return redact.New()
	}
	return redact.New(c.SecretAccessKey, c.SessionToken, c.AccessKeyID)
}
