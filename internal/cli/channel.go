package cli

import (
	"context"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

func channelCommand() Command {
	return Command{
		Name: "channel", Group: Fleet, Summary: "tell a fleet of devices what to run",
		Long: `A channel is a chain of signed records in a model's repository; devices follow its newest one. Every change, also a
rollback, is a new record with a higher seq.`,
		Sub: []Command{
			channelPublishCommand(), channelShowCommand(), channelHistoryCommand(), channelRollbackCommand(),
			channelFreezeCommand(), channelUnfreezeCommand(), channelRefreshCommand(), channelVerifyCommand(),
			channelProvisionCommand(), channelStatusCommand(),
		},
	}
}

// rollbacks tells the three apart; each of their help texts ends with it.
const rollbacks = `Three commands roll back: "waybill channel rollback" sends a whole fleet back, "waybill rollback" a serverless target,
"waybill-edge rollback" one device, on the device.`

type recordJSON struct {
	Schema    string          `json:"schema,omitempty"`
	Ref       string          `json:"ref"` // of the target
	Bundle    artifact.Digest `json:"bundle"`
	Manifest  artifact.Digest `json:"manifest"`
	KeyID     string          `json:"keyId"`
	KeyName   string          `json:"keyName"`
	Role      trust.Role      `json:"role"`
	Expired   bool            `json:"expired"`
	Frozen    bool            `json:"frozen"`
	Reach     int             `json:"reach"`     // of 10,000 buckets of devices, how many take the target
	Published bool            `json:"published"` // the channel's tag names it
	Record    *channel.Record `json:"record"`
}

func (c *Call) recordJSON(ref registry.Ref, e *publish.Entry) recordJSON {
	return recordJSON{
		Ref: ref.WithDigest(e.Record.Target.Digest).String(), Bundle: e.Bundle, Manifest: e.Manifest.Digest, KeyID: e.KeyID,
		KeyName: e.KeyName, Role: e.Role, Expired: e.Record.Expired(c.Env.Now()), Frozen: e.Record.Freeze != nil,
		Reach: e.Record.Rollout.Reach(), Published: true, Record: e.Record,
	}
}

// channelState opens REPO and reads the channel there.
func (c *Call) channelState(ctx context.Context, name, repo string, doc *trust.Document) (registry.Ref, *openPlace, *publish.State, error) {
	ref, p, err := c.repository(ctx, repo)
	if err != nil {
		return ref, nil, nil, err
	}
	st, err := c.stateOf(ctx, ref, p, name, doc)
	if err != nil {
		p.Close()
		return ref, nil, nil, err
	}
	return ref, p, st, nil
}

// channel opens the REPO of the command line and takes the lock of a channel there before it reads it. p is for reading, locked
// for writing.
func (x *change) channel(ctx context.Context, c *Call, name string) (ref registry.Ref, p *openPlace, locked publish.Place, st *publish.State, leave func(), err error) {
	if ref, p, err = c.repository(ctx, c.Args[1]); err != nil {
		return ref, nil, nil, nil, nil, err
	}
	locked, release, err := x.enter(ctx, c, ref, p, name)
	if err != nil {
		p.Close()
		return ref, nil, nil, nil, nil, err
	}
	leave = func() { release(); p.Close() }
	if st, err = c.stateOf(ctx, ref, p, name, x.doc); err != nil {
		leave()
		return ref, nil, nil, nil, nil, err
	}
	return ref, p, locked, st, leave, nil
}

// stateOf reads a channel that must have a record.
func (c *Call) stateOf(ctx context.Context, ref registry.Ref, p *openPlace, name string, doc *trust.Document) (*publish.State, error) {
	st, err := publish.Read(ctx, p, name, doc, c.Env.Now())
	if err == nil && st.Head == nil && st.Past != nil {
		err = diag.New(diag.NotFound, "channel %q of %s has no record of generation %d yet, only of generation %d", name, ref.Name(), doc.Generation, st.Past.Generation).
			Hint("waybill gate REF --env ENV --key gate.key, then waybill channel publish ENV %s@sha256:... --key deployer.key", ref.Name())
	} else if err == nil && st.Head == nil {
		err = diag.New(diag.NotFound, "%s has no channel %q", ref.Name(), name).Hint("waybill channel publish ENV %s@sha256:... --key deployer.key", ref.Name())
	}
	return st, err
}

func channelHistoryCommand() Command {
	return Command{
		Name: "history", Summary: "list the records of a channel, newest first",
		Args: "CHANNEL REPO", Min: 2, Max: 2,
		Examples: []string{"waybill channel history prod reg.example/ml/churn"},
		Flags:    append(trustFlags(), &ucli.IntFlag{Name: "limit", Aliases: []string{"n"}, Value: 20, Usage: "at most `N` records; 0 lists all"}),
		Exits:    []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:      []string{"channel show", "channel verify"},
		Run:      func(ctx context.Context, c *Call) error { return runChannelList(ctx, c, "history", c.Int("limit")) },
	}
}

func channelVerifyCommand() Command {
	return Command{
		Name: "verify", Summary: "verify every record of a channel and that each follows the one before",
		Args: "CHANNEL REPO", Min: 2, Max: 2,
		Examples: []string{"waybill channel verify prod reg.example/ml/churn"},
		Flags:    trustFlags(),
		Exits:    []diag.Code{diag.Verification, diag.Registry, diag.NotFound},
		See:      []string{"channel history", "verify"},
		Run:      func(ctx context.Context, c *Call) error { return runChannelList(ctx, c, "verify", 0) },
	}
}

type historyJSON struct {
	Schema  string       `json:"schema"`
	Channel string       `json:"channel"`
	Records []recordJSON `json:"records"` // newest first
	Faults  []faultJSON  `json:"faults"`
}

type faultJSON struct {
	Seq  int64  `json:"seq"`
	Text string `json:"text"`
}

func runChannelList(ctx context.Context, c *Call, verb string, most int) error {
	doc, _, err := c.trustFile()
	if err != nil {
		return err
	}
	ref, p, st, err := c.channelState(ctx, c.Args[0], c.Args[1], doc)
	if err != nil {
		return err
	}
	defer p.Close()
	lines, err := publish.Survey(ctx, p, st, doc, c.Env.Now(), most)
	if err != nil {
		return err
	}
	out := historyJSON{Schema: schemaBase + "channel-" + verb + "/v1", Channel: c.Args[0], Records: []recordJSON{}, Faults: []faultJSON{}}
	for _, l := range lines {
		if l.Entry != nil {
			j := c.recordJSON(ref, l.Entry)
			j.Published = l.Seq != st.Head.Record.Seq || st.Head.Manifest.Digest == st.Tag
			out.Records = append(out.Records, j)
		}
		for _, f := range l.Faults {
			out.Faults = append(out.Faults, faultJSON{l.Seq, f})
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
	} else {
		ui.Table(c.UI.Out, true, historyRows(lines))
		if st.Head.Record.Freeze != nil {
			c.UI.Field("FROZEN", "%s", st.Head.Record.Freeze.Reason)
		}
		c.printExpiry(st.Head.Record)
	}
	if len(out.Faults) == 0 {
		if verb == "verify" {
			c.UI.Say("%s verified, each follows the one before", ui.Plural(len(out.Records), "record"))
		}
		return nil
	}
	d := diag.New(diag.Verification, "channel %s does not hang together", c.Args[0])
	for _, f := range publish.Faults(lines) {
		d.Line("%s", f)
	}
	return d.Hint("waybill channel show %s %s", c.Args[0], ref.Name())
}

// bases of a verdict for messages.
func basisText(b evidence.Basis) string {
	if b.Seq == 0 {
		return "channel " + b.Channel + ", empty"
	}
	return "channel " + b.Channel + " seq " + ui.Count(b.Seq)
}
