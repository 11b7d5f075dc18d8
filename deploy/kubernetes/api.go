package kubernetes

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/redact"
)

var (
	errAbsent = errors.New("it does not exist")
	errStale  = errors.New("it was written in between") // the resourceVersion is an older one, or it exists already
)

// maxAnswer bounds what is read of an answer: a list of pods has some kilobytes each.
const maxAnswer = 32 << 20

func (t *Target) path(group, kind string) string {
	return group + "/namespaces/" + url.PathEscape(t.c.Namespace) + "/" + kind
}
func (t *Target) deployments() string { return t.path("/apis/apps/v1", "deployments") }
func (t *Target) services() string    { return t.path("/api/v1", "services") }
func (t *Target) replicaSets() string { return t.path("/apis/apps/v1", "replicasets") + t.query() }
func (t *Target) podList() string     { return t.path("/api/v1", "pods") + t.query() }
func (t *Target) query() string {
	return "?labelSelector=" + url.QueryEscape(labelApp+"="+t.c.Name)
}

func (t *Target) get(ctx context.Context, path string) (object, error) {
	return t.call(ctx, http.MethodGet, path, nil)
}

// call makes one request, again when the server asks for it or does not answer. Every request may be made twice: a write names the
// resourceVersion that it replaces, or creates a name.
func (t *Target) call(ctx context.Context, method, path string, body object) (out object, err error) {
	var token string
	if t.c.Token != nil {
		if token, err = t.c.Token(ctx); err != nil {
			return nil, fmt.Errorf("%w: %w", deploy.ErrUnauthorized, err)
		}
	}
	err = retry.Do(ctx, t.c.Retry, func(ctx context.Context) error {
		out = nil
		return t.once(ctx, method, path, token, body, &out)
	})
	return out, err
}

func (t *Target) once(ctx context.Context, method, path, token string, body object, out *object) error {
	var r io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return err
		}
		r = bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, t.c.URL+path, r)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	t.c.Log.Debug("kubernetes", "method", method, "path", path)
	resp, err := t.c.Client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if bad, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
			return fmt.Errorf("%s: the certificate does not verify: %w", t.c.URL, bad) // no repetition cures that
		}
		return fmt.Errorf("%w: %w", deploy.ErrUnavailable, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("%w: %w", deploy.ErrUnavailable, err)
	}
	if resp.StatusCode < 300 {
		if err := json.Unmarshal(raw, out); err != nil {
			return fmt.Errorf("%w: the answer to %s %s is no JSON: %w", deploy.ErrUnavailable, method, path, err)
		}
		return nil
	}
	var status struct{ Reason, Message string }
	_ = json.Unmarshal(raw, &status) // a proxy in between may answer with anything
	return refused(resp, method, path, status.Reason, redact.New(token).Text(status.Message))
}

// refused names what a status means.
func refused(resp *http.Response, method, path, reason, message string) error {
	var cause error
	switch code := resp.StatusCode; {
	case code == http.StatusUnauthorized:
		cause = deploy.ErrUnauthorized
	case code == http.StatusForbidden && strings.Contains(message, "exceeded quota"):
		cause = deploy.ErrQuota
	case code == http.StatusForbidden:
		cause = deploy.ErrForbidden
	case code == http.StatusNotFound:
		cause = errAbsent
	case code == http.StatusConflict:
		cause = errStale
	case code == http.StatusRequestEntityTooLarge:
		cause = deploy.ErrTooLarge
	case code == http.StatusUnprocessableEntity || code == http.StatusBadRequest:
		cause = deploy.ErrRelease
	case code == http.StatusTooManyRequests:
		cause = deploy.ErrThrottled
	case code >= 500:
		cause = deploy.ErrUnavailable
	default:
		cause = errors.New("an unknown answer")
	}
	err := fmt.Errorf("%w: %s %s: %d %s %s", cause, method, path, resp.StatusCode, reason, message)
	if d := retry.After(resp.Header, time.Now()); d > 0 {
		return retry.Later(err, d)
	}
	return err
}

// putService creates the Service or sets what differs.
func (t *Target) putService(ctx context.Context, s *state) error {
	want := t.service()
	for range 5 {
		var err error
		switch {
		case s.svc == nil:
			if _, err = t.call(ctx, http.MethodPost, t.services(), want); errors.Is(err, errAbsent) {
				return err // the namespace
			}
		case len(diff(want, s.svc, "")) == 0:
			return nil
		default:
			o := clone(s.svc)
			merge(o, want)
			_, err = t.call(ctx, http.MethodPut, t.services()+"/"+t.c.Name, o)
		}
		if !errors.Is(err, errStale) && !errors.Is(err, errAbsent) {
			return err
		}
		// The service is the same for every release: whoever wrote it wrote this one, or it is set right in the next round.
		if s.svc, err = t.get(ctx, t.services()+"/"+t.c.Name); err != nil && !errors.Is(err, errAbsent) {
			return err
		}
	}
	return fmt.Errorf("%w: service %s/%s is written all the time", deploy.ErrConflict, t.c.Namespace, t.c.Name)
}

// putDeployment writes want over the Deployment of s. The status changes the resourceVersion too: as long as the rest is as it was
// read, the write is made again; attempt tells that a write whose answer was lost came through.
// With whole the pod template is replaced instead of merged: a kept one comes back as it was.
func (t *Target) putDeployment(ctx context.Context, s *state, want object, attempt string, whole bool) error {
	was := s.dep
	now := was
	for range 20 {
		var err error
		if now == nil {
			o := clone(want)
			merge(o, object{"spec": map[string]any{"replicas": float64(t.c.Replicas)}})
			if _, err = t.call(ctx, http.MethodPost, t.deployments(), o); errors.Is(err, errAbsent) {
				return err // the namespace
			}
		} else {
			o := clone(now)
			if whole {
				delete(o.object("spec"), "template")
			}
			merge(o, want)
			delete(o, "status")
			_, err = t.call(ctx, http.MethodPut, t.deployments()+"/"+t.c.Name, o)
		}
		if !errors.Is(err, errStale) && !errors.Is(err, errAbsent) {
			return err
		}
		if now, err = t.get(ctx, t.deployments()+"/"+t.c.Name); err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		if now.text("metadata", "annotations", annAttempt) == attempt {
			return nil
		}
		if (&state{dep: now}).revision() != (&state{dep: was}).revision() {
			return fmt.Errorf("%w: deployment %s/%s", deploy.ErrConflict, t.c.Namespace, t.c.Name)
		}
	}
	return fmt.Errorf("%w: deployment %s/%s is written all the time", deploy.ErrConflict, t.c.Namespace, t.c.Name)
}
