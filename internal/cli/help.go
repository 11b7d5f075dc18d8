package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
)

func helpCommand() Command {
	return Command{
		Name: "help", Group: Other, Summary: "help about a command or a topic",
		Args: "[COMMAND... | environment | exit-codes]", Max: -1,
		Long:     "Without arguments: all commands. The topics are environment (every variable) and exit-codes.",
		Examples: []string{"waybill help pack", "waybill help channel publish", "waybill help exit-codes"},
		Run:      runHelp,
	}
}

func runHelp(_ context.Context, c *Call) error {
	table := commands()
	p := &parsed{}
	switch {
	case len(c.Args) == 1 && c.Args[0] == "exit-codes":
		_, err := io.WriteString(c.Env.Stdout, exitCodesText())
		return err
	case len(c.Args) == 1 && c.Args[0] == "environment":
		_, err := io.WriteString(c.Env.Stdout, environmentText(table))
		return err
	}
	level := table
	for _, a := range c.Args {
		cmd := find(level, a)
		if cmd == nil {
			return unknownCommand(p, level, a)
		}
		p.cmd, level = cmd, cmd.Sub
		p.path = append(p.path, a)
	}
	_, err := io.WriteString(c.Env.Stdout, helpText(table, p))
	return err
}

func helpText(table []Command, p *parsed) string {
	if p.cmd == nil {
		return rootHelp(table)
	}
	return commandHelp(p.cmd, p.path)
}

func rootHelp(table []Command) string {
	var b strings.Builder
	b.WriteString("waybill ships trained models: compile to WebAssembly, sign, gate, deploy, roll back.\n\n")
	b.WriteString("usage: waybill COMMAND [FLAGS] [ARGUMENTS]\n")
	for _, g := range groups() {
		first := true
		for _, c := range table {
			if c.Group != g || c.Hidden {
				continue
			}
			if first {
				fmt.Fprintf(&b, "\n%s\n", g)
				first = false
			}
			fmt.Fprintf(&b, "  %-10s %s\n", c.Name, c.Summary)
		}
	}
	b.WriteString(`
Examples
  waybill demo                                 # the whole road in a minute, on a real model
  waybill init model.onnx && waybill pack      # model.onnx -> name@sha256:...
  waybill sign churn:1.0 --key publisher.key
  waybill gate reg.example/ml/churn:1.0 --env prod --key gate.key

Flags of every command
`)
	b.WriteString(flagLines(globals()))
	b.WriteString("\nMore: waybill help COMMAND, waybill help environment, waybill help exit-codes\n")
	return b.String()
}

func commandHelp(c *Command, path []string) string {
	full := strings.Join(append([]string{"waybill"}, path...), " ")
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n\n", full, c.Summary)
	if c.Run == nil {
		fmt.Fprintf(&b, "usage: %s COMMAND [FLAGS] [ARGUMENTS]\n", full)
	} else {
		fmt.Fprintf(&b, "usage: %s\n", strings.TrimRight(full+" [FLAGS] "+c.Args, " "))
	}
	if c.Long != "" {
		fmt.Fprintf(&b, "\n%s\n", strings.TrimSpace(c.Long))
	}
	if len(c.Sub) > 0 {
		b.WriteString("\nCommands\n")
		for _, s := range c.Sub {
			if !s.Hidden {
				fmt.Fprintf(&b, "  %-10s %s\n", s.Name, s.Summary)
			}
		}
	}
	if len(c.Examples) > 0 {
		b.WriteString("\nExamples\n")
		for _, e := range c.Examples {
			fmt.Fprintf(&b, "  %s\n", e)
		}
	}
	if len(c.Flags) > 0 {
		fmt.Fprintf(&b, "\nFlags\n%s", flagLines(c.Flags))
	}
	if c.Run != nil {
		b.WriteString("\nExit codes\n")
		want := map[diag.Code]bool{diag.OK: true, diag.Failure: true, diag.Usage: true}
		for _, x := range c.Exits {
			want[x] = true
		}
		for _, x := range diag.Codes() {
			if want[x.Code] {
				fmt.Fprintf(&b, "  %-4d %s\n", x.Code, x.Meaning)
			}
		}
	}
	if len(c.See) > 0 {
		fmt.Fprintf(&b, "\nSee also: waybill %s\n", strings.Join(c.See, ", waybill "))
	}
	return b.String()
}

// flagLines lists flags as "  -o, --output FORMAT  usage [default x] [VAR]".
func flagLines(flags []ucli.Flag) string {
	type row struct{ left, right string }
	var rows []row
	w := 0
	for _, fl := range flags {
		f := fl.(docFlag)
		if v, ok := fl.(ucli.VisibleFlag); ok && !v.IsVisible() {
			continue
		}
		place, text := placeholder(f.GetUsage())
		names := ""
		for _, n := range f.Names() {
			if len(n) == 1 {
				names = "-" + n + ", " + names
			} else {
				names += "--" + n + ", "
			}
		}
		left := strings.TrimSuffix(names, ", ")
		if !strings.HasPrefix(left, "-") || strings.HasPrefix(left, "--") {
			left = "    " + left
		}
		if f.TakesValue() {
			left += " " + place
		}
		if r, ok := fl.(ucli.RequiredFlag); ok && r.IsRequired() {
			text += " (required)"
		}
		if d := defaultOf(fl); d != "" {
			text += " (default " + d + ")"
		}
		if e := f.GetEnvVars(); len(e) > 0 {
			text += " [" + strings.Join(e, ", ") + "]"
		}
		rows = append(rows, row{left, text})
		w = max(w, min(len(left), 30))
	}
	var b strings.Builder
	for _, r := range rows {
		fmt.Fprintf(&b, "  %-*s  %s\n", w, r.left, r.right)
	}
	return b.String()
}

// placeholder takes the back-quoted word out of a usage text, as the library does.
func placeholder(usage string) (place, text string) {
	if a, rest, ok := strings.Cut(usage, "`"); ok {
		if word, after, ok := strings.Cut(rest, "`"); ok {
			return word, a + word + after
		}
	}
	return "VALUE", usage
}

func defaultOf(f ucli.Flag) string {
	switch f := f.(type) {
	case *ucli.StringFlag:
		return f.Value
	case *ucli.IntFlag:
		return notZero(f.Value == 0, f.Value)
	case *ucli.Int64Flag:
		return notZero(f.Value == 0, f.Value)
	case *ucli.Float64Flag:
		return notZero(f.Value == 0, f.Value)
	case *ucli.DurationFlag:
		return notZero(f.Value == 0, f.Value)
	}
	return ""
}

func notZero(zero bool, v any) string {
	if zero {
		return ""
	}
	return fmt.Sprint(v)
}

func exitCodesText() string {
	var b strings.Builder
	for _, x := range diag.Codes() {
		fmt.Fprintf(&b, "%-4d %s\n", x.Code, x.Meaning)
	}
	return b.String()
}
