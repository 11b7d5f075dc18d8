package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/diag"
)

func testEnv(t *testing.T, vars map[string]string) (*Env, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	var out, err bytes.Buffer
	return &Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &err,
		Getenv: func(k string) string { return vars[k] },
		Dir:    t.TempDir(), Now: func() time.Time { return time.Unix(0, 0) },
	}, &out, &err
}

func verbs(got *[]string) []Command {
	run := func(_ context.Context, c *Call) error {
		*got = append([]string{c.Path, c.String("key"), c.String("output")}, c.Args...)
		return nil
	}
	flags := func() []ucli.Flag {
		return []ucli.Flag{
			&ucli.StringFlag{Name: "key", EnvVars: []string{"WAYBILL_TEST_KEY"}, Usage: "`FILE`"},
			&ucli.BoolFlag{Name: "dry-run"}, &ucli.StringSliceFlag{Name: "label"}, &ucli.IntFlag{Name: "n"},
		}
	}
	return []Command{
		{Name: "sign", Args: "REF", Min: 1, Max: 2, Flags: flags(), Run: run},
		{Name: "channel", Sub: []Command{{Name: "publish", Args: "NAME REF", Min: 2, Max: 2, Flags: flags(), Run: run}}},
	}
}

func TestFlagsStandAnywhere(t *testing.T) {
	want := []string{"channel publish", "k.key", "json", "prod", "ref"}
	for _, line := range []string{
		"channel publish prod ref --key k.key --output json",
		"channel publish --key k.key prod -o json ref",
		"--output json channel --key=k.key publish prod ref", // flag of a verb before the verb is not known yet
		"-o=json channel publish -key k.key prod ref",
		"channel publish prod --key k.key -o json -- ref",
	} {
		var got []string
		table := verbs(&got)
		p, err := parse(table, strings.Fields(line), func(string) string { return "" })
		if strings.Contains(line, "channel --key") {
			if diag.CodeOf(err) != diag.Usage {
				t.Errorf("%s: %v", line, err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		env, _, _ := testEnv(t, nil)
		app := &ucli.App{Name: "waybill", HideHelp: true, HideHelpCommand: true, HideVersion: true, Flags: globals(), Commands: libCommands(env, table, nil, p)}
		if err := app.Run(p.argv); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q", line, got)
		}
	}
}

func TestEnvironmentGivesFlags(t *testing.T) {
	vars := map[string]string{"WAYBILL_TEST_KEY": "from-env", "WAYBILL_OUTPUT": "json"}
	for line, want := range map[string]string{"sign r": "from-env", "sign r --key flag": "flag"} {
		var got []string
		table := verbs(&got)
		p, err := parse(table, strings.Fields(line), func(k string) string { return vars[k] })
		if err != nil {
			t.Fatal(err)
		}
		env, _, _ := testEnv(t, vars)
		app := &ucli.App{Name: "waybill", HideHelp: true, HideHelpCommand: true, Flags: globals(), Commands: libCommands(env, table, nil, p)}
		if err := app.Run(p.argv); err != nil {
			t.Fatal(err)
		}
		if got[1] != want || got[2] != "json" {
			t.Errorf("%s: got %q", line, got)
		}
	}
}

func TestUsageErrors(t *testing.T) {
	for line, want := range map[string]string{
		"sing r":                   `hint: waybill sign`,
		"sign":                     "needs 1 argument",
		"sign a b c":               `"c" is one too many`,
		"sign a --kye x":           "did you mean --key?",
		"sign a --key":             "needs a value",
		"channel":                  "needs one of its commands",
		"channel pubish a b":       "hint: waybill channel publish",
		"channel publish a b --zz": "unknown flag --zz",
	} {
		var got []string
		_, err := parse(verbs(&got), strings.Fields(line), func(string) string { return "" })
		if diag.CodeOf(err) != diag.Usage || !strings.Contains(diag.Render(err), want) {
			t.Errorf("%s: %s", line, diag.Render(err))
		}
	}
}

// Every command of the real table: flags after the arguments are read, one argument too many is refused, and the help
// text keeps its promises.
func TestEveryCommand(t *testing.T) {
	var walk func(level []Command, path []string)
	walk = func(level []Command, path []string) {
		for _, c := range level {
			p := append(append([]string{}, path...), c.Name)
			name := strings.Join(p, " ")
			if (c.Run == nil) == (len(c.Sub) == 0) {
				t.Errorf("%s: needs exactly one of Run and Sub", name)
			}
			if c.Summary == "" || len(c.Summary) > 75 || strings.HasSuffix(c.Summary, ".") {
				t.Errorf("%s: summary %q", name, c.Summary)
			}
			if c.Run != nil && !c.Hidden && len(c.Examples) == 0 {
				t.Errorf("%s: no examples", name)
			}
			for _, e := range c.Examples {
				if !strings.Contains(e, "waybill") {
					t.Errorf("%s: example %q runs no waybill", name, e)
				}
			}
			for _, l := range strings.Split(commandHelp(&c, p), "\n") {
				if len(l) > 130 {
					t.Errorf("%s: help line of %d columns: %s", name, len(l), l)
				}
			}
			global := tableOf(globals())
			for n := range tableOf(c.Flags) {
				if global[n] != nil {
					t.Errorf("%s: flag %s hides a global one", name, n)
				}
			}
			if c.Run != nil {
				args := append([]string{}, p...)
				for i := 0; i < c.Min; i++ {
					args = append(args, "x")
				}
				for _, f := range c.Flags {
					if r, ok := f.(ucli.RequiredFlag); ok && r.IsRequired() {
						args = append(args, "--"+f.Names()[0], "x")
					}
				}
				got, err := parse(commands(), append(args, "--output", "json"), func(string) string { return "" })
				if err != nil || len(got.args) != c.Min {
					t.Errorf("%s: flags after arguments: %v %v", name, got.args, err)
				}
				if c.Max >= 0 {
					for i := c.Min; i <= c.Max; i++ {
						args = append(args, "x")
					}
					if _, err := parse(commands(), args, func(string) string { return "" }); diag.CodeOf(err) != diag.Usage {
						t.Errorf("%s: surplus argument: %v", name, err)
					}
				}
			}
			walk(c.Sub, p)
		}
	}
	walk(commands(), nil)
}

func TestInterrupt(t *testing.T) {
	env, _, stderr := testEnv(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	// A command that reports the cancellation as any error it likes still gives 130.
	if code := Run(ctx, env, []string{"no-such-command"}); code != 130 || stderr.String() != "error: interrupted\n" {
		t.Errorf("code %d, %q", code, stderr)
	}
}

func TestComplete(t *testing.T) {
	var got []string
	table := verbs(&got)
	for in, want := range map[string]string{
		"si":                   "sign",
		"channel ":             "publish",
		"channel publish --dr": "--dry-run",
		"sign --output j":      "json",
		"sign --key x --lab":   "--label",
	} {
		out := complete(table, strings.Split(in, " "))
		if len(out) != 1 || !strings.HasPrefix(out[0], want+"\t") {
			t.Errorf("%q: %q", in, out)
		}
	}
}

func TestDocsAreFresh(t *testing.T) {
	for name, want := range Docs() {
		b, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.ReplaceAll(string(b), "\r\n", "\n") != want {
			t.Errorf("docs/%s is stale: run go generate ./internal/cli", name)
		}
	}
}
