package cli

import (
	"cmp"
	"context"
	"slices"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/deploy/rollout"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
)

func rollbackCommand() Command {
	return Command{
		Name: "rollback", Group: Fleet, Summary: "give the traffic of an environment's targets back to an earlier digest",
		Args: "REPO", Min: 1, Max: 1,
		Long: `Gives all traffic of each target back to the revision that served before, or to the one of --to: the platform still has
it, so nothing is built or pulled. While a canary runs, its share goes back to the revision beside it. A target that fails does
not keep the others from it. Each move is attested, in REPO, which is where the artifacts are.

A digest named with --to needs its releases and a verdict of this environment, which may have expired; a later denial withdraws it
(exit code 4).`,
		Examples: []string{
			"waybill rollback reg.example/ml/churn --env prod --key deployer.key",
			"waybill rollback reg.example/ml/churn --env prod --to sha256:... --target eu --yes --key deployer.key",
		},
		Flags: siteFlags(append(signerFlags("deployer"),
			&ucli.StringFlag{Name: "to", Usage: "`DIGEST` of the artifact to go back to (default: what served before)"},
			&ucli.DurationFlag{Name: "wait", Usage: "how `LONG` the revision may take to serve (default: what the target says)"},
			yesFlag(),
			&ucli.BoolFlag{Name: "dry-run", Usage: "say what runs and what could run again, and change nothing"},
		)...),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"status", "deploy", "channel rollback"},
		Run:   runRollback,
	}
}

func promoteCommand() Command {
	return Command{
		Name: "promote", Group: Fleet, Summary: "give a canary all of the traffic",
		Args: "REPO", Min: 1, Max: 1,
		Long: `Gives the running canary of each target (deploy --weight) all of its traffic. The canary's digest must still have what
deploy demands: a denial that came since keeps it from it (exit code 4). Targets without a canary are left alone. Each move is
attested, in REPO, which is where the artifacts are.`,
		Examples: []string{
			"waybill promote reg.example/ml/churn --env prod --key deployer.key",
			"waybill promote reg.example/ml/churn --env prod --target eu --dry-run",
		},
		Flags: siteFlags(append(signerFlags("deployer"),
			&ucli.DurationFlag{Name: "wait", Usage: "how `LONG` the revision may take to serve (default: what the target says)"},
			yesFlag(),
			&ucli.BoolFlag{Name: "dry-run", Usage: "say which canaries run, and change nothing"},
		)...),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"deploy", "status", "rollback"},
		Run:   runPromote,
	}
}

// moveJSON is the result of rollback and promote.
type moveJSON struct {
	Schema      string           `json:"schema"`
	Environment string           `json:"environment"`
	DryRun      bool             `json:"dryRun"`
	Targets     []moveTargetJSON `json:"targets"`
}

type moveTargetJSON struct {
	Name     string            `json:"name"`
	Kind     string            `json:"kind"`
	State    string            `json:"state"` // moved, unchanged, failed; in a dry run: planned
	Digest   artifact.Digest   `json:"digest"`
	Previous artifact.Digest   `json:"previous"`
	Kept     []artifact.Digest `json:"kept,omitempty"` // in a dry run: that could run again
	IDs      map[string]string `json:"ids,omitempty"`
	Attested bool              `json:"attested"`
	Error    string            `json:"error,omitempty"`
}

func runRollback(ctx context.Context, c *Call) error {
	to := artifact.Digest(c.String("to"))
	if to != "" {
		var err error
		if to, err = artifact.ParseDigest(string(to)); err != nil {
			return diag.Wrap(diag.Usage, err, "--to").Hint("waybill status --env %s", c.String("env"))
		}
	}
	m, err := c.move(ctx)
	if err != nil {
		return err
	}
	defer m.rec.place.Close()
	if to != "" {
		if err := m.admit(ctx, c, to, true); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		return m.look(ctx, c, "rollback/v1")
	}
	if to == "" {
		if err := m.mayMove(ctx, c); err != nil {
			return err
		}
	}
	what := "what served before"
	if to != "" {
		what = to.Short()
	}
	if err := c.agreed("roll %s of %s back to %s?", ui.Plural(len(m.places), "target"), m.site.name, what); err != nil {
		return err
	}
	bs, err := rollout.Rollback(ctx, m.site.name, m.places, to, m.rec, c.Env.Now)
	if to == "" {
		for _, b := range bs {
			if b.Err != nil || b.Outcome.Digest == "" {
				continue
			}
			if aerr := m.admit(ctx, c, b.Outcome.Digest, true); aerr != nil {
				c.UI.Warn("%s runs %s now, which deploy would refuse: %v", b.Name, b.Outcome.Digest.Short(), aerr)
			}
		}
	}
	return m.report(c, "rollback/v1", bs, err, "roll %s back")
}

func runPromote(ctx context.Context, c *Call) error {
	m, err := c.move(ctx)
	if err != nil {
		return err
	}
	defer m.rec.place.Close()
	canaries := 0
	for _, p := range m.places {
		st, err := p.Target.Status(ctx)
		if err != nil {
			continue // it fails by itself
		}
		s := st.Canary()
		if s == nil {
			continue
		}
		if s.Digest == "" {
			return diag.New(diag.Denied, "target %s: the canary %s was not put there by waybill", p.Name, s.ID).Hint("waybill status --env %s", m.site.name)
		}
		canaries++
		if err := m.admit(ctx, c, s.Digest, false); err != nil {
			return err
		}
	}
	if c.Bool("dry-run") {
		return m.look(ctx, c, "promote/v1")
	}
	if canaries == 0 {
		c.UI.Say("no canary runs on the targets of %s", m.site.name)
	} else if err := c.agreed("give %s of %s all of the traffic?", ui.Plural(canaries, "canary"), m.site.name); err != nil {
		return err
	}
	bs, err := rollout.Promote(ctx, m.site.name, m.places, m.rec, c.Env.Now)
	return m.report(c, "promote/v1", bs, err, "promote on %s")
}

// move is what rollback and promote have in common.
type move struct {
	site   *site
	places []rollout.Place
	rec    *attester
}

func (c *Call) move(ctx context.Context) (*move, error) {
	x, err := c.site(false)
	if err != nil {
		return nil, err
	}
	m := &move{site: x, rec: &attester{site: x}}
	if !c.Bool("dry-run") {
		if m.rec.key, err = c.author(ctx, trust.RoleDeployer); err != nil {
			return nil, err
		}
	}
	if m.rec.ref, m.rec.place, err = c.repository(ctx, c.Args[0]); err != nil {
		return nil, err
	}
	m.places = x.open(ctx, c)
	for i := range m.places {
		if c.IsSet("wait") {
			m.places[i].Release.Wait = c.Duration("wait")
		}
	}
	return m, nil
}

// admit demands of a digest of the repository what deploy demands, and that the key may attest what is done with it.
func (m *move) admit(ctx context.Context, c *Call, d artifact.Digest, late bool) error {
	s := &subject{Ref: m.rec.ref.WithDigest(d), Place: m.rec.place}
	if err := s.read(ctx); err != nil {
		return err
	}
	if _, err := m.site.admit(ctx, c, s, late); err != nil {
		return err
	}
	return m.site.mayRecord(c, m.rec.key, s)
}

// mayMove asks, before anything moves, whether the key may attest it: of the first artifact that the targets and the repository both
// have. A repository that has none of them is the wrong one; one that does not answer keeps nobody from going back.
func (m *move) mayMove(ctx context.Context, c *Call) error {
	var missing error
	for _, p := range m.places {
		st, err := p.Target.Status(ctx)
		if err != nil {
			continue // it fails by itself
		}
		for _, share := range slices.Concat(st.Shares, st.Kept) {
			if share.Digest == "" {
				continue
			}
			s := &subject{Ref: m.rec.ref.WithDigest(share.Digest), Place: m.rec.place}
			switch err := s.read(ctx); {
			case err == nil:
				return m.site.mayRecord(c, m.rec.key, s)
			case diag.CodeOf(err) == diag.NotFound:
				missing = err
			default:
				c.UI.Warn("the move may not be attested: %v", err)
				return nil
			}
		}
	}
	if missing == nil {
		return nil
	}
	return diag.Wrap(diag.NotFound, missing, "none of the artifacts that %s runs is in %s", m.site.name, m.rec.ref).
		Hint("name the repository that they were deployed from: waybill rollback REPO --env %s", m.site.name)
}

// look is the dry run: what has the traffic, and what is kept.
func (m *move) look(ctx context.Context, c *Call, schema string) error {
	out := moveJSON{Schema: schemaBase + schema, Environment: m.site.name, DryRun: true, Targets: []moveTargetJSON{}}
	var failed error
	for _, p := range m.places {
		st, err := p.Target.Status(ctx)
		if err != nil {
			failed = cmp.Or(failed, m.site.failed(err, diag.Failure, "read target %s", p.Name))
			out.Targets = append(out.Targets, moveTargetJSON{Name: p.Name, Kind: m.site.kind(p.Name), State: "failed", Error: err.Error()})
			c.UI.Field(p.Name, "%s", c.UI.Err.Red("failed"))
			continue
		}
		j := moveTargetJSON{Name: p.Name, Kind: m.site.kind(p.Name), State: string(rollout.Planned), Digest: st.Running(), Kept: []artifact.Digest{}}
		for _, s := range slices.Concat(st.Shares, st.Kept) {
			if s.Digest != "" && s.Digest != j.Digest && !slices.Contains(j.Kept, s.Digest) {
				j.Kept = append(j.Kept, s.Digest)
			}
		}
		out.Targets = append(out.Targets, j)
		c.UI.Field(p.Name, "runs %s", sharesText(st.Shares))
		for _, d := range j.Kept {
			c.UI.Field("", "keeps %s", d)
		}
	}
	c.UI.Say("dry run: nothing was changed")
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	}
	return failed
}

func (m *move) report(c *Call, schema string, bs []*rollout.Back, err error, format string) error {
	out := moveJSON{Schema: schemaBase + schema, Environment: m.site.name, Targets: []moveTargetJSON{}}
	for _, b := range bs {
		j := moveTargetJSON{Name: b.Name, Kind: m.site.kind(b.Name), State: "unchanged"}
		if o := b.Outcome; o != nil && b.Err == nil {
			j.Digest, j.Previous, j.IDs, j.Attested = o.Digest, o.Previous, o.IDs, o.Changed && b.Unsaid == nil
			if o.Changed {
				j.State = "moved"
			}
		}
		switch {
		case b.Err != nil:
			j.State, j.Error = "failed", b.Err.Error()
			c.UI.Field(b.Name, "%s", c.UI.Err.Red(j.State))
		case j.State == "moved" && j.Previous == j.Digest:
			c.UI.Field(b.Name, "%s has all of the traffic again", c.UI.Err.Green(j.Digest.Short()))
		case j.State == "moved":
			c.UI.Field(b.Name, "%s -> %s", shortOr(j.Previous, "something that is not Waybill's"), c.UI.Err.Green(j.Digest.Short()))
		default:
			c.UI.Field(b.Name, "unchanged")
		}
		if b.Unsaid != nil {
			j.Error = b.Unsaid.Error()
		}
		out.Targets = append(out.Targets, j)
	}
	if c.UI.JSON {
		if perr := c.UI.PrintJSON(out); err == nil {
			err = perr
		}
	} else {
		for _, j := range out.Targets {
			if j.State == "moved" {
				c.UI.Data("%s %s", j.Name, m.rec.ref.WithDigest(j.Digest))
			}
		}
	}
	if err != nil {
		return m.site.failed(err, diag.Failure, format, m.site.name)
	}
	return nil
}
