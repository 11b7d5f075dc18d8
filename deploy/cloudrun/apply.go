package cloudrun

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	run "google.golang.org/api/run/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/oci/artifact"
)

var (
	labelKeys   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	labelValues = regexp.MustCompile(`^[a-z0-9_-]{0,63}$`)
)

// template is the revision that r needs, without its name.
func (t *Target) template(r deploy.Release) *run.GoogleCloudRunV2RevisionTemplate {
	env := []*run.GoogleCloudRunV2EnvVar{}
	all := maps.Clone(t.s.Env)
	if all == nil {
		all = map[string]string{}
	}
	all[DigestVariable] = string(r.Digest)
	for _, k := range slices.Sorted(maps.Keys(all)) {
		env = append(env, &run.GoogleCloudRunV2EnvVar{Name: k, Value: all[k]})
	}
	labels := maps.Clone(r.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	google.Label(labels, labelDigest, r.Digest)
	timeout, _ := time.ParseDuration(t.s.Timeout)
	return &run.GoogleCloudRunV2RevisionTemplate{
		Labels: labels,
		Containers: []*run.GoogleCloudRunV2Container{{
			Image: r.Image, Env: env,
			Ports:        []*run.GoogleCloudRunV2ContainerPort{{ContainerPort: t.s.Port}},
			Resources:    &run.GoogleCloudRunV2ResourceRequirements{Limits: map[string]string{"cpu": t.s.CPU, "memory": t.s.Memory}, CpuIdle: true, StartupCpuBoost: true},
			StartupProbe: &run.GoogleCloudRunV2Probe{HttpGet: &run.GoogleCloudRunV2HTTPGetAction{Path: "/v2/health/ready", Port: t.s.Port}, PeriodSeconds: 2, TimeoutSeconds: 2, FailureThreshold: 60},
		}},
		MaxInstanceRequestConcurrency: t.s.Concurrency,
		Timeout:                       fmt.Sprintf("%ds", timeout/time.Second),
		Scaling:                       &run.GoogleCloudRunV2RevisionScaling{MinInstanceCount: t.s.MinInstances, MaxInstanceCount: t.s.MaxInstances},
		ServiceAccount:                t.s.ServiceAccount,
	}
}

// facts are what the target sets of a template or revision, as texts; what the platform adds by itself is not among them. Whose
// revision it is (image, digest, further labels) has keys of its own, see identity.
func facts(labels map[string]string, containers []*run.GoogleCloudRunV2Container, concurrency int64, timeout string, scaling *run.GoogleCloudRunV2RevisionScaling) map[string]string {
	out := map[string]string{"concurrency": fmt.Sprint(concurrency), "timeout": timeout, "containers": fmt.Sprint(len(containers))}
	if scaling != nil {
		out["min-instances"], out["max-instances"] = fmt.Sprint(scaling.MinInstanceCount), fmt.Sprint(scaling.MaxInstanceCount)
	}
	for k, v := range labels {
		if k != labelRevision {
			out["label "+k] = v
		}
	}
	if len(containers) == 0 {
		return out
	}
	c := containers[0]
	out["image"] = c.Image
	for _, e := range c.Env {
		out["env "+e.Name] = e.Value
		if e.ValueSource != nil {
			out["env "+e.Name] = "(a secret)"
		}
	}
	if c.Resources != nil {
		out["cpu"], out["memory"] = cores(c.Resources.Limits["cpu"]), c.Resources.Limits["memory"]
	}
	if len(c.Ports) > 0 {
		out["port"] = fmt.Sprint(c.Ports[0].ContainerPort)
	}
	if p := c.StartupProbe; p != nil && p.HttpGet != nil {
		out["startup probe"] = p.HttpGet.Path
	}
	if cmd := slices.Concat(c.Command, c.Args); len(cmd) > 0 {
		out["command"] = strings.Join(cmd, " ")
	}
	return out
}

// cores writes 1000m as 1.
func cores(s string) string {
	if v, ok := strings.CutSuffix(s, "000m"); ok && v != "" {
		return v
	}
	return s
}

func (t *Target) factsOf(x *run.GoogleCloudRunV2RevisionTemplate) map[string]string {
	out := facts(x.Labels, x.Containers, x.MaxInstanceRequestConcurrency, x.Timeout, x.Scaling)
	if t.s.ServiceAccount != "" {
		out["service-account"] = x.ServiceAccount
	}
	return out
}

func (t *Target) factsOfRevision(x *run.GoogleCloudRunV2Revision) map[string]string {
	out := facts(x.Labels, x.Containers, x.MaxInstanceRequestConcurrency, x.Timeout, x.Scaling)
	if t.s.ServiceAccount != "" {
		out["service-account"] = x.ServiceAccount
	}
	return out
}

// identity tells whether a fact says which release runs, rather than how.
func identity(k string) bool {
	return k == "image" || k == "env "+DigestVariable || strings.HasPrefix(k, "label ")
}

// differ lists the facts that are not as wanted. Labels that others added are theirs.
func differ(have, want map[string]string) []deploy.Change {
	all := maps.Clone(have)
	maps.Copy(all, want)
	var out []deploy.Change
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if _, wanted := want[k]; !wanted && strings.HasPrefix(k, "label ") {
			continue
		}
		if have[k] != want[k] {
			out = append(out, deploy.Change{Field: k, Old: have[k], New: want[k]})
		}
	}
	return out
}

// choice is what a plan does.
type choice struct {
	tmpl     *run.GoogleCloudRunV2RevisionTemplate // with its name
	revision string                                // name of it
	exists   bool                                  // the revision does, and may become ready
	retempl  bool                                  // the template must be written
}

// choose finds the revision that runs r with these settings, or names a new one. Names have the service's, eight digits of the
// artifact's digest, and four of everything that the revision is made of and of how many of the name failed or were deleted.
func (t *Target) choose(st *state, r deploy.Release) choice {
	ch := choice{tmpl: t.template(r)}
	want := t.factsOf(ch.tmpl)
	for _, x := range st.revs {
		same := digestOf(x) == r.Digest && !failed(x) && len(differ(t.factsOfRevision(x), want)) == 0
		if same && (!ch.exists || shares(st.svc)[short(x.Name)] > shares(st.svc)[ch.revision]) {
			ch.exists, ch.revision = true, short(x.Name)
		}
	}
	for n := 0; !ch.exists; n++ {
		raw, _ := json.Marshal([]any{ch.tmpl, n}) // of texts and numbers: it cannot fail
		sum := sha256.Sum256(raw)
		ch.revision = t.s.Service + "-" + string(r.Digest)[7:15] + hex.EncodeToString(sum[:2])
		if st.rev(ch.revision) == nil && (st.svc == nil || st.svc.Template == nil || st.svc.Template.Revision != ch.revision) {
			break
		}
	}
	ch.tmpl.Revision = ch.revision
	ch.tmpl.Labels[labelRevision] = strings.TrimPrefix(ch.revision, t.s.Service+"-")
	ch.retempl = !ch.exists || st.svc == nil || t.edited(st)
	return ch
}

// edited tells whether somebody else wrote the service's template last.
func (t *Target) edited(st *state) bool {
	x := st.svc.Template
	return x == nil || !ours(x.Labels, x.Revision)
}

func (t *Target) check(r deploy.Release) error {
	if err := r.Check(true, false); err != nil {
		return err
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, "amd64") {
		return fmt.Errorf("%w: the image is for %s, Cloud Run runs linux/amd64", deploy.ErrPlatform, strings.Join(r.Arches, ", "))
	}
	for k, v := range r.Labels {
		if !labelKeys.MatchString(k) || !labelValues.MatchString(v) || strings.HasPrefix(k, "waybill-") {
			return fmt.Errorf("%w: label %q=%q: Cloud Run takes at most 63 small letters, digits, - and _, and waybill- is taken", deploy.ErrRelease, k, v)
		}
	}
	return nil
}

// Plan implements deploy.Target. Where a revision would be made, Cloud Run is asked whether it would take it (validateOnly).
func (t *Target) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := t.check(r); err != nil {
		return nil, err
	}
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	p := &deploy.Plan{Release: r, Revision: version(st.svc), Create: st.svc == nil}
	ch := t.choose(st, r)
	if st.svc == nil {
		p.Changes = append(p.Changes, deploy.Change{Field: "service", New: t.s.Service}, deploy.Change{Field: "image", New: r.Image})
	} else {
		p.From = digestOf(st.rev(st.stable()))
		have := map[string]string{}
		if st.svc.Template != nil {
			have = t.factsOf(st.svc.Template)
		}
		diff := differ(have, t.factsOf(ch.tmpl))
		if t.edited(st) {
			for _, c := range diff {
				if !identity(c.Field) {
					c.Why = "changed by somebody else"
					p.Drift = append(p.Drift, c)
				}
			}
		}
		if ch.retempl {
			p.Changes = append(p.Changes, diff...)
		}
		if !ch.exists || ch.retempl && len(diff) == 0 {
			p.Changes = append(p.Changes, deploy.Change{Field: "revision", Old: st.svc.Template.Revision, New: ch.revision})
		}
	}
	if st.svc == nil {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", New: ch.revision + " 100%"})
	} else if now, want := show(st.svc.Traffic), show(st.traffic(ch.revision, r.Weight)); now != want {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", Old: now, New: want})
	}
	if ch.retempl {
		if _, err := t.write(ctx, st, ch, true, nil); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// Apply implements deploy.Target.
func (t *Target) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	r := p.Release
	if err := t.check(r); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(p.Changes) == 0 {
		w := r.Weight
		if w == 0 {
			w = 100
		}
		return &deploy.Outcome{Digest: r.Digest, Previous: p.From, Image: r.Image, Weight: w, IDs: map[string]string{"service": t.name()}}, nil
	}
	end := google.Until(r.Wait, defaultWait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if now := version(st.svc); now != p.Revision {
		return nil, fmt.Errorf("%w: service %s is at %s, planned at %s", deploy.ErrConflict, t.s.Service, now, p.Revision)
	}
	from := digestOf(st.rev(st.stable()))
	ch := t.choose(st, r)
	if ch.retempl {
		if st, err = t.remake(ctx, st, ch, end); err != nil {
			return nil, err
		}
	}
	if st, err = t.comesUp(ctx, st, ch.revision, end); err != nil {
		return nil, err
	}
	out, err := t.route(ctx, st, ch.revision, r.Weight, end)
	if err != nil {
		return nil, err
	}
	out.Digest, out.Previous, out.Changed = r.Digest, from, true
	return out, nil
}

// Rollback implements deploy.Target.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	end := google.Until(wait, defaultWait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.svc == nil {
		return nil, fmt.Errorf("%w: there is no service %s", deploy.ErrNotFound, t.s.Service)
	}
	name := ""
	switch {
	case to != "":
		rank := func(r *run.GoogleCloudRunV2Revision) int { // what serves, then what is well, then the newest
			n := 2 * shares(st.svc)[short(r.Name)]
			if healthy(r) {
				n++
			}
			return n
		}
		var best *run.GoogleCloudRunV2Revision
		for _, r := range st.revs {
			if digestOf(r) == to && (best == nil || rank(r) > rank(best)) {
				best = r
			}
		}
		if best == nil {
			return nil, fmt.Errorf("%w: service %s has no revision of %s (deleted ones are not remembered)", deploy.ErrNotFound, t.s.Service, to)
		}
		name = short(best.Name)
	case st.canary() != "":
		name = st.stable()
	default:
		if name = tagged(st.svc, tagPrevious); name == "" {
			return nil, fmt.Errorf("%w: no revision of service %s carries the tag %s", deploy.ErrNotFound, t.s.Service, tagPrevious)
		}
	}
	return t.move(ctx, st, name, end)
}

// Promote implements deploy.Promoter.
func (t *Target) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	end := google.Until(wait, defaultWait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	name := ""
	if st.svc != nil {
		if name = st.canary(); name == "" {
			name = st.stable()
		}
	}
	if name == "" {
		return nil, fmt.Errorf("%w: service %s serves nothing", deploy.ErrNotFound, t.s.Service)
	}
	return t.move(ctx, st, name, end)
}

// move gives all traffic to a revision that exists.
func (t *Target) move(ctx context.Context, st *state, name string, end time.Time) (*deploy.Outcome, error) {
	r := st.rev(name)
	if r == nil {
		return nil, fmt.Errorf("%w: revision %s was deleted", deploy.ErrGone, name)
	}
	from := digestOf(st.rev(st.stable()))
	if st.canary() == "" && pinned(st.svc) && shares(st.svc)[name] == 100 {
		return t.outcome(st, name, 100), nil
	}
	if failed(r) {
		return nil, t.sick(r)
	}
	out, err := t.route(ctx, st, name, 100, end)
	if err != nil {
		return nil, err
	}
	out.Previous, out.Changed = from, true
	if out.Previous == out.Digest { // a canary was taken back
		out.Previous = digestOf(st.rev(st.canary()))
	}
	return out, nil
}

func (t *Target) outcome(st *state, name string, weight int) *deploy.Outcome {
	r := st.rev(name)
	out := &deploy.Outcome{Digest: digestOf(r), Image: imageOf(r), Weight: weight, URL: st.svc.Uri, IDs: map[string]string{"service": t.name(), "revision": name}}
	if st.svc.Uid != "" {
		out.IDs["uid"] = st.svc.Uid
	}
	out.IDs["generation"] = fmt.Sprint(st.svc.Generation)
	return out
}

func (t *Target) sick(r *run.GoogleCloudRunV2Revision) error {
	c := ready(r)
	return fmt.Errorf("%w: revision %s, which gets no traffic: %s: %s", conditionCause(c), short(r.Name), strings.TrimSpace(c.Reason+" "+c.RevisionReason), t.call.Redact(c.Message))
}

// write sends the template, or with only the traffic that is not nil, to the service of st.
func (t *Target) write(ctx context.Context, st *state, ch choice, dry bool, only []*run.GoogleCloudRunV2TrafficTarget) (op *run.GoogleLongrunningOperation, err error) {
	if st.svc == nil {
		err = t.call.Call(ctx, "create the service", func(ctx context.Context) (err error) {
			op, err = t.c.Projects.Locations.Services.Create(t.parent(), &run.GoogleCloudRunV2Service{Template: ch.tmpl, Ingress: ingresses[t.s.Ingress]}).
				ServiceId(t.s.Service).ValidateOnly(dry).Context(ctx).Do()
			return err
		})
		return op, err
	}
	body, mask, what := &run.GoogleCloudRunV2Service{Etag: st.svc.Etag}, "template", "make a revision"
	switch {
	case only != nil:
		body.Traffic, mask, what = only, "traffic", "move the traffic"
	default:
		body.Template = ch.tmpl
		if at := st.stable(); at != "" && !pinned(st.svc) {
			// What follows the latest revision would follow the new one at once: in the same call it is told to stay.
			body.Traffic, mask = st.pin(), "template,traffic"
		}
	}
	if dry {
		body.Etag = ""
	}
	err = t.call.Call(ctx, what, func(ctx context.Context) (err error) {
		op, err = t.c.Projects.Locations.Services.Patch(t.name(), body).UpdateMask(mask).ValidateOnly(dry).Context(ctx).Do()
		return err
	})
	return op, err
}

// await polls an operation until it is done or the time is over. Its error is for the log only: one that moves the traffic fails too
// when some revision without traffic is broken. What happened is read from the service and its revisions.
func (t *Target) await(ctx context.Context, op *run.GoogleLongrunningOperation, end time.Time) error {
	_, err := t.call.Await(ctx, operation(op), t.s.Poll, end, func(ctx context.Context, name string) (google.Operation, error) {
		op, err := t.c.Projects.Locations.Operations.Get(name).Context(ctx).Do()
		return operation(op), err
	})
	return err
}

func operation(op *run.GoogleLongrunningOperation) google.Operation {
	if op == nil {
		return google.Operation{}
	}
	out := google.Operation{Name: op.Name, Done: op.Done}
	if op.Error != nil {
		out.Failed, out.Code, out.Message = true, op.Error.Code, op.Error.Message
	}
	return out
}

// pin names the revisions that serve.
func (st *state) pin() []*run.GoogleCloudRunV2TrafficTarget {
	if len(st.svc.Traffic) == 0 {
		return []*run.GoogleCloudRunV2TrafficTarget{{Type: byRevision, Revision: short(st.svc.LatestReadyRevision), Percent: 100}}
	}
	var out []*run.GoogleCloudRunV2TrafficTarget
	for _, x := range st.svc.Traffic {
		y := &run.GoogleCloudRunV2TrafficTarget{Type: x.Type, Revision: x.Revision, Percent: x.Percent, Tag: x.Tag}
		if x.Type != byRevision && x.Percent > 0 {
			y.Type, y.Revision = byRevision, short(st.svc.LatestReadyRevision)
		}
		out = append(out, y)
	}
	return out
}

// send writes until it is in: an etag that a status changed is read again, an answer that was lost is recognised by what stands there.
// is tells whether the service is as written. The state given back is that after the write.
func (t *Target) send(ctx context.Context, st *state, ch choice, only []*run.GoogleCloudRunV2TrafficTarget, end time.Time, is func(*run.GoogleCloudRunV2Service) bool) (*state, error) {
	base := version(st.svc)
	for n := 1; ; n++ {
		op, err := t.write(ctx, st, ch, false, only)
		if err != nil && !errors.Is(err, google.ErrStale) && !errors.Is(err, google.ErrExists) {
			return nil, err
		}
		if err == nil {
			if err := t.await(ctx, op, end); err != nil {
				return nil, err
			}
		}
		now, rerr := t.read(ctx)
		if rerr != nil {
			return nil, rerr
		}
		if now.svc != nil && is(now.svc) {
			return now, nil
		}
		switch {
		case version(now.svc) != base, errors.Is(err, google.ErrExists) && st.svc == nil:
			return nil, fmt.Errorf("%w: service %s is at %s", deploy.ErrConflict, t.s.Service, version(now.svc))
		case err != nil && errors.Is(err, google.ErrExists):
			return nil, fmt.Errorf("%w: revision %s has another content: %w", deploy.ErrConflict, ch.revision, err)
		case n == 8:
			return nil, fmt.Errorf("%w: service %s does not come to rest", deploy.ErrBusy, t.s.Service)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		st = now
	}
}

// remake writes the template.
func (t *Target) remake(ctx context.Context, st *state, ch choice, end time.Time) (*state, error) {
	now, err := t.send(ctx, st, ch, nil, end, func(s *run.GoogleCloudRunV2Service) bool {
		return s.Template != nil && s.Template.Revision == ch.revision && len(differ(t.factsOf(s.Template), t.factsOf(ch.tmpl))) == 0
	})
	if err != nil {
		return nil, err
	}
	t.s.Log.Info("template written", "service", t.s.Service, "revision", ch.revision, "image", ch.tmpl.Containers[0].Image)
	return t.settled(ctx, now, end, ch.revision)
}

// settled waits until the platform has acted on the service's generation.
func (t *Target) settled(ctx context.Context, st *state, end time.Time, revision string) (*state, error) {
	base := version(st.svc)
	for {
		switch {
		case version(st.svc) != base:
			return nil, fmt.Errorf("%w: service %s is at %s, it was %s", deploy.ErrConflict, t.s.Service, version(st.svc), base)
		case !st.svc.Reconciling && st.svc.ObservedGeneration == st.svc.Generation:
			return st, nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: the service is still being changed, the time to wait is over; revision %s gets no traffic", deploy.ErrUnhealthy, revision)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		var err error
		if st, err = t.read(ctx); err != nil {
			return nil, err
		}
	}
}

// comesUp waits until a revision can serve.
func (t *Target) comesUp(ctx context.Context, st *state, name string, end time.Time) (*state, error) {
	base := version(st.svc)
	for {
		r := st.rev(name)
		switch {
		case version(st.svc) != base:
			return nil, fmt.Errorf("%w: service %s is at %s, it was %s", deploy.ErrConflict, t.s.Service, version(st.svc), base)
		case r != nil && failed(r):
			return nil, t.sick(r)
		case r != nil && healthy(r):
			return st, nil
		case r == nil && !st.svc.Reconciling && st.svc.TerminalCondition != nil && st.svc.TerminalCondition.State == "CONDITION_FAILED":
			c := st.svc.TerminalCondition
			return nil, fmt.Errorf("%w: revision %s was not made: %s: %s", conditionCause(c), name, c.Reason, t.call.Redact(c.Message))
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: revision %s is not ready and the time to wait is over; it gets no traffic", deploy.ErrUnhealthy, name)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		var err error
		if st, err = t.read(ctx); err != nil {
			return nil, err
		}
	}
}

// route moves traffic to a revision that is ready, and waits until the platform says that it did.
func (t *Target) route(ctx context.Context, st *state, name string, weight int, end time.Time) (*deploy.Outcome, error) {
	want := st.traffic(name, weight)
	text := show(want)
	if show(st.svc.Traffic) != text {
		var err error
		if st, err = t.send(ctx, st, choice{revision: name}, want, end, func(s *run.GoogleCloudRunV2Service) bool { return show(s.Traffic) == text }); err != nil {
			return nil, err
		}
		t.s.Log.Info("traffic moved", "service", t.s.Service, "to", text)
	}
	base := version(st.svc)
	for {
		switch {
		case version(st.svc) != base:
			return nil, fmt.Errorf("%w: service %s is at %s, it was %s", deploy.ErrConflict, t.s.Service, version(st.svc), base)
		case st.svc.ObservedGeneration == st.svc.Generation && served(st.svc) == text:
			return t.outcome(st, name, shares(st.svc)[name]), nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: the traffic is still %s, wanted %s, and the time to wait is over", deploy.ErrUnhealthy, served(st.svc), text)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		var err error
		if st, err = t.read(ctx); err != nil {
			return nil, err
		}
	}
}
