// Package kubernetes is the target of plain Kubernetes: one Deployment and one Service. The Deployment's rollout keeps the old pods
// until the new ones are ready (maxUnavailable 0); the ReplicaSets that it keeps are what can be rolled back to. Which artifact a
// pod runs stands in its annotations.
//
// What the target sets is compared with what is there field by field; fields that others set (an autoscaler the replicas, a mesh its
// annotations) are left alone. A write names the resourceVersion that it was made from.
package kubernetes

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Config is one target. Name and Namespace are names of Kubernetes; all else has defaults.
type Config struct {
	URL       string                                    // of the API server
	Client    *http.Client                              // that trusts it
	Token     func(ctx context.Context) (string, error) // bearer token; nil: the client authenticates itself
	Namespace string
	Name      string        // of Deployment and Service
	Replicas  int           // at creation only, 1; later they are the autoscaler's or the operator's
	Arch      string        // of the nodes, as GOARCH names it: amd64
	Memory    string        // 512Mi
	CPU       string        // 500m
	Port      int           // of the Service, 80
	Poll      time.Duration // between looks at a rollout, 2s
	Retry     retry.Policy
	Log       *slog.Logger
}

// Annotations of Deployment and pod template.
const (
	annDigest   = "waybill.dev/digest"
	annModel    = "waybill.dev/model"
	annPrevious = "waybill.dev/previous" // digest that served before
	annSettings = "waybill.dev/settings" // hash of what the settings asked for
	annAttempt  = "waybill.dev/attempt"  // of the last write, so that its lost answer is recognised
	labelApp    = "app.kubernetes.io/name"

	container   = "model"
	servePort   = 8080
	defaultWait = 5 * time.Minute
)

// Target implements deploy.Target.
type Target struct{ c Config }

// New checks c and fills in defaults. It contacts nobody.
func New(c Config) (*Target, error) {
	if c.URL == "" || c.Client == nil {
		return nil, errors.New("the API server's address or the client is missing")
	}
	for what, s := range map[string]string{"namespace": c.Namespace, "name": c.Name} {
		if !nameRE.MatchString(s) {
			return nil, fmt.Errorf("%s %q: small letters, digits and hyphens, a letter first, at most 63", what, s)
		}
	}
	c.Replicas, c.Port, c.Poll = cmp.Or(c.Replicas, 1), cmp.Or(c.Port, 80), cmp.Or(c.Poll, 2*time.Second)
	c.Arch = cmp.Or(c.Arch, "amd64")
	if c.Replicas < 1 || c.Port < 1 || c.Port > 65535 {
		return nil, fmt.Errorf("replicas %d, port %d", c.Replicas, c.Port)
	}
	var err error
	if c.Memory, err = quantity(cmp.Or(c.Memory, "512Mi")); err != nil {
		return nil, fmt.Errorf("memory: %w", err)
	}
	if c.CPU, err = quantity(cmp.Or(c.CPU, "500m")); err != nil {
		return nil, fmt.Errorf("cpu: %w", err)
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Target{c: c}, nil
}

// state is what was read of the cluster.
type state struct {
	dep, svc object // nil: absent
	sets     []object
}

func (t *Target) read(ctx context.Context) (*state, error) {
	s := &state{}
	var err error
	if s.dep, err = t.get(ctx, t.deployments()+"/"+t.c.Name); err != nil && !errors.Is(err, errAbsent) {
		return nil, err
	}
	if s.svc, err = t.get(ctx, t.services()+"/"+t.c.Name); err != nil && !errors.Is(err, errAbsent) {
		return nil, err
	}
	if s.dep == nil {
		return s, nil
	}
	list, err := t.get(ctx, t.replicaSets())
	if err != nil {
		return nil, err
	}
	for _, x := range list.list("items") {
		if owner := object(x).list("metadata", "ownerReferences"); len(owner) == 1 && object(owner[0]).text("uid") == s.dep.text("metadata", "uid") {
			s.sets = append(s.sets, x)
		}
	}
	return s, nil
}

// shares are the digests whose pods answer, and those that are kept.
func (s *state) shares() (serve, kept []deploy.Share) {
	total := 0
	for _, x := range s.sets {
		total += x.number("status", "availableReplicas")
	}
	byAge := slices.Clone(s.sets)
	slices.SortStableFunc(byAge, func(a, b object) int { return revisionOf(b) - revisionOf(a) })
	left := 100
	for _, x := range byAge {
		since, _ := time.Parse(time.RFC3339, x.text("metadata", "creationTimestamp"))
		sh := deploy.Share{Digest: digestOf(x.object("spec", "template")), Image: imageOf(x), ID: x.text("metadata", "name"), Since: since}
		if n := x.number("status", "availableReplicas"); n > 0 {
			sh.Weight = n * 100 / total
			left -= sh.Weight
			serve = append(serve, sh)
		} else {
			kept = append(kept, sh)
		}
	}
	if len(serve) > 0 {
		serve[0].Weight += left // of the rounding
	}
	slices.SortStableFunc(serve, func(a, b deploy.Share) int { return b.Weight - a.Weight })
	return serve, kept
}

func digestOf(template object) artifact.Digest {
	d, err := artifact.ParseDigest(template.text("metadata", "annotations", annDigest))
	if err != nil {
		return ""
	}
	return d
}

func imageOf(x object) string {
	if c := x.list("spec", "template", "spec", "containers"); len(c) > 0 {
		return object(c[0]).text("image")
	}
	return ""
}

// running is the digest with the largest share.
func (s *state) running() artifact.Digest {
	serve, _ := s.shares()
	return (&deploy.Status{Shares: serve}).Running()
}

// set gives the newest ReplicaSet of a digest.
func (s *state) set(d artifact.Digest) object {
	var out object
	for _, x := range s.sets {
		if digestOf(x.object("spec", "template")) == d && (out == nil || revisionOf(x) > revisionOf(out)) {
			out = x
		}
	}
	return out
}

// revision names the state that a plan is made of: the spec and our annotations. The replicas and the status are left out, since
// autoscalers and the rollout itself change them.
func (s *state) revision() string {
	spec := clone(s.dep.object("spec"))
	delete(spec, "replicas")
	raw, _ := json.Marshal([]any{s.dep.text("metadata", "uid"), spec, s.dep.text("metadata", "annotations", annAttempt), s.dep.text("metadata", "annotations", annDigest), s.svc.object("spec")})
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:12])
}

// settled tells whether the rollout of the current spec came to its end.
func (s *state) settled() bool {
	d := s.dep
	n := d.number("spec", "replicas")
	return d.number("status", "observedGeneration") >= d.number("metadata", "generation") && d.number("status", "updatedReplicas") == n &&
		d.number("status", "replicas") == n && d.number("status", "availableReplicas") == n
}

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) {
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.dep == nil {
		return &deploy.Status{Revision: s.revision(), State: "absent", Settled: true}, nil
	}
	out := &deploy.Status{Exists: true, Revision: s.revision(), Settled: s.settled(), URL: fmt.Sprintf("http://%s.%s.svc:%d", t.c.Name, t.c.Namespace, t.c.Port)}
	out.Shares, out.Kept = s.shares()
	out.Healthy, out.State = out.Settled, "Available"
	if !out.Settled {
		out.State = "Progressing"
		if err := failure(s.dep); err != nil {
			out.State, out.Reason = "Failed", err.Error()
		}
	}
	return out, nil
}

// Plan implements deploy.Target.
func (t *Target) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := t.check(r); err != nil {
		return nil, err
	}
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	p := &deploy.Plan{Release: r, From: s.running(), Revision: s.revision(), Create: s.dep == nil}
	if s.dep == nil {
		p.Changes = append(p.Changes, deploy.Change{Field: "deployment", New: t.c.Namespace + "/" + t.c.Name}, deploy.Change{Field: "image", New: r.Image})
	} else {
		settings := s.dep.text("metadata", "annotations", annSettings) == t.settings()
		for _, ch := range diff(t.deployment(r), s.dep, "") {
			if ch.Field == "metadata.annotations."+annSettings {
				continue
			}
			p.Changes = append(p.Changes, ch)
			// A field of the settings that differs although the settings are those of the last write was changed by somebody else.
			if settings && !ofRelease(ch.Field) {
				p.Drift = append(p.Drift, ch)
			}
		}
	}
	if s.svc == nil {
		p.Changes = append(p.Changes, deploy.Change{Field: "service", New: t.c.Namespace + "/" + t.c.Name})
	} else {
		ds := diff(t.service(), s.svc, "service.")
		p.Changes, p.Drift = append(p.Changes, ds...), append(p.Drift, ds...)
	}
	if len(p.Changes) == 0 && !s.settled() {
		p.Changes = append(p.Changes, deploy.Change{Field: "rollout", Old: "not finished", New: "finished"})
	}
	return p, nil
}

func (t *Target) check(r deploy.Release) error {
	if r.Weight%100 != 0 {
		return fmt.Errorf("%w: a Deployment has no weights", deploy.ErrRelease)
	}
	return t.checkImage(r)
}

// Apply implements deploy.Target.
func (t *Target) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	if err := t.check(p.Release); err != nil {
		return nil, err
	}
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if s.revision() != p.Revision {
		return nil, fmt.Errorf("%w: deployment %s/%s", deploy.ErrConflict, t.c.Namespace, t.c.Name)
	}
	if len(p.Changes) == 0 {
		return t.outcome(s, p.Release.Digest, p.Release.Image, p.From), nil
	}
	if err := t.putService(ctx, s); err != nil {
		return nil, err
	}
	want := t.deployment(p.Release)
	return t.move(ctx, s, want, false, p.Release.Digest, p.Release.Image, p.Release.Wait)
}

// Rollback implements deploy.Target.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	s, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	cause := deploy.ErrNotFound
	if to == "" {
		if to = artifact.Digest(s.dep.text("metadata", "annotations", annPrevious)); to == "" {
			return nil, fmt.Errorf("%w: nothing served before", deploy.ErrNotFound)
		}
		cause = deploy.ErrGone
	}
	if s.running() == to && s.settled() && digestOf(s.dep.object("spec", "template")) == to {
		return t.outcome(s, to, imageOf(s.dep), to), nil
	}
	set := s.set(to)
	if set == nil {
		return nil, fmt.Errorf("%w: no ReplicaSet of %s is kept", cause, to)
	}
	return t.move(ctx, s, t.of(set), true, to, imageOf(set), wait)
}

// of is the part of a Deployment that brings back what set ran.
func (t *Target) of(set object) object {
	template := clone(set.object("spec", "template"))
	delete(template.object("metadata", "labels"), "pod-template-hash")
	return object{
		"metadata": map[string]any{"annotations": map[string]any{annDigest: string(digestOf(template))}},
		"spec":     map[string]any{"template": map[string]any(template)},
	}
}

func (t *Target) outcome(s *state, d artifact.Digest, image string, before artifact.Digest) *deploy.Outcome {
	ids := map[string]string{"namespace": t.c.Namespace, "deployment": t.c.Name, "uid": s.dep.text("metadata", "uid"), "generation": fmt.Sprint(s.dep.number("metadata", "generation"))}
	if x := s.set(d); x != nil {
		ids["replicaSet"] = x.text("metadata", "name")
	}
	return &deploy.Outcome{Digest: d, Previous: before, Image: image, IDs: ids, Weight: 100, URL: fmt.Sprintf("http://%s.%s.svc:%d", t.c.Name, t.c.Namespace, t.c.Port)}
}

// move writes want into the Deployment and watches the rollout; when that fails, it writes back what served.
func (t *Target) move(ctx context.Context, s *state, want object, whole bool, d artifact.Digest, image string, wait time.Duration) (*deploy.Outcome, error) {
	before := s.running()
	previous := string(before)
	if before == d || before == "" {
		previous = s.dep.text("metadata", "annotations", annPrevious)
	}
	attempt := rand.Text()
	notes := map[string]any{annAttempt: attempt}
	if previous != "" {
		notes[annPrevious] = previous
	}
	merge(want, object{"metadata": map[string]any{"annotations": notes}})
	err := t.putDeployment(ctx, s, want, attempt, whole)
	if err == nil {
		if err = t.watch(ctx, attempt, wait); err == nil {
			if now, rerr := t.read(ctx); rerr == nil { // only for the ids
				s = now
			}
			o := t.outcome(s, d, image, before)
			o.Changed = true
			return o, nil
		}
	}
	if errors.Is(err, deploy.ErrConflict) {
		return nil, err
	}
	// The caller may have given up; what it began is taken back all the same, for a bounded time.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if uerr := t.undo(back, s, attempt, before); uerr != nil {
		return nil, fmt.Errorf("%w; what served before could not be brought back: %w", err, uerr)
	}
	return nil, err
}

// undo brings the digest back that served, if the write of attempt is still the last one.
func (t *Target) undo(ctx context.Context, was *state, attempt string, before artifact.Digest) error {
	s, err := t.read(ctx)
	if err != nil {
		return err
	}
	if s.dep.text("metadata", "annotations", annAttempt) != attempt {
		return nil // it was never written, or somebody else wrote since
	}
	if before == "" {
		return nil // nothing served
	}
	want := object{"metadata": map[string]any{"annotations": map[string]any{}}, "spec": map[string]any{"template": map[string]any(clone(was.dep.object("spec", "template")))}}
	if set := s.set(before); set != nil && digestOf(was.dep.object("spec", "template")) != before {
		want = t.of(set)
	}
	attempt = rand.Text()
	merge(want, object{"metadata": map[string]any{"annotations": map[string]any{
		annDigest: string(before), annAttempt: attempt, annPrevious: was.dep.text("metadata", "annotations", annPrevious),
	}}})
	return t.putDeployment(ctx, s, want, attempt, true)
}

// watch waits until the rollout of attempt is finished.
func (t *Target) watch(ctx context.Context, attempt string, wait time.Duration) error {
	wait = cmp.Or(wait, defaultWait)
	for end := time.Now().Add(wait); ; {
		dep, err := t.get(ctx, t.deployments()+"/"+t.c.Name)
		if err != nil {
			if errors.Is(err, errAbsent) {
				return fmt.Errorf("%w: the deployment was deleted", deploy.ErrConflict)
			}
			return err
		}
		if dep.text("metadata", "annotations", annAttempt) != attempt {
			return fmt.Errorf("%w: during the rollout of %s/%s", deploy.ErrConflict, t.c.Namespace, t.c.Name)
		}
		s := &state{dep: dep}
		if s.settled() {
			return nil
		}
		if dep.number("status", "observedGeneration") >= dep.number("metadata", "generation") {
			if err := failure(dep); err != nil {
				return err
			}
			if err := t.pods(ctx, digestOf(dep.object("spec", "template"))); err != nil {
				return err
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %d of %d pods are available after %s", deploy.ErrUnhealthy, dep.number("status", "updatedReplicas"), dep.number("spec", "replicas"), wait)
		}
		timer := time.NewTimer(t.c.Poll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
	}
}

// failure is what a Deployment's conditions say about a rollout that will not finish.
func failure(dep object) error {
	for _, x := range dep.list("status", "conditions") {
		c := object(x)
		switch typ, status, reason := c.text("type"), c.text("status"), c.text("reason"); {
		case typ == "ReplicaFailure" && status == "True" && strings.Contains(c.text("message"), "exceeded quota"):
			return fmt.Errorf("%w: %s: %s", deploy.ErrQuota, reason, c.text("message"))
		case typ == "Progressing" && status == "False":
			return fmt.Errorf("%w: %s: %s", deploy.ErrUnhealthy, reason, c.text("message"))
		}
	}
	return nil
}

// pods looks for reasons that no waiting cures: a node that cannot run the image.
func (t *Target) pods(ctx context.Context, d artifact.Digest) error {
	list, err := t.get(ctx, t.podList())
	if err != nil {
		return err
	}
	for _, x := range list.list("items") {
		pod := object(x)
		if artifact.Digest(pod.text("metadata", "annotations", annDigest)) != d {
			continue
		}
		for _, c := range pod.list("status", "containerStatuses") {
			for _, where := range []string{"state", "lastState"} {
				for _, how := range []string{"waiting", "terminated"} {
					m := object(c).text(where, how, "message")
					if strings.Contains(m, "no match for platform") || strings.Contains(m, "exec format error") {
						return fmt.Errorf("%w: pod %s: %s", deploy.ErrPlatform, pod.text("metadata", "name"), m)
					}
				}
			}
		}
	}
	return nil
}
