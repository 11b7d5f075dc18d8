package retry

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/deploy"
)

var quick = Policy{Attempts: 4, Base: time.Microsecond, Max: time.Millisecond}

func TestDo(t *testing.T) {
	slow := fmt.Errorf("code 429: %w", deploy.ErrThrottled)
	down := fmt.Errorf("code 503: %w", deploy.ErrUnavailable)
	for name, c := range map[string]struct {
		answers []error
		calls   int
		want    error
	}{
		"at once":        {[]error{nil}, 1, nil},
		"third time":     {[]error{slow, down, nil}, 3, nil},
		"never":          {[]error{down, down, down, slow, nil}, 4, deploy.ErrThrottled},
		"forbidden":      {[]error{deploy.ErrForbidden, nil}, 1, deploy.ErrForbidden},
		"then forbidden": {[]error{slow, deploy.ErrForbidden, nil}, 2, deploy.ErrForbidden},
		"soon":           {[]error{Later(slow, time.Millisecond), nil}, 2, nil},
		"in an hour":     {[]error{Later(slow, time.Hour), nil}, 1, deploy.ErrThrottled},
	} {
		n := 0
		err := Do(t.Context(), quick, func(context.Context) error { n++; return c.answers[n-1] })
		if n != c.calls || !errors.Is(err, c.want) {
			t.Errorf("%s: %d calls, %v; want %d, %v", name, n, err, c.calls, c.want)
		}
	}
}

// A context that ends in a wait ends it, and the cause of the wait is told.
func TestDoCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n := 0
	err := Do(ctx, Policy{Base: time.Hour, Max: time.Hour}, func(context.Context) error { n++; cancel(); return deploy.ErrThrottled })
	if n != 1 || !errors.Is(err, context.Canceled) || !errors.Is(err, deploy.ErrThrottled) {
		t.Errorf("%d calls, %v", n, err)
	}
	if err := Do(ctx, quick, func(context.Context) error { n++; return nil }); n != 1 || !errors.Is(err, context.Canceled) {
		t.Errorf("%d calls, %v", n, err)
	}
}

func TestAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "3": 3 * time.Second, "-3": 0, "soon": 0, "Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := After(http.Header{"Retry-After": {v}}, now); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}
