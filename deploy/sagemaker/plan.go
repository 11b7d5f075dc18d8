package sagemaker

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// maxImage is the size of an image that SageMaker takes.
const maxImage = 10 << 30

// check refuses a release before anything is asked for.
func (t *Target) check(r deploy.Release) error {
	if err := r.Check(true, false); err != nil {
		return err
	}
	switch {
	case !registry.MatchString(r.Image):
		return fmt.Errorf("%w: SageMaker runs images from Amazon ECR alone, not %s", deploy.ErrRelease, r.Image)
	case len(r.Image) > 255:
		return fmt.Errorf("%w: the image's name has %d characters, SageMaker takes 255", deploy.ErrRelease, len(r.Image))
	case t.s.Serverless && r.Weight%100 != 0:
		return fmt.Errorf("%w: a serverless endpoint has one variant, so it cannot give %d%% of the traffic to a release", deploy.ErrRelease, r.Weight)
	case len(r.Arches) > 0 && !slices.Contains(r.Arches, t.arch()):
		return fmt.Errorf("%w: the release is for %s, the endpoint runs %s", deploy.ErrPlatform, strings.Join(r.Arches, ", "), t.arch())
	case r.Size > maxImage:
		return fmt.Errorf("%w: the image has %d bytes, SageMaker takes %d", deploy.ErrTooLarge, r.Size, int64(maxImage))
	}
	return nil
}

// variant is a release with the settings as they are now.
func (t *Target) variant(r deploy.Release) types.ProductionVariant {
	v := types.ProductionVariant{ModelName: aws.String(t.modelName(r))}
	if !t.s.Serverless {
		v.InstanceType, v.InitialInstanceCount = types.ProductionVariantInstanceType(t.s.Instance), aws.Int32(t.s.Count)
		return v
	}
	v.ServerlessConfig = &types.ProductionVariantServerlessConfig{MemorySizeInMB: aws.Int32(t.s.Memory), MaxConcurrency: aws.Int32(t.s.Concurrency)}
	if t.s.Provisioned > 0 {
		v.ServerlessConfig.ProvisionedConcurrency = aws.Int32(t.s.Provisioned)
	}
	return v
}

// planned is the state of a plan.
type planned struct {
	st   *state
	want []types.ProductionVariant
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
	if err := t.convertible(st); err != nil {
		return nil, err
	}
	v := t.variant(r)
	want := st.toward(v, r.Weight)
	p := &deploy.Plan{Release: r, From: st.digest(), Revision: st.revision(), Create: !st.exists(), State: &planned{st, want}}
	if t.there(st, want) {
		return p, nil
	}
	add := func(field, from, to, why string) {
		if from != to {
			p.Changes = append(p.Changes, deploy.Change{Field: field, Old: from, New: to, Why: why})
		}
	}
	if !st.exists() {
		add("endpoint", "", t.s.Endpoint, "it does not exist")
	} else if st.status != types.EndpointStatusInService {
		why := t.redactor(ctx).Text(st.reason)
		switch {
		case st.dead():
			why = "it never served, and is deleted and created anew: " + why
		case st.pending != "":
			why = "a change to " + st.pending + " is under way, and is waited for"
		}
		add("state", string(st.status), string(types.EndpointStatusInService), why)
	}
	p.Drift = t.drift(st)
	if _, _, ok := t.number(st.name); !ok && len(st.live) > 0 {
		p.Drift = append(p.Drift, deploy.Change{Field: "endpoint configuration", Old: st.name, New: t.next(st), Why: "it is not Waybill's"})
	}
	old := types.ProductionVariant{}
	if m := st.main(); m != nil {
		old = *m
		if st.cur.variant(canaryVariant) != nil && content(*st.cur.variant(canaryVariant)) == content(v) {
			old = v // it runs already
		}
	}
	was := st.cur.of(&old)
	if aws.ToString(old.ModelName) != aws.ToString(v.ModelName) {
		add("image", was.image, r.Image, "")
		add("artifact", string(was.digest), string(r.Digest), "")
		if was.image == r.Image && was.digest == r.Digest {
			add("model", aws.ToString(old.ModelName), aws.ToString(v.ModelName), "its variables or its role are others")
		}
	}
	add("instances", capacity(old), capacity(v), "")
	add("traffic", traffic(st.cur), traffic(&config{variants: want}), "")
	p.Changes = append(p.Changes, p.Drift...)
	if st.exists() && len(p.Changes) == 0 { // other names of variants
		add("endpoint configuration", st.name, t.next(st), "")
	}
	return p, nil
}

// convertible refuses what SageMaker does: an endpoint with instances cannot become serverless.
func (t *Target) convertible(st *state) error {
	if m := st.main(); m != nil && t.s.Serverless && m.ServerlessConfig == nil {
		return fmt.Errorf("%w: endpoint %s has instances, and SageMaker does not make one serverless; take another name", deploy.ErrRelease, t.s.Endpoint)
	}
	return nil
}

// capacity is a variant's as a person reads it.
func capacity(v types.ProductionVariant) string {
	switch s := v.ServerlessConfig; {
	case s != nil:
		return fmt.Sprintf("serverless, %d MB, concurrency %d, provisioned %d", aws.ToInt32(s.MemorySizeInMB), aws.ToInt32(s.MaxConcurrency), aws.ToInt32(s.ProvisionedConcurrency))
	case v.InstanceType == "":
		return ""
	}
	return fmt.Sprintf("%d of %s", aws.ToInt32(v.InitialInstanceCount), v.InstanceType)
}

func traffic(c *config) string {
	if c == nil {
		return ""
	}
	var out []string
	for _, v := range c.variants {
		out = append(out, fmt.Sprintf("%s %g", aws.ToString(v.VariantName), aws.ToFloat32(v.InitialVariantWeight)))
	}
	return strings.Join(out, ", ")
}

// Apply implements deploy.Target. What a failure leaves behind is a model and an endpoint configuration without traffic, which cost nothing and
// are taken up, or replaced, by the next run.
func (t *Target) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	made, ok := p.State.(*planned)
	if !ok {
		return nil, fmt.Errorf("%w: the plan is not this target's", deploy.ErrRelease)
	}
	r := p.Release
	if err := t.check(r); err != nil {
		return nil, err
	}
	if len(p.Changes) == 0 {
		return t.outcome(made.st, made.st, r.Digest), nil
	}
	end := t.until(r.Wait)
	st, err := t.settle(ctx, end)
	if err != nil {
		return nil, err
	}
	if st.revision() != p.Revision {
		// The same plan may have been carried out meanwhile, by a run whose answer was lost.
		if st.name == t.next(made.st) && t.there(st, made.want) {
			out := t.outcome(made.st, st, r.Digest)
			out.Changed = true
			return out, t.verify(st, goal{made.want, t.modelName(r), r.Image})
		}
		return nil, fmt.Errorf("%w: endpoint %s is no longer as it was planned: %s", deploy.ErrConflict, t.s.Endpoint, st.revision())
	}
	if st.status == types.EndpointStatusOutOfService || st.status == types.EndpointStatusFailed && !st.dead() {
		return nil, fmt.Errorf("%w; SageMaker takes no update of it: aws sagemaker delete-endpoint --endpoint-name %s", t.failed(ctx, fmt.Sprintf("endpoint %s is %s", t.s.Endpoint, st.status), st.reason), t.s.Endpoint)
	}
	v := t.variant(r)
	want := st.toward(v, r.Weight)
	if t.there(st, want) {
		out := t.outcome(made.st, st, r.Digest)
		out.Changed = true
		return out, nil
	}
	if err := t.makeModel(ctx, r, aws.ToString(v.ModelName)); err != nil {
		return nil, err
	}
	now, err := t.move(ctx, st, goal{want, aws.ToString(v.ModelName), r.Image}, tags(r), end)
	if err != nil {
		return nil, err
	}
	t.s.Log.Info("endpoint moved", "endpoint", t.s.Endpoint, "config", now.name, "digest", string(r.Digest))
	out := t.outcome(st, now, r.Digest)
	out.Changed = true
	return out, nil
}

// outcome is what a move from before to now means for a digest.
func (t *Target) outcome(before, now *state, d artifact.Digest) *deploy.Outcome {
	out := &deploy.Outcome{Digest: d, Previous: before.digest(), IDs: map[string]string{"endpoint": t.s.Endpoint, "endpoint-config": now.name}}
	if now.arn != "" {
		out.IDs["arn"] = now.arn
	}
	for i := range now.cur.variants {
		v := &now.cur.variants[i]
		m := now.cur.of(v)
		if m.digest != d {
			continue
		}
		name := aws.ToString(v.VariantName)
		out.Weight = now.share(name)
		out.IDs["model"] = aws.ToString(v.ModelName)
		if out.Image = now.image(name); out.Image == "" {
			out.Image = m.image
		}
	}
	return out
}

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) { return t.status(ctx) }

// Rollback implements deploy.Target. A change under way cannot be called off: it is waited for.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	end := t.until(wait)
	st, err := t.settle(ctx, end)
	if err != nil {
		return nil, err
	}
	if !st.exists() || st.dead() || st.cur == nil && to == "" {
		return nil, fmt.Errorf("%w: nothing of Waybill's serves on endpoint %s", deploy.ErrNotFound, t.s.Endpoint)
	}
	var v *types.ProductionVariant
	switch {
	case to != "":
		v, err = t.find(ctx, st, to)
	case len(st.cur.variants) > 1:
		v = st.main()
	default:
		v, err = t.previous(ctx, st)
	}
	if err != nil {
		return nil, err
	}
	return t.all(ctx, st, v, end)
}

// find is the variant of a digest: of the current configuration, or the newest one before.
func (t *Target) find(ctx context.Context, st *state, to artifact.Digest) (*types.ProductionVariant, error) {
	var v *types.ProductionVariant
	gone := ""
	search := func(c *config) bool {
		for i := range c.variants {
			x := &c.variants[i]
			if c.of(x).digest == to {
				v = x
				return false
			}
			if _, there := c.models[aws.ToString(x.ModelName)]; !there && strings.HasPrefix(aws.ToString(x.ModelName), modelPrefix(to)) {
				gone = aws.ToString(x.ModelName)
			}
		}
		return true
	}
	if st.cur == nil || search(st.cur) {
		if err := t.history(ctx, st, search); err != nil {
			return nil, err
		}
	}
	switch {
	case v != nil:
		return v, nil
	case gone != "":
		return nil, fmt.Errorf("%w: model %s was deleted", deploy.ErrGone, gone)
	}
	return nil, fmt.Errorf("%w: endpoint %s has no configuration of %s (deleted ones are not remembered)", deploy.ErrNotFound, t.s.Endpoint, to)
}

// Promote implements deploy.Promoter.
func (t *Realtime) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	end := t.until(wait)
	st, err := t.settle(ctx, end)
	if err != nil {
		return nil, err
	}
	if !st.exists() || st.main() == nil {
		return nil, fmt.Errorf("%w: nothing serves on endpoint %s", deploy.ErrNotFound, t.s.Endpoint)
	}
	v := st.cur.variant(canaryVariant)
	if v == nil {
		v = st.main()
	}
	return t.all(ctx, st, v, end)
}

// all gives a variant that was deployed before all traffic.
func (t *Target) all(ctx context.Context, st *state, v *types.ProductionVariant, end time.Time) (*deploy.Outcome, error) {
	want := single(*v)
	name := aws.ToString(v.ModelName)
	m, ok := model{}, false
	if st.cur != nil {
		m, ok = st.cur.models[name]
		if len(st.cur.variants) == 1 && content(st.cur.variants[0]) == content(*v) && ok {
			return t.outcome(st, st, m.digest), nil
		}
	}
	if err := t.convertibleTo(st, v); err != nil {
		return nil, err
	}
	if !ok {
		c, err := t.withModels(ctx, &config{variants: want, models: map[string]model{}}, nil)
		if err != nil {
			return nil, err
		}
		if m, ok = c.models[name]; !ok {
			return nil, fmt.Errorf("%w: model %s was deleted", deploy.ErrGone, name)
		}
	}
	now, err := t.move(ctx, st, goal{want, name, m.image}, tags(deploy.Release{Digest: m.digest}), end)
	if err != nil {
		return nil, err
	}
	t.s.Log.Info("endpoint moved", "endpoint", t.s.Endpoint, "config", now.name, "digest", string(m.digest))
	out := t.outcome(st, now, m.digest)
	out.Changed = true
	return out, nil
}

func (t *Target) convertibleTo(st *state, v *types.ProductionVariant) error {
	if m := st.main(); m != nil && v.ServerlessConfig != nil && m.ServerlessConfig == nil {
		return fmt.Errorf("%w: endpoint %s has instances, and SageMaker does not make one serverless again", deploy.ErrGone, t.s.Endpoint)
	}
	return nil
}
