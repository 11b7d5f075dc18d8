package kubernetes

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
)

// move makes the revision of a template, waits until it is ready, and gives it weight percent of the traffic. When that fails,
// template and traffic are written back.
func (k *Knative) move(ctx context.Context, s *knState, template object, weight int, wait time.Duration) (*deploy.Outcome, error) {
	end := time.Now().Add(cmp.Or(wait, defaultWait))
	before := s.digest(s.stable())
	mark := rand.Text()
	now, err := k.steps(ctx, s, template, weight, mark, end)
	if err == nil {
		o := k.outcome(now, template.text("metadata", "name"), weight, before)
		o.Changed = true
		return o, nil
	}
	if errors.Is(err, deploy.ErrConflict) {
		return nil, err
	}
	// The caller may have given up; what it began is taken back all the same, for a bounded time.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if uerr := k.undo(back, s, mark); uerr != nil {
		return nil, fmt.Errorf("%w; what served before could not be brought back: %w", err, uerr)
	}
	return nil, err
}

func (k *Knative) steps(ctx context.Context, s *knState, template object, weight int, mark string, end time.Time) (*knState, error) {
	name, stable := template.text("metadata", "name"), s.stable()
	previous := s.note(annPrevious)
	if d := s.digest(stable); d != "" && d != digestOf(template) {
		previous = string(d)
	}
	switch rev := s.rev(name); {
	case rev == nil:
	case s.ready(name) == "False" && s.given()[name] == 0:
		// What failed here before is made anew, or it would count as failed for ever.
		if _, err := k.t.call(ctx, http.MethodDelete, k.t.path(knativeAPI, "revisions")+"/"+name, nil); err != nil && !errors.Is(err, errAbsent) {
			return nil, err
		}
	default:
		template = templateOf(rev) // with the defaults that were Knative's when it was made
	}
	if s.ready(name) != "True" {
		// Without traffic, unless nothing else is there. What follows the latest revision is pinned: it must not follow to this one.
		pins := []any{}
		for _, other := range slices.Sorted(maps.Keys(s.asked())) {
			pins = append(pins, map[string]any{"revisionName": other, "latestRevision": false, "percent": float64(s.asked()[other])})
		}
		if len(pins) == 0 {
			pins = traffic(name, 100, "")
		}
		if err := k.put(ctx, s, mark+"-revision", func(o object) { write(o, template, pins) }); err != nil {
			return nil, err
		}
		if err := k.wait(ctx, end, mark+"-revision", func(s *knState) (bool, error) { return s.cameUp(name) }); err != nil {
			return nil, err
		}
		var err error
		if s, err = k.read(ctx); err != nil {
			return nil, err
		}
		if s.note(annAttempt) != mark+"-revision" {
			return nil, fmt.Errorf("%w: during the rollout of %s/%s", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
		}
	}
	err := k.put(ctx, s, mark+"-traffic", func(o object) {
		write(o, template, traffic(name, weight, stable))
		notes := map[string]any{annCanary: ""}
		if weight < 100 {
			notes[annCanary] = name
		}
		if previous != "" && weight == 100 {
			notes[annPrevious] = previous
		}
		merge(o, object{"metadata": map[string]any{"annotations": notes}})
	})
	if err != nil {
		return nil, err
	}
	if err := k.wait(ctx, end, mark+"-traffic", func(s *knState) (bool, error) { return s.routed() }); err != nil {
		return nil, err
	}
	return k.read(ctx)
}

// write sets template and traffic whole. A template of that name stays as it is: Knative has put its defaults in, and refuses another
// one under the same name.
func write(o, template object, traffic []any) {
	merge(o, object{"spec": map[string]any{}})
	if o.text("spec", "template", "metadata", "name") != template.text("metadata", "name") {
		o.object("spec")["template"] = map[string]any(clone(template))
	}
	o.object("spec")["traffic"] = traffic
}

// skeleton is a Service without a spec.
func (k *Knative) skeleton() object {
	return object{
		"apiVersion": "serving.knative.dev/v1", "kind": "Service",
		"metadata": map[string]any{"name": k.t.c.Name, "namespace": k.t.c.Namespace, "labels": map[string]any{labelApp: k.t.c.Name, "app.kubernetes.io/managed-by": "waybill"}},
	}
}

// put writes the Service of s, changed. The status changes the resourceVersion too: as long as the rest is as it was read, the write is
// made again; attempt tells that a write whose answer was lost came through.
func (k *Knative) put(ctx context.Context, s *knState, attempt string, change func(o object)) error {
	was := s.svc
	now := was
	for range 20 {
		o, method, path := k.skeleton(), http.MethodPost, k.services()
		if now != nil {
			o, method, path = clone(now), http.MethodPut, k.service()
		}
		delete(o, "status")
		change(o)
		merge(o, object{"metadata": map[string]any{"annotations": map[string]any{annAttempt: attempt}}})
		_, err := k.t.call(ctx, method, path, o)
		if !errors.Is(err, errStale) && !errors.Is(err, errAbsent) {
			return err
		}
		if method == http.MethodPost && errors.Is(err, errAbsent) {
			return err // the namespace, or Knative
		}
		if now, err = k.t.get(ctx, k.service()); err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		if now.text("metadata", "annotations", annAttempt) == attempt {
			return nil
		}
		if (&knState{svc: now}).revision() != (&knState{svc: was}).revision() {
			return fmt.Errorf("%w: service %s/%s", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
		}
	}
	return fmt.Errorf("%w: service %s/%s is written all the time", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
}

// undo writes template and traffic of was back, if the last write is one of mark's.
func (k *Knative) undo(ctx context.Context, was *knState, mark string) error {
	s, err := k.read(ctx)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(s.note(annAttempt), mark) {
		return nil // it was never written, or somebody else wrote since
	}
	if was.svc == nil || len(was.asked()) == 0 {
		return nil // nothing served
	}
	return k.put(ctx, s, rand.Text(), func(o object) {
		o.object("spec")["template"] = clone(was.svc)["spec"].(map[string]any)["template"]
		o.object("spec")["traffic"] = clone(was.svc)["spec"].(map[string]any)["traffic"]
		merge(o, object{"metadata": map[string]any{"annotations": map[string]any{annCanary: was.note(annCanary), annPrevious: was.note(annPrevious)}}})
	})
}

// wait looks until done says so. Somebody else's write ends it.
func (k *Knative) wait(ctx context.Context, end time.Time, attempt string, done func(s *knState) (bool, error)) error {
	for {
		s, err := k.read(ctx)
		if err != nil {
			return err
		}
		switch {
		case s.svc == nil:
			return fmt.Errorf("%w: the service was deleted", deploy.ErrConflict)
		case s.note(annAttempt) != attempt:
			return fmt.Errorf("%w: during the rollout of %s/%s", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
		}
		if s.observed() {
			if ok, err := done(s); ok || err != nil {
				return err
			}
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: %s: %s", deploy.ErrUnhealthy, k.t.c.Name, cmp.Or(conditionOf(s.svc, "Ready").text("message"), "the controllers say nothing"))
		}
		if err := k.t.pause(ctx); err != nil {
			return err
		}
	}
}

// cameUp tells whether the revision of the template is ready; an error is one that no waiting cures.
func (s *knState) cameUp(name string) (bool, error) {
	if s.rev(name) == nil {
		return false, unwell(conditionOf(s.svc, "ConfigurationsReady"))
	}
	return s.ready(name) == "True", unwell(conditionOf(s.rev(name), "Ready"))
}

// routed tells whether the routes give what the spec asks for.
func (s *knState) routed() (bool, error) {
	c := conditionOf(s.svc, "RoutesReady")
	return c.text("status") == "True" && maps.Equal(s.asked(), s.given()), unwell(c)
}

// unwell is what a condition that is false means.
func unwell(c object) error {
	if c.text("status") != "False" {
		return nil
	}
	message := c.text("message")
	cause := deploy.ErrUnhealthy
	switch {
	case strings.Contains(message, "exceeded quota"):
		cause = deploy.ErrQuota
	case strings.Contains(message, "no match for platform"), strings.Contains(message, "exec format error"):
		cause = deploy.ErrPlatform
	}
	return fmt.Errorf("%w: %s: %s", cause, c.text("reason"), message)
}

var _ deploy.Promoter = (*Knative)(nil)
