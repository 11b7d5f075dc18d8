// Package awslambda deploys to AWS Lambda: the function's versions are the revisions, an alias is the place, its weights are the
// traffic. Callers (gateways, function URLs, other functions) name the alias and never notice more than a switch of it.
//
// What Waybill knows is read from Lambda: the digest of the artifact is the environment variable WAYBILL_DIGEST of each version,
// which the server in the image holds the artifact against at its start, and the version that served before stands in the alias's
// description, written by the very call that moves the alias. $LATEST is where versions are made; no traffic goes to it.
package awslambda

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/ratelimit"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// DigestVariable is the environment variable with the artifact's digest: the label of a version, and what waybill-serve demands.
const DigestVariable = "WAYBILL_DIGEST"

// defaultArch is Lambda's own default, x86_64.
const defaultArch = "amd64"

// Settings of one function behind one alias.
type Settings struct {
	Function  string            // name
	Alias     string            // empty: live
	Role      string            // ARN of the execution role; needed to create the function, and then kept
	Memory    int32             // MB, 128 to 10240; 0: 1024
	Timeout   time.Duration     // whole seconds, up to 15 minutes; 0: 30 s
	Ephemeral int32             // MB of /tmp, 512 to 10240; 0: 512
	Arch      string            // amd64 or arm64; empty: amd64
	Env       map[string]string // all variables of the function but DigestVariable; others are drift
	Endpoint  string            // URL; empty: that of the region
	NoProbe   bool              // a version counts as healthy when Lambda calls it active, without one call of /v2/health/ready
	// Poll and Backoff are between questions about a change under way, and the longest between repetitions; 0: 1 s and 8 s.
	Poll, Backoff time.Duration
	Log           *slog.Logger // nil discards
}

// Target implements deploy.Target and deploy.Promoter.
type Target struct {
	s     Settings
	c     *lambda.Client
	creds aws.CredentialsProvider
}

var (
	names     = regexp.MustCompile(`^[a-zA-Z0-9-_]{1,64}$`)
	aliases   = regexp.MustCompile(`^[a-zA-Z0-9-_]{1,128}$`)
	roles     = regexp.MustCompile(`^arn:[a-z0-9-]+:iam::[0-9]{12}:role/[a-zA-Z0-9+=,.@_/-]+$`)
	variables = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]+$`)
	previous  = regexp.MustCompile(`\bprevious=([0-9]+)`)
)

// New makes a target of the account, region and credentials in cfg. It calls nothing.
func New(cfg aws.Config, s Settings) (*Target, error) {
	def := func(v *int32, d int32) {
		if *v == 0 {
			*v = d
		}
	}
	def(&s.Memory, 1024)
	def(&s.Ephemeral, 512)
	if s.Timeout == 0 {
		s.Timeout = 30 * time.Second
	}
	if s.Alias == "" {
		s.Alias = "live"
	}
	if s.Arch == "" {
		s.Arch = defaultArch
	}
	if s.Poll <= 0 {
		s.Poll = time.Second
	}
	if s.Backoff <= 0 {
		s.Backoff = 8 * time.Second
	}
	if s.Log == nil {
		s.Log = slog.New(slog.DiscardHandler)
	}
	_, digits := strconv.Atoi(s.Alias)
	switch {
	case !names.MatchString(s.Function):
		return nil, fmt.Errorf("function %q is not a name of 1 to 64 letters, digits, - and _", s.Function)
	case !aliases.MatchString(s.Alias) || digits == nil:
		return nil, fmt.Errorf("alias %q is not a name of letters, digits, - and _, with one that is no digit", s.Alias)
	case s.Role != "" && !roles.MatchString(s.Role):
		return nil, fmt.Errorf("role %q is not the ARN of an IAM role", s.Role)
	case s.Memory < 128 || s.Memory > 10240:
		return nil, fmt.Errorf("memory of %d MB is not between 128 and 10240", s.Memory)
	case s.Ephemeral < 512 || s.Ephemeral > 10240:
		return nil, fmt.Errorf("ephemeral storage of %d MB is not between 512 and 10240", s.Ephemeral)
	case s.Timeout < time.Second || s.Timeout > 15*time.Minute || s.Timeout%time.Second != 0:
		return nil, fmt.Errorf("timeout of %s is not in whole seconds between 1s and 15m", s.Timeout)
	case architecture(s.Arch) == "":
		return nil, fmt.Errorf("%w: architecture %q; Lambda has amd64 and arm64", deploy.ErrPlatform, s.Arch)
	case cfg.Region == "" && s.Endpoint == "":
		return nil, errors.New("there is no region")
	}
	if _, ok := s.Env[DigestVariable]; ok {
		return nil, fmt.Errorf("the variable %s is the target's own", DigestVariable)
	}
	for k := range s.Env {
		if !variables.MatchString(k) {
			return nil, fmt.Errorf("variable %q is not a name of 2 or more letters, digits and _", k)
		}
	}
	s.Env = maps.Clone(s.Env)
	t := &Target{s: s, creds: cfg.Credentials}
	t.c = lambda.NewFromConfig(cfg, func(o *lambda.Options) {
		if s.Endpoint != "" {
			o.BaseEndpoint = aws.String(s.Endpoint)
		}
		o.Retryer = retry.NewStandard(func(r *retry.StandardOptions) {
			r.MaxAttempts, r.MaxBackoff, r.RateLimiter = 6, s.Backoff, ratelimit.None
			r.Backoff = retry.NewExponentialJitterBackoff(s.Backoff)
		})
	})
	return t, nil
}

// architecture is Lambda's word for one of Go's, empty where it has none.
func architecture(arch string) types.Architecture {
	switch arch {
	case "amd64":
		return types.ArchitectureX8664
	case "arm64":
		return types.ArchitectureArm64
	}
	return ""
}

// state is what Lambda has.
type state struct {
	latest   *types.FunctionConfiguration // nil: no function
	alias    *alias                       // nil: none
	versions []types.FunctionConfiguration
}

// alias is where the traffic goes.
type alias struct {
	routing
	arn, revision string
}

// routing is what a move writes, in one call.
type routing struct {
	version  string // that gets what is left
	canary   string // that gets weight percent; empty: none
	weight   int
	previous string // that served before version
}

func (st *state) revision() string {
	if st.alias == nil {
		return "absent"
	}
	return st.alias.revision
}

// serves is the version that is not a canary.
func (st *state) serves() string {
	if st.alias == nil {
		return ""
	}
	return st.alias.version
}

func (st *state) version(v string) *types.FunctionConfiguration {
	for i := range st.versions {
		if aws.ToString(st.versions[i].Version) == v {
			return &st.versions[i]
		}
	}
	return nil
}

// share of a version in percent.
func (st *state) share(v string) int {
	switch {
	case st.alias == nil || v == "":
		return 0
	case v == st.alias.canary:
		return st.alias.weight
	case v == st.alias.version:
		return 100 - st.alias.weight
	}
	return 0
}

func (st *state) digest(v string) artifact.Digest { return label(st.version(v)) }

// label is the artifact that a version says it runs; empty when none, or none that is a digest.
func label(c *types.FunctionConfiguration) artifact.Digest {
	if c == nil || c.Environment == nil {
		return ""
	}
	d, err := artifact.ParseDigest(c.Environment.Variables[DigestVariable])
	if err != nil {
		return ""
	}
	return d
}

// read asks for everything that moves are decided on.
func (t *Target) read(ctx context.Context) (*state, error) {
	st := &state{}
	var err error
	if st.latest, err = t.config(ctx, ""); err != nil || st.latest == nil {
		return st, err
	}
	if st.alias, err = t.readAlias(ctx); err != nil {
		return nil, err
	}
	in := &lambda.ListVersionsByFunctionInput{FunctionName: &t.s.Function}
	for {
		out, err := t.c.ListVersionsByFunction(ctx, in)
		if err != nil {
			return nil, t.fail(ctx, "list the versions", err)
		}
		for _, v := range out.Versions {
			if aws.ToString(v.Version) != "$LATEST" {
				st.versions = append(st.versions, v)
			}
		}
		if in.Marker = out.NextMarker; aws.ToString(in.Marker) == "" {
			break
		}
	}
	slices.SortFunc(st.versions, func(a, b types.FunctionConfiguration) int {
		x, _ := strconv.Atoi(aws.ToString(a.Version))
		y, _ := strconv.Atoi(aws.ToString(b.Version))
		return y - x
	})
	return st, nil
}

// config reads the configuration of a version, of $LATEST for the empty one; nil when it does not exist.
func (t *Target) config(ctx context.Context, version string) (*types.FunctionConfiguration, error) {
	in := &lambda.GetFunctionConfigurationInput{FunctionName: &t.s.Function}
	if version != "" {
		in.Qualifier = &version
	}
	out, err := t.c.GetFunctionConfiguration(ctx, in)
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, t.fail(ctx, "read the function's configuration", err)
	}
	return &types.FunctionConfiguration{
		Architectures: out.Architectures, CodeSha256: out.CodeSha256, Environment: out.Environment, EphemeralStorage: out.EphemeralStorage, FunctionArn: out.FunctionArn,
		Handler: out.Handler, LastModified: out.LastModified, LastUpdateStatus: out.LastUpdateStatus, LastUpdateStatusReason: out.LastUpdateStatusReason,
		LastUpdateStatusReasonCode: out.LastUpdateStatusReasonCode, MemorySize: out.MemorySize, PackageType: out.PackageType, RevisionId: out.RevisionId, Role: out.Role,
		Runtime: out.Runtime, State: out.State, StateReason: out.StateReason, StateReasonCode: out.StateReasonCode, Timeout: out.Timeout, Version: out.Version,
	}, nil
}

func (t *Target) readAlias(ctx context.Context) (*alias, error) {
	out, err := t.c.GetAlias(ctx, &lambda.GetAliasInput{FunctionName: &t.s.Function, Name: &t.s.Alias})
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, t.fail(ctx, "read the alias", err)
	}
	a := &alias{arn: aws.ToString(out.AliasArn), revision: aws.ToString(out.RevisionId)}
	a.version = aws.ToString(out.FunctionVersion)
	if m := previous.FindStringSubmatch(aws.ToString(out.Description)); m != nil {
		a.previous = m[1]
	}
	if out.RoutingConfig != nil {
		for v, w := range out.RoutingConfig.AdditionalVersionWeights { // at most one
			if p := int(w*100 + 0.5); p > 0 {
				a.canary, a.weight = v, p
			}
		}
	}
	return a, nil
}

// image is the one that Lambda runs in a version, by digest; empty for code that was uploaded.
func (t *Target) image(ctx context.Context, version string) (string, error) {
	in := &lambda.GetFunctionInput{FunctionName: &t.s.Function}
	if version != "" {
		in.Qualifier = &version
	}
	out, err := t.c.GetFunction(ctx, in)
	if missing(err) {
		return "", nil
	}
	if err != nil {
		return "", t.fail(ctx, "read the function", err)
	}
	if out.Code == nil {
		return "", nil
	}
	return aws.ToString(out.Code.ResolvedImageUri), nil
}

// Status implements deploy.Target.
func (t *Target) Status(ctx context.Context) (*deploy.Status, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	out := &deploy.Status{Exists: st.latest != nil, Revision: st.revision(), Settled: true, Healthy: true}
	if st.latest != nil && st.latest.LastUpdateStatus == types.LastUpdateStatusInProgress {
		out.Settled, out.State = false, "Updating"
	}
	if st.alias == nil {
		out.Healthy = false
		return out, nil
	}
	running := map[artifact.Digest]bool{}
	for _, v := range []string{st.alias.version, st.alias.canary} {
		if st.share(v) == 0 {
			continue
		}
		x := share(st.version(v), v)
		x.Weight, x.Canary = st.share(v), v == st.alias.canary
		if x.Image, err = t.image(ctx, v); err != nil {
			return nil, err
		}
		running[x.Digest] = true
		out.Shares = append(out.Shares, x)
		c := st.version(v)
		switch {
		case c == nil:
			out.Healthy, out.Reason = false, "version "+v+" does not exist"
		case c.State == types.StatePending:
			out.Settled = false
		case c.State != types.StateActive && c.State != types.StateInactive && c.State != "":
			out.Healthy, out.Reason = false, aws.ToString(c.StateReason)
		}
		if c != nil && out.State == "" {
			out.State = string(c.State)
		}
	}
	slices.SortStableFunc(out.Shares, func(a, b deploy.Share) int { return b.Weight - a.Weight })
	for i := range st.versions {
		if c := &st.versions[i]; label(c) != "" && !running[label(c)] && c.State != types.StateFailed {
			out.Kept = append(out.Kept, share(c, aws.ToString(c.Version)))
		}
	}
	return out, nil
}

func share(c *types.FunctionConfiguration, version string) deploy.Share {
	x := deploy.Share{Digest: label(c), ID: version}
	if c != nil {
		x.Since, _ = time.Parse("2006-01-02T15:04:05.000-0700", aws.ToString(c.LastModified))
	}
	return x
}

// Rollback implements deploy.Target.
func (t *Target) Rollback(ctx context.Context, to artifact.Digest, wait time.Duration) (*deploy.Outcome, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.alias == nil {
		return nil, fmt.Errorf("%w: function %s has no alias %s", deploy.ErrNotFound, t.s.Function, t.s.Alias)
	}
	v := ""
	switch {
	case to != "":
		for _, c := range st.versions { // newest first, but what serves before all
			if n := aws.ToString(c.Version); label(&c) == to && (v == "" || st.share(n) > st.share(v)) && c.State != types.StateFailed {
				v = n
			}
		}
		if v == "" {
			return nil, fmt.Errorf("%w: function %s has no version of %s (deleted ones are not remembered)", deploy.ErrNotFound, t.s.Function, to)
		}
	case st.alias.canary != "":
		v = st.alias.version
	default:
		if v = st.alias.previous; v == "" {
			return nil, fmt.Errorf("%w: no version served behind %s:%s before", deploy.ErrNotFound, t.s.Function, t.s.Alias)
		}
	}
	if st.version(v) == nil {
		return nil, fmt.Errorf("%w: version %s of %s was deleted", deploy.ErrGone, v, t.s.Function)
	}
	return t.move(ctx, st, v, wait)
}

// Promote implements deploy.Promoter.
func (t *Target) Promote(ctx context.Context, wait time.Duration) (*deploy.Outcome, error) {
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.alias == nil {
		return nil, fmt.Errorf("%w: function %s has no alias %s", deploy.ErrNotFound, t.s.Function, t.s.Alias)
	}
	v := st.alias.canary
	if v == "" {
		v = st.alias.version
	}
	return t.move(ctx, st, v, wait)
}

// move gives all traffic to a version that exists.
func (t *Target) move(ctx context.Context, st *state, v string, wait time.Duration) (*deploy.Outcome, error) {
	out := t.outcome(st, v, st.digest(v))
	if st.share(v) == 100 {
		out.Weight = 100
		return out, nil
	}
	if err := t.healthy(ctx, v, t.until(wait)); err != nil {
		return nil, err
	}
	var err error
	if out.Image, err = t.image(ctx, v); err != nil {
		return nil, err
	}
	a, err := t.route(ctx, st.alias, st.toward(v, 100))
	if err != nil {
		return nil, err
	}
	out.Changed, out.Weight, out.IDs["revision"] = true, 100, a.revision
	return out, nil
}

func (t *Target) outcome(st *state, v string, d artifact.Digest) *deploy.Outcome {
	out := &deploy.Outcome{Digest: d, Previous: st.digest(st.serves()), IDs: map[string]string{"function": t.s.Function, "alias": t.s.Alias}}
	if v != "" {
		out.IDs["version"] = v
	}
	if st.alias != nil && st.alias.arn != "" {
		out.IDs["arn"] = st.alias.arn
	}
	return out
}

// toward is the routing that gives version v a weight. Where nothing else serves it gets everything.
func (st *state) toward(v string, weight int) routing {
	if st.alias == nil {
		return routing{version: v}
	}
	r := st.alias.routing
	switch {
	case r.version == v:
		return routing{version: v, previous: r.previous}
	case weight%100 != 0:
		return routing{version: r.version, canary: v, weight: weight, previous: r.previous}
	}
	return routing{version: v, previous: r.version}
}

// String writes a routing as a person reads it.
func (r routing) String() string {
	if r.canary == "" {
		return "version " + r.version + " 100%"
	}
	return fmt.Sprintf("version %s %d%%, version %s %d%%", r.version, 100-r.weight, r.canary, r.weight)
}

// route moves the alias, which a is as it was read; nil makes it. Another's move in between is ErrConflict. An answer that was lost is
// told from that by what the alias says then.
func (t *Target) route(ctx context.Context, a *alias, to routing) (*alias, error) {
	if a != nil && a.routing == to {
		return a, nil
	}
	description := "Waybill"
	if to.previous != "" {
		description += ": previous=" + to.previous
	}
	weights := map[string]float64{}
	if to.canary != "" {
		weights[to.canary] = float64(to.weight) / 100
	}
	done := &alias{routing: to}
	if a == nil {
		out, err := t.c.CreateAlias(ctx, &lambda.CreateAliasInput{FunctionName: &t.s.Function, Name: &t.s.Alias, FunctionVersion: &to.version, Description: &description})
		if err == nil {
			done.arn, done.revision = aws.ToString(out.AliasArn), aws.ToString(out.RevisionId)
			t.s.Log.Info("alias created", "function", t.s.Function, "alias", t.s.Alias, "routing", to.String())
			return done, nil
		}
		if !busy(err) {
			return nil, t.fail(ctx, "create the alias", err)
		}
	} else {
		out, err := t.c.UpdateAlias(ctx, &lambda.UpdateAliasInput{
			FunctionName: &t.s.Function, Name: &t.s.Alias, FunctionVersion: &to.version, Description: &description, RevisionId: &a.revision,
			RoutingConfig: &types.AliasRoutingConfiguration{AdditionalVersionWeights: weights},
		})
		if err == nil {
			done.arn, done.revision = aws.ToString(out.AliasArn), aws.ToString(out.RevisionId)
			t.s.Log.Info("alias moved", "function", t.s.Function, "alias", t.s.Alias, "routing", to.String())
			return done, nil
		}
		if !stale(err) && !missing(err) {
			return nil, t.fail(ctx, "move the alias", err)
		}
	}
	now, err := t.readAlias(ctx)
	if err != nil {
		return nil, err
	}
	if now != nil && now.routing == to {
		return now, nil
	}
	return nil, fmt.Errorf("%w: alias %s:%s was changed", deploy.ErrConflict, t.s.Function, t.s.Alias)
}

// until is the end of a wait.
func (t *Target) until(wait time.Duration) time.Time {
	if wait <= 0 {
		wait = 5 * time.Minute
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

// describe is a change for a plan.
func describe(field, from, to, why string) deploy.Change {
	return deploy.Change{Field: field, Old: from, New: to, Why: why}
}

var _ deploy.Promoter = (*Target)(nil)

// sameImage compares by digest alone.
func sameImage(a, b string) bool {
	_, x, ok := strings.Cut(a, "@")
	_, y, also := strings.Cut(b, "@")
	return ok && also && x == y
}
