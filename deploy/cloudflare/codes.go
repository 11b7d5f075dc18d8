package cloudflare

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/waybill-ml/waybill/deploy"
)

// errAbsent says that the API knows no such script or version.
var errAbsent = errors.New("there is no such thing")

// meaning is what a code of the API says beyond the status.
type meaning struct {
	is   error // nil: none of package deploy's errors
	hint string
}

// meanings has the codes that Cloudflare documents: under "Errors on Worker upload" (developers.cloudflare.com/workers/observability/errors),
// and with the scripts' operations in its OpenAPI description; 6111, 7003, 9106 and 9109 are those of the API's front, which its own client
// wrangler shows with these texts. A code that is not here means what its status means, and the platform's words stand.
func meanings() map[int]meaning {
	const token = "CLOUDFLARE_API_TOKEN "
	return map[int]meaning{
		6111:  {deploy.ErrUnauthorized, token + "does not have the form of a token"},
		9106:  {deploy.ErrUnauthorized, "the token did not arrive: does something in between take headers away?"},
		9109:  {deploy.ErrUnauthorized, token + "is wrong, has expired, or may not be used from this address"},
		10000: {deploy.ErrUnauthorized, token + "is wrong, has expired, or may not edit the Workers scripts of this account"},
		7003:  {nil, "is the account's id right?"},
		10015: {deploy.ErrForbidden, "the account is not entitled to Workers"},
		10023: {deploy.ErrForbidden, ""},
		10007: {errAbsent, ""},
		10018: {deploy.ErrConflict, ""},
		10035: {deploy.ErrBusy, ""},
		10037: {deploy.ErrQuota, "the account has as many Workers as it may have"},
		10075: {deploy.ErrQuota, "this needs the plan Workers Paid"},
		10027: {deploy.ErrTooLarge, ""},
		10021: {deploy.ErrUnhealthy, "the Worker does not load within the time that a start may take"},
		10006: {deploy.ErrRelease, "the Worker's code cannot be parsed"},
		10068: {deploy.ErrRelease, "the Worker has no handler"},
		10069: {deploy.ErrRelease, "the Worker has a handler that the platform does not know"},
	}
}

// meant is the first of the errors that has a meaning, or what the status means.
func meant(status int, errs []apiError) meaning {
	known := meanings()
	for _, e := range errs {
		for _, x := range append([]apiError{e}, e.Chain...) {
			if m, ok := known[x.Code]; ok {
				return m
			}
		}
	}
	switch {
	case status == http.StatusUnauthorized:
		return meaning{is: deploy.ErrUnauthorized}
	case status == http.StatusForbidden:
		return meaning{is: deploy.ErrForbidden}
	case status == http.StatusNotFound:
		return meaning{is: errAbsent}
	case status == http.StatusRequestEntityTooLarge:
		return meaning{is: deploy.ErrTooLarge}
	case status == http.StatusTooManyRequests:
		return meaning{is: deploy.ErrThrottled}
	case status >= 500:
		return meaning{is: deploy.ErrUnavailable}
	}
	return meaning{}
}

// said is the platform's words, with its codes.
func (t *Target) said(status int, errs []apiError) string {
	if len(errs) == 0 {
		return http.StatusText(status)
	}
	text := fmt.Sprintf("%s (code %d)", t.clean(errs[0].Message), errs[0].Code)
	for _, x := range errs[0].Chain {
		text += fmt.Sprintf(": %s (code %d)", t.clean(x.Message), x.Code)
	}
	return text
}
