package cli

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/deploy"
	"github.com/waybill-ml/waybill/deploy/rollout"
	"github.com/waybill-ml/waybill/deploy/targets"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/facts"
)

// site is an environment with its targets, as the signed document lists them.
type site struct {
	name    string
	env     environments.Environment
	doc     *trust.Document
	certs   verify.Certificates
	now     time.Time
	entries []targets.Entry // that the flags chose, in the order of the document
}

// siteFlags are those of every verb that looks at an environment's targets.
func siteFlags(more ...ucli.Flag) []ucli.Flag {
	return append(trustFlags(), append([]ucli.Flag{
		environmentsFlag(),
		&ucli.StringFlag{Name: "env", Usage: "`ENVIRONMENT` of environments.yaml", Required: true, EnvVars: []string{"WAYBILL_ENV"}},
		&ucli.StringSliceFlag{Name: "target", Usage: "only the target of this `NAME`; may be repeated"},
	}, more...)...)
}

func yesFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "yes", Usage: "do not ask"}
}

// site reads trust document and environments. Without a target it fails, unless none are needed.
func (c *Call) site(none bool) (*site, error) {
	doc, err := c.loadTrust()
	if err != nil {
		return nil, err
	}
	x := &site{name: c.String("env"), doc: doc, now: c.Env.Now()}
	if x.env, err = c.environment(x.name, doc); err != nil {
		return nil, err
	}
	if x.certs, err = c.certificates(); err != nil {
		return nil, err
	}
	all, err := targets.Parse(x.env.Targets, targetKinds())
	if err != nil {
		return nil, diag.Wrap(diag.Usage, err, "%s, environment %s", c.String("environments"), x.name)
	}
	if len(all) == 0 && !none {
		return nil, diag.New(diag.NotFound, "environment %s has no targets", x.name).Line("targets stand in %s, which root keys sign; docs/environments.md describes them", environmentsYAML).
			Hint("waybill channel publish %s REF --key deployer.key   (to reach devices)", x.name)
	}
	if x.entries = all; len(c.Strings("target")) == 0 {
		return x, nil
	}
	names := make([]string, len(all))
	for i := range all {
		names[i] = all[i].Name
	}
	for _, n := range c.Strings("target") {
		if !slices.Contains(names, n) {
			e := diag.New(diag.NotFound, "environment %s has no target %q", x.name, n).Line("it has: %s", strings.Join(names, ", "))
			if near := diag.Nearest(n, names); near != "" {
				e.Hint("did you mean --target %s?", near)
			}
			return nil, e
		}
	}
	x.entries = slices.DeleteFunc(all, func(e targets.Entry) bool { return !slices.Contains(c.Strings("target"), e.Name) })
	return x, nil
}

// open makes the client of each target. It finds credentials and contacts nobody, or next to nobody. A client that cannot be made fails
// at each call.
func (x *site) open(ctx context.Context, c *Call) []rollout.Place {
	log := slog.New(slog.DiscardHandler)
	if c.UI.Verbose {
		log = slog.New(slog.NewTextHandler(whyWriter{c}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}}))
	}
	var out []rollout.Place
	for _, e := range x.entries {
		t, err := e.Settings.Open(ctx, log.With("target", e.Name))
		if err != nil {
			t = closed{err}
		}
		out = append(out, rollout.Place{Name: e.Name, Target: t, Release: deploy.Release{Wait: e.Wait}})
	}
	return out
}

// closed is a target without a client: it fails by itself, where one goes without the others.
type closed struct{ err error }

func (t closed) Status(context.Context) (*deploy.Status, error)                  { return nil, t.err }
func (t closed) Plan(context.Context, deploy.Release) (*deploy.Plan, error)      { return nil, t.err }
func (t closed) Apply(context.Context, *deploy.Plan) (*deploy.Outcome, error)    { return nil, t.err }
func (t closed) Promote(context.Context, time.Duration) (*deploy.Outcome, error) { return nil, t.err }
func (t closed) Rollback(context.Context, artifact.Digest, time.Duration) (*deploy.Outcome, error) {
	return nil, t.err
}

// whyWriter shows a target's log with -v.
type whyWriter struct{ c *Call }

func (w whyWriter) Write(p []byte) (int, error) {
	w.c.UI.Why("%s", strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

// admit demands of an artifact what the gate of this environment and its publishers must have said. late takes a verdict that has
// expired, for what ran there before.
func (x *site) admit(ctx context.Context, c *Call, s *subject, late bool) (*publish.Proof, error) {
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return nil, err
	}
	n := publish.Need{
		Ref: s.Pinned(), Digest: s.Desc.Digest, Model: s.Name, Env: x.name, ResourceURI: facts.ResourceURI(x.env.Namespace, s.Name),
		Policies: []artifact.Digest{x.env.Policy.Digest}, Releases: x.env.Signers, Certificates: x.certs, Late: late,
	}
	if late {
		n.Policies = x.doc.Policies
	}
	return publish.Admit(bundles, x.doc, n, c.Env.Now())
}

// failed gives an error of targets its exit code, and what to do about each cause.
func (x *site) failed(err error, code diag.Code, format string, args ...any) error {
	var d *diag.Error
	if errors.As(err, &d) {
		return err // of a registry, of evidence: it says by itself
	}
	e := diag.Wrap(code, err, format, args...)
	kinds := map[string]bool{}
	for i := range x.entries {
		kinds[x.entries[i].Kind] = true
	}
	for _, h := range []struct {
		cause error
		hint  string
	}{
		{deploy.ErrUnauthorized, "log in again: " + strings.Join(logins(kinds), ", or ")},
		{deploy.ErrForbidden, "docs/targets.md lists the permissions that each kind needs"},
		{deploy.ErrQuota, "raise the quota, or delete what is not needed; what served before still serves"},
		{deploy.ErrTooLarge, "docs/targets.md names the limits; quantised weights are a quarter as large"},
		{deploy.ErrPlatform, "build the image for the target's architecture: waybill image REF --platform linux/arm64 ..."},
		{deploy.ErrConflict, "look at what changed, then run the command again: waybill status --env " + x.name},
		{deploy.ErrBusy, "wait until the other change is done, then run the command again"},
		{deploy.ErrGone, "deploy that digest anew: waybill deploy REPO@DIGEST --env " + x.name},
		{deploy.ErrNotFound, "waybill status --env " + x.name},
		{deploy.ErrThrottled, "run the same command again later: it takes up where this one stopped"},
		{deploy.ErrUnavailable, "run the same command again: it reads what the platform did, and takes up from there"},
		{deploy.ErrUnhealthy, "the platform's log of the new revision says why it does not start"},
	} {
		if errors.Is(err, h.cause) {
			e.Hint("%s", h.hint)
		}
	}
	switch {
	case code != diag.Failure:
	case errors.Is(err, context.Canceled):
		e.Code = diag.Interrupted
	case errors.Is(err, deploy.ErrGone), errors.Is(err, deploy.ErrNotFound):
		e.Code = diag.NotFound
	case errors.Is(err, deploy.ErrRelease):
		e.Code = diag.Usage
	}
	return e
}

// logins are the commands that renew the credentials of these kinds.
func logins(kinds map[string]bool) (out []string) {
	for _, l := range []struct{ prefix, command string }{
		{"lambda", "aws sso login"}, {"sagemaker", "aws sso login"}, {"cloudrun", "gcloud auth application-default login"}, {"vertex", "gcloud auth application-default login"},
		{"azure", "az login"}, {"cloudflare", "set CLOUDFLARE_API_TOKEN"}, {"k", "kubectl get --raw /version shows whether the kubeconfig's user is let in"},
	} {
		for k := range kinds {
			if strings.HasPrefix(k, l.prefix) && !slices.Contains(out, l.command) {
				out = append(out, l.command)
			}
		}
	}
	if len(out) == 0 {
		return []string{"with the platform's own tool"}
	}
	return out
}

// attester signs what happened and attaches it to the artifact that now runs, in the repository of ref.
type attester struct {
	site  *site
	place *openPlace
	ref   registry.Ref
	key   author
}

// Record implements rollout.Recorder.
func (r *attester) Record(ctx context.Context, d evidence.Deployment) error {
	s := &subject{Ref: r.ref.WithDigest(d.Digest), Place: r.place}
	if err := s.read(ctx); err != nil {
		return err
	}
	if g, ok := r.key.(*guest); ok {
		g.env = r.site.name
	}
	_, err := s.attach(ctx, r.key, evidence.TypeDeployment, d)
	return err
}

// Recorded implements rollout.Recorder.
func (r *attester) Recorded(ctx context.Context, env, target string, digest artifact.Digest, others []artifact.Digest) (bool, error) {
	mine, err := r.newest(ctx, target, digest)
	if err != nil || mine.IsZero() {
		return false, err
	}
	for _, d := range others {
		at, err := r.newest(ctx, target, d)
		if err != nil && diag.CodeOf(err) != diag.NotFound { // of another repository, or deleted: it says nothing here
			return false, err
		}
		if at.After(mine) {
			return false, nil
		}
	}
	return true, nil
}

// newest is when the last statement says that digest was brought to the target; zero: none does.
func (r *attester) newest(ctx context.Context, target string, digest artifact.Digest) (at time.Time, err error) {
	s := &subject{Ref: r.ref.WithDigest(digest), Place: r.place}
	if err := s.read(ctx); err != nil {
		return at, err
	}
	ds, err := r.site.deployments(ctx, s)
	for _, d := range ds {
		if d.Target == target && d.Digest == digest && d.At.After(at) {
			at = d.At
		}
	}
	return at, err
}

// deployments are the verified statements about s and this environment.
func (x *site) deployments(ctx context.Context, s *subject) ([]evidence.Deployment, error) {
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return nil, err
	}
	evs, _ := verify.All(bundles, x.doc, verify.Want{Subject: s.Desc.Digest, Model: s.Name, Env: x.name, Now: x.now, Certificates: x.certs})
	var out []evidence.Deployment
	for _, e := range evs {
		var d evidence.Deployment
		if e.PredicateType == evidence.TypeDeployment && json.Unmarshal(e.Predicate, &d) == nil && d.Env == x.name {
			out = append(out, d)
		}
	}
	return out, nil
}
