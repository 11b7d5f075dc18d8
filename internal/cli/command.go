package cli

import (
	"context"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/ui"
)

// Group is a heading of the root help.
type Group string

// Groups, in the order of the root help.
const (
	Build  Group = "Build"
	Ship   Group = "Ship"
	Trust  Group = "Trust"
	Govern Group = "Govern"
	Fleet  Group = "Run"
	Other  Group = "More"
)

func groups() []Group { return []Group{Build, Ship, Trust, Govern, Fleet, Other} }

// Command is one verb, or a noun with verbs below it (Sub). Help text, completion, docs/cli.md and the argument checks
// are all made from it.
type Command struct {
	Name     string
	Group    Group       // top level only
	Summary  string      // one line, lower case, no full stop
	Args     string      // "REF [DEST]": what follows the flags in the usage line
	Min, Max int         // how many arguments; Max -1 means any number
	Long     string      // what it does and when to use it; plain text, lines under 100 columns
	Examples []string    // "waybill pack --tag 1.0    # comment": 2 to 5 of them
	Flags    []ucli.Flag // EnvVars are honoured through Env.Getenv; Required is honoured
	Exits    []diag.Code // codes it may return besides 0, 1 and 2
	See      []string    // related commands
	Hidden   bool
	Sub      []Command
	Run      func(ctx context.Context, c *Call) error // nil for a noun
}

// Call is one invocation of a command.
type Call struct {
	Env  *Env
	UI   *ui.UI
	Args []string // positional arguments, already counted against Min and Max
	Path string   // "channel publish"
	ctx  *ucli.Context

	login access
	moved transfers
}

// Accessors of flags, by name without dashes.
func (c *Call) String(name string) string          { return c.ctx.String(name) }
func (c *Call) Strings(name string) []string       { return c.ctx.StringSlice(name) }
func (c *Call) Bool(name string) bool              { return c.ctx.Bool(name) }
func (c *Call) Int(name string) int                { return c.ctx.Int(name) }
func (c *Call) Int64(name string) int64            { return c.ctx.Int64(name) }
func (c *Call) Float(name string) float64          { return c.ctx.Float64(name) }
func (c *Call) Duration(name string) time.Duration { return c.ctx.Duration(name) }

// IsSet tells whether the flag was given on the command line or by its environment variable.
func (c *Call) IsSet(name string) bool { return c.ctx.IsSet(name) }

// Arg returns argument i, or "" when there are fewer.
func (c *Call) Arg(i int) string {
	if i < len(c.Args) {
		return c.Args[i]
	}
	return ""
}

// Abs resolves a path of the user against the working directory of the call. Every path that a command opens goes
// through it, because a call's working directory need not be that of the process. An empty path stays empty.
func (c *Call) Abs(p string) string {
	if p == "" {
		return ""
	}
	return c.Env.abs(p)
}

// globals are the flags that stand anywhere on every command line.
func globals() []ucli.Flag {
	return []ucli.Flag{
		&ucli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "text", Usage: "`FORMAT` of what goes to stdout: text or json", EnvVars: []string{"WAYBILL_OUTPUT"}},
		&ucli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Usage: "no talk on stderr, only warnings and errors", EnvVars: []string{"WAYBILL_QUIET"}},
		&ucli.BoolFlag{Name: "verbose", Aliases: []string{"v"}, Usage: "explain what was decided and why", EnvVars: []string{"WAYBILL_VERBOSE"}},
		&ucli.StringFlag{Name: "color", Value: "auto", Usage: "`WHEN` to colour: auto, always or never (NO_COLOR is honoured)", EnvVars: []string{"WAYBILL_COLOR"}},
		&ucli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show help"},
	}
}
