package vertex

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	api "google.golang.org/api/aiplatform/v1"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/google"
	"github.com/waybill-ml/waybill/deploy/retry"
	"github.com/waybill-ml/waybill/oci/artifact"
)

var (
	labelKeys   = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,62}$`)
	labelValues = regexp.MustCompile(`^[a-z0-9_-]{0,63}$`)
)

func (t *Target) check(r deploy.Release) error {
	if err := r.Check(true, false); err != nil {
		return err
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, "amd64") {
		return fmt.Errorf("%w: the image is for %s, Vertex AI runs linux/amd64", deploy.ErrPlatform, strings.Join(r.Arches, ", "))
	}
	for k, v := range r.Labels {
		if !labelKeys.MatchString(k) || !labelValues.MatchString(v) || strings.HasPrefix(k, "waybill-") {
			return fmt.Errorf("%w: label %q=%q: Vertex AI takes at most 63 small letters, digits, - and _, and waybill- is taken", deploy.ErrRelease, k, v)
		}
	}
	return nil
}

// container is what r needs. The routes are those of waybill-serve.
func (t *Target) container(r deploy.Release) *container {
	all := maps.Clone(t.s.Env)
	if all == nil {
		all = map[string]string{}
	}
	all[DigestVariable], all[variantVariable] = string(r.Digest), "vertex"
	c := &container{ImageUri: r.Image, PredictRoute: "/predict", HealthRoute: "/health", Ports: []*api.GoogleCloudAiplatformV1Port{{ContainerPort: t.s.Port}}}
	for _, k := range slices.Sorted(maps.Keys(all)) {
		c.Env = append(c.Env, &api.GoogleCloudAiplatformV1EnvVar{Name: k, Value: all[k]})
	}
	return c
}

// choice is what there is of a release.
type choice struct {
	ver   *model    // nil: to be uploaded
	dm    *deployed // nil: to be deployed
	scale bool      // dm has another number of replicas
}

// choose finds the model version that is r, and the deployed model that runs it with these settings: one that has traffic, else the newest.
func (t *Target) choose(st *state, r deploy.Release) choice {
	var ch choice
	spec := hash(t.container(r))
	for _, m := range st.byAge() {
		if digestOf(m) != r.Digest || m.Labels[labelSpec] != spec {
			continue
		}
		if ch.ver == nil {
			ch.ver = m
		}
		if st.ep == nil {
			continue
		}
		for _, d := range st.ep.DeployedModels {
			if st.ver(d) == m && t.fits(d) && (ch.dm == nil || st.ep.TrafficSplit[d.Id] > st.ep.TrafficSplit[ch.dm.Id]) {
				ch.dm, ch.ver = d, m
			}
		}
	}
	ch.scale = ch.dm != nil && scaleOf(ch.dm) != t.scale()
	return ch
}

func (t *Target) scale() string { return scale(t.s.MinReplicas, t.s.MaxReplicas) }

// fits tells whether d has all settings that cannot be changed any more.
func (t *Target) fits(d *deployed) bool {
	return machineOf(d) == t.s.Machine && (t.s.ServiceAccount == "" || d.ServiceAccount == t.s.ServiceAccount)
}

// displayName tells of a deployed model what runs and how it was deployed.
func (t *Target) displayName(d artifact.Digest) string {
	return "waybill-" + string(d)[7:15] + "-" + t.scale()
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
	p := &deploy.Plan{Release: r, Revision: version(st), Create: st.ep == nil}
	add := func(field, was, is string) {
		if was != is {
			p.Changes = append(p.Changes, deploy.Change{Field: field, Old: was, New: is})
		}
	}
	ch := t.choose(st, r)
	now := st.dm(st.stable())
	p.From = digestOf(st.ver(now))
	if ch.ver == nil {
		add("model version", "", "of "+t.s.Model)
		was := ""
		if m := st.ver(now); m != nil && m.ContainerSpec != nil {
			was = m.ContainerSpec.ImageUri
		}
		add("image", was, r.Image)
	}
	if now != nil && p.From != "" {
		have := scaleOf(now)
		if p.From == r.Digest || have != t.scale() {
			add("machine", machineOf(now), t.s.Machine)
			add("replicas", have, t.scale())
			if t.s.ServiceAccount != "" {
				add("service-account", now.ServiceAccount, t.s.ServiceAccount)
			}
		}
		// The machine cannot be changed by hand; replicas are as they were deployed or last set, or somebody else set them.
		if have != t.scale() && !strings.HasSuffix(now.DisplayName, "-"+have) && st.ep.Labels[labelScale] != have {
			p.Drift = append(p.Drift, deploy.Change{Field: "replicas", Old: have, New: t.scale(), Why: "changed by somebody else"})
		}
	}
	id := "new"
	if ch.dm == nil {
		add("deployed model", st.stable(), "new")
	} else if id = ch.dm.Id; ch.scale && id != st.stable() {
		add("replicas of "+id, scaleOf(ch.dm), t.scale())
	}
	if st.ep == nil {
		add("endpoint", "", t.s.Endpoint)
		add("traffic", "", id+" 100%")
		return p, nil
	}
	split, labels := st.moved(id, r.Digest, r.Weight)
	add("traffic", show(st.ep.TrafficSplit), show(split))
	for _, k := range []string{labelCanary, labelPrevious, labelPreviousVersion} {
		add(k, st.ep.Labels[k], labels[k])
	}
	for _, d := range st.unwanted(st.ep.DeployedModels, split, labels) {
		if d != ch.dm {
			add("undeploy", d.Id, "")
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
		return &deploy.Outcome{Digest: r.Digest, Previous: p.From, Image: r.Image, Weight: w, IDs: map[string]string{"endpoint": t.name()}}, nil
	}
	end := google.Until(r.Wait, defaultWait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if now := version(st); now != p.Revision {
		return nil, fmt.Errorf("%w: endpoint %s is at %s, planned at %s", deploy.ErrConflict, t.s.Endpoint, now, p.Revision)
	}
	before := []*deployed{}
	if st.ep == nil {
		if st, err = t.create(ctx, end); err != nil {
			return nil, err
		}
	} else {
		before = st.ep.DeployedModels
	}
	base, from := traffic(st), st.digest(st.stable())
	ch := t.choose(st, r)
	if ch.ver == nil {
		if ch.ver, err = t.upload(ctx, st, r, end); err != nil {
			return nil, err
		}
	}
	switch {
	case ch.dm == nil:
		if st, ch.dm, err = t.deploy(ctx, st, ch.ver, end); err != nil {
			return nil, err
		}
	case ch.scale:
		if st, err = t.rescale(ctx, ch.dm, end); err != nil {
			return nil, err
		}
	}
	if traffic(st) != base {
		return nil, t.overtaken(st, ch.dm.Id)
	}
	st, err = t.route(ctx, st, ch.dm.Id, r.Digest, r.Weight, t.scale())
	if err != nil {
		return nil, err
	}
	t.tidy(ctx, st, before, end)
	out := t.outcome(st, ch.dm.Id)
	out.Digest, out.Previous, out.Image, out.Changed = r.Digest, from, r.Image, true
	return out, nil
}

func (t *Target) overtaken(st *state, id string) error {
	return fmt.Errorf("%w: endpoint %s is at %s; deployed model %s, if it is still there, gets no traffic", deploy.ErrConflict, t.s.Endpoint, version(st), id)
}

// Rollback implements deploy.Target.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	end := google.Until(wait, defaultWait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.ep == nil {
		return nil, fmt.Errorf("%w: there is no endpoint %s", deploy.ErrNotFound, t.s.Endpoint)
	}
	id, ver := "", (*model)(nil)
	switch {
	case to != "":
		for _, m := range st.byAge() {
			if digestOf(m) != to {
				continue
			}
			if ver == nil {
				ver = m
			}
			for _, d := range st.ep.DeployedModels {
				if st.ver(d) == m && (id == "" || st.ep.TrafficSplit[d.Id] > st.ep.TrafficSplit[id]) {
					id = d.Id
				}
			}
		}
		if ver == nil {
			return nil, fmt.Errorf("%w: model %s has no version of %s (deleted ones are not remembered)", deploy.ErrNotFound, t.s.Model, to)
		}
	case st.canary() != "":
		id = st.stable()
	default:
		if id = st.ep.Labels[labelPrevious]; id == "" {
			return nil, fmt.Errorf("%w: endpoint %s has no label %s", deploy.ErrNotFound, t.s.Endpoint, labelPrevious)
		}
		if st.dm(id) == nil {
			if ver = st.vers[st.ep.Labels[labelPreviousVersion]]; digestOf(ver) == "" {
				return nil, fmt.Errorf("%w: deployed model %s was undeployed, and its model version %s was deleted", deploy.ErrGone, id, cmp.Or(st.ep.Labels[labelPreviousVersion], "is not Waybill's, or"))
			}
			id = ""
		}
	}
	return t.move(ctx, st, id, ver, end)
}

// Promote implements deploy.Promoter.
func (t *Target) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	end := google.Until(wait, defaultWait)
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	id := cmp.Or(st.canary(), st.stable())
	if id == "" {
		return nil, fmt.Errorf("%w: endpoint %s serves nothing", deploy.ErrNotFound, t.s.Endpoint)
	}
	return t.move(ctx, st, id, nil, end)
}

// move gives all traffic to a deployed model, or for the empty id to a version that must be deployed again.
func (t *Target) move(ctx context.Context, st *state, id string, ver *model, end time.Time) (*deploy.Outcome, error) {
	from, canary := st.digest(st.stable()), st.digest(st.canary())
	before, base := st.ep.DeployedModels, traffic(st)
	if id != "" && st.canary() == "" && st.ep.TrafficSplit[id] == 100 {
		return t.outcome(st, id), nil
	}
	if id == "" {
		var d *deployed
		var err error
		if st, d, err = t.deploy(ctx, st, ver, end); err != nil {
			return nil, err
		}
		if id = d.Id; traffic(st) != base {
			return nil, t.overtaken(st, id)
		}
	}
	st, err := t.route(ctx, st, id, st.digest(id), 100, st.ep.Labels[labelScale])
	if err != nil {
		return nil, err
	}
	t.tidy(ctx, st, before, end)
	out := t.outcome(st, id)
	out.Previous, out.Changed = from, true
	if out.Previous == out.Digest { // a canary was taken back
		out.Previous = canary
	}
	return out, nil
}

func (t *Target) outcome(st *state, id string) *deploy.Outcome {
	out := &deploy.Outcome{Digest: st.digest(id), Weight: int(st.ep.TrafficSplit[id]), URL: t.url(st.ep), IDs: map[string]string{"endpoint": t.name(), "deployed model": id}}
	if m := st.ver(st.dm(id)); m != nil {
		out.IDs["model version"] = t.model() + "@" + m.VersionId
		if m.ContainerSpec != nil {
			out.Image = m.ContainerSpec.ImageUri
		}
	}
	if n := st.ep.Labels[labelMove]; n != "" {
		out.IDs["move"] = n
	}
	return out
}

// operation is op in the form that google knows.
func operation(op *api.GoogleLongrunningOperation) google.Operation {
	if op == nil {
		return google.Operation{}
	}
	out := google.Operation{Name: op.Name, Done: op.Done}
	if op.Error != nil {
		out.Failed, out.Code, out.Message = true, op.Error.Code, op.Error.Message
	}
	return out
}

// await asks until op is done, or the time is over.
func (t *Target) await(ctx context.Context, op *api.GoogleLongrunningOperation, end time.Time) (google.Operation, error) {
	return t.call.Await(ctx, operation(op), t.s.Poll, end, func(ctx context.Context, name string) (google.Operation, error) {
		op, err := t.c.Projects.Locations.Operations.Get(name).Context(ctx).Do()
		return operation(op), err
	})
}

// failed is the error of an operation, with otherwise for what nothing tells.
func (t *Target) failed(op google.Operation, what string, otherwise error) error {
	text := fmt.Sprintf("%s: %s: %s (operation %s, code %d)", platform, what, t.call.Redact(op.Message), op.Name, op.Code)
	if cause := cmp.Or(google.CodeCause(op.Code, op.Message), otherwise); cause != nil {
		return fmt.Errorf("%w: %s", cause, text)
	}
	return errors.New(text)
}

// again waits for a moment when err says that something else is under way; it gives err when a call is not to be made again.
func (t *Target) again(ctx context.Context, err error, end time.Time) error {
	if !errors.Is(err, deploy.ErrBusy) && !errors.Is(err, google.ErrExists) || time.Now().After(end) {
		return err
	}
	return google.Pause(ctx, t.s.Poll)
}

// create makes the endpoint. Who else makes it at the same time is told apart when the traffic is moved.
func (t *Target) create(ctx context.Context, end time.Time) (*state, error) {
	for {
		var op *api.GoogleLongrunningOperation
		err := t.call.Call(ctx, "create the endpoint", func(ctx context.Context) (err error) {
			op, err = t.c.Projects.Locations.Endpoints.Create(t.parent(), &endpoint{DisplayName: t.s.Endpoint, DedicatedEndpointEnabled: t.s.Dedicated, Labels: map[string]string{labelMove: "0"}}).
				EndpointId(t.s.Endpoint).Context(ctx).Do()
			return err
		})
		if err != nil && !errors.Is(err, google.ErrExists) {
			return nil, err
		}
		o, err := t.await(ctx, op, end)
		if err != nil {
			return nil, err
		}
		st, err := t.read(ctx)
		switch {
		case err != nil:
			return nil, err
		case st.ep != nil && (len(st.ep.TrafficSplit) > 0 || number(st.ep.Labels[labelMove]) > 0):
			return nil, fmt.Errorf("%w: endpoint %s was made in the meantime", deploy.ErrConflict, t.s.Endpoint)
		case st.ep != nil:
			return st, nil
		case o.Failed:
			return nil, t.failed(o, "create the endpoint", nil)
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: endpoint %s is not there and the time to wait is over", deploy.ErrUnhealthy, t.s.Endpoint)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
	}
}

// upload makes the model version of r. A call whose answer was lost is not blindly repeated: it would make a second version.
func (t *Target) upload(ctx context.Context, st *state, r deploy.Release, end time.Time) (*model, error) {
	c := t.container(r)
	spec := hash(c)
	find := func(vers map[string]*model) *model {
		for _, m := range (&state{vers: vers}).byAge() {
			if digestOf(m) == r.Digest && m.Labels[labelSpec] == spec {
				return m
			}
		}
		return nil
	}
	labels := maps.Clone(r.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	google.Label(labels, labelDigest, r.Digest)
	labels[labelSpec] = spec
	body := &model{DisplayName: cmp.Or(r.Model, t.s.Model), VersionDescription: strings.TrimSpace(r.Model + " " + r.Ver + " " + string(r.Digest)), Labels: labels, ContainerSpec: c}
	for {
		var found *model
		var op *api.GoogleLongrunningOperation
		first, vers := true, st.vers
		err := retry.Do(ctx, t.call.Policy(), func(ctx context.Context) error {
			return t.call.Once(ctx, "upload the model", func(ctx context.Context) (err error) {
				if !first {
					if vers, err = t.versions(ctx); err != nil {
						return err
					}
					if found = find(vers); found != nil {
						return nil
					}
				}
				first = false
				req := &api.GoogleCloudAiplatformV1UploadModelRequest{Model: body}
				if len(vers) == 0 {
					req.ModelId = t.s.Model
				} else {
					req.ParentModel = t.model()
				}
				op, err = t.c.Projects.Locations.Models.Upload(t.parent(), req).Context(ctx).Do()
				return err
			})
		})
		if err == nil && found == nil {
			o, err := t.await(ctx, op, end)
			switch {
			case err != nil:
				return nil, err
			case o.Failed:
				return nil, t.failed(o, "upload the model", nil)
			case !o.Done:
				return nil, fmt.Errorf("%w: the model is still being taken in, and the time to wait is over (operation %s)", deploy.ErrUnhealthy, o.Name)
			}
		} else if found != nil {
			return found, nil
		} else if err := t.again(ctx, err, end); err != nil {
			return nil, err
		}
		if st, err = t.read(ctx); err != nil {
			return nil, err
		}
		if found = find(st.vers); found != nil {
			t.s.Log.Info("model version uploaded", "model", t.s.Model, "version", found.VersionId, "image", r.Image)
			return found, nil
		}
		if op != nil {
			return nil, fmt.Errorf("%w: the model version that was just uploaded is not there", deploy.ErrConflict)
		}
	}
}

// newID is the id of a deployed model: the same for the same attempt, so that one whose answer was lost is recognised.
func (t *Target) newID(st *state, m *model) string {
	for n := 0; ; n++ {
		sum := sha256.Sum256([]byte(fmt.Sprint(t.name(), t.model(), m.VersionId, m.VersionCreateTime, t.s.Machine, t.s.ServiceAccount, st.ep.CreateTime, st.ep.Labels[labelMove], n)))
		id := fmt.Sprint(1_000_000_000 + binary.BigEndian.Uint64(sum[:8])%9_000_000_000)
		if st.dm(id) == nil {
			return id
		}
	}
}

// deploy makes a deployed model of m without traffic, and waits until it is healthy: before that Vertex AI does not say that it is done.
func (t *Target) deploy(ctx context.Context, st *state, m *model, end time.Time) (*state, *deployed, error) {
	id, base := t.newID(st, m), traffic(st)
	req := &api.GoogleCloudAiplatformV1DeployModelRequest{DeployedModel: &deployed{
		Id: id, Model: t.model() + "@" + m.VersionId, DisplayName: t.displayName(digestOf(m)), ServiceAccount: t.s.ServiceAccount,
		DedicatedResources: &api.GoogleCloudAiplatformV1DedicatedResources{
			MachineSpec:     &api.GoogleCloudAiplatformV1MachineSpec{MachineType: t.s.Machine},
			MinReplicaCount: t.s.MinReplicas, MaxReplicaCount: t.s.MaxReplicas,
		},
	}}
	for {
		var op *api.GoogleLongrunningOperation
		err := t.call.Call(ctx, "deploy the model", func(ctx context.Context) (err error) {
			op, err = t.c.Projects.Locations.Endpoints.DeployModel(t.name(), req).Context(ctx).Do()
			return err
		})
		if err != nil && !errors.Is(err, google.ErrExists) && !errors.Is(err, deploy.ErrBusy) {
			return nil, nil, err
		}
		o, err := t.await(ctx, op, end)
		if err != nil {
			return nil, nil, err
		}
		if op != nil && !o.Done {
			t.cancel(ctx, o.Name)
			return nil, nil, fmt.Errorf("%w: deployed model %s is not ready and the time to wait is over; it gets no traffic (operation %s)", deploy.ErrUnhealthy, id, o.Name)
		}
		now, err := t.read(ctx)
		switch {
		case err != nil:
			return nil, nil, err
		case now.dm(id) != nil:
			t.s.Log.Info("model deployed", "endpoint", t.s.Endpoint, "deployed model", id, "model version", m.VersionId)
			return now, now.dm(id), nil
		case o.Failed:
			return nil, nil, t.failed(o, "deploy the model", deploy.ErrUnhealthy)
		case now.ep == nil || traffic(now) != base || op != nil:
			return nil, nil, t.overtaken(now, id)
		case time.Now().After(end):
			return nil, nil, fmt.Errorf("%w: deployed model %s is not there and the time to wait is over", deploy.ErrUnhealthy, id)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, nil, err
		}
	}
}

// cancel ends an operation that nobody waits for any more. The platform does its best, no more.
func (t *Target) cancel(ctx context.Context, name string) {
	err := t.call.Call(ctx, "cancel the operation", func(ctx context.Context) error {
		_, err := t.c.Projects.Locations.Operations.Cancel(name).Context(ctx).Do()
		return err
	})
	if err != nil {
		t.s.Log.Warn("an operation could not be cancelled", "operation", name, "error", err.Error())
	}
}

// rescale sets the replicas of d.
func (t *Target) rescale(ctx context.Context, d *deployed, end time.Time) (*state, error) {
	req := &api.GoogleCloudAiplatformV1MutateDeployedModelRequest{UpdateMask: "dedicatedResources.minReplicaCount,dedicatedResources.maxReplicaCount", DeployedModel: &deployed{
		Id: d.Id, DedicatedResources: &api.GoogleCloudAiplatformV1DedicatedResources{MinReplicaCount: t.s.MinReplicas, MaxReplicaCount: t.s.MaxReplicas},
	}}
	for {
		var op *api.GoogleLongrunningOperation
		err := t.call.Call(ctx, "set the replicas", func(ctx context.Context) (err error) {
			op, err = t.c.Projects.Locations.Endpoints.MutateDeployedModel(t.name(), req).Context(ctx).Do()
			return err
		})
		if err != nil {
			if err := t.again(ctx, err, end); err != nil {
				return nil, err
			}
			continue
		}
		o, err := t.await(ctx, op, end)
		switch {
		case err != nil:
			return nil, err
		case o.Failed:
			return nil, t.failed(o, "set the replicas", deploy.ErrUnhealthy)
		case !o.Done:
			return nil, fmt.Errorf("%w: the replicas of deployed model %s are still being set, and the time to wait is over (operation %s)", deploy.ErrUnhealthy, d.Id, o.Name)
		}
		return t.read(ctx)
	}
}

// route moves the traffic by one call, on condition of the etag. The state given back is that after it.
func (t *Target) route(ctx context.Context, st *state, id string, d artifact.Digest, weight int, scale string) (*state, error) {
	base := traffic(st)
	split, labels := st.moved(id, d, weight)
	if scale != "" {
		labels[labelScale] = scale
	}
	labels[labelMove] = strconv.FormatInt(number(st.ep.Labels[labelMove])+1, 10)
	is := func(st *state) bool {
		return st.ep != nil && maps.Equal(st.ep.TrafficSplit, split) && maps.Equal(st.ep.Labels, labels)
	}
	for n := 1; ; n++ {
		var ep *endpoint
		err := t.call.Call(ctx, "move the traffic", func(ctx context.Context) (err error) {
			ep, err = t.c.Projects.Locations.Endpoints.Patch(t.name(), &endpoint{Etag: st.ep.Etag, TrafficSplit: split, Labels: labels}).UpdateMask("trafficSplit,labels").Context(ctx).Do()
			return err
		})
		for _, cause := range []error{deploy.ErrUnavailable, deploy.ErrThrottled, deploy.ErrUnauthorized, deploy.ErrForbidden, context.Canceled, context.DeadlineExceeded} {
			if errors.Is(err, cause) {
				return nil, err
			}
		}
		if err == nil {
			t.s.Log.Info("traffic moved", "endpoint", t.s.Endpoint, "to", show(split))
			now := *st
			now.ep = ep
			return &now, nil
		}
		now, rerr := t.read(ctx)
		switch {
		case rerr != nil:
			return nil, rerr
		case is(now):
			return now, nil
		case now.ep == nil || traffic(now) != base || now.dm(id) == nil:
			return nil, t.overtaken(now, id)
		case !errors.Is(err, google.ErrStale) && !errors.Is(err, deploy.ErrBusy):
			return nil, err
		case n == 8:
			return nil, fmt.Errorf("%w: endpoint %s does not come to rest", deploy.ErrBusy, t.s.Endpoint)
		}
		if err := google.Pause(ctx, t.s.Poll); err != nil {
			return nil, err
		}
		st = now
		split, labels = st.moved(id, d, weight)
		if scale != "" {
			labels[labelScale] = scale
		}
		labels[labelMove] = strconv.FormatInt(number(st.ep.Labels[labelMove])+1, 10)
	}
}

// tidy undeploys what is no longer wanted of what there was before the move. The move is done by then: what cannot be undeployed is logged, and
// stands in the next plan.
func (t *Target) tidy(ctx context.Context, st *state, before []*deployed, end time.Time) {
	for _, d := range st.unwanted(before, st.ep.TrafficSplit, st.ep.Labels) {
		if err := t.undeploy(ctx, d.Id, end); err != nil {
			t.s.Log.Warn("a deployed model that is no longer wanted is still there", "endpoint", t.s.Endpoint, "deployed model", d.Id, "error", err.Error())
			if ctx.Err() != nil || errors.Is(err, deploy.ErrUnavailable) {
				return
			}
		}
	}
}

func (t *Target) undeploy(ctx context.Context, id string, end time.Time) error {
	for {
		var op *api.GoogleLongrunningOperation
		err := t.call.Call(ctx, "undeploy", func(ctx context.Context) (err error) {
			op, err = t.c.Projects.Locations.Endpoints.UndeployModel(t.name(), &api.GoogleCloudAiplatformV1UndeployModelRequest{DeployedModelId: id}).Context(ctx).Do()
			return err
		})
		if errors.Is(err, deploy.ErrGone) {
			return nil
		}
		if err != nil {
			if err := t.again(ctx, err, end); err != nil {
				return err
			}
			continue
		}
		o, err := t.await(ctx, op, end)
		switch {
		case err != nil:
			return err
		case o.Failed:
			return t.failed(o, "undeploy "+id, nil)
		case !o.Done:
			return fmt.Errorf("%s: undeploy %s: the time to wait is over (operation %s)", platform, id, o.Name)
		}
		t.s.Log.Info("undeployed", "endpoint", t.s.Endpoint, "deployed model", id)
		return nil
	}
}
