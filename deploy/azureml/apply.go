package azureml

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

func hash(v any) string {
	raw, _ := json.Marshal(v) // of texts and numbers: it cannot fail
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:])
}

// routes are those of waybill-serve.
func (t *Target) routes(r deploy.Release) map[string]route {
	path := t.s.ScoringPath
	if path == "" {
		path = "/v2/models/" + r.Model + "/infer"
		if !paths.MatchString(path) || r.Model == "" {
			path = "/v2/health/ready"
		}
	}
	return map[string]route{
		"livenessRoute": {"/v2/health/live", t.s.Port}, "readinessRoute": {"/v2/health/ready", t.s.Port}, "scoringRoute": {path, t.s.Port},
	}
}

// version names the environment of r: versions cannot be changed, so the name says what is in it.
func (t *Target) version(r deploy.Release) string {
	_, d, _ := deploy.SplitImage(r.Image) // checked
	return string(d)[7:39] + "-" + hash([]any{r.Image, t.routes(r)})[:8]
}

// deployment is the one that r needs, without its name.
func (t *Target) deployment(r deploy.Release) *deployment {
	env := maps.Clone(t.s.Env)
	if env == nil {
		env = map[string]string{}
	}
	env[DigestVariable] = string(r.Digest)
	env["PORT"] = strconv.FormatInt(t.s.Port, 10)
	timeout, _ := time.ParseDuration(t.s.Timeout) // checked
	tags := maps.Clone(r.Labels)
	if tags == nil {
		tags = map[string]string{}
	}
	tags[tagDigest], tags[tagImage] = string(r.Digest), r.Image
	p := func() *probe { return &probe{"PT10S", "PT10S", "PT2S", 1, 30} }
	d := &deployment{
		Location: t.s.Location, Tags: tags, SKU: sku{"Default", t.s.Instances},
		Properties: depProperties{
			EndpointComputeType: "Managed", EnvironmentID: t.envID(t.version(r)), EnvironmentVariables: env, InstanceType: t.s.InstanceType, LivenessProbe: p(), ReadinessProbe: p(),
			RequestSettings: &requests{t.s.Concurrency, fmt.Sprintf("PT%dS", timeout/time.Second)}, ScaleSettings: &scale{"Default"},
		},
	}
	d.Tags[tagSettings] = hash(facts(d))[:16]
	return d
}

// facts are what the target sets, as texts. Whose deployment it is has keys of its own, see identity.
func facts(d *deployment) map[string]string {
	p := d.Properties
	out := map[string]string{"environment": strings.ToLower(p.EnvironmentID), "instance-type": p.InstanceType, "instances": fmt.Sprint(d.SKU.Capacity)}
	for k, v := range p.EnvironmentVariables {
		out["env "+k] = v
	}
	if x := p.RequestSettings; x != nil {
		out["concurrency"], out["timeout"] = fmt.Sprint(x.MaxConcurrentRequestsPerInstance), seconds(x.RequestTimeout)
	}
	if x := p.ReadinessProbe; x != nil {
		out["readiness probe"] = fmt.Sprintf("%s %s %d", seconds(x.Period), seconds(x.Timeout), x.FailureThreshold)
	}
	if x := p.LivenessProbe; x != nil {
		out["liveness probe"] = fmt.Sprintf("%s %s %d", seconds(x.Period), seconds(x.Timeout), x.FailureThreshold)
	}
	return out
}

// seconds writes PT1M5S, in which the platform may answer, as 65s; what it cannot read stays.
func seconds(s string) string {
	rest, ok := strings.CutPrefix(s, "PT")
	d, err := time.ParseDuration(strings.ToLower(rest))
	if !ok || err != nil {
		return s
	}
	return fmt.Sprintf("%gs", d.Seconds())
}

// identity tells whether a fact says which release runs, rather than how.
func identity(k string) bool { return k == "environment" || k == "env "+DigestVariable }

func differ(have, want map[string]string) []deploy.Change {
	all := maps.Clone(have)
	maps.Copy(all, want)
	var out []deploy.Change
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if have[k] != want[k] {
			out = append(out, deploy.Change{Field: k, Old: have[k], New: want[k]})
		}
	}
	return out
}

// choose finds the deployment that runs r with these settings, or names a new one. exists: it is there and may become ready.
func (t *Target) choose(st *state, r deploy.Release) (d *deployment, exists bool) {
	want := t.deployment(r)
	for _, x := range st.deps {
		if x.digest() != r.Digest || x.failed() || len(differ(facts(x), facts(want))) > 0 || !labelled(x.Tags, want.Tags) {
			continue
		}
		if d == nil || st.shares()[x.Name] > st.shares()[d.Name] {
			d = x
		}
	}
	if d != nil {
		return d, true
	}
	for n := 0; ; n++ {
		want.Name = "w" + string(r.Digest)[7:19] + "-" + hash([]any{want.Tags, facts(want), n})[:6]
		if st.dep(want.Name) == nil {
			break
		}
	}
	want.Tags[tagName] = want.Name
	return want, false
}

// labelled tells whether have has all of want.
func labelled(have, want map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func (t *Target) check(r deploy.Release) error {
	if err := r.Check(true, false); err != nil {
		return err
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, "amd64") {
		return fmt.Errorf("%w: the image is for %s, Azure ML runs linux/amd64", deploy.ErrPlatform, strings.Join(r.Arches, ", "))
	}
	if len(r.Image) > 256 {
		return fmt.Errorf("%w: a tag of Azure takes 256 characters, the image's name has %d", deploy.ErrRelease, len(r.Image))
	}
	for k, v := range r.Labels {
		if k == "" || len(k) > 256 || len(v) > 256 || strings.ContainsAny(k, `<>%&\?/`) || strings.HasPrefix(k, "waybill-") {
			return fmt.Errorf(`%w: label %q=%q: Azure takes names without <>%%&\?/ and values of 256 characters, and waybill- is taken`, deploy.ErrRelease, k, v)
		}
	}
	if len(r.Labels) > 40 {
		return fmt.Errorf("%w: %d labels, Azure takes 50 tags with those of Waybill", deploy.ErrRelease, len(r.Labels))
	}
	return nil
}

// Plan implements deploy.Target.
func (t *Target) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	if err := t.check(r); err != nil {
		return nil, err
	}
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	p := &deploy.Plan{Release: r, Revision: st.version(), Create: st.ep == nil}
	d, exists := t.choose(st, r)
	if st.ep == nil {
		p.Changes = append(p.Changes, deploy.Change{Field: "endpoint", New: t.s.Endpoint})
	} else if !st.settled() {
		p.Changes = append(p.Changes, deploy.Change{Field: "state", Old: st.ep.Properties.ProvisioningState, New: "Succeeded", Why: "a change is under way"})
	}
	have := map[string]string{}
	if old := st.dep(st.stable()); old != nil {
		p.From, have = old.digest(), facts(old)
		if old.ours() && hash(have)[:16] != old.Tags[tagSettings] {
			for _, c := range differ(have, facts(d)) {
				if !identity(c.Field) {
					c.Why = "changed by somebody else"
					p.Drift = append(p.Drift, c)
				}
			}
		}
	}
	if !exists {
		p.Changes = append(p.Changes, deploy.Change{Field: "deployment", Old: st.stable(), New: d.Name}, deploy.Change{Field: "image", New: r.Image})
		p.Changes = append(p.Changes, differ(have, facts(d))...)
	}
	if want := st.toward(d.Name, r.Weight, int(t.s.Keep)); show(st.shares()) != show(want.traffic) {
		p.Changes = append(p.Changes, deploy.Change{Field: "traffic", Old: show(st.shares()), New: show(want.traffic)})
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
		return &deploy.Outcome{Digest: r.Digest, Previous: p.From, Image: r.Image, Weight: w, IDs: map[string]string{"endpoint": t.id()}}, nil
	}
	end := until(r.Wait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if now := st.version(); now != p.Revision {
		return nil, fmt.Errorf("%w: endpoint %s is at %s, planned at %s", deploy.ErrConflict, t.s.Endpoint, now, p.Revision)
	}
	if st.ep == nil {
		if st, err = t.create(ctx, end); err != nil {
			return nil, err
		}
	}
	base := st.version()
	d, exists := t.choose(st, r)
	from := st.dep(st.stable()).digest()
	if _, err = t.rest(ctx, st, base, end); err != nil {
		return nil, err
	}
	if !exists {
		if err := t.deploy(ctx, d, r, end); err != nil {
			return nil, err
		}
	}
	if st, err = t.comesUp(ctx, base, d.Name, end); err != nil {
		return nil, err
	}
	want := st.toward(d.Name, r.Weight, int(t.s.Keep))
	if !st.is(want) {
		// What another deploy at the same time made can then no longer be given traffic to.
		swept, err := t.sweep(ctx, st, d.Name, st.history())
		if err != nil {
			return nil, err
		}
		if swept {
			if st, err = t.comesUp(ctx, base, d.Name, end); err != nil {
				return nil, err
			}
		}
	}
	out, err := t.route(ctx, st, d.Name, want, end)
	if err != nil {
		return nil, err
	}
	out.Digest, out.Previous, out.Changed = r.Digest, from, true
	return out, nil
}

// until is when the time to wait is over.
func until(wait time.Duration) time.Time {
	if wait <= 0 {
		wait = defaultWait
	}
	return time.Now().Add(wait)
}

// create makes the endpoint, without traffic, and waits for it.
func (t *Target) create(ctx context.Context, end time.Time) (*state, error) {
	a, err := t.c.call(ctx, "create the endpoint", "PUT", at(t.id()), t.endpointBody())
	if err != nil && !errors.Is(err, errBusy) {
		return nil, err
	}
	if err == nil {
		if err := t.c.await(ctx, "create the endpoint", a, t.s.Poll, end); err != nil {
			return nil, err
		}
	}
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.ep == nil || st.moves() != 1 || len(st.shares()) > 0 {
		return nil, fmt.Errorf("%w: somebody else made endpoint %s", deploy.ErrConflict, t.s.Endpoint)
	}
	if st, err = t.rest(ctx, st, st.version(), end); err != nil {
		return nil, err
	}
	if st.ep.Properties.ProvisioningState != "Succeeded" {
		return nil, fmt.Errorf("%w: endpoint %s is %s", deploy.ErrUnhealthy, t.s.Endpoint, st.ep.Properties.ProvisioningState)
	}
	t.s.Log.Info("endpoint created", "endpoint", t.s.Endpoint)
	return st, nil
}

// endpointBody is an endpoint without deployments.
func (t *Target) endpointBody() map[string]any {
	identity := map[string]any{"type": "SystemAssigned"}
	if t.s.Identity != "" {
		identity = map[string]any{"type": "UserAssigned", "userAssignedIdentities": map[string]any{t.s.Identity: map[string]any{}}}
	}
	return map[string]any{"location": t.s.Location, "identity": identity, "tags": map[string]string{tagMoves: "1"}, "properties": map[string]any{"authMode": authModes[t.s.Auth]}}
}

// rest waits until no change of the endpoint is under way.
func (t *Target) rest(ctx context.Context, st *state, base string, end time.Time) (*state, error) {
	for {
		switch {
		case st.version() != base:
			return nil, fmt.Errorf("%w: endpoint %s is at %s, it was %s", deploy.ErrConflict, t.s.Endpoint, st.version(), base)
		case st.settled():
			return st, nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: endpoint %s is still %s", deploy.ErrBusy, t.s.Endpoint, st.ep.Properties.ProvisioningState)
		}
		if err := pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		var err error
		if st, err = t.read(ctx); err != nil {
			return nil, err
		}
	}
}

// deploy makes the environment and the deployment.
func (t *Target) deploy(ctx context.Context, d *deployment, r deploy.Release, end time.Time) error {
	a, err := t.c.call(ctx, "write the environment", "PUT", at(t.envID(t.version(r))), t.environmentBody(r))
	if errors.Is(err, errBusy) { // a version that is there is never written again
		a, err = t.c.call(ctx, "read the environment", "GET", at(t.envID(t.version(r))), nil)
	}
	if err != nil {
		return err
	}
	var env struct{ Properties struct{ Image string } }
	if err := json.Unmarshal(a.body, &env); err != nil || env.Properties.Image != r.Image {
		return fmt.Errorf("%w: environment version %s has another image (%s)", deploy.ErrConflict, t.version(r), env.Properties.Image)
	}
	body := *d
	body.Name = ""
	a, err = t.c.call(ctx, "create deployment "+d.Name, "PUT", at(t.depID(d.Name)), body)
	if errors.Is(err, errBusy) {
		return nil // an answer was lost, or the endpoint is busy: comesUp finds out
	}
	if err != nil {
		return err
	}
	t.s.Log.Info("deployment written", "endpoint", t.s.Endpoint, "deployment", d.Name, "image", r.Image)
	if err := t.c.await(ctx, "deployment "+d.Name+", which gets no traffic", a, t.s.Poll, end); err != nil && !errors.Is(err, errLate) {
		return err
	}
	return nil
}

// environmentBody is the version of the environment that r runs in.
func (t *Target) environmentBody(r deploy.Release) map[string]any {
	return map[string]any{"properties": map[string]any{
		"image": r.Image, "osType": "Linux", "inferenceConfig": t.routes(r), "description": "made by Waybill",
		"tags": map[string]string{tagDigest: string(r.Digest)},
	}}
}

// comesUp waits until a deployment can serve.
func (t *Target) comesUp(ctx context.Context, base, name string, end time.Time) (*state, error) {
	for {
		st, err := t.read(ctx, name)
		if err != nil {
			return nil, err
		}
		d := st.dep(name)
		switch {
		case st.version() != base:
			return nil, fmt.Errorf("%w: endpoint %s is at %s, it was %s", deploy.ErrConflict, t.s.Endpoint, st.version(), base)
		case d == nil:
			return nil, fmt.Errorf("%w: deployment %s is not there (any more)", deploy.ErrConflict, name)
		case d.failed():
			return nil, fmt.Errorf("%w: deployment %s, which gets no traffic, is %s; its log tells why: az ml online-deployment get-logs -e %s -n %s",
				deploy.ErrUnhealthy, name, d.Properties.ProvisioningState, t.s.Endpoint, name)
		case d.healthy():
			return st, nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: deployment %s is %s and the time to wait is over; it gets no traffic", deploy.ErrUnhealthy, name, d.Properties.ProvisioningState)
		}
		if err := pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
	}
}

// sweep deletes Waybill's deployments that get no traffic, except name and keep. One that the platform does not give up, because it
// is still being made or got traffic meanwhile, stays.
func (t *Target) sweep(ctx context.Context, st *state, name string, keep []string) (bool, error) {
	swept := false
	for _, d := range st.deps {
		if !d.ours() || d.Name == name || st.shares()[d.Name] > 0 || slices.Contains(keep, d.Name) || d.Properties.ProvisioningState == "Deleting" {
			continue
		}
		_, err := t.c.call(ctx, "delete deployment "+d.Name, "DELETE", at(t.depID(d.Name)), nil)
		if err != nil && !errors.Is(err, errBusy) && !errors.Is(err, deploy.ErrGone) {
			return swept, err
		}
		swept = true
		t.s.Log.Info("deployment deleted", "endpoint", t.s.Endpoint, "deployment", d.Name, "refused", err != nil)
	}
	return swept, nil
}

// body is the endpoint of st with another traffic: what others set stays.
func (st *state) body(want aim) map[string]any {
	raw, _ := json.Marshal(st.ep.doc) // it was read from JSON
	var doc map[string]any
	_ = json.Unmarshal(raw, &doc)
	for _, k := range []string{"id", "name", "type", "systemData"} {
		delete(doc, k)
	}
	if id, ok := doc["identity"].(map[string]any); ok {
		delete(id, "principalId")
		delete(id, "tenantId")
		if users, ok := id["userAssignedIdentities"].(map[string]any); ok {
			for k := range users {
				users[k] = map[string]any{}
			}
		}
	}
	props, _ := doc["properties"].(map[string]any)
	if props == nil {
		props = map[string]any{}
	}
	for _, k := range []string{"scoringUri", "swaggerUri", "provisioningState", "keys"} {
		delete(props, k)
	}
	maps.DeleteFunc(props, func(_ string, v any) bool { return v == nil })
	props["traffic"] = want.traffic
	doc["properties"] = props
	tags := maps.Clone(st.ep.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	for k, v := range map[string]string{tagPrevious: strings.Join(want.history, ","), tagCanary: want.canary} {
		if tags[k] = v; v == "" {
			delete(tags, k)
		}
	}
	tags[tagMoves] = strconv.Itoa(st.moves() + 1)
	doc["tags"] = tags
	maps.DeleteFunc(doc, func(_ string, v any) bool { return v == nil })
	return doc
}

// follow reads what a move that was accepted came to. A refusal or two do not end it: the switch would go on unwatched.
func (t *Target) follow(ctx context.Context, name string) (st *state, err error) {
	for range 3 {
		if st, err = t.read(ctx, name); err == nil || ctx.Err() != nil {
			return st, err
		}
	}
	return st, err
}

// route moves the traffic and waits until the platform says that it did.
func (t *Target) route(ctx context.Context, st *state, name string, want aim, end time.Time) (*deploy.Outcome, error) {
	base, goal := st.version(), st.moves()+1
	if st.is(want) {
		goal = st.moves()
	}
	for !st.is(want) || st.moves() != goal {
		a, err := t.c.call(ctx, "move the traffic", "PUT", at(t.id()), st.body(want))
		if err == nil {
			err = t.c.await(ctx, "move the traffic", a, t.s.Poll, end)
			if err != nil && ctx.Err() == nil {
				t.s.Log.Warn("the operation that moves the traffic", "cause", err) // what came of it is read from the endpoint
			}
		}
		now, rerr := t.follow(ctx, name)
		switch {
		case rerr != nil:
			return nil, rerr
		case now.is(want) && now.moves() == goal: // an answer that was lost is recognised by what stands there
		case now.version() != base:
			return nil, fmt.Errorf("%w: endpoint %s is at %s, it was %s", deploy.ErrConflict, t.s.Endpoint, now.version(), base)
		case now.dep(name) == nil || now.dep(name).failed():
			return nil, fmt.Errorf("%w: deployment %s was deleted", deploy.ErrConflict, name)
		case err != nil && !errors.Is(err, errBusy):
			return nil, err
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: endpoint %s does not come to rest", deploy.ErrBusy, t.s.Endpoint)
		default:
			if err := pause(ctx, t.s.Poll); err != nil {
				return nil, err
			}
		}
		st = now
	}
	for base := st.version(); !st.settled() && !time.Now().After(end); {
		if err := pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		var err error
		if st, err = t.follow(ctx, name); err != nil {
			return nil, err
		}
		if st.version() != base {
			break
		}
	}
	if !st.is(want) || st.moves() != goal {
		return nil, fmt.Errorf("%w: endpoint %s is at %s", deploy.ErrConflict, t.s.Endpoint, st.version())
	}
	if s := st.ep.Properties.ProvisioningState; s != "Succeeded" {
		return nil, fmt.Errorf("%w: endpoint %s is %s after the move to %s", deploy.ErrUnhealthy, t.s.Endpoint, s, show(want.traffic))
	}
	t.s.Log.Info("traffic moved", "endpoint", t.s.Endpoint, "to", show(want.traffic))
	if _, err := t.sweep(ctx, st, name, st.history()); err != nil {
		t.s.Log.Warn("deployments that are not wanted any more stay until the next move", "cause", err)
	}
	return t.outcome(st, name, st.shares()[name]), nil
}

func (t *Target) outcome(st *state, name string, weight int) *deploy.Outcome {
	d := st.dep(name)
	out := &deploy.Outcome{Digest: d.digest(), Weight: weight, URL: st.ep.Properties.ScoringURI, IDs: map[string]string{"endpoint": t.id(), "deployment": name, "moves": fmt.Sprint(st.moves())}}
	if d != nil {
		out.Image = d.image()
	}
	return out
}

// Rollback implements deploy.Target.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	end := until(wait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.ep == nil {
		return nil, fmt.Errorf("%w: there is no endpoint %s", deploy.ErrNotFound, t.s.Endpoint)
	}
	name := ""
	switch {
	case to != "":
		rank := func(d *deployment) int { // what serves, then what is well, then the newest
			n := 2 * st.shares()[d.Name]
			if d.healthy() {
				n++
			}
			return n
		}
		var best *deployment
		for _, d := range st.deps {
			if d.digest() == to && (best == nil || rank(d) > rank(best)) {
				best = d
			}
		}
		if best == nil {
			return nil, fmt.Errorf("%w: endpoint %s has no deployment of %s (deleted ones are not remembered)", deploy.ErrNotFound, t.s.Endpoint, to)
		}
		name = best.Name
	case st.canary() != "":
		name = st.stable()
	default:
		hist := st.history()
		if len(hist) == 0 {
			return nil, fmt.Errorf("%w: nothing served endpoint %s before", deploy.ErrNotFound, t.s.Endpoint)
		}
		name = hist[0]
	}
	return t.move(ctx, st, name, end)
}

// Promote implements deploy.Promoter.
func (t *Target) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	end := until(wait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	name := st.canary()
	if name == "" {
		name = st.stable()
	}
	if name == "" {
		return nil, fmt.Errorf("%w: endpoint %s serves nothing", deploy.ErrNotFound, t.s.Endpoint)
	}
	return t.move(ctx, st, name, end)
}

// move gives all traffic to a deployment that exists.
func (t *Target) move(ctx context.Context, st *state, name string, end time.Time) (*deploy.Outcome, error) {
	d := st.dep(name)
	if d == nil {
		return nil, fmt.Errorf("%w: deployment %s was deleted", deploy.ErrGone, name)
	}
	from := st.dep(st.stable()).digest()
	if st.settled() && st.shares()[name] == 100 {
		return t.outcome(st, name, 100), nil
	}
	if !d.healthy() {
		return nil, fmt.Errorf("%w: deployment %s is %s", deploy.ErrUnhealthy, name, d.Properties.ProvisioningState)
	}
	back := st.dep(st.canary()).digest()
	out, err := t.route(ctx, st, name, st.toward(name, 100, int(t.s.Keep)), end)
	if err != nil {
		return nil, err
	}
	out.Previous, out.Changed = from, true
	if out.Previous == out.Digest { // a canary was taken back
		out.Previous = back
	}
	return out, nil
}
