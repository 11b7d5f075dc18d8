package targettest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/internal/redact"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// defects of a target; each must be found by the suite.
type defects struct {
	tags, early, noMatch, noRetry, no429, quotes, logs, duplicates, oldest, noDrift, unnamed, gap, planWrites, noIDs,
	noCanary, wholeCanary, deaf, half, pretends, label, anyArch, blind, again, forgetful, hasty, noImage, lenient, wrongConflict, portable, claims bool
}

// boxTarget is a target for box.
type boxTarget struct {
	url, token string
	client     *http.Client
	log        *slog.Logger
	defects
}

const boxMemory = 512

func (t *boxTarget) call(ctx context.Context, method, path, match string, in, out any) error {
	if t.deaf {
		ctx = context.WithoutCancel(ctx)
	}
	p := retry.Policy{Attempts: 4, Base: time.Microsecond, Max: time.Millisecond}
	if t.noRetry {
		p.Attempts = 1
	}
	return retry.Do(ctx, p, func(ctx context.Context) error {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(ctx, method, t.url+path, bytes.NewReader(raw))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+t.token)
		if match != "" && !t.noMatch {
			req.Header.Set("If-Match", match)
		}
		if t.logs {
			t.log.Debug("call", "headers", req.Header)
		} else {
			t.log.Debug("call", "method", method, "path", path)
		}
		resp, err := t.client.Do(req)
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w: %w", deploy.ErrUnavailable, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return fmt.Errorf("%w: %w", deploy.ErrUnavailable, err)
		}
		if resp.StatusCode < 300 {
			if out == nil {
				return nil
			}
			return json.Unmarshal(body, out)
		}
		var e struct{ Code, Message string }
		_ = json.Unmarshal(body, &e)
		if !t.quotes {
			e.Message = redact.New(t.token).Text(e.Message)
		}
		cause := map[int]error{401: deploy.ErrUnauthorized, 403: deploy.ErrForbidden, 404: deploy.ErrGone, 409: errExists, 412: deploy.ErrConflict,
			413: deploy.ErrTooLarge, 422: deploy.ErrPlatform, 429: deploy.ErrThrottled, 503: deploy.ErrUnavailable}[resp.StatusCode]
		if e.Code == "QuotaExceeded" {
			cause = deploy.ErrQuota
		}
		if cause == nil || t.unnamed && cause == deploy.ErrForbidden || t.no429 && cause == deploy.ErrThrottled {
			return fmt.Errorf("status %d: %s", resp.StatusCode, e.Message)
		}
		return fmt.Errorf("%w: %s: %s", cause, e.Code, e.Message)
	})
}

var errExists = errors.New("it exists")

func (t *boxTarget) state(ctx context.Context) (*boxState, error) {
	var s boxState
	return &s, t.call(ctx, "GET", "/", "", nil, &s)
}

func (s *boxState) rev(id string) *boxRev { return (&box{revs: s.Revisions}).rev(id) }

// serves is the revision with the largest share.
func (s *boxState) serves() string {
	ids := slices.SortedFunc(maps.Keys(s.Service.Shares), func(a, b string) int { return s.Service.Shares[b] - s.Service.Shares[a] })
	if len(ids) == 0 {
		return ""
	}
	return ids[0]
}

func (s *boxState) digest(id string) artifact.Digest {
	if r := s.rev(id); r != nil {
		return r.Digest
	}
	return ""
}

func (t *boxTarget) Status(ctx context.Context) (*deploy.Status, error) {
	s, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Exists: s.Service.Etag > 0, Revision: strconv.Itoa(s.Service.Etag), Settled: true, Healthy: true}
	for _, r := range slices.Backward(s.Revisions) {
		x := deploy.Share{Digest: r.Digest, Image: r.Image, ID: r.ID, Weight: s.Service.Shares[r.ID]}
		x.Canary = r.ID == s.Service.Canary && x.Weight < 100
		if x.Weight > 0 {
			out.Shares = append(out.Shares, x)
		} else if r.State == "ready" {
			out.Kept = append(out.Kept, x)
		}
	}
	slices.SortStableFunc(out.Shares, func(a, b deploy.Share) int { return cmp.Compare(b.Weight, a.Weight) })
	return out, nil
}

// name of the revision of a release.
func (t *boxTarget) name(d artifact.Digest) string {
	return "r-" + fmt.Sprintf("%.19s", d)[min(len(d), 7):]
}

// wanted is the service document after r.
func (t *boxTarget) wanted(s *boxState, r deploy.Release, id string) boxService {
	to := boxService{Etag: s.Service.Etag, Shares: map[string]int{id: 100}, Memory: boxMemory, Previous: s.Service.Previous}
	serves := s.serves()
	stable := serves
	for other := range s.Service.Shares {
		if s.Service.Canary == serves && other != serves { // the canary has the larger share
			stable = other
		}
	}
	if stable != "" && stable != id {
		to.Previous = stable
	}
	if r.Weight%100 != 0 && stable != "" && stable != id && !t.wholeCanary {
		to.Shares, to.Canary = map[string]int{stable: 100 - r.Weight, id: r.Weight}, id
	}
	return to
}

func (t *boxTarget) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := r.Check(true, false); err != nil && !t.tags {
		return nil, err
	}
	if t.noCanary && r.Weight%100 != 0 && !t.wholeCanary {
		return nil, fmt.Errorf("%w: the platform has no canaries", deploy.ErrRelease)
	}
	arch := "amd64"
	if t.portable {
		arch = "wasm"
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, arch) && !t.anyArch {
		return nil, fmt.Errorf("%w: %q", deploy.ErrPlatform, r.Arches)
	}
	s, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	p := &deploy.Plan{Release: r, From: s.digest(s.serves()), Revision: strconv.Itoa(s.Service.Etag), Create: s.Service.Etag == 0, State: s}
	id := t.name(r.Digest)
	if t.label && len(s.Revisions) > 0 { // takes what is there for what is wanted
		id = s.Revisions[0].ID
	}
	to := t.wanted(s, r, id)
	if !maps.Equal(to.Shares, s.Service.Shares) || t.again {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", Old: fmt.Sprint(s.Service.Shares), New: fmt.Sprint(to.Shares, t.again)})
	}
	if s.Service.Etag > 0 && s.Service.Memory != boxMemory && !t.noDrift {
		ch := deploy.Change{Field: "memory", Old: strconv.Itoa(s.Service.Memory), New: strconv.Itoa(boxMemory)}
		p.Drift, p.Changes = append(p.Drift, ch), append(p.Changes, ch)
	}
	if t.planWrites && s.Service.Etag == 0 {
		_ = t.call(ctx, "POST", "/revisions/"+id, "", boxRev{Image: r.Image, Digest: r.Digest}, nil)
	}
	return p, nil
}

// ready makes the revision of r and waits for it.
func (t *boxTarget) ready(ctx context.Context, r deploy.Release, id string) error {
	s, err := t.state(ctx)
	if err != nil {
		return err
	}
	if x := s.rev(id); x != nil && x.State == "failed" {
		if err := t.call(ctx, "DELETE", "/revisions/"+id, "", nil, nil); err != nil {
			return err
		}
		x = nil
	}
	if s.rev(id) == nil || s.rev(id).State == "failed" {
		err := t.call(ctx, "POST", "/revisions/"+id, "", boxRev{Image: r.Image, Digest: r.Digest}, nil)
		if err != nil && !errors.Is(err, errExists) {
			return err
		}
	}
	if t.hasty {
		return nil
	}
	return t.wait(ctx, id, r.Wait)
}

func (t *boxTarget) wait(ctx context.Context, id string, wait time.Duration) error {
	for end := time.Now().Add(wait); ; {
		s, err := t.state(ctx)
		if err != nil {
			return err
		}
		x := s.rev(id)
		switch {
		case x == nil:
			return fmt.Errorf("%w: revision %s was deleted", deploy.ErrConflict, id)
		case x.State == "ready":
			return nil
		case x.State == "failed":
			return fmt.Errorf("%w: revision %s failed", deploy.ErrUnhealthy, id)
		case time.Now().After(end):
			return fmt.Errorf("%w: revision %s is %s after %s", deploy.ErrUnhealthy, id, x.State, wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

func (t *boxTarget) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	r := p.Release
	if err := r.Check(true, false); err != nil && !t.tags {
		return nil, err
	}
	if ctx.Err() != nil && !t.deaf {
		return nil, ctx.Err()
	}
	s := p.State.(*boxState)
	id := t.name(r.Digest)
	if t.label && len(s.Revisions) > 0 {
		id = s.Revisions[0].ID
	}
	if t.duplicates {
		id += "-" + strconv.Itoa(len(s.Revisions))
	}
	out := t.outcome(s, id, r.Digest, r.Image)
	if len(p.Changes) == 0 {
		out.Weight = s.Service.Shares[id]
		return out, nil
	}
	now, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	if strconv.Itoa(now.Service.Etag) != p.Revision && !t.blind {
		return nil, fmt.Errorf("%w: %d, planned at %s", deploy.ErrConflict, now.Service.Etag, p.Revision)
	}
	to := t.wanted(s, r, id)
	if t.forgetful {
		to.Previous = s.Service.Previous
	}
	if t.early { // traffic before health
		if err := t.call(ctx, "POST", "/revisions/"+id, "", boxRev{Image: r.Image, Digest: r.Digest}, nil); err != nil && !errors.Is(err, errExists) {
			return nil, err
		}
		return out, cmp.Or(t.put(ctx, p.Revision, to), t.wait(ctx, id, r.Wait))
	}
	if err := t.ready(ctx, r, id); err != nil {
		if t.half && total(s.Service.Shares) == 100 && !errors.Is(err, errExists) {
			to.Shares = map[string]int{s.serves(): 50}
			_ = t.put(ctx, p.Revision, to)
		}
		return nil, err
	}
	if t.gap && s.serves() != "" {
		none := to
		none.Shares = map[string]int{}
		if err := t.put(ctx, p.Revision, none); err != nil {
			return nil, err
		}
		p.Revision = strconv.Itoa(s.Service.Etag + 1)
	}
	if err := t.put(ctx, p.Revision, to); err != nil {
		return nil, err
	}
	out.Changed, out.Weight = true, to.Shares[id]
	return out, nil
}

func (t *boxTarget) outcome(s *boxState, id string, d artifact.Digest, image string) *deploy.Outcome {
	out := &deploy.Outcome{Digest: d, Previous: s.digest(s.serves()), Image: image, IDs: map[string]string{"revision": id}}
	if t.noIDs {
		out.IDs = nil
	}
	if t.noImage {
		out.Image = ""
	}
	return out
}

// put writes the service document. When the answer was lost, the repetition finds another etag, and the document that it wanted.
func (t *boxTarget) put(ctx context.Context, etag string, to boxService) error {
	err := t.call(ctx, "PUT", "/", etag, to, nil)
	if !errors.Is(err, deploy.ErrConflict) {
		return err
	}
	if t.lenient {
		return nil
	}
	s, serr := t.state(ctx)
	if serr != nil {
		return serr
	}
	if maps.Equal(s.Service.Shares, to.Shares) && s.Service.Memory == to.Memory {
		return nil
	}
	if t.wrongConflict {
		return deploy.ErrUnavailable
	}
	return err
}

func (t *boxTarget) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	s, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	serves := s.serves()
	id := s.Service.Previous
	if t.oldest && len(s.Revisions) > 0 {
		id = s.Revisions[0].ID
	}
	if to != "" {
		id = t.name(to)
	}
	x := s.rev(id)
	if x == nil {
		if t.pretends {
			return t.outcome(s, id, to, ""), nil
		}
		if id == "" || to != "" {
			return nil, fmt.Errorf("%w: %s", deploy.ErrNotFound, to)
		}
		return nil, fmt.Errorf("%w: %s", deploy.ErrGone, id)
	}
	out := t.outcome(s, id, x.Digest, x.Image)
	if s.Service.Shares[id] == 100 {
		out.Weight = 100
		return out, nil
	}
	if x.State != "ready" {
		return nil, fmt.Errorf("%w: revision %s is %s", deploy.ErrUnhealthy, id, x.State)
	}
	doc := boxService{Shares: map[string]int{id: 100}, Memory: boxMemory, Previous: serves}
	if serves == id {
		doc.Previous = s.Service.Previous
	}
	if err := t.put(ctx, strconv.Itoa(s.Service.Etag), doc); err != nil {
		return nil, err
	}
	out.Changed, out.Weight = true, 100
	return out, nil
}

func (t *boxTarget) Promote(ctx context.Context, _ time.Duration) (*deploy.Outcome, error) {
	s, err := t.state(ctx)
	if err != nil {
		return nil, err
	}
	id := s.Service.Canary
	if id == "" {
		out := t.outcome(s, s.serves(), s.digest(s.serves()), "")
		out.Weight = 100
		return out, nil
	}
	x := s.rev(id)
	doc := boxService{Shares: map[string]int{id: 100}, Memory: boxMemory, Previous: s.Service.Previous}
	out := t.outcome(s, id, x.Digest, x.Image)
	out.Previous = s.digest(s.Service.Previous)
	if err := t.put(ctx, strconv.Itoa(s.Service.Etag), doc); err != nil {
		return nil, err
	}
	out.Changed, out.Weight = true, 100
	return out, nil
}
