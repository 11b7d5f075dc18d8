package sagemaker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// single is a configuration with one variant.
func single(v types.ProductionVariant) []types.ProductionVariant {
	v.VariantName, v.InitialVariantWeight = aws.String(mainVariant), aws.Float32(100)
	return []types.ProductionVariant{v}
}

// toward is the configuration that gives v a weight. Where nothing else serves it gets everything.
func (st *state) toward(v types.ProductionVariant, weight int) []types.ProductionVariant {
	now := st.main()
	if now == nil || weight%100 == 0 || content(*now) == content(v) {
		return single(v)
	}
	old := *now
	old.VariantName, old.InitialVariantWeight = aws.String(mainVariant), aws.Float32(float32(100-weight))
	v.VariantName, v.InitialVariantWeight = aws.String(canaryVariant), aws.Float32(float32(weight))
	return []types.ProductionVariant{old, v}
}

// there tells whether the endpoint runs want, in weights and capacities too.
func (t *Target) there(st *state, want []types.ProductionVariant) bool {
	return st.status == types.EndpointStatusInService && st.cur != nil && same(st.cur.variants, want) && len(t.drift(st)) == 0
}

// drift is what somebody changed at the running endpoint, beside its configuration.
func (t *Target) drift(st *state) []deploy.Change {
	var out []deploy.Change
	if st.cur == nil {
		return nil
	}
	const why = "it was changed outside of Waybill"
	sum := float32(0)
	for _, v := range st.cur.variants {
		sum += aws.ToFloat32(v.InitialVariantWeight)
	}
	for _, v := range st.live {
		name := aws.ToString(v.VariantName)
		c := st.cur.variant(name)
		if c == nil {
			continue
		}
		add := func(field string, have, want int32, unit string) {
			if have != want {
				out = append(out, deploy.Change{Field: field + " of " + name, Old: fmt.Sprint(have) + unit, New: fmt.Sprint(want) + unit, Why: why})
			}
		}
		if sum > 0 {
			add("traffic", int32(st.share(name)), int32(aws.ToFloat32(c.InitialVariantWeight)*100/sum+0.5), "%")
		}
		if s := c.ServerlessConfig; s != nil {
			if l := v.CurrentServerlessConfig; l != nil {
				add("concurrency", aws.ToInt32(l.MaxConcurrency), aws.ToInt32(s.MaxConcurrency), "")
				add("provisioned concurrency", aws.ToInt32(l.ProvisionedConcurrency), aws.ToInt32(s.ProvisionedConcurrency), "")
			}
		} else if !t.s.Autoscaled {
			add("instances", aws.ToInt32(v.CurrentInstanceCount), aws.ToInt32(c.InitialInstanceCount), "")
		}
	}
	return out
}

// tags of everything that is made for a release, for people and their tools: what Waybill knows it reads from the models.
func tags(r deploy.Release) []types.Tag {
	all := map[string]string{}
	for k, v := range r.Labels {
		all[tagText(k, 128)] = tagText(v, 256)
	}
	if r.Digest != "" {
		all["waybill:digest"] = string(r.Digest)
	}
	if r.Model != "" {
		all["waybill:model"] = tagText(strings.TrimSpace(r.Model+" "+r.Ver), 256)
	}
	var out []types.Tag
	for _, k := range slices.Sorted(maps.Keys(all)) {
		if k == "" || strings.HasPrefix(strings.ToLower(k), "aws:") || len(out) == 50 {
			continue
		}
		out = append(out, types.Tag{Key: aws.String(k), Value: aws.String(all[k])})
	}
	return out
}

// tagText is text as AWS takes it in a tag.
func tagText(s string, most int) string {
	r := []rune(strings.Map(func(c rune) rune {
		if c < 0x80 && !strings.ContainsRune("_.:/=+-@ ", c) && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return '_'
		}
		if c >= 0x80 {
			return '_'
		}
		return c
	}, s))
	return string(r[:min(len(r), most)])
}

// makeModel makes the model of a release under the name that follows from what it is, or finds it.
func (t *Target) makeModel(ctx context.Context, r deploy.Release, name string) error {
	in := &sdk.CreateModelInput{
		ModelName: &name, ExecutionRoleArn: &t.s.Role, Tags: tags(r),
		PrimaryContainer: &types.ContainerDefinition{Image: aws.String(r.Image), Environment: t.env(r.Digest)},
	}
	_, err := t.c.CreateModel(ctx, in)
	if err == nil {
		t.s.Log.Info("model created", "model", name, "digest", string(r.Digest))
		return nil
	}
	if !exists(err) {
		return t.fail(ctx, "create model "+name, err)
	}
	out, err := t.c.DescribeModel(ctx, &sdk.DescribeModelInput{ModelName: &name})
	if missing(err) {
		return fmt.Errorf("%w: model %s was deleted just now", deploy.ErrConflict, name)
	}
	if err != nil {
		return t.fail(ctx, "read model "+name, err)
	}
	c := out.PrimaryContainer
	if c == nil || aws.ToString(c.Image) != r.Image || !maps.Equal(c.Environment, t.env(r.Digest)) || aws.ToString(out.ExecutionRoleArn) != t.s.Role {
		return fmt.Errorf("%w: model %s was made by somebody else, and is not what its name says; delete it", deploy.ErrConflict, name)
	}
	return nil
}

// env is all variables of a model of the artifact.
func (t *Target) env(d artifact.Digest) map[string]string {
	env := maps.Clone(t.s.Env)
	if env == nil {
		env = map[string]string{}
	}
	env[DigestVariable] = string(d)
	return env
}

// modelName follows from all that a model is: 32 digits of the artifact's digest and 12 of the rest.
func (t *Target) modelName(r deploy.Release) string {
	env := t.env(r.Digest)
	rest := r.Image + "\n" + t.s.Role + "\n"
	for _, k := range slices.Sorted(maps.Keys(env)) {
		rest += fmt.Sprintf("%q=%q\n", k, env[k])
	}
	return modelPrefix(r.Digest) + short(rest, 12)
}

func modelPrefix(d artifact.Digest) string {
	_, hex, _ := strings.Cut(string(d), ":")
	return "waybill-" + hex[:min(len(hex), 32)] + "-"
}

// goal is where a move leads.
type goal struct {
	want  []types.ProductionVariant
	model string // that it is about
	image string // of the model, as it was when the move began
}

// move brings the endpoint from st, which is settled, to a goal. The error tells what is left behind, which is never in the way of the next
// move; the state is the one at the end.
func (t *Target) move(ctx context.Context, st *state, to goal, tags []types.Tag, end time.Time) (*state, error) {
	want := to.want
	if st.dead() {
		var err error
		if st, err = t.bury(ctx, st, end); err != nil {
			return nil, err
		}
	}
	name := t.next(st)
	if err := t.claim(ctx, st, name, want, tags); err != nil {
		return nil, err
	}
	for {
		err := t.point(ctx, st, name, want, end)
		switch {
		case err == nil:
			return t.await(ctx, st, name, to, end)
		case !busy(err) && !missing(err) && !exists(err):
			return nil, fmt.Errorf("%w (endpoint configuration %s is left behind)", t.fail(ctx, "give the endpoint configuration "+name, err), name)
		}
		// Somebody was faster, or it was us, and the answer was lost.
		now, lerr := t.look(ctx)
		switch {
		case lerr != nil:
			return nil, lerr
		case now.name == name || now.pending == name:
			return t.await(ctx, st, name, to, end)
		case now.revision() != st.revision() || now.pending != "" || !busy(err):
			return nil, fmt.Errorf("%w: endpoint %s was %s and is %s: %w", deploy.ErrConflict, t.s.Endpoint, st.revision(), now.revision(), t.fail(ctx, "give it the endpoint configuration "+name, err))
		case time.Now().After(end):
			return nil, t.fail(ctx, "give the endpoint configuration "+name, err)
		}
		// The platform's own maintenance.
		if err := t.pause(ctx); err != nil {
			return nil, err
		}
		if _, err := t.settle(ctx, end); err != nil {
			return nil, err
		}
	}
}

// bury deletes an endpoint that never served.
func (t *Target) bury(ctx context.Context, st *state, end time.Time) (*state, error) {
	t.s.Log.Warn("the endpoint never served, and is deleted", "endpoint", t.s.Endpoint, "reason", t.redactor(ctx).Text(st.reason))
	if _, err := t.c.DeleteEndpoint(ctx, &sdk.DeleteEndpointInput{EndpointName: &t.s.Endpoint}); err != nil && !missing(err) && !busy(err) {
		return nil, t.fail(ctx, "delete the endpoint, which never served", err)
	}
	now, err := t.settle(ctx, end)
	if err != nil {
		return nil, err
	}
	if now.exists() {
		return nil, fmt.Errorf("%w: endpoint %s was created anew", deploy.ErrConflict, t.s.Endpoint)
	}
	return now, nil
}

// claim makes the configuration that follows st. One that is there already is an earlier run's, which ended before it moved the
// endpoint, or another's who is about to: only when it is what we want too it is taken, else it makes room. Who wanted to move the endpoint to it
// moves it to ours, and notices.
func (t *Target) claim(ctx context.Context, st *state, name string, want []types.ProductionVariant, tags []types.Tag) error {
	for range 3 {
		_, err := t.c.CreateEndpointConfig(ctx, &sdk.CreateEndpointConfigInput{EndpointConfigName: &name, ProductionVariants: want, Tags: tags})
		switch {
		case err == nil:
			t.s.Log.Info("endpoint configuration created", "config", name)
			return nil
		case missing(err):
			return fmt.Errorf("%w: %w", deploy.ErrGone, t.fail(ctx, "create endpoint configuration "+name, err))
		case !exists(err):
			return t.fail(ctx, "create endpoint configuration "+name, err)
		}
		there, err := t.variants(ctx, name)
		if err != nil {
			return err
		}
		if there == nil {
			continue
		}
		if same(there.variants, want) {
			return nil
		}
		// Before it is deleted and after: that nobody began to use it in between.
		if err := t.unused(ctx, st, name); err != nil {
			return err
		}
		if _, err := t.c.DeleteEndpointConfig(ctx, &sdk.DeleteEndpointConfigInput{EndpointConfigName: &name}); err != nil && !missing(err) {
			return t.fail(ctx, "delete endpoint configuration "+name+", which an earlier run left behind", err)
		}
		if err := t.unused(ctx, st, name); err != nil {
			return err
		}
	}
	return fmt.Errorf("%w: others deploy to endpoint %s", deploy.ErrConflict, t.s.Endpoint)
}

// unused is nil as long as the endpoint is as in st and does not move to the configuration name.
func (t *Target) unused(ctx context.Context, st *state, name string) error {
	now, err := t.look(ctx)
	if err != nil {
		return err
	}
	if now.revision() != st.revision() || now.pending == name {
		return fmt.Errorf("%w: endpoint %s is no longer as it was read: %s", deploy.ErrConflict, t.s.Endpoint, now.revision())
	}
	return nil
}

// point asks for the move itself.
func (t *Target) point(ctx context.Context, st *state, name string, want []types.ProductionVariant, end time.Time) error {
	if !st.exists() {
		_, err := t.c.CreateEndpoint(ctx, &sdk.CreateEndpointInput{EndpointName: &t.s.Endpoint, EndpointConfigName: &name})
		return err
	}
	in := &sdk.UpdateEndpointInput{EndpointName: &t.s.Endpoint, EndpointConfigName: &name}
	if t.s.Autoscaled {
		in.RetainAllVariantProperties = aws.Bool(true)
		in.ExcludeRetainedVariantProperties = []types.VariantProperty{{VariantPropertyType: types.VariantPropertyTypeDesiredWeight}}
	}
	if !t.s.Serverless && st.cur != nil && slices.EqualFunc(st.cur.variants, want, func(a, b types.ProductionVariant) bool {
		return aws.ToString(a.VariantName) == aws.ToString(b.VariantName) && a.ServerlessConfig == nil
	}) {
		in.DeploymentConfig = t.shifting(end) // SageMaker has it for updates that keep the variants' names
	}
	_, err := t.c.UpdateEndpoint(ctx, in)
	return err
}

// shifting is how the traffic goes over, and until when the platform has to be done with it.
func (t *Target) shifting(end time.Time) *types.DeploymentConfig {
	routing := &types.TrafficRoutingConfig{Type: types.TrafficRoutingConfigTypeAllAtOnce, WaitIntervalInSeconds: aws.Int32(int32(t.s.Interval / time.Second))}
	step := &types.CapacitySize{Type: types.CapacitySizeTypeCapacityPercent, Value: aws.Int32(t.s.Step)}
	waits := t.s.Interval
	switch t.s.Traffic {
	case "canary":
		routing.Type, routing.CanarySize = types.TrafficRoutingConfigTypeCanary, step
	case "linear":
		routing.Type, routing.LinearStepSize = types.TrafficRoutingConfigTypeLinear, step
		waits *= time.Duration((100 + t.s.Step - 1) / t.s.Step)
	}
	// Two minutes before our own patience ends, so that it is SageMaker's reason that we tell.
	most := min(max(time.Until(end)-2*time.Minute, waits+10*time.Minute), 8*time.Hour)
	c := &types.DeploymentConfig{BlueGreenUpdatePolicy: &types.BlueGreenUpdatePolicy{
		TrafficRoutingConfiguration: routing, MaximumExecutionTimeoutInSeconds: aws.Int32(int32(most / time.Second)),
	}}
	if len(t.s.Alarms) > 0 {
		c.AutoRollbackConfiguration = &types.AutoRollbackConfig{}
		for _, a := range t.s.Alarms {
			c.AutoRollbackConfiguration.Alarms = append(c.AutoRollbackConfiguration.Alarms, types.Alarm{AlarmName: aws.String(a)})
		}
	}
	return c
}

// await waits until the endpoint runs the configuration name, and sees that it is what was wanted.
func (t *Target) await(ctx context.Context, st *state, name string, to goal, end time.Time) (*state, error) {
	refused := 0
	for looks := 1; ; looks++ {
		now, err := t.look(ctx)
		if err != nil {
			// The move is under way whether it can be looked at or not: one refusal does not end the watch.
			if refused++; refused == 3 || ctx.Err() != nil {
				return nil, fmt.Errorf("endpoint %s is on its way to configuration %s: %w", t.s.Endpoint, name, err)
			}
			if err := t.pause(ctx); err != nil {
				return nil, err
			}
			continue
		}
		refused = 0
		switch {
		case now.moving(), looks <= 3 && now.name == st.name && st.name != name && now.reason == "" && (now.status == types.EndpointStatusInService || !now.exists()):
			// On the way, or not yet begun as far as this answer knows.
		case !now.exists():
			return nil, fmt.Errorf("%w: endpoint %s was deleted", deploy.ErrConflict, t.s.Endpoint)
		case now.status == types.EndpointStatusInService && now.name == name:
			if now.cur, err = t.config(ctx, name); err != nil {
				return nil, err
			}
			return now, t.verify(now, to)
		case now.status == types.EndpointStatusInService && now.name != st.name:
			return nil, fmt.Errorf("%w: endpoint %s runs configuration %s", deploy.ErrConflict, t.s.Endpoint, now.name)
		case now.status == types.EndpointStatusInService:
			return nil, t.failed(ctx, fmt.Sprintf("endpoint %s went back to %s; %s is left behind", t.s.Endpoint, now.name, name), now.reason)
		default: // Failed, OutOfService, UpdateRollbackFailed
			return nil, t.failed(ctx, fmt.Sprintf("endpoint %s is %s", t.s.Endpoint, now.status), now.reason)
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%w: endpoint %s is %s to configuration %s, and the time to wait is over; SageMaker cannot call it off, and goes back by itself when the containers do not answer", deploy.ErrUnhealthy, t.s.Endpoint, now.status, name)
		}
		if err := t.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// verify holds what runs against what was wanted: another may have made the configuration of this name, or exchanged the model by hand.
func (t *Target) verify(now *state, to goal) error {
	if now.cur == nil || !same(now.cur.variants, to.want) {
		return fmt.Errorf("%w: another deploy was faster, and made configuration %s", deploy.ErrConflict, now.name)
	}
	for _, v := range to.want {
		have := now.image(aws.ToString(v.VariantName))
		byDigest := strings.Contains(to.image, "@") // what others deployed may have a tag
		if aws.ToString(v.ModelName) == to.model && have != "" && byDigest && !sameImage(have, to.image) {
			return fmt.Errorf("%w: model %s was exchanged, and runs %s", deploy.ErrConflict, to.model, have)
		}
	}
	return nil
}

// settle waits until no change is under way.
func (t *Target) settle(ctx context.Context, end time.Time) (*state, error) {
	for {
		st, err := t.look(ctx)
		if err != nil {
			return nil, err
		}
		if !st.moving() {
			if st.exists() {
				st.cur, err = t.config(ctx, st.name)
			}
			return st, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%w: endpoint %s is %s, and the time to wait is over", deploy.ErrBusy, t.s.Endpoint, st.status)
		}
		if err := t.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// until is the end of a wait.
func (t *Target) until(wait time.Duration) time.Time {
	if wait <= 0 {
		wait = 30 * time.Minute
	}
	return time.Now().Add(wait)
}

func (t *Target) pause(ctx context.Context) error {
	timer := time.NewTimer(t.s.Poll)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return t.fail(ctx, "wait", ctx.Err())
	}
}
