package awslambda

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/internal/redact"
)

func missing(err error) bool {
	var e *types.ResourceNotFoundException
	return errors.As(err, &e)
}

// stale tells that the revision id of a request is no longer the platform's.
func stale(err error) bool {
	var e *types.PreconditionFailedException
	return errors.As(err, &e)
}

// busy tells that the thing exists, or is being changed.
func busy(err error) bool {
	var e *types.ResourceConflictException
	return errors.As(err, &e)
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
		return fmt.Errorf("Lambda: %s: %s", what, text)
	}
	return fmt.Errorf("%w: %s: %s", cause, what, text)
}

// causeOf is nil where none of deploy's fits.
func causeOf(code string, status int, text string) error {
	low := strings.ToLower(text)
	switch code {
	case "PreconditionFailedException":
		return deploy.ErrConflict
	case "ResourceConflictException", "ResourceInUseException", "ResourceNotReadyException":
		return deploy.ErrBusy
	case "TooManyRequestsException", "ThrottlingException", "Throttling", "RequestLimitExceeded", "EC2ThrottledException":
		return deploy.ErrThrottled
	case "AccessDeniedException", "AccessDenied", "KMSAccessDeniedException":
		return deploy.ErrForbidden
	case "ExpiredTokenException", "ExpiredToken", "UnrecognizedClientException", "InvalidSignatureException", "InvalidClientTokenId", "MissingAuthenticationTokenException",
		"MissingAuthenticationToken", "IncompleteSignature", "SignatureDoesNotMatch", "NotAuthorized", "OptInRequired":
		return deploy.ErrUnauthorized
	case "CodeStorageExceededException", "ServiceQuotaExceededException", "LimitExceededException":
		return deploy.ErrQuota
	case "RequestEntityTooLargeException", "RequestTooLargeException":
		return deploy.ErrTooLarge
	case "InvalidParameterValueException", "ValidationException":
		switch {
		case strings.Contains(low, "architecture"), strings.Contains(low, "media type"):
			return deploy.ErrPlatform
		case strings.Contains(low, "smaller than"), strings.Contains(low, "larger than"), strings.Contains(low, "exceeds the maximum"), strings.Contains(low, "too large"):
			return deploy.ErrTooLarge
		}
		return nil
	case "ResourceNotFoundException":
		return deploy.ErrGone
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

// reasonOf is the cause behind a state of Failed.
func reasonOf(code, text string) error {
	low := strings.ToLower(text)
	switch {
	case strings.Contains(code, "QuotaExceeded"), strings.HasSuffix(code, "LimitExceeded"), code == "SubnetOutOfIPAddresses":
		return deploy.ErrQuota
	case code == "InvalidImage" && (strings.Contains(low, "architecture") || strings.Contains(low, "media type")):
		return deploy.ErrPlatform
	}
	return deploy.ErrUnhealthy
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
