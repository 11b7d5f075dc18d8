package cli

import (
	"context"
	"io"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/demo"
	"github.com/waybill-ml/waybill/internal/diag"
)

func demoCommand() Command {
	return Command{
		Name: "demo", Group: Other, Summary: "take a real model from pack to audit, with attacks and a rollback",
		Long: `Starts a registry and a device on this machine and takes four versions of a scikit-learn model through everything,
showing each command as it runs: it is also the tutorial. It takes about a minute, listens on loopback only, and leaves
no process and no file behind. waybill-edge is taken from beside this program, or built with go from the source tree.`,
		Examples: []string{
			"waybill demo",
			"waybill demo --keep ./tour         # keep the work area and print what to try there",
			"waybill demo --output json",
		},
		Flags: []ucli.Flag{
			&ucli.StringFlag{Name: "keep", Usage: "keep the work area in `DIR`, which must be empty or new"},
			&ucli.StringFlag{Name: "edge", Usage: "use this waybill-edge: `FILE`", EnvVars: []string{"WAYBILL_EDGE"}},
		},
		Run: runDemo,
	}
}

type demoJSON struct {
	Schema string `json:"schema"`
	demo.Result
}

func runDemo(ctx context.Context, c *Call) error {
	o := demo.Options{
		UI: c.UI, Getenv: c.Env.Getenv, Dir: c.Env.Dir, Keep: c.Abs(c.String("keep")), Edge: c.Abs(c.String("edge")),
		Waybill: func(ctx context.Context, dir string, vars map[string]string, args []string, stdout, stderr io.Writer) int {
			e := *c.Env
			e.Stdin, e.Stdout, e.Stderr = strings.NewReader(""), stdout, stderr
			e.StdinTTY, e.StdoutTTY, e.StderrTTY, e.ReadPassword = false, false, false, nil
			e.Dir = dir
			e.Getenv = func(k string) string {
				if v, ok := vars[k]; ok {
					return v
				}
				return c.Env.Getenv(k)
			}
			return Run(ctx, &e, args)
		},
	}
	res, err := demo.Run(ctx, o)
	if c.UI.JSON {
		if perr := c.UI.PrintJSON(demoJSON{schemaBase + "demo/v1", res}); perr != nil {
			return perr
		}
	}
	if err != nil {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return diag.Wrap(diag.Failure, err, "demo").Hint("waybill demo --keep ./tour")
	}
	return nil
}
