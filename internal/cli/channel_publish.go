package cli

import (
	"context"
	"math"
	"strings"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/facts"
)

// changeFlags are those of every verb that writes a record.
func changeFlags(role string) []ucli.Flag {
	return append(append(trustFlags(), lockFlags()...),
		keyFlag(role),
		&ucli.StringFlag{Name: "for", Value: "7d", Usage: "how `LONG` the record allows new activations: 7d, 12h (a refresh: as long as before)"},
		dryRunFlag(),
	)
}

func channelPublishCommand() Command {
	return Command{
		Name: "publish", Summary: "send a digest to the devices of a channel",
		Args: "ENV REF", Min: 2, Max: 2,
		Long: `Writes the next record of the environment's channel: devices that follow it will run this digest. It refuses without a
release by a publisher (exit code 3), and without the gate's newest verdict for this environment being a pass, unexpired,
under the environment's policy, for each --class, reached against the channel as it is now, and without a gap in the chain of
verdicts before it (exit code 4). The record pins that evidence
and keeps the former targets for rollback. One publisher at a time: the record's own tag is written first and read
back, the channel's tag moves last.`,
		Examples: []string{
			"waybill channel publish prod reg.example/ml/churn@sha256:... --key deployer.key",
			"waybill channel publish prod reg.example/ml/churn:2.0 --key deployer.key --percent 10 --rollout canary-1",
		},
		Flags: append(changeFlags("deployer"), environmentsFlag(),
			&ucli.StringFlag{Name: "rollout", Usage: "`NAME` of a gradual rollout; the same name keeps the same order of devices"},
			&ucli.Float64Flag{Name: "percent", Value: 100, Usage: "share of the devices that a rollout reaches"},
			&ucli.StringSliceFlag{Name: "class", Usage: "only devices of this `CLASS`; may be repeated"},
			&ucli.StringSliceFlag{Name: "label", Usage: "only devices with this label `NAME=VALUE`; may be repeated"},
			&ucli.Int64Flag{Name: "epoch", Usage: "security epoch of the target; default: that of the target before"},
			&ucli.Int64Flag{Name: "epoch-floor", Usage: "no device may go below this epoch again; default: as before"},
			&ucli.IntFlag{Name: "keep", Value: 3, Usage: "how `MANY` former targets devices keep"},
			unfreezeFlag(),
		),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"gate", "channel rollback", "channel freeze", "channel show"},
		Run:   runChannelPublish,
	}
}

func runChannelPublish(ctx context.Context, c *Call) error {
	x, err := c.change(ctx, c.Args[0], trust.RoleDeployer)
	if err != nil {
		return err
	}
	s, err := c.subject(ctx, c.Args[1])
	if err != nil {
		return err
	}
	defer s.Close()
	p, leave, err := x.enter(ctx, c, s.Ref, s.Place, x.env.Channel)
	if err != nil {
		return err
	}
	defer leave()
	st, err := publish.Read(ctx, s.Place, x.env.Channel, x.doc, x.now)
	if err != nil {
		return err
	}
	completed, err := x.complete(ctx, c, p, st)
	if err != nil {
		return err
	}
	if completed && st.Head.Record.Target.Digest == s.Desc.Digest {
		return c.printRecord("publish", c.recordJSON(s.Ref, st.Head)) // this very publication was interrupted
	}
	if _, err := x.frozen(c, st, true); err != nil {
		return err
	}
	if st.Head == nil && st.Past != nil {
		c.UI.Field("generation", "%d begins after seq %d of generation %d; nothing of that one is kept", x.doc.Generation, st.Past.Seq, st.Past.Generation)
		c.UI.Why("devices keep their security floor; give --epoch and --epoch-floor if the channel had one")
	}
	bundles, err := publish.Bundles(ctx, s.Place, s.Desc.Digest)
	if err != nil {
		return err
	}
	bases, err := publish.Bases(ctx, s.Place, st, x.env.Channel, x.doc, x.now)
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	proof, err := publish.Admit(bundles, x.doc, publish.Need{
		Certificates: certs,
		Ref:          s.Pinned(), Digest: s.Desc.Digest, Model: s.Name, Env: x.name, ResourceURI: facts.ResourceURI(x.env.Namespace, s.Name),
		Policies: []artifact.Digest{x.env.Policy.Digest}, Releases: x.env.Signers, Bases: bases, Classes: c.Strings("class"),
	}, x.now)
	if err != nil {
		return err
	}
	ch, err := x.fill(c, st)
	if err != nil {
		return err
	}
	ch.Target = channel.Target{Name: s.Name, Repo: repoPath(s.Ref), Digest: s.Desc.Digest, Size: s.Desc.Size, Version: s.Version, Epoch: x.epoch(c, st)}
	ch.Evidence = proof.Refs
	if len(proof.Verdict.Waybill.DeviceClasses) == 0 {
		c.UI.Warn("the verdict covers no device class: a device that has one will refuse it (deviceClasses in environments.yaml)")
	}
	c.UI.Field("verdict", "PASSED against %s, valid until %s", basisText(proof.Verdict.Waybill.Basis), proof.Verdict.Waybill.NotAfter.Format(time.RFC3339))
	rec, err := channel.Next(st.Prev(), ch)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "channel publish")
	}
	if st.Head != nil {
		c.phaseWarnings(st.Head.Record, rec)
	}
	return x.write(ctx, c, "publish", s.Ref, p, st, rec, proof.Raw)
}

// change is what publish, rollback and refresh have in common.
type change struct {
	name     string // of the environment; empty for a refresh
	env      environments.Environment
	doc      *trust.Document
	trustRaw []byte
	key      publish.Signer
	now      time.Time
	life     time.Duration
}

// change loads key, trust document and environment before anything is read from a registry.
func (c *Call) change(ctx context.Context, env string, roles ...trust.Role) (*change, error) {
	x := &change{name: env, now: c.Env.Now().UTC().Truncate(time.Millisecond)}
	var err error
	if x.life, err = days("for", c.String("for")); err != nil {
		return nil, err
	}
	if x.doc, x.trustRaw, err = c.trustFile(); err != nil {
		return nil, err
	}
	if env != "" {
		if x.env, err = c.environment(env, x.doc); err != nil {
			return nil, err
		}
		if x.env.Channel == "" {
			x.env.Channel = env
		}
	}
	if x.key, err = c.key(ctx, roles...); err != nil {
		return nil, err
	}
	return x, nil
}

// fill gives a change what stays as it was or comes from flags.
func (x *change) fill(c *Call, st *publish.State) (channel.Change, error) {
	pin, err := x.trustRef()
	if err != nil {
		return channel.Change{}, err
	}
	ch := channel.Change{
		Channel: x.env.Channel, Env: x.name, Generation: x.doc.Generation, Issued: x.now, Expires: x.now.Add(x.life),
		Trust: pin, KeepMax: c.Int("keep"),
		Audience: channel.Audience{Classes: c.Strings("class"), Labels: map[string]string{}},
	}
	for _, s := range c.Strings("class") {
		if err := channel.ValidClass(s); err != nil {
			return ch, diag.Wrap(diag.Usage, err, "--class")
		}
	}
	for _, l := range c.Strings("label") {
		k, v, ok := strings.Cut(l, "=")
		if !ok || k == "" {
			return ch, diag.New(diag.Usage, "--label %s: not NAME=VALUE", l)
		}
		if err := channel.ValidLabel(k); err != nil {
			return ch, diag.Wrap(diag.Usage, err, "--label")
		}
		ch.Audience.Labels[k] = v
	}
	if st.Head != nil {
		ch.EpochFloor = st.Head.Record.EpochFloor
	}
	if c.IsSet("epoch-floor") {
		if ch.EpochFloor > c.Int64("epoch-floor") {
			return ch, diag.New(diag.Usage, "--epoch-floor %d is below the channel's floor of %d", c.Int64("epoch-floor"), ch.EpochFloor)
		}
		ch.EpochFloor = c.Int64("epoch-floor")
	}
	if p := c.Float("percent"); c.IsSet("percent") && (!(p >= 0 && p <= 100) || math.Abs(p*100-math.Round(p*100)) > 1e-6) {
		return ch, diag.New(diag.Usage, "--percent %v: not a number from 0 to 100 with at most two decimals", p)
	}
	if id := c.String("rollout"); id != "" {
		ch.Rollout = &channel.Rollout{ID: id, Percent: c.Float("percent")}
	} else if c.IsSet("percent") {
		return ch, diag.New(diag.Usage, "--percent needs --rollout NAME").Hint("waybill channel publish %s %s --rollout %s --percent %v --key deployer.key", c.Arg(0), c.Arg(1), x.name, c.Float("percent"))
	}
	return ch, nil
}

func (x *change) epoch(c *Call, st *publish.State) int64 {
	if c.IsSet("epoch") || st.Head == nil {
		return c.Int64("epoch")
	}
	return st.Head.Record.Target.Epoch
}

// complete moves the channel's tag to a record that an interrupted publication left behind: the gate looks at the tag,
// and would otherwise never see the state that this publication follows.
func (x *change) complete(ctx context.Context, c *Call, p publish.Place, st *publish.State) (bool, error) {
	if st.Head == nil || st.Head.Manifest.Digest == st.Tag || c.Bool("dry-run") {
		return false, nil
	}
	if err := publish.Complete(ctx, p, st); err != nil {
		return false, err
	}
	c.UI.Warn("completed an interrupted publication: channel %s is now at seq %d, %s", st.Head.Record.Channel, st.Head.Record.Seq, st.Head.Record.Target.Digest.Short())
	return true, nil
}

// write publishes a record, the trust documents that devices need for it first.
func (x *change) write(ctx context.Context, c *Call, verb string, ref registry.Ref, p publish.Place, st *publish.State, rec *channel.Record, ev [][]byte) error {
	if c.Bool("dry-run") {
		c.UI.Say("dry run: nothing was written")
		return c.printRecord(verb, recordJSON{
			Ref: ref.WithDigest(rec.Target.Digest).String(), KeyID: x.key.KeyID(), Role: trust.RoleDeployer, Record: rec,
			Frozen: rec.Freeze != nil, Reach: rec.Rollout.Reach(),
		})
	}
	if err := x.pushTrust(ctx, c, p); err != nil {
		return err
	}
	missing, err := publish.Hold(ctx, p, rec)
	if err != nil {
		return err
	}
	for _, t := range missing {
		c.UI.Warn("%s %s is not in the repository any more: devices that have it can go back to it, others cannot", t.Version, t.Digest.Short())
	}
	res, err := publish.Write(ctx, p, st, rec, ev, x.key, x.doc, x.now)
	if err != nil {
		return err
	}
	if !res.Atomic {
		c.UI.Why("the registry cannot compare and move a tag in one step; the channel was read back instead")
	}
	return c.printRecord(verb, c.recordJSON(ref, &res.Entry))
}

// pushTrust puts the trust document where devices look for it, with the earlier versions that trust sign kept.
func (x *change) pushTrust(ctx context.Context, c *Call, p publish.Place) error {
	for v := 1; v < x.doc.Version; v++ {
		raw, err := c.archived(c.String("trust"), v)
		if err != nil {
			return err
		}
		if raw == nil {
			continue
		}
		old, err := verify.TrustSelf(raw)
		if err != nil || old.Version != v {
			return diag.New(diag.Verification, "%s is not trust document version %d", archiveName(c.String("trust"), v), v)
		}
		if err := publish.Trust(ctx, p, raw, old); err != nil {
			return err
		}
	}
	return publish.Trust(ctx, p, x.trustRaw, x.doc)
}

func repoPath(r registry.Ref) string {
	if r.Repo != "" {
		return r.Repo
	}
	return "layout" // an OCI layout is one repository without a name
}

func channelRollbackCommand() Command {
	return Command{
		Name: "rollback", Summary: "send the devices of a channel back to a target that it keeps",
		Args: "ENV REPO", Min: 2, Max: 2,
		Long: `Writes a record with a higher seq and an older target, one that the channel keeps. Devices that have it go back without
a download. The target needs its release and a verdict for this environment from before; the verdict may have expired.

` + rollbacks,
		Examples: []string{
			`waybill channel rollback prod reg.example/ml/churn --reason "p99 over budget" --key deployer.key`,
			`waybill channel rollback prod reg.example/ml/churn --to sha256:... --reason "wrong labels" --key deployer.key`,
		},
		Flags: append(changeFlags("deployer"), environmentsFlag(),
			&ucli.StringFlag{Name: "to", Usage: "`DIGEST` to go back to; default: the target before"},
			&ucli.StringFlag{Name: "reason", Required: true, Usage: "`TEXT` that devices and auditors will read"},
			&ucli.StringSliceFlag{Name: "class", Usage: "only devices of this `CLASS`; may be repeated"},
			&ucli.StringSliceFlag{Name: "label", Usage: "only devices with this label `NAME=VALUE`; may be repeated"},
			&ucli.IntFlag{Name: "keep", Value: 3, Usage: "how `MANY` former targets devices keep"},
			unfreezeFlag(),
		),
		Exits: []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:   []string{"rollback", "channel show", "channel history"},
		Run:   runChannelRollback,
	}
}

func runChannelRollback(ctx context.Context, c *Call) error {
	x, err := c.change(ctx, c.Args[0], trust.RoleDeployer)
	if err != nil {
		return err
	}
	ref, p, gp, st, leave, err := x.channel(ctx, c, x.env.Channel)
	if err != nil {
		return err
	}
	defer leave()
	if _, err := x.complete(ctx, c, gp, st); err != nil {
		return err
	}
	head := st.Head.Record
	to := artifact.Digest(c.String("to"))
	if to == "" {
		if len(head.Keep) == 0 {
			return diag.New(diag.NotFound, "channel %s keeps no former target to go back to", x.env.Channel).Hint("waybill channel history %s %s", x.env.Channel, ref.Name())
		}
		to = head.Keep[0].Digest
	} else if to, err = artifact.ParseDigest(string(to)); err != nil {
		return diag.Wrap(diag.Usage, err, "--to")
	}
	ch, err := x.fill(c, st)
	if err != nil {
		return err
	}
	var target *channel.Target
	for i := range head.Keep {
		if head.Keep[i].Digest == to {
			target = &head.Keep[i]
		}
	}
	if target == nil {
		e := diag.New(diag.NotFound, "channel %s does not keep %s", x.env.Channel, to.Short())
		for _, t := range head.Keep {
			e.Line("it keeps %s %s %s", t.Name, t.Version, t.Digest)
		}
		return e.Hint("publish it as a new target: waybill channel publish %s %s --key deployer.key", x.name, ref.WithDigest(to))
	}
	bundles, err := publish.Bundles(ctx, p, to)
	if err != nil {
		return err
	}
	certs, err := c.certificates()
	if err != nil {
		return err
	}
	proof, err := publish.Admit(bundles, x.doc, publish.Need{
		Certificates: certs,
		Ref:          ref.WithDigest(to).String(), Digest: to, Model: target.Name, Env: x.name, ResourceURI: facts.ResourceURI(x.env.Namespace, target.Name),
		Policies: x.doc.Policies, Releases: x.env.Signers, Late: true, Classes: c.Strings("class"),
		Record: &channel.Record{Channel: x.env.Channel, Seq: head.Seq + 1},
	}, x.now)
	if err != nil {
		return err
	}
	ch.Evidence = proof.Refs
	if ch.Freeze, err = x.frozen(c, st, false); err != nil {
		return err
	}
	rec, err := channel.RollBack(&st.Head.Head, to, c.String("reason"), ch)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "channel rollback")
	}
	return x.write(ctx, c, "rollback", ref, gp, st, rec, proof.Raw)
}

func channelRefreshCommand() Command {
	return Command{
		Name: "refresh", Summary: "extend the time of a channel's record without changing anything else",
		Args: "CHANNEL REPO", Min: 2, Max: 2,
		Long: `Writes the same record again with a higher seq and a later expiry, so that devices keep taking new activations from the
channel. A refresher key can do nothing else, so it may live on a scheduler.`,
		Examples: []string{"waybill channel refresh prod reg.example/ml/churn --key refresher.key"},
		Flags:    append(changeFlags("refresher or deployer"), environmentsFlag()),
		Exits:    []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:      []string{"channel publish", "channel show"},
		Run:      runChannelRefresh,
	}
}

func runChannelRefresh(ctx context.Context, c *Call) error {
	x, err := c.change(ctx, "", trust.RoleRefresher, trust.RoleDeployer)
	if err != nil {
		return err
	}
	ref, p, gp, st, leave, err := x.channel(ctx, c, c.Args[0])
	if err != nil {
		return err
	}
	defer leave()
	if _, err := x.complete(ctx, c, gp, st); err != nil {
		return err
	}
	// The record ends at a whole second, so its own length is up to a second less than what its publisher asked for.
	own := st.Head.Record.Expires.Sub(st.Head.Record.Issued)
	if !c.IsSet("for") || x.life > own && x.life-own < time.Second {
		x.life = own
	}
	rec, err := channel.Extend(&st.Head.Head, x.now, x.now.Add(x.life))
	if err != nil {
		return diag.Wrap(diag.Usage, err, "channel refresh").
			Hint("the record's own length of time is %s; pass --for with at most that, or leave it out", (own + time.Second - 1).Truncate(time.Second))
	}
	ev, err := publish.Evidence(ctx, p, rec)
	if err != nil {
		return err
	}
	return x.write(ctx, c, "refresh", ref, gp, st, rec, ev)
}
