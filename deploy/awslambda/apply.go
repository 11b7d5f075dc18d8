package awslambda

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"

	"github.com/waybill-ml/waybill/deploy"
)

// maxImage is the size of an image that Lambda takes.
const maxImage = 10 << 30

// code is what a version shall run: an image, or files in a zip.
type code struct {
	image string
	zip   []byte
	sha   string // of the zip, as CodeSha256 has it
}

func (c *code) kind() types.PackageType {
	if c.image != "" {
		return types.PackageTypeImage
	}
	return types.PackageTypeZip
}

func (c *code) String() string {
	if c.image != "" {
		return c.image
	}
	return "zip sha256 " + c.sha
}

// code checks a release and reads its bundle.
func (t *Target) code(r deploy.Release) (*code, error) {
	asZip := r.Image == "" && r.Bundle != ""
	if err := r.Check(!asZip, asZip); err != nil {
		return nil, err
	}
	if len(r.Arches) > 0 && !slices.Contains(r.Arches, t.s.Arch) {
		return nil, fmt.Errorf("%w: the release is for %s, the function for %s", deploy.ErrPlatform, strings.Join(r.Arches, ", "), t.s.Arch)
	}
	if asZip {
		return zipped(r.Bundle)
	}
	if r.Size > maxImage {
		return nil, fmt.Errorf("%w: the image has %d bytes, Lambda takes %d", deploy.ErrTooLarge, r.Size, int64(maxImage))
	}
	return &code{image: r.Image}, nil
}

// env is all variables of a version of r.
func (t *Target) env(digest string) map[string]string {
	env := maps.Clone(t.s.Env)
	if env == nil {
		env = map[string]string{}
	}
	env[DigestVariable] = digest
	return env
}

// differs lists what of c is not as the settings say. The artifact's digest is not one of them.
func (t *Target) differs(c *types.FunctionConfiguration) []deploy.Change {
	var out []deploy.Change
	add := func(field, have, want string) {
		if have != want {
			out = append(out, describe(field, have, want, ""))
		}
	}
	mb := func(n int32) string { return strconv.Itoa(int(n)) + " MB" }
	add("memory", mb(aws.ToInt32(c.MemorySize)), mb(t.s.Memory))
	add("timeout", strconv.Itoa(int(aws.ToInt32(c.Timeout)))+" s", strconv.Itoa(int(t.s.Timeout/time.Second))+" s")
	if c.EphemeralStorage != nil {
		add("ephemeral storage", mb(aws.ToInt32(c.EphemeralStorage.Size)), mb(t.s.Ephemeral))
	}
	if t.s.Role != "" {
		add("role", aws.ToString(c.Role), t.s.Role)
	}
	have := map[string]string{}
	if c.Environment != nil {
		have = c.Environment.Variables
	}
	want := t.env("")
	for _, k := range slices.Sorted(maps.Keys(merged(have, want))) {
		if k == DigestVariable {
			continue
		}
		x, ok := have[k]
		y, also := want[k]
		if ok != also || x != y { // values may be secrets of the model's owner: only that they differ is told
			out = append(out, describe("variable "+k, present(ok, "a value"), present(also, "the value of the settings"), ""))
		}
	}
	return out
}

func merged(a, b map[string]string) map[string]string {
	m := maps.Clone(a)
	if m == nil {
		m = map[string]string{}
	}
	maps.Copy(m, b)
	return m
}

func present(ok bool, text string) string {
	if !ok {
		return ""
	}
	return text
}

// find is the newest version that is r with the settings as they are now; nil when there is none.
func (t *Target) find(ctx context.Context, st *state, r deploy.Release, c *code) (*types.FunctionConfiguration, error) {
	for i := range st.versions {
		v := &st.versions[i]
		if label(v) != r.Digest || v.State == types.StateFailed || v.PackageType != c.kind() || len(t.differs(v)) > 0 || !slices.Equal(v.Architectures, []types.Architecture{architecture(t.s.Arch)}) {
			continue
		}
		same, err := t.runs(ctx, v, c)
		if err != nil {
			return nil, err
		}
		if same {
			return v, nil
		}
	}
	return nil, nil
}

// runs tells whether v, a version or $LATEST, has the code c. What counts is the image that Lambda resolved.
func (t *Target) runs(ctx context.Context, v *types.FunctionConfiguration, c *code) (bool, error) {
	if v.PackageType != c.kind() {
		return false, nil
	}
	if c.image == "" {
		return aws.ToString(v.CodeSha256) == c.sha, nil
	}
	version := aws.ToString(v.Version)
	if version == "$LATEST" {
		version = ""
	}
	image, err := t.image(ctx, version)
	return sameImage(image, c.image), err
}

// planned is the state of a plan.
type planned struct {
	st *state
	v  string // that exists already
	c  string // code that was planned
}

// Plan implements deploy.Target.
func (t *Target) Plan(ctx context.Context, r deploy.Release) (*deploy.Plan, error) {
	c, err := t.code(r)
	if err != nil {
		return nil, err
	}
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.latest == nil && t.s.Role == "" {
		return nil, fmt.Errorf("%w: function %s does not exist, and there is no role to create it with", deploy.ErrRelease, t.s.Function)
	}
	if st.latest != nil && st.latest.PackageType != c.kind() {
		return nil, fmt.Errorf("%w: function %s is of the package type %s, which cannot become %s", deploy.ErrRelease, t.s.Function, st.latest.PackageType, c.kind())
	}
	v, err := t.find(ctx, st, r, c)
	if err != nil {
		return nil, err
	}
	p := &deploy.Plan{Release: r, From: st.digest(st.serves()), Revision: st.revision(), Create: st.latest == nil}
	state := &planned{st: st, c: c.String()}
	p.State = state
	next := "new"
	if v != nil {
		next = aws.ToString(v.Version)
		state.v = next
	}
	served := st.version(st.serves())
	if st.latest == nil {
		p.Changes = append(p.Changes, describe("function", "", t.s.Function, "it does not exist"))
	}
	if v == nil {
		old := ""
		if served != nil {
			if old, err = t.codeOf(ctx, served); err != nil {
				return nil, err
			}
			p.Changes = append(p.Changes, t.differs(served)...)
		}
		if old != c.String() {
			p.Changes = append(p.Changes, describe("code", old, c.String(), ""))
		}
		if label(served) != r.Digest {
			p.Changes = append(p.Changes, describe("artifact", string(label(served)), string(r.Digest), ""))
		}
	}
	was := ""
	if st.alias != nil {
		was = st.alias.routing.String()
	}
	if to := st.toward(next, r.Weight); st.alias == nil || st.alias.routing != to {
		p.Changes = append(p.Changes, describe("traffic of "+t.s.Alias, was, to.String(), ""))
	}
	if st.latest != nil {
		for _, ch := range t.differs(st.latest) {
			ch.Field += " of $LATEST"
			if served != nil && !slices.ContainsFunc(t.differs(served), func(x deploy.Change) bool { return x.Field+" of $LATEST" == ch.Field && x.Old == ch.Old }) {
				ch.Why = "it was changed outside of Waybill"
				p.Drift = append(p.Drift, ch)
			}
			p.Changes = append(p.Changes, ch)
		}
	}
	return p, nil
}

func (t *Target) codeOf(ctx context.Context, v *types.FunctionConfiguration) (string, error) {
	if v.PackageType == types.PackageTypeZip {
		return "zip sha256 " + aws.ToString(v.CodeSha256), nil
	}
	return t.image(ctx, aws.ToString(v.Version))
}

// Apply implements deploy.Target. What a failure leaves behind is $LATEST, or a version that gets no traffic; the next run takes it up.
func (t *Target) Apply(ctx context.Context, p *deploy.Plan) (*deploy.Outcome, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("apply: %w", err)
	}
	made, ok := p.State.(*planned)
	if !ok {
		return nil, fmt.Errorf("%w: the plan is not this target's", deploy.ErrRelease)
	}
	r := p.Release
	c, err := t.code(r)
	if err != nil {
		return nil, err
	}
	if c.String() != made.c {
		return nil, fmt.Errorf("%w: the bundle is no longer what was planned", deploy.ErrRelease)
	}
	if len(p.Changes) == 0 {
		out := t.outcome(made.st, made.v, r.Digest)
		out.Image, out.Weight = r.Image, made.st.share(made.v)
		return out, nil
	}
	st, err := t.read(ctx)
	if err != nil {
		return nil, err
	}
	if st.revision() != p.Revision {
		return nil, fmt.Errorf("%w: alias %s:%s is no longer as it was planned", deploy.ErrConflict, t.s.Function, t.s.Alias)
	}
	end := t.until(r.Wait)
	found, err := t.find(ctx, st, r, c)
	if err != nil {
		return nil, err
	}
	v := ""
	if found != nil {
		v = aws.ToString(found.Version)
		err = t.repair(ctx, st, end)
	} else {
		v, err = t.publish(ctx, st, r, c, end)
	}
	if err != nil {
		return nil, err
	}
	out := t.outcome(st, v, r.Digest)
	if c.image != "" {
		if out.Image, err = t.image(ctx, v); err != nil {
			return nil, err
		}
		if !sameImage(out.Image, c.image) {
			return nil, fmt.Errorf("%w: version %s runs %s", deploy.ErrConflict, v, out.Image)
		}
	}
	if err := t.healthy(ctx, v, end); err != nil {
		return nil, err
	}
	to := st.toward(v, r.Weight)
	a, err := t.route(ctx, st.alias, to)
	if err != nil {
		return nil, err
	}
	out.Changed, out.Weight, out.IDs["revision"] = true, 100, a.revision
	if to.canary == v {
		out.Weight = to.weight
	}
	if a.arn != "" {
		out.IDs["arn"] = a.arn
	}
	return out, nil
}

// repair sets $LATEST right where a version exists already.
func (t *Target) repair(ctx context.Context, st *state, end time.Time) error {
	if len(t.differs(st.latest)) == 0 {
		return nil
	}
	latest, err := t.settled(ctx, end)
	if err != nil {
		return err
	}
	_, err = t.configure(ctx, latest, string(label(latest)), end)
	return err
}

// publish makes a version of r through $LATEST and gives its number. Each step demands the revision of $LATEST that the one before
// left, so that a version never is half ours and half another's.
func (t *Target) publish(ctx context.Context, st *state, r deploy.Release, c *code, end time.Time) (string, error) {
	created := false
	if st.latest == nil {
		in := &lambda.CreateFunctionInput{
			FunctionName: &t.s.Function, Role: &t.s.Role, PackageType: c.kind(), Architectures: []types.Architecture{architecture(t.s.Arch)}, MemorySize: &t.s.Memory,
			Timeout: aws.Int32(int32(t.s.Timeout / time.Second)), EphemeralStorage: &types.EphemeralStorage{Size: &t.s.Ephemeral},
			Environment: &types.Environment{Variables: t.env(string(r.Digest))}, Code: &types.FunctionCode{},
		}
		if c.image != "" {
			in.Code.ImageUri = &c.image
		} else {
			in.Code.ZipFile, in.Runtime, in.Handler = c.zip, types.RuntimeProvidedal2023, aws.String("bootstrap")
		}
		if _, err := t.c.CreateFunction(ctx, in); err != nil && !busy(err) {
			return "", t.fail(ctx, "create the function", err)
		}
		created = true // now, or by a call whose answer was lost; what it holds is looked at below
		t.s.Log.Info("function created", "function", t.s.Function)
	}
	latest, err := t.settled(ctx, end)
	if err != nil {
		return "", err
	}
	same, err := t.runs(ctx, latest, c)
	if err != nil {
		return "", err
	}
	if created && same {
		if err := failed(latest); err != nil {
			return "", err
		}
	}
	if !same || failed(latest) != nil || !slices.Equal(latest.Architectures, []types.Architecture{architecture(t.s.Arch)}) {
		in := &lambda.UpdateFunctionCodeInput{FunctionName: &t.s.Function, RevisionId: latest.RevisionId, Architectures: []types.Architecture{architecture(t.s.Arch)}}
		if c.image != "" {
			in.ImageUri = &c.image
		} else {
			in.ZipFile = c.zip
		}
		if _, err := t.c.UpdateFunctionCode(ctx, in); err != nil && !busy(err) && !stale(err) {
			return "", t.fail(ctx, "update the function's code", err)
		}
		if latest, err = t.settled(ctx, end); err != nil {
			return "", err
		}
		if same, err = t.runs(ctx, latest, c); err != nil {
			return "", err
		}
		if !same {
			return "", fmt.Errorf("%w: $LATEST of %s got other code", deploy.ErrConflict, t.s.Function)
		}
		if err := failed(latest); err != nil {
			return "", err
		}
	}
	if label(latest) != r.Digest || len(t.differs(latest)) > 0 {
		if latest, err = t.configure(ctx, latest, string(r.Digest), end); err != nil {
			return "", err
		}
		if err := failed(latest); err != nil {
			return "", err
		}
	}
	out, err := t.c.PublishVersion(ctx, &lambda.PublishVersionInput{FunctionName: &t.s.Function, RevisionId: latest.RevisionId, CodeSha256: latest.CodeSha256, Description: aws.String(describeRelease(r))})
	if err == nil {
		t.s.Log.Info("version published", "function", t.s.Function, "version", aws.ToString(out.Version), "digest", string(r.Digest))
		return aws.ToString(out.Version), nil
	}
	if !busy(err) && !stale(err) {
		return "", t.fail(ctx, "publish a version", err)
	}
	now, rerr := t.read(ctx)
	if rerr != nil {
		return "", rerr
	}
	v, ferr := t.find(ctx, now, r, c)
	if ferr != nil {
		return "", ferr
	}
	if v == nil {
		return "", fmt.Errorf("%w: $LATEST of %s was changed before it was published", deploy.ErrConflict, t.s.Function)
	}
	return aws.ToString(v.Version), nil
}

// describeRelease is a version's description, for people: at most 256 characters.
func describeRelease(r deploy.Release) string {
	s := strings.TrimSpace(r.Model + " " + r.Ver + " " + string(r.Digest))
	if b := []rune(s); len(b) > 256 {
		return string(b[:256])
	}
	return s
}

// configure gives $LATEST the settings and the label.
func (t *Target) configure(ctx context.Context, latest *types.FunctionConfiguration, digest string, end time.Time) (*types.FunctionConfiguration, error) {
	in := &lambda.UpdateFunctionConfigurationInput{
		FunctionName: &t.s.Function, RevisionId: latest.RevisionId, MemorySize: &t.s.Memory, Timeout: aws.Int32(int32(t.s.Timeout / time.Second)),
		EphemeralStorage: &types.EphemeralStorage{Size: &t.s.Ephemeral}, Environment: &types.Environment{Variables: t.env(digest)},
	}
	if digest == "" {
		delete(in.Environment.Variables, DigestVariable)
	}
	if t.s.Role != "" {
		in.Role = &t.s.Role
	}
	if _, err := t.c.UpdateFunctionConfiguration(ctx, in); err != nil && !busy(err) && !stale(err) {
		return nil, t.fail(ctx, "update the function's configuration", err)
	}
	now, err := t.settled(ctx, end)
	if err != nil {
		return nil, err
	}
	if string(label(now)) != digest || len(t.differs(now)) > 0 || aws.ToString(now.CodeSha256) != aws.ToString(latest.CodeSha256) {
		return nil, fmt.Errorf("%w: $LATEST of %s was changed", deploy.ErrConflict, t.s.Function)
	}
	return now, nil
}

// settled waits until no change of $LATEST is under way.
func (t *Target) settled(ctx context.Context, end time.Time) (*types.FunctionConfiguration, error) {
	for {
		c, err := t.config(ctx, "")
		switch {
		case err != nil:
			return nil, err
		case c == nil:
			return nil, fmt.Errorf("%w: function %s was deleted", deploy.ErrConflict, t.s.Function)
		case c.State != types.StatePending && c.LastUpdateStatus != types.LastUpdateStatusInProgress:
			return c, nil
		case time.Now().After(end):
			return nil, fmt.Errorf("%w: function %s is %s, its update %s, and the time to wait is over", deploy.ErrUnhealthy, t.s.Function, c.State, c.LastUpdateStatus)
		}
		if err := t.pause(ctx); err != nil {
			return nil, err
		}
	}
}

// failed is the error of a function that could not be made ready.
func failed(c *types.FunctionConfiguration) error {
	code, text := "", ""
	switch {
	case c.State == types.StateFailed:
		code, text = string(c.StateReasonCode), aws.ToString(c.StateReason)
	case c.LastUpdateStatus == types.LastUpdateStatusFailed:
		code, text = string(c.LastUpdateStatusReasonCode), aws.ToString(c.LastUpdateStatusReason)
	default:
		return nil
	}
	return fmt.Errorf("%w: %s: %s", reasonOf(code, text), code, text)
}

// ready is the event that a version is asked with before it gets traffic: what a function URL would send for GET /v2/health/ready.
const ready = `{"version":"2.0","rawPath":"/v2/health/ready","rawQueryString":"","headers":{},"requestContext":{"stage":"$default","http":{"method":"GET","path":"/v2/health/ready"}},"isBase64Encoded":false}`

// healthy waits until version v is active, and asks it whether it serves: Lambda calls a version active whose server refuses to start.
func (t *Target) healthy(ctx context.Context, v string, end time.Time) error {
	for {
		c, err := t.config(ctx, v)
		switch {
		case err != nil:
			return err
		case c == nil:
			return fmt.Errorf("%w: version %s of %s was deleted", deploy.ErrGone, v, t.s.Function)
		case c.State == types.StateFailed:
			return failed(c)
		case c.State == types.StateActive:
			if t.s.NoProbe {
				return nil
			}
			return t.probe(ctx, v)
		case c.State == types.StateInactive:
			if t.s.NoProbe {
				return nil
			}
			_ = t.probe(ctx, v) // which Lambda answers with an error, and makes the version active again
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: version %s of %s is %s, and the time to wait is over", deploy.ErrUnhealthy, v, t.s.Function, c.State)
		}
		if err := t.pause(ctx); err != nil {
			return err
		}
	}
}

func (t *Target) probe(ctx context.Context, v string) error {
	out, err := t.c.Invoke(ctx, &lambda.InvokeInput{FunctionName: &t.s.Function, Qualifier: &v, Payload: []byte(ready)})
	if err != nil {
		return t.fail(ctx, "ask version "+v+" whether it serves", err)
	}
	var a struct {
		Status  int    `json:"statusCode"`
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	if err := json.Unmarshal(out.Payload, &a); err != nil || aws.ToString(out.FunctionError) != "" || a.Status != 200 {
		text := fmt.Sprintf("it answers %d", a.Status)
		if a.Type != "" {
			text = a.Type + ": " + a.Message
		}
		return fmt.Errorf("%w: version %s of %s: %s", deploy.ErrUnhealthy, v, t.s.Function, t.redactor(ctx).Text(text))
	}
	return nil
}
