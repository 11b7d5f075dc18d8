package google_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"google.golang.org/api/googleapi"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func caller() *google.Caller {
	return google.New("Somewhere", oauth2.StaticTokenSource(&oauth2.Token{AccessToken: "t"}), time.Millisecond, slog.New(slog.DiscardHandler))
}

// What Google answers becomes the cause that deploy names.
func TestCauses(t *testing.T) {
	body := func(status, reason string) string {
		return fmt.Sprintf(`{"error":{"status":%q,"details":[{"reason":%q}]}}`, status, reason)
	}
	for _, x := range []struct {
		code                 int
		status, reason, says string
		want                 error
		calls                int
	}{
		{401, "UNAUTHENTICATED", "ACCESS_TOKEN_EXPIRED", "expired", deploy.ErrUnauthorized, 1},
		{403, "PERMISSION_DENIED", "IAM_PERMISSION_DENIED", "denied", deploy.ErrForbidden, 1},
		{403, "PERMISSION_DENIED", "rateLimitExceeded", "slow down", deploy.ErrThrottled, 6},
		{429, "RESOURCE_EXHAUSTED", "RATE_LIMIT_EXCEEDED", "Quota exceeded for requests per minute", deploy.ErrThrottled, 6},
		{429, "RESOURCE_EXHAUSTED", "", "The following quotas are exceeded: CPUs", deploy.ErrQuota, 1},
		{429, "", "", "Too many requests", deploy.ErrThrottled, 6},
		{404, "NOT_FOUND", "", "gone", deploy.ErrGone, 1},
		{409, "ALREADY_EXISTS", "", "taken", google.ErrExists, 1},
		{409, "ABORTED", "", "conflict", google.ErrStale, 1},
		{412, "", "", "precondition", google.ErrStale, 1},
		{400, "FAILED_PRECONDITION", "", "The etag x is not current", google.ErrStale, 1},
		{400, "FAILED_PRECONDITION", "", "There are other operations running on the Endpoint", deploy.ErrBusy, 1},
		{400, "INVALID_ARGUMENT", "", "Image a/b does not exist", google.ErrImage, 1},
		{400, "INVALID_ARGUMENT", "", "Container image is too large", deploy.ErrTooLarge, 1},
		{413, "", "", "", deploy.ErrTooLarge, 1},
		{400, "", "", "exec format error", deploy.ErrPlatform, 1},
		{503, "UNAVAILABLE", "", "later", deploy.ErrUnavailable, 6},
	} {
		calls := 0
		err := caller().Call(t.Context(), "do it", func(context.Context) error {
			calls++
			return &googleapi.Error{Code: x.code, Message: x.says, Body: body(x.status, x.reason)}
		})
		if !errors.Is(err, x.want) || calls != x.calls || !strings.HasPrefix(err.Error(), x.want.Error()) && x.want != google.ErrImage || !strings.Contains(err.Error(), "Somewhere: do it") {
			t.Errorf("%d %s %q: %v after %d calls", x.code, x.status, x.says, err, calls)
		}
	}
	for _, x := range []struct {
		code int64
		says string
		want error
	}{{7, "no", deploy.ErrForbidden}, {7, "image x: you must have permission", google.ErrImage}, {16, "no", deploy.ErrUnauthorized}, {8, "no", deploy.ErrQuota}, {14, "no", deploy.ErrUnavailable}, {3, "image too large", deploy.ErrTooLarge}} {
		if err := google.CodeCause(x.code, x.says); !errors.Is(err, x.want) {
			t.Errorf("%d %s: %v", x.code, x.says, err)
		}
	}
	if err := google.CodeCause(13, "internal"); err != nil {
		t.Error(err)
	}
}

func TestAwait(t *testing.T) {
	n := 0
	op, err := caller().Await(t.Context(), google.Operation{Name: "op"}, time.Millisecond, time.Now().Add(time.Minute), func(context.Context, string) (google.Operation, error) {
		n++
		return google.Operation{Name: "op", Done: n == 5, Failed: n == 5, Code: 9, Message: "why"}, nil
	})
	if err != nil || !op.Done || !op.Failed || op.Message != "why" || n != 5 {
		t.Errorf("%+v %v after %d", op, err, n)
	}
	op, err = caller().Await(t.Context(), google.Operation{Name: "op"}, time.Millisecond, time.Now().Add(20*time.Millisecond), func(context.Context, string) (google.Operation, error) {
		return google.Operation{Name: "op"}, nil
	})
	if err != nil || op.Done {
		t.Errorf("%+v %v when the time is over", op, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = caller().Await(ctx, google.Operation{Name: "op"}, time.Hour, time.Now().Add(time.Hour), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestLabel(t *testing.T) {
	d := artifact.DigestOf([]byte("x"))
	m := map[string]string{}
	google.Label(m, "k", d)
	if len(m["k"]) > 63 || google.Labelled(m, "k") != d || google.Labelled(m, "other") != "" {
		t.Errorf("%q", m)
	}
	m["k-rest"] = m["k-rest"][:31]
	if got := google.Labelled(m, "k"); got != "" {
		t.Errorf("half a digest is %q", got)
	}
}
