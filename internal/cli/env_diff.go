package cli

import (
	"context"
	"slices"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/policy/environments"
)

func envDiffCommand() Command {
	return Command{
		Name: "diff", Summary: "show what changes between two environments files, and what gets looser", Args: "A B", Min: 2, Max: 2,
		Long: `Each of A and B is a signed file or an environments.yaml. Every difference is one line, marked stricter, looser, or
different where only a person can tell: another policy, another channel, data of your own. A signed file is verified where
a trust document is at hand; one that does not verify (yet) is compared with a warning.

The exit code is 0 also when they differ, unless --exit-code (1 when anything differs) or --looser (1 when anything is
looser or different) is given.`,
		Examples: []string{"waybill env diff environments.signed environments.yaml", "waybill env diff old.signed environments.signed --looser"},
		Flags: []ucli.Flag{
			trustAtHandFlag(), trustDigestFlag(),
			&ucli.BoolFlag{Name: "exit-code", Usage: "exit code 1 when anything differs"},
			&ucli.BoolFlag{Name: "looser", Usage: "exit code 1 when a demand is weakened, or may be"},
		},
		See:   []string{"env sign", "diff"},
		Exits: []diag.Code{diag.Verification, diag.NotFound}, Run: runEnvDiff,
	}
}

type envDiffJSON struct {
	Schema  string                `json:"schema"`
	Before  int                   `json:"before"` // versions
	After   int                   `json:"after"`
	Same    bool                  `json:"same"`
	Looser  int                   `json:"looser"`
	Changes []environments.Change `json:"changes"`
}

func runEnvDiff(_ context.Context, c *Call) error {
	a, _, err := c.openEnvironments(c.Args[0])
	if err != nil {
		return err
	}
	b, _, err := c.openEnvironments(c.Args[1])
	if err != nil {
		return err
	}
	d := envDiffJSON{Schema: schemaBase + "env-diff/v1", Before: a.Version, After: b.Version, Changes: environments.Diff(a, b)}
	d.Same = len(d.Changes) == 0
	for _, x := range d.Changes {
		if x.Effect == environments.Looser {
			d.Looser++
		}
	}
	if c.UI.JSON {
		if err := c.UI.PrintJSON(d); err != nil {
			return err
		}
	} else {
		c.printEnvDiff(d)
	}
	weakened := slices.ContainsFunc(d.Changes, func(x environments.Change) bool { return x.Effect != environments.Stricter && x.Path != "version" })
	switch {
	case c.Bool("looser") && weakened:
		return diag.New(diag.Failure, "env diff: %s asks for less than %s, or may", c.Args[1], c.Args[0])
	case c.Bool("exit-code") && !d.Same:
		return diag.New(diag.Failure, "env diff: %s and %s differ", c.Args[0], c.Args[1])
	}
	return nil
}

func (c *Call) printEnvDiff(d envDiffJSON) {
	u := c.UI
	if d.Same {
		u.Data("the same")
		return
	}
	rows := [][]string{}
	for _, x := range d.Changes {
		effect := string(x.Effect)
		switch x.Effect {
		case environments.Looser:
			effect = u.Out.Red(effect)
		case environments.Stricter:
			effect = u.Out.Green(effect)
		}
		text := plain(x.Before) + " -> " + plain(x.After)
		switch {
		case x.Before == "":
			text = "+ " + plain(x.After)
		case x.After == "":
			text = "- " + plain(x.Before)
		}
		where := x.Path
		if x.Environment != "" {
			where = x.Environment
			if x.Path != "" {
				where += "." + x.Path
			}
		}
		rows = append(rows, []string{effect, plain(where), text})
	}
	ui.Table(u.Out, false, rows)
	u.Say("%s, %d looser", ui.Plural(len(d.Changes), "change"), d.Looser)
}
