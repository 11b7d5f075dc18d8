// Command waybill-edge is the runtime: a device agent that follows channels, proves what it downloads, serves it over the
// Open Inference Protocol, and goes back by itself when the new model is worse.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	goruntime "runtime"
	"strings"
	"syscall"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(int(code))
}

// command is one verb.
type command struct {
	name, short string
	run         func(ctx context.Context, args []string, stdout, stderr io.Writer) error
}

func commands() []command {
	plain := func(f func(args []string, stdout, stderr io.Writer) error) func(context.Context, []string, io.Writer, io.Writer) error {
		return func(_ context.Context, args []string, stdout, stderr io.Writer) error { return f(args, stdout, stderr) }
	}
	return []command{
		{"enroll", "make this device's key and, from a provisioning file, its configuration", enrollCommand},
		{"run", "follow the channels and serve the models", runAgent},
		{"status", "show what runs, since when, and what was refused", status},
		{"history", "show the journal: every decision of this device", history},
		{"poll", "look at the channels now", poll},
		{"rollback", "take this device back to an artifact that it has run before", rollback},
		{"doctor", "check everything that this device rests on; change nothing", runDoctor},
		{"verify-journal", "check that the journal is whole and signed", verifyJournal},
		{"version", "print the version", plain(printVersion)},
	}
}

// run executes one command line and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) diag.Code {
	err := dispatch(ctx, args, stdout, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return diag.OK
	}
	if err != nil {
		fmt.Fprint(stderr, diag.Render(err))
	}
	return diag.CodeOf(err)
}

func dispatch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		usage(stderr)
		return diag.New(diag.Usage, "no command given").Hint("waybill-edge help")
	}
	switch args[0] {
	case "help", "-h", "--help", "-help":
		usage(stdout)
		return nil
	case "--version", "-version":
		return printVersion(nil, stdout, stderr)
	}
	var names []string
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, args[1:], stdout, stderr)
		}
		names = append(names, c.name)
	}
	e := diag.New(diag.Usage, "unknown command %q", args[0])
	if near := diag.Nearest(args[0], names); near != "" {
		return e.Hint("waybill-edge %s", near)
	}
	return e.Hint("waybill-edge help")
}

func usage(w io.Writer) {
	fmt.Fprintf(w, "waybill-edge %s: runs signed models on this device\n\nusage: waybill-edge COMMAND [FLAGS]\n\n", version.Number)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-15s %s\n", c.name, c.short)
	}
	fmt.Fprint(w, "\nThe configuration is --config FILE, else $WAYBILL_EDGE_CONFIG, else ./config.json.\n"+
		"\"rollback\" is about this device; a fleet goes back with \"waybill channel rollback\", a serverless target with \"waybill rollback\".\n")
}

// flags is a flag set that reports errors our way and takes no arguments besides its flags.
type flags struct {
	*flag.FlagSet
	name string
	help func()
}

func newFlags(name, synopsis string, stderr io.Writer) *flags {
	f := &flags{FlagSet: flag.NewFlagSet(name, flag.ContinueOnError), name: name}
	f.SetOutput(io.Discard)
	f.Usage = func() {} // the library prints it for every mistake, and the mistake is lost in it
	f.help = func() {
		fmt.Fprintf(stderr, "usage: waybill-edge %s\n\n", synopsis)
		f.SetOutput(stderr)
		f.PrintDefaults()
	}
	return f
}

func (f *flags) parse(args []string) error {
	var known []string
	f.VisitAll(func(x *flag.Flag) { known = append(known, x.Name) })
	err := f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		f.help()
		return err
	}
	if err != nil {
		e := diag.Wrap(diag.Usage, err, "%s", f.name)
		if _, name, ok := strings.Cut(err.Error(), "not defined: -"); ok {
			if near := diag.Nearest(name, known); near != "" {
				return e.Hint("did you mean --%s?", near)
			}
		}
		return e.Hint("waybill-edge %s --help", f.name)
	}
	if f.NArg() > 0 {
		return diag.New(diag.Usage, "%s: surplus argument %q", f.name, f.Arg(0)).Hint("waybill-edge %s --help", f.name)
	}
	return nil
}

// configFlag adds --config with its default.
func (f *flags) configFlag() *string {
	def := os.Getenv("WAYBILL_EDGE_CONFIG")
	if def == "" {
		def = "config.json"
	}
	return f.String("config", def, "`FILE` that enroll wrote")
}

// outputFlag adds --output text|json.
func (f *flags) outputFlag() *string { return f.String("output", "text", "`FORMAT`: text or json") }

func checkOutput(name, v string) error {
	if v != "text" && v != "json" {
		return diag.New(diag.Usage, "%s: --output is %q, not text or json", name, v)
	}
	return nil
}

func printVersion(args []string, stdout, stderr io.Writer) error {
	f := newFlags("version", "version [--output json]", stderr)
	output := f.outputFlag()
	if err := f.parse(args); err != nil {
		return err
	}
	if err := checkOutput("version", *output); err != nil {
		return err
	}
	b := version.Info()
	if *output == "json" {
		return json.NewEncoder(stdout).Encode(map[string]any{
			"version": version.Number, "commit": b.Commit, "modified": b.Modified, "go": b.Go, "platform": goruntime.GOOS + "/" + goruntime.GOARCH,
		})
	}
	fmt.Fprintf(stdout, "waybill-edge %s %s/%s %s\n", version.Number, goruntime.GOOS, goruntime.GOARCH, b.Go)
	return nil
}
