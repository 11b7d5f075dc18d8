package cli

import (
	"fmt"
	"strings"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
)

// parsed is a command line put in the order that urfave/cli reads: program, global flags, command path, its flags,
// "--", arguments. That library stops reading flags at the first argument and then drops what it does not expect,
// without a word; so all of it is decided here, and the library only converts values.
type parsed struct {
	cmd  *Command // nil: the root
	path []string
	argv []string
	args []string
	help bool
}

// docFlag is what the library's flags can tell about themselves.
type docFlag interface {
	ucli.Flag
	TakesValue() bool
	GetUsage() string
	GetEnvVars() []string
}

type flagTable map[string]docFlag

func tableOf(flags []ucli.Flag) flagTable {
	t := flagTable{}
	for _, f := range flags {
		d, ok := f.(docFlag)
		if !ok {
			panic(fmt.Sprintf("flag %v cannot describe itself", f.Names())) // a programming error, found by any test
		}
		for _, n := range f.Names() {
			t[n] = d
		}
	}
	return t
}

func (t flagTable) names() []string {
	var l []string
	for n := range t {
		if len(n) > 1 {
			l = append(l, n)
		}
	}
	return l
}

// parse reads the arguments after the program's name. Flags stand anywhere; "--" ends them; global flags are known to
// every command.
func parse(table []Command, args []string, getenv func(string) string) (*parsed, error) {
	p := &parsed{}
	gt := tableOf(globals())
	ct := flagTable{}
	level := table
	var global, local []string
	set := map[string]bool{}

	add := func(name string, own bool, value string, hasValue bool) {
		t := "--" + name
		if len(name) == 1 {
			t = "-" + name
		}
		if hasValue {
			t += "=" + value
		}
		f := gt[name]
		if own {
			f = ct[name]
			local = append(local, t)
		} else {
			global = append(global, t)
		}
		for _, n := range f.Names() {
			set[n] = true
		}
	}

	for i := 0; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			p.args = append(p.args, args[i+1:]...)
			break
		}
		if len(a) > 1 && a[0] == '-' {
			name, value, hasValue := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(a, "-"), "-"), "=")
			f, own := ct[name]
			if !own {
				var ok bool
				if f, ok = gt[name]; !ok {
					return p, unknownFlag(p, a, name, append(ct.names(), gt.names()...))
				}
			}
			if name == "help" || name == "h" {
				p.help = true
				continue
			}
			if f.TakesValue() && !hasValue {
				if i+1 >= len(args) {
					return p, usage(p, "flag %s needs a value", a)
				}
				i++
				value, hasValue = args[i], true
			}
			add(name, own, value, hasValue)
			continue
		}
		if p.cmd == nil || p.cmd.Run == nil { // still on the way to a verb
			c := find(level, a)
			if c == nil {
				return p, unknownCommand(p, level, a)
			}
			p.cmd, level = c, c.Sub
			p.path = append(p.path, c.Name)
			ct = tableOf(c.Flags)
			continue
		}
		p.args = append(p.args, a)
	}
	if p.help || p.cmd == nil {
		return p, nil
	}
	if p.cmd.Run == nil {
		e := usage(p, "%s needs one of its commands", strings.Join(p.path, " "))
		for _, s := range p.cmd.Sub {
			if !s.Hidden {
				e.Line("%-12s %s", s.Name, s.Summary)
			}
		}
		return p, e
	}
	env := func(flags []ucli.Flag, own bool) {
		for _, fl := range flags {
			f := fl.(docFlag)
			name := f.Names()[0]
			for _, v := range f.GetEnvVars() {
				if s := getenv(v); s != "" && !set[name] {
					add(name, own, s, true)
				}
			}
		}
	}
	env(globals(), false)
	env(p.cmd.Flags, true)
	for _, f := range p.cmd.Flags {
		if r, ok := f.(ucli.RequiredFlag); ok && r.IsRequired() && !set[f.Names()[0]] {
			return p, usage(p, "--%s is required", f.Names()[0])
		}
	}
	if n := len(p.args); n < p.cmd.Min {
		return p, usage(p, "%s needs %s: %s", strings.Join(p.path, " "), plural(p.cmd.Min, "argument"), p.cmd.Args)
	} else if p.cmd.Max >= 0 && n > p.cmd.Max {
		what := "takes no arguments"
		if p.cmd.Max > 0 {
			what = "takes at most " + plural(p.cmd.Max, "argument")
		}
		return p, usage(p, "%s %s, and %q is one too many", strings.Join(p.path, " "), what, p.args[p.cmd.Max])
	}
	p.argv = append([]string{"waybill"}, global...)
	p.argv = append(p.argv, p.path...)
	p.argv = append(p.argv, local...)
	p.argv = append(p.argv, "--")
	p.argv = append(p.argv, p.args...)
	return p, nil
}

func find(level []Command, name string) *Command {
	for i := range level {
		if level[i].Name == name {
			return &level[i]
		}
	}
	return nil
}

func usage(p *parsed, format string, args ...any) *diag.Error {
	return diag.New(diag.Usage, format, args...).Hint("%s", strings.Join(append(append([]string{"waybill"}, p.path...), "--help"), " "))
}

func unknownFlag(p *parsed, given, name string, known []string) error {
	e := diag.New(diag.Usage, "%s: unknown flag %s", strings.Join(append([]string{"waybill"}, p.path...), " "), given)
	if n := diag.Nearest(name, known); n != "" {
		e.Line("did you mean --%s?", n)
	}
	return e.Hint("%s", strings.Join(append(append([]string{"waybill"}, p.path...), "--help"), " "))
}

func unknownCommand(p *parsed, level []Command, name string) error {
	var known []string
	for _, c := range level {
		if !c.Hidden {
			known = append(known, c.Name)
		}
	}
	full := strings.Join(append([]string{"waybill"}, p.path...), " ")
	e := diag.New(diag.Usage, "%s: unknown command %q", full, name)
	if n := diag.Nearest(name, known); n != "" {
		return e.Hint("%s %s", full, n)
	}
	return e.Hint("%s --help", full)
}

func plural(n int, s string) string {
	if n == 1 {
		return "1 " + s
	}
	return fmt.Sprintf("%d %ss", n, s)
}
