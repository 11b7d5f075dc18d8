package cloudflare

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/diag"
)

// defaultWait is how long a preview may take to answer.
const defaultWait = 2 * time.Minute

// healthy asks a version's preview until it is ready, which it is when it has checked its documents and proven its module. A Worker that
// says that it is not ready never will be.
func (t *Target) healthy(ctx context.Context, id string, wait time.Duration) error {
	if t.cfg.Preview == "" {
		return nil
	}
	if wait == 0 {
		wait = defaultWait
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		ready, err := t.ask(ctx, id)
		if ready || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timer.C:
			return diag.Errorf("its preview does not answer after %s: %w", wait, deploy.ErrUnhealthy)
		case <-time.After(t.cfg.Poll):
		}
	}
}

// ask gives false where there is no preview yet.
func (t *Target) ask(ctx context.Context, id string) (ready bool, err error) {
	address := strings.ReplaceAll(t.cfg.Preview, "{version}", id[:min(len(id), 8)]) + "/v2/health/ready"
	err = retry.Do(ctx, t.cfg.Retry, func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		res, err := t.cfg.HTTP.Do(req) // without the token: a preview is not the API
		if err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return diag.Errorf("the preview: %w: %w", deploy.ErrUnavailable, errors.Unwrap(err))
		}
		defer func() { _ = res.Body.Close() }()
		raw, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
		if err != nil {
			return diag.Errorf("the preview: %w: %w", deploy.ErrUnavailable, err)
		}
		var says struct {
			Ready *bool `json:"ready"`
		}
		own := json.Unmarshal(raw, &says) == nil && says.Ready != nil
		switch {
		case res.StatusCode == http.StatusOK && own && *says.Ready:
			ready = true
			return nil
		case own:
			return diag.Errorf("it says that it is not ready: its log tells why: %w", deploy.ErrUnhealthy)
		case res.StatusCode == http.StatusNotFound:
			return nil
		}
		return t.failure("the preview", res.StatusCode, res.Header, nil)
	})
	return ready, err
}
