package sagemaker

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	sdk "github.com/aws/aws-sdk-go-v2/service/sagemaker"
	"github.com/aws/aws-sdk-go-v2/service/sagemaker/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Names of variants. They stay the same from one configuration to the next: autoscalers and the platform's traffic shifting go by them.
const (
	mainVariant   = "main"
	canaryVariant = "canary"
)

// state is what SageMaker has.
type state struct {
	status  types.EndpointStatus // empty: no endpoint
	arn     string
	name    string // of the configuration that serves, or that a creation is under way to
	pending string // configuration that an update is under way to
	reason  string
	live    []types.ProductionVariantSummary // that serve
	changed time.Time
	cur     *config // of name; nil: gone, or not read
}

// config is an endpoint configuration with what its models run.
type config struct {
	name     string
	variants []types.ProductionVariant
	models   map[string]model // by the name of a model that exists
	created  time.Time
}

// model is what matters of one. The digest is empty for one that Waybill did not make.
type model struct {
	digest artifact.Digest
	image  string
}

func (st *state) exists() bool { return st.status != "" }

// moving tells that a change is under way, which refuses any other.
func (st *state) moving() bool {
	switch st.status {
	case types.EndpointStatusCreating, types.EndpointStatusUpdating, types.EndpointStatusSystemUpdating, types.EndpointStatusRollingBack, types.EndpointStatusDeleting:
		return true
	}
	return false
}

// dead tells that the endpoint failed before it ever served. Nothing can be done with it but to delete it.
func (st *state) dead() bool { return st.status == types.EndpointStatusFailed && len(st.live) == 0 }

// revision changes with each move, by whomever: with the configuration, and with weights that are set by hand.
func (st *state) revision() string {
	if !st.exists() {
		return "absent"
	}
	r := st.name
	for _, v := range st.live {
		r += fmt.Sprintf(" %s=%g", aws.ToString(v.VariantName), aws.ToFloat32(v.CurrentWeight))
	}
	return r
}

// main is the variant of the current configuration that is no canary; nil where nothing that can be read serves.
func (st *state) main() *types.ProductionVariant {
	if st.cur == nil || st.dead() {
		return nil
	}
	return st.cur.main()
}

func (c *config) main() *types.ProductionVariant {
	if len(c.variants) == 1 {
		return &c.variants[0]
	}
	return c.variant(mainVariant)
}

func (c *config) variant(name string) *types.ProductionVariant {
	for i := range c.variants {
		if aws.ToString(c.variants[i].VariantName) == name {
			return &c.variants[i]
		}
	}
	return nil
}

// of is what a variant runs.
func (c *config) of(v *types.ProductionVariant) model {
	if c == nil || v == nil {
		return model{}
	}
	return c.models[aws.ToString(v.ModelName)]
}

// digest that serves, beside the canary.
func (st *state) digest() artifact.Digest { return st.cur.of(st.main()).digest }

// share of a variant in percent, by the weights that are in force.
func (st *state) share(name string) int {
	sum, mine := 0.0, 0.0
	for _, v := range st.live {
		w := float64(aws.ToFloat32(v.CurrentWeight))
		sum += w
		if aws.ToString(v.VariantName) == name {
			mine = w
		}
	}
	if sum == 0 {
		return 0
	}
	return int(math.Round(mine * 100 / sum))
}

// image that the platform resolved for a variant, by digest; empty where it does not tell.
func (st *state) image(name string) string {
	for _, v := range st.live {
		if aws.ToString(v.VariantName) == name && len(v.DeployedImages) > 0 {
			return aws.ToString(v.DeployedImages[0].ResolvedImage)
		}
	}
	return ""
}

// look reads the endpoint alone.
func (t *Target) look(ctx context.Context) (*state, error) {
	out, err := t.c.DescribeEndpoint(ctx, &sdk.DescribeEndpointInput{EndpointName: &t.s.Endpoint})
	if missing(err) {
		return &state{}, nil
	}
	if err != nil {
		return nil, t.fail(ctx, "read the endpoint", err)
	}
	st := &state{
		status: out.EndpointStatus, arn: aws.ToString(out.EndpointArn), name: aws.ToString(out.EndpointConfigName), reason: aws.ToString(out.FailureReason),
		changed: aws.ToTime(out.LastModifiedTime),
	}
	if out.PendingDeploymentSummary != nil {
		st.pending = aws.ToString(out.PendingDeploymentSummary.EndpointConfigName)
	}
	if st.status == types.EndpointStatusCreating {
		return st, nil // nothing serves yet
	}
	for _, v := range out.ProductionVariants {
		if st.status == types.EndpointStatusFailed && len(v.DeployedImages) == 0 && aws.ToInt32(v.CurrentInstanceCount) == 0 {
			continue
		}
		st.live = append(st.live, v)
	}
	return st, nil
}

// read is look with the current configuration.
func (t *Target) read(ctx context.Context) (*state, error) {
	st, err := t.look(ctx)
	if err != nil || !st.exists() {
		return st, err
	}
	st.cur, err = t.config(ctx, st.name)
	return st, err
}

// config reads one with its models; nil when it does not exist.
func (t *Target) config(ctx context.Context, name string) (*config, error) {
	c, err := t.variants(ctx, name)
	if err != nil || c == nil {
		return c, err
	}
	return t.withModels(ctx, c, nil)
}

// withModels reads those that are not among the known ones: a model never changes.
func (t *Target) withModels(ctx context.Context, c *config, known map[string]model) (*config, error) {
	for _, v := range c.variants {
		m := aws.ToString(v.ModelName)
		if _, ok := c.models[m]; ok || m == "" {
			continue
		}
		if x, ok := known[m]; ok {
			c.models[m] = x
			continue
		}
		out, err := t.c.DescribeModel(ctx, &sdk.DescribeModelInput{ModelName: &m})
		if missing(err) {
			continue
		}
		if err != nil {
			return nil, t.fail(ctx, "read model "+m, err)
		}
		c.models[m] = modelOf(out)
	}
	return c, nil
}

// variants reads a configuration without its models.
func (t *Target) variants(ctx context.Context, name string) (*config, error) {
	out, err := t.c.DescribeEndpointConfig(ctx, &sdk.DescribeEndpointConfigInput{EndpointConfigName: &name})
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, t.fail(ctx, "read endpoint configuration "+name, err)
	}
	return &config{name: name, variants: out.ProductionVariants, created: aws.ToTime(out.CreationTime), models: map[string]model{}}, nil
}

func modelOf(out *sdk.DescribeModelOutput) model {
	if out.PrimaryContainer == nil {
		return model{}
	}
	m := model{image: aws.ToString(out.PrimaryContainer.Image)}
	if d, err := artifact.ParseDigest(out.PrimaryContainer.Environment[DigestVariable]); err == nil {
		m.digest = d
	}
	return m
}

// sameImage compares by digest alone.
func sameImage(a, b string) bool {
	_, x, ok := strings.Cut(a, "@")
	_, y, also := strings.Cut(b, "@")
	return ok && also && x == y
}

func short(text string, digits int) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(text)))[:digits]
}

// prefix of the endpoint's configurations: its name where there is room.
func (t *Target) prefix() string {
	if len(t.s.Endpoint) <= 47 {
		return t.s.Endpoint
	}
	return strings.TrimRight(t.s.Endpoint[:38], "-") + "-" + short(t.s.Endpoint, 8)
}

// number takes a name of one of the endpoint's configurations apart; ok is false for any other.
func (t *Target) number(name string) (epoch string, n int, ok bool) {
	rest, ok := strings.CutPrefix(name, t.prefix()+"-")
	m := numbered.FindStringSubmatch(rest)
	if !ok || m == nil {
		return "", 0, false
	}
	n, err := strconv.Atoi(m[2])
	return m[1], n, err == nil
}

var numbered = regexp.MustCompile(`^([0-9a-f]{8})-([0-9]{6})$`)

func (t *Target) numbered(epoch string, n int) string {
	return fmt.Sprintf("%s-%s-%06d", t.prefix(), epoch, n)
}

// next is the one name that a configuration after this state can have. Where the current one was made by others the count begins anew.
func (t *Target) next(st *state) string {
	if t.naming != nil {
		return t.naming(st.name)
	}
	if !st.exists() {
		return t.numbered(short("", 8), 1)
	}
	if epoch, n, ok := t.number(st.name); ok {
		return t.numbered(epoch, n+1)
	}
	return t.numbered(short(fmt.Sprintf("%s %d", st.name, st.changed.UnixMilli()), 8), 1)
}

// mostHistory bounds what is read of the past, for an endpoint that was moved a thousand times.
const mostHistory = 200

// history calls f with the configurations that were in use before the current one, newest first, until it says false. What a run that
// failed left behind is not among them: its number is higher.
func (t *Target) history(ctx context.Context, st *state, f func(c *config) bool) error {
	epoch, n, _ := t.number(st.name)
	in := &sdk.ListEndpointConfigsInput{NameContains: aws.String(t.prefix() + "-"), SortBy: types.EndpointConfigSortKeyCreationTime, SortOrder: types.OrderKeyDescending, MaxResults: aws.Int32(100)}
	known := map[string]model{}
	if st.cur != nil {
		maps.Copy(known, st.cur.models)
	}
	for seen := 0; ; {
		out, err := t.c.ListEndpointConfigs(ctx, in)
		if err != nil {
			return t.fail(ctx, "list the endpoint configurations", err)
		}
		for _, s := range out.EndpointConfigs {
			name := aws.ToString(s.EndpointConfigName)
			e, k, ok := t.number(name)
			if !ok || e == epoch && k >= n {
				continue
			}
			c, err := t.variants(ctx, name)
			if err != nil {
				return err
			}
			if c == nil {
				continue
			}
			if c, err = t.withModels(ctx, c, known); err != nil {
				return err
			}
			maps.Copy(known, c.models)
			if seen++; !f(c) || seen == mostHistory {
				return nil
			}
		}
		if in.NextToken = out.NextToken; aws.ToString(in.NextToken) == "" {
			return nil
		}
	}
}

// previous is the variant that served before the current one: what the numbers before it say, canaries left out.
func (t *Target) previous(ctx context.Context, st *state) (*types.ProductionVariant, error) {
	epoch, n, ok := t.number(st.name)
	now := st.main()
	if !ok || now == nil {
		return nil, fmt.Errorf("%w: endpoint %s runs configuration %s, which is not Waybill's", deploy.ErrNotFound, t.s.Endpoint, st.name)
	}
	for n--; n > 0; n-- {
		name := t.numbered(epoch, n)
		c, err := t.config(ctx, name)
		switch {
		case err != nil:
			return nil, err
		case c == nil || c.main() == nil:
			return nil, fmt.Errorf("%w: endpoint configuration %s was deleted", deploy.ErrGone, name)
		case content(*c.main()) == content(*now):
			continue // weights and capacities were set right, a canary came or went
		case c.of(c.main()).digest == "":
			return nil, fmt.Errorf("%w: model %s was deleted", deploy.ErrGone, aws.ToString(c.main().ModelName))
		}
		return c.main(), nil
	}
	return nil, fmt.Errorf("%w: nothing of Waybill's served on endpoint %s before", deploy.ErrNotFound, t.s.Endpoint)
}

// content is what a variant is besides its name and weight.
func content(v types.ProductionVariant) string {
	s := fmt.Sprintf("%s %s %d", aws.ToString(v.ModelName), v.InstanceType, aws.ToInt32(v.InitialInstanceCount))
	if c := v.ServerlessConfig; c != nil {
		s += fmt.Sprintf(" %d MB %d %d", aws.ToInt32(c.MemorySizeInMB), aws.ToInt32(c.MaxConcurrency), aws.ToInt32(c.ProvisionedConcurrency))
	}
	return s
}

// same tells whether two configurations are.
func same(a, b []types.ProductionVariant) bool {
	return slices.EqualFunc(a, b, func(x, y types.ProductionVariant) bool {
		return aws.ToString(x.VariantName) == aws.ToString(y.VariantName) && aws.ToFloat32(x.InitialVariantWeight) == aws.ToFloat32(y.InitialVariantWeight) && content(x) == content(y)
	})
}

// Shares that Status names besides those that serve.
const mostKept = 20

// status is what runs, as the platform says.
func (t *Target) status(ctx context.Context) (*deploy.Status, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Exists: st.exists(), Revision: st.revision(), State: string(st.status), Settled: !st.moving(), Reason: t.redactor(ctx).Text(st.reason)}
	if !st.exists() {
		return out, nil
	}
	out.Healthy = st.status == types.EndpointStatusInService || len(st.live) > 0 && st.moving() && st.status != types.EndpointStatusDeleting
	if t.region != "" {
		domain := "amazonaws.com"
		if strings.HasPrefix(t.region, "cn-") {
			domain += ".cn"
		}
		out.URL = fmt.Sprintf("https://runtime.sagemaker.%s.%s/endpoints/%s/invocations", t.region, domain, t.s.Endpoint)
	}
	seen := map[artifact.Digest]bool{}
	for _, v := range st.live {
		name := aws.ToString(v.VariantName)
		x := deploy.Share{ID: st.name + "/" + name, Weight: st.share(name), Image: st.image(name)}
		x.Canary = name == canaryVariant && x.Weight < 100
		if x.Weight == 0 {
			continue
		}
		if st.cur != nil {
			x.Since = st.cur.created
			// A model deleted and made again by hand may say another digest than the one whose image runs.
			if m := st.cur.of(st.cur.variant(name)); x.Image == "" || sameImage(x.Image, m.image) {
				x.Digest = m.digest
			}
		}
		seen[x.Digest] = true
		out.Shares = append(out.Shares, x)
	}
	slices.SortStableFunc(out.Shares, func(a, b deploy.Share) int { return b.Weight - a.Weight })
	err = t.history(ctx, st, func(c *config) bool {
		for _, v := range c.variants {
			if m := c.of(&v); m.digest != "" && !seen[m.digest] {
				seen[m.digest] = true
				out.Kept = append(out.Kept, deploy.Share{Digest: m.digest, Image: m.image, ID: c.name + "/" + aws.ToString(v.VariantName), Since: c.created})
			}
		}
		return len(out.Kept) < mostKept
	})
	return out, err
}
