package cli

import (
	"context"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/facts"
)

func channelFreezeCommand() Command {
	return Command{
		Name: "freeze", Summary: "tell the devices of a channel to keep what they run",
		Args: "CHANNEL REPO", Min: 2, Max: 2,
		Long: `Writes a record that repeats the one before and adds the freeze: no device activates anything until another record ends it.
What runs goes on; a trial under way is given up. It needs a deployer's key and no verdict, so it works in an incident. A
refresh keeps the channel frozen, "channel rollback" sends devices back to what they had before, and "channel publish" refuses.
End it with "channel unfreeze".`,
		Examples: []string{`waybill channel freeze prod reg.example/ml/churn --reason "labels under investigation" --key deployer.key`},
		Flags: append(changeFlags("deployer"), environmentsFlag(),
			&ucli.StringFlag{Name: "reason", Required: true, Usage: "`TEXT` that devices and auditors will read"},
		),
		Exits: []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:   []string{"channel unfreeze", "channel rollback", "channel show"},
		Run:   runChannelFreeze,
	}
}

func runChannelFreeze(ctx context.Context, c *Call) error {
	x, err := c.change(ctx, "", trust.RoleDeployer)
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
	if f := st.Head.Record.Freeze; f != nil && f.Reason == c.String("reason") {
		c.UI.Say("channel %s is frozen already, with this reason; nothing was written", c.Args[0])
		return c.printRecord("freeze", c.recordJSON(ref, st.Head))
	}
	pin, err := x.trustRef()
	if err != nil {
		return err
	}
	rec, err := channel.Halt(&st.Head.Head, c.String("reason"), x.now, x.now.Add(x.life), pin)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "channel freeze")
	}
	ev, err := publish.Evidence(ctx, p, rec)
	if err != nil {
		return err
	}
	return x.write(ctx, c, "freeze", ref, gp, st, rec, ev)
}

func channelUnfreezeCommand() Command {
	return Command{
		Name: "unfreeze", Summary: "let the devices of a frozen channel have its target again",
		Args: "ENV REPO", Min: 2, Max: 2,
		Long: `Writes a record that repeats the one before without its freeze. The target must stand as firm as when it was published:
released, and the gate's newest verdict on it for this environment a pass under the environment's policy that has not expired.
A gate that denied it meanwhile is believed. To send another target instead: "channel publish --unfreeze", or roll back.`,
		Examples: []string{`waybill channel unfreeze prod reg.example/ml/churn --key deployer.key`},
		Flags:    append(changeFlags("deployer"), environmentsFlag()),
		Exits:    []diag.Code{diag.Verification, diag.Denied, diag.Registry, diag.NotFound},
		See:      []string{"channel freeze", "channel publish", "gate"},
		Run:      runChannelUnfreeze,
	}
}

func runChannelUnfreeze(ctx context.Context, c *Call) error {
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
	if head.Freeze == nil {
		return diag.New(diag.Usage, "channel %s is not frozen", x.env.Channel).Hint("waybill channel show %s %s", x.env.Channel, ref.Name())
	}
	if head.Env != x.name {
		return diag.New(diag.Usage, "channel %s is of environment %s, not %s", x.env.Channel, head.Env, x.name)
	}
	proof, err := x.standing(ctx, c, ref, p, head)
	if err != nil {
		return err
	}
	pin, err := x.trustRef()
	if err != nil {
		return err
	}
	rec, err := channel.Lift(&st.Head.Head, proof.Refs, x.now, x.now.Add(x.life), pin)
	if err != nil {
		return diag.Wrap(diag.Usage, err, "channel unfreeze")
	}
	return x.write(ctx, c, "unfreeze", ref, gp, st, rec, proof.Raw)
}

// standing collects the evidence that speaks for the channel's target now. A rollback's verdict may be past its time, as when
// it was made.
func (x *change) standing(ctx context.Context, c *Call, ref registry.Ref, p registry.Place, head *channel.Record) (*publish.Proof, error) {
	t := head.Target
	bundles, err := publish.Bundles(ctx, p, t.Digest)
	if err != nil {
		return nil, err
	}
	certs, err := c.certificates()
	if err != nil {
		return nil, err
	}
	policies := []artifact.Digest{x.env.Policy.Digest}
	if head.Rollback != nil {
		policies = x.doc.Policies
	}
	return publish.Admit(bundles, x.doc, publish.Need{
		Certificates: certs,
		Ref:          ref.WithDigest(t.Digest).String(), Digest: t.Digest, Model: t.Name, Env: x.name, ResourceURI: facts.ResourceURI(x.env.Namespace, t.Name),
		Policies: policies, Releases: x.env.Signers, Classes: head.Audience.Classes, Late: head.Rollback != nil,
		Record: &channel.Record{Channel: x.env.Channel, Seq: head.Seq + 1},
	}, x.now)
}

// trustRef names the trust document that a record is made under.
func (x *change) trustRef() (channel.TrustRef, error) {
	d, err := x.doc.Digest()
	return channel.TrustRef{Version: x.doc.Version, Digest: d}, err
}

func unfreezeFlag() ucli.Flag {
	return &ucli.BoolFlag{Name: "unfreeze", Usage: "the channel is frozen: end that with this record"}
}

// frozen decides what becomes of the freeze of a channel's head in the next record. A publication refuses, since somebody
// stopped the channel for a reason; a rollback leaves it in place.
func (x *change) frozen(c *Call, st *publish.State, refuse bool) (*channel.Freeze, error) {
	if st.Head == nil || st.Head.Record.Freeze == nil || c.Bool("unfreeze") {
		return nil, nil
	}
	f := st.Head.Record.Freeze
	if refuse {
		return nil, diag.New(diag.Denied, "channel %s is frozen: %s", x.env.Channel, f.Reason).
			Line("by %s with seq %d on %s", st.Head.KeyName, st.Head.Record.Seq, st.Head.Record.Issued.Format(timeLayout)).
			Hint("waybill channel unfreeze %s %s --key deployer.key", x.name, c.Arg(1)).
			Hint("or end it with this publication: --unfreeze")
	}
	c.UI.Say("the channel stays frozen: devices that had this target go back to it, and no device activates it anew (--unfreeze ends that)")
	return f, nil
}
