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
	st, err := publish.Read(ctx, p, name, doc, c.Env.Now())
	if err == nil && st.Head == nil && st.Past != nil {
		err = diag.New(diag.NotFound, "channel %q of %s has no record of generation %d yet, only of generation %d", name, ref.Name(), doc.Generation, st.Past.Generation).
			Hint("waybill gate REF --env ENV --key gate.key, then waybill channel publish ENV %s@sha256:... --key deployer.key", ref.Name())
	} else if err == nil && st.Head == nil {
		err = diag.New(diag.NotFound, "%s has no channel %q", ref.Name(), name).Hint("waybill channel publish ENV %s@sha256:... --key deployer.key", ref.Name())
	}
	if err != nil {
		p.Close()
		return ref, nil, nil, err
	}
	return ref, p, st, nil
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
	Records []recordJSON `json:"records"`
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
	entries, broken := publish.History(ctx, p, st, doc, c.Env.Now(), most)
	out := historyJSON{Schema: schemaBase + "channel-" + verb + "/v1", Channel: c.Args[0], Records: []recordJSON{}}
	rows := [][]string{{"seq", "issued", "expires", "target", "version", "what", "signed by"}}
	for i := range entries {
		e := &entries[i]
		out.Records = append(out.Records, c.recordJSON(ref, e))
		var before *channel.Record
		if i+1 < len(entries) {
			before = entries[i+1].Record
		}
		rows = append(rows, []string{ui.Count(e.Record.Seq), e.Record.Issued.Format("2006-01-02 15:04"), e.Record.Expires.Format("2006-01-02 15:04"),
			e.Record.Target.Digest.Short(), e.Record.Target.Version, deed(before, e.Record), e.KeyName})
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(out); err != nil {
			return err
		}
		return broken
	}
	ui.Table(c.UI.Out, true, rows)
	if broken == nil && verb == "verify" {
		c.UI.Say("%s verified, each follows the one before", ui.Plural(len(entries), "record"))
	}
	return broken
}

// bases of a verdict for messages.
func basisText(b evidence.Basis) string {
	if b.Seq == 0 {
		return "channel " + b.Channel + ", empty"
	}
	return "channel " + b.Channel + " seq " + ui.Count(b.Seq)
}
