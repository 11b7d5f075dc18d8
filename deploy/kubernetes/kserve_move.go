package kubernetes

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// move makes a revision of a template, waits until it is ready and has weight percent of the traffic. When that fails, the predictor
// of s is written back.
func (k *KServe) move(ctx context.Context, s *ksState, template object, weight int, wait time.Duration) (*deploy.Outcome, error) {
	end := time.Now().Add(cmp.Or(wait, defaultWait))
	before := s.digest(s.stable())
	m := &ksMove{k: k, end: end, last: s.svc.number("metadata", "generation")}
	now, err := m.steps(ctx, s, template, weight)
	if err == nil {
		o := k.outcome(now, now.current(), weight, before)
		o.Changed = true
		return o, nil
	}
	if errors.Is(err, deploy.ErrConflict) || s.svc == nil {
		return nil, err
	}
	// The caller may have given up; what it began is taken back all the same, for a bounded time.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if uerr := m.undo(back, s); uerr != nil {
		return nil, fmt.Errorf("%w; what served before could not be brought back: %w", err, uerr)
	}
	return nil, err
}

// ksMove is a move and its taking back.
type ksMove struct {
	k    *KServe
	end  time.Time
	last int    // generation of the last write
	mark string // of the predictor that is being written, while it is not known whether the write came through
}

func (m *ksMove) steps(ctx context.Context, s *ksState, template object, weight int) (*ksState, error) {
	stable, latest := s.stable(), s.latest()
	allowed := maps.Clone(s.given()) // revisions that may have traffic until the end
	name := s.current()
	fresh := !s.sameAs(template) || s.rev(name) == nil || s.ready(name) == "False"
	if fresh {
		m.mark = rand.Text()
		notes := map[string]any{annWrite: m.mark}
		previous := s.rev(stable).text("metadata", "annotations", annPrevious)
		if d := s.digest(stable); d != "" && d != artifact.Digest(template.text("annotations", annDigest)) {
			previous = string(d)
		}
		if previous != "" {
			notes[annPrevious] = previous
		}
		template = clone(template)
		merge(template, object{"annotations": notes})
		// Until the new revision is ready, its share goes to the latest ready one. Where that is not what serves, it must get nothing.
		first := weight
		if latest != stable {
			first = 0
		}
		if err := m.put(ctx, s, func(predictor object) { overwrite(predictor, template, first) }); err != nil {
			return nil, err
		}
		if err := m.wait(ctx, func(s *ksState) (bool, error) {
			if now := s.current(); now != "" {
				return s.ready(now) == "True" && s.latest() == now, unwell(conditionOf(s.rev(now), "Ready"))
			}
			return false, nil
		}); err != nil {
			return nil, err
		}
		var err error
		if s, err = m.k.read(ctx); err != nil {
			return nil, err
		}
		name = s.current()
	}
	if s.percent() != weight {
		if err := m.put(ctx, s, func(predictor object) { setPercent(predictor, weight) }); err != nil {
			return nil, err
		}
	}
	if err := m.wait(ctx, func(s *ksState) (bool, error) {
		given := s.given()
		for other := range given {
			if _, ok := allowed[other]; !ok && other != name {
				return false, fmt.Errorf("%w: KServe gives traffic to revision %s (%s), which was not asked for", deploy.ErrUnhealthy, other, s.digest(other))
			}
		}
		// The status may be that of before the write: the other part must be the stable one's.
		return given[name] == weight && (weight == 100 || given[stable] == 100-weight), unwell(conditionOf(s.rev(name), "Ready"))
	}); err != nil {
		return nil, err
	}
	return m.k.read(ctx)
}

// overwrite sets in a predictor what a template has, and nothing of an earlier one stays; what others set is left alone.
func overwrite(predictor, template object, percent int) {
	delete(predictor, "containers")
	delete(predictor, "maxReplicas")
	for name := range predictor.object("annotations") {
		if strings.HasPrefix(name, "waybill.dev/") {
			delete(predictor.object("annotations"), name)
		}
	}
	merge(predictor, clone(template))
	setPercent(predictor, percent)
}

// put writes the InferenceService of s with another predictor. The status changes the resourceVersion too: as long as the generation is
// the one that was read, the write is made again. One generation later with what was to be written, it was this write that came through.
func (m *ksMove) put(ctx context.Context, s *ksState, change func(predictor object)) error {
	k, was := m.k, s.svc
	if g := was.number("metadata", "generation"); was != nil && g != m.last {
		return k.conflict()
	}
	now := was
	for range 20 {
		o, method, path := k.skeleton(), http.MethodPost, k.collection()
		if now != nil {
			o, method, path = clone(now), http.MethodPut, k.path()
			merge(o, object{"metadata": map[string]any{"annotations": map[string]any{annMode: cmp.Or(o.text("metadata", "annotations", annMode), serverless)}}})
		}
		delete(o, "status")
		merge(o, object{"spec": map[string]any{"predictor": map[string]any{}}})
		change(o.object("spec", "predictor"))
		got, err := k.t.call(ctx, method, path, o)
		if err == nil {
			m.last = got.number("metadata", "generation")
			return nil
		}
		if !errors.Is(err, errStale) && !errors.Is(err, errAbsent) || method == http.MethodPost && errors.Is(err, errAbsent) {
			return err // absent: the namespace, or KServe
		}
		if now, err = k.t.get(ctx, k.path()); err != nil && !errors.Is(err, errAbsent) {
			return err
		}
		if m.wrote(was, now, o.object("spec", "predictor")) {
			m.last = now.number("metadata", "generation")
			return nil
		}
		if now.number("metadata", "generation") != was.number("metadata", "generation") || now.text("metadata", "uid") != was.text("metadata", "uid") {
			return k.conflict()
		}
	}
	return fmt.Errorf("%w: inference service %s/%s is written all the time", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
}

// wrote tells whether now is was with a predictor written into it.
func (m *ksMove) wrote(was, now, predictor object) bool {
	live := now.object("spec", "predictor")
	return live != nil && now.number("metadata", "generation") == was.number("metadata", "generation")+1 && len(diff(predictor, live, "")) == 0 && percentOf(live) == percentOf(predictor)
}

// undo writes the predictor of was back, if nobody else wrote since.
func (m *ksMove) undo(ctx context.Context, was *ksState) error {
	s, err := m.k.read(ctx)
	if err != nil {
		return err
	}
	if s.svc == nil {
		return nil
	}
	generation := s.svc.number("metadata", "generation")
	if generation != m.last {
		// Ours all the same when a write came through whose answer was lost.
		if m.mark == "" || generation != m.last+1 || s.predictor().text("annotations", annWrite) != m.mark {
			return nil
		}
		m.last = generation
	}
	if generation == was.svc.number("metadata", "generation") || len(was.given()) == 0 {
		return nil // it was never written, or nothing served
	}
	template := clone(was.predictor())
	percent := percentOf(template)
	if delete(template, "canaryTrafficPercent"); len(diff(template, s.predictor(), "")) == 0 {
		return m.put(ctx, s, func(predictor object) { setPercent(predictor, percent) })
	}
	if m.end = time.Now().Add(time.Minute); percent == 100 && s.latest() == was.stable() {
		// Nothing but what served is ready: no need to wait for its double.
		merge(template, object{"annotations": map[string]any{annWrite: rand.Text()}})
		return m.put(ctx, s, func(predictor object) { overwrite(predictor, template, percent) })
	}
	_, err = m.steps(ctx, s, template, percent)
	return err
}

// skeleton is an InferenceService without a predictor.
func (k *KServe) skeleton() object {
	return clone(object{
		"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService",
		"metadata": map[string]any{
			"name": k.t.c.Name, "namespace": k.t.c.Namespace, "labels": map[string]any{labelApp: k.t.c.Name, "app.kubernetes.io/managed-by": "waybill"},
			"annotations": map[string]any{annMode: serverless},
		},
	})
}

func (k *KServe) conflict() error {
	return fmt.Errorf("%w: inference service %s/%s", deploy.ErrConflict, k.t.c.Namespace, k.t.c.Name)
}

// wait looks until done says so. Somebody else's write ends it.
func (m *ksMove) wait(ctx context.Context, done func(s *ksState) (bool, error)) error {
	for {
		s, err := m.k.read(ctx)
		if err != nil {
			return err
		}
		if s.svc == nil || s.svc.number("metadata", "generation") != m.last {
			return m.k.conflict()
		}
		if ok, err := done(s); ok || err != nil {
			return err
		}
		if time.Now().After(m.end) {
			message := conditionOf(s.svc, "Ready")
			return fmt.Errorf("%w: %s: %s", deploy.ErrUnhealthy, m.k.t.c.Name, cmp.Or(strings.TrimSpace(message.text("reason")+" "+message.text("message")), "the controllers say nothing"))
		}
		if err := m.k.t.pause(ctx); err != nil {
			return err
		}
	}
}

// pause is the time between two looks.
func (t *Target) pause(ctx context.Context) error {
	timer := time.NewTimer(t.c.Poll)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
