// Package cli is the command line: a table of commands, one file per verb, and the code that turns a line of arguments
// into a call of one of them.
//
// # Adding a verb
//
// Make a file named after it, with a constructor that returns its row, and a run function:
//
//	func pushCommand() Command {
//		return Command{
//			Name: "push", Group: Ship, Summary: "copy an artifact and its evidence to a registry",
//			Args: "REF DEST", Min: 2, Max: 2,
//			Long:     "What it does, and when to use it.",
//			Examples: []string{"waybill push churn:1.0 reg.example/ml/churn:1.0"},
//			Flags:    []ucli.Flag{&ucli.BoolFlag{Name: "dry-run", Usage: "show what would be copied"}},
//			Exits:    []diag.Code{diag.Registry, diag.NotFound},
//			Run:      runPush,
//		}
//	}
//
//	func runPush(ctx context.Context, c *Call) error { ... }
//
// Then add one line to the group's function in commands.go, a script under testdata/script (one concern per file; the
// name says which), and run "go generate ./internal/cli". A noun with verbs is the same with Run nil and Sub filled; its verbs stand in
// files named noun_verb.go, or in a sub-package when they share more than a few helpers.
//
// # Rules of a verb
//
//   - Everything of the outside comes from c.Env: streams, clock, randomness, environment, folders. No os.Stdout, no
//     os.Getenv, no time.Now, no package variable. Paths of the user go through c.Abs before they are opened.
//   - stdout is data (c.UI.Data, c.UI.PrintJSON), stderr is talk (c.UI.Say, Field, Why, Warn). The digest reference that
//     the next command needs is the last line on stdout. With c.UI.JSON, stdout is exactly one JSON document whose
//     "schema" is schemaBase + "<verb>/v1"; lists are [] and never null.
//   - A failure is a *diag.Error with its exit code, what, cause and a hint that can be run. It is returned, never printed.
//     A result that is also a failure (denied, cases failed) prints its data first and then returns the error.
//   - ctx ends on SIGINT and SIGTERM: return its error, leave no partial file; Run makes it exit code 130.
//
// # Arguments
//
// parse puts flags that stand anywhere in front, since urfave/cli/v2 stops at the first argument and silently drops what
// it does not expect. Surplus arguments and unknown flags are usage errors with the nearest known word. "--" ends flags.
package cli
