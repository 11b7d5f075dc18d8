package cli

import (
	"context"
	"errors"
	"io"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
)

// Run executes one command line (without the program's name) in env and returns the exit code. It is the whole of the
// program: main, the script tests and the demo call it. Data goes to env.Stdout; talk and the error, rendered by
// diag.Render, to env.Stderr. When ctx is cancelled the code is 130.
func Run(ctx context.Context, env *Env, args []string) int {
	err := run(ctx, env, args)
	if err == nil {
		return int(diag.OK)
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		e := diag.New(diag.Interrupted, "interrupted")
		if de := (*diag.Error)(nil); errors.As(err, &de) && de.Code == diag.Interrupted {
			e.Hints = de.Hints // how to go on
		}
		err = e
	}
	w := newUI(env, "text", "auto", false, false)
	text := diag.Render(err)
	if rest, ok := strings.CutPrefix(text, "error:"); ok {
		text = w.Err.Red("error:") + rest
	}
	w.Err.Printf("%s", strings.ReplaceAll(text, "\nhint: ", "\n"+w.Err.Cyan("hint:")+" "))
	return int(diag.CodeOf(err))
}

func run(ctx context.Context, env *Env, args []string) error {
	table := commands()
	p, err := parse(table, args, env.Getenv)
	if err != nil {
		return err
	}
	if p.help || p.cmd == nil {
		_, err := io.WriteString(env.Stdout, helpText(table, p))
		return err
	}
	app := &ucli.App{
		Name: "waybill", HideHelp: true, HideHelpCommand: true, HideVersion: true,
		Writer: env.Stdout, ErrWriter: io.Discard,
		Flags:                     withoutEnv(globals()),
		DisableSliceFlagSeparator: true,
		ExitErrHandler:            func(*ucli.Context, error) {},
		OnUsageError:              usageError(p),
		Commands:                  libCommands(env, table, nil, p),
	}
	return app.RunContext(ctx, p.argv)
}

// libCommands makes the library's commands; those off the path that was parsed are left out.
func libCommands(env *Env, level []Command, above []string, p *parsed) []*ucli.Command {
	if len(above) >= len(p.path) {
		return nil
	}
	c := find(level, p.path[len(above)])
	path := append(append([]string{}, above...), c.Name)
	u := &ucli.Command{
		Name: c.Name, HideHelp: true, HideHelpCommand: true,
		Flags:        withoutEnv(c.Flags),
		OnUsageError: usageError(p),
		Subcommands:  libCommands(env, c.Sub, path, p),
	}
	if c.Run != nil {
		u.Action = func(x *ucli.Context) error {
			out, color := x.String("output"), x.String("color")
			if out != "text" && out != "json" {
				return usage(p, "--output %s: not one of text, json", out)
			}
			if color != "auto" && color != "always" && color != "never" {
				return usage(p, "--color %s: not one of auto, always, never", color)
			}
			return c.Run(x.Context, &Call{
				Env: env, UI: newUI(env, out, color, x.Bool("quiet"), x.Bool("verbose")),
				Args: p.args, Path: strings.Join(path, " "), ctx: x,
			})
		}
	}
	return []*ucli.Command{u}
}

func newUI(env *Env, out, color string, quiet, verbose bool) *ui.UI {
	force := env.Getenv("CLICOLOR_FORCE")
	return ui.New(ui.Options{
		Out: env.Stdout, Err: env.Stderr, OutTTY: env.StdoutTTY, ErrTTY: env.StderrTTY,
		Color: color, NoColor: env.Getenv("NO_COLOR") != "" || env.Getenv("TERM") == "dumb",
		ForceColor: force != "" && force != "0",
		JSON:       out == "json", Quiet: quiet, Verbose: verbose,
	})
}

func usageError(p *parsed) ucli.OnUsageErrorFunc {
	return func(_ *ucli.Context, err error, _ bool) error {
		t := strings.TrimSuffix(err.Error(), ": parse error")
		return usage(p, "%s: %s", strings.Join(p.path, " "), t)
	}
}

// withoutEnv clears the variables from flags: parse has read them through Env.Getenv, and the library would read the
// process environment behind its back.
func withoutEnv(flags []ucli.Flag) []ucli.Flag {
	for _, f := range flags {
		switch f := f.(type) {
		case *ucli.StringFlag:
			f.EnvVars = nil
		case *ucli.BoolFlag:
			f.EnvVars = nil
		case *ucli.IntFlag:
			f.EnvVars = nil
		case *ucli.Int64Flag:
			f.EnvVars = nil
		case *ucli.Float64Flag:
			f.EnvVars = nil
		case *ucli.DurationFlag:
			f.EnvVars = nil
		case *ucli.StringSliceFlag:
			f.EnvVars = nil
		}
	}
	return flags
}
