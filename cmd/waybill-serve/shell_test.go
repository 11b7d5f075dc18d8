package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// The two lines that KServe gives to a modelcar (0.15), with its paths in a folder of the test.
func TestModelcarLines(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a modelcar runs on Linux")
	}
	dir := t.TempDir()
	models := filepath.Join(dir, "models")
	prefetch := "echo 'Pre-fetching modelcar reg.example/m@sha256:00: ' && [ -d " + models + " ] && [ \"$(ls -A " + models + ")\" ] && echo 'OK ... Prefetched and valid (/models exists)'" +
		" || (echo 'NOK ... Prefetched but modelcar is invalid (/models does not exist or is empty)' && exit 1)"
	run := func(ctx context.Context, args ...string) (int, string) {
		var out bytes.Buffer
		code, ok := asShell(ctx, args, &out, &out)
		if !ok {
			t.Fatalf("%q is no shell", args)
		}
		return code, out.String()
	}
	if code, out := run(t.Context(), "/bin/sh", "-c", prefetch); code != 1 || !strings.Contains(out, "NOK") {
		t.Errorf("without the folder: %d %s", code, out)
	}
	if err := os.Mkdir(models, 0o755); err != nil {
		t.Fatal(err)
	}
	if code, out := run(t.Context(), "/bin/sh", "-c", prefetch); code != 1 || !strings.Contains(out, "NOK") {
		t.Errorf("with an empty folder: %d %s", code, out)
	}
	if err := os.WriteFile(filepath.Join(models, "index.json"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := run(t.Context(), "/waybill-serve", "sh", "-c", prefetch); code != 0 || !strings.Contains(out, "OK ...") || strings.Contains(out, "NOK") {
		t.Errorf("with a model: %d %s", code, out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // as soon as it sleeps
	link := filepath.Join(dir, "mnt-models")
	for range 2 { // a second start finds the link there
		if code, out := run(ctx, "sh", "-c", "ln -sf /proc/$$/root/models "+link+" && sleep infinity"); code != 143 || out != "" {
			t.Errorf("%d %s", code, out)
		}
	}
	if to, err := os.Readlink(link); err != nil || to != fmt.Sprintf("/proc/%d/root/models", os.Getpid()) {
		t.Errorf("%s %v", to, err)
	}
}

func TestShell(t *testing.T) {
	for line, want := range map[string]struct {
		code int
		out  string
	}{
		"echo a 'b  c' \"d\"":                    {0, "a b  c d\n"},
		"[ '' ] || echo no":                      {0, "no\n"},
		"[ x ] && echo yes || echo no":           {0, "yes\n"},
		"[ '' ] && echo yes; echo after;":        {0, "after\n"},
		"(exit 3); echo on":                      {0, "on\n"},
		"exit 4; echo never":                     {4, ""},
		"[ '' ] && (exit 9) || (echo x; exit 5)": {5, "x\n"},
		"sleep 0 && echo slept":                  {0, "slept\n"},
		"rm -rf /":                               {127, "sh: rm: not found\n"},
		"echo $HOME":                             {2, ""},
		"echo `id`":                              {2, ""},
		"echo a | echo b":                        {2, ""},
		"echo a > file":                          {2, ""},
		"echo 'a":                                {2, ""},
		"(echo a":                                {2, ""},
		"echo a )":                               {2, ""},
		"&& echo":                                {2, ""},
		"":                                       {2, ""},
		"[ -x / ]":                               {2, ""},
		"sleep forever":                          {1, ""},
		"ln a b":                                 {1, ""},
		"ls /":                                   {1, ""},
		"exit many":                              {2, ""},
	} {
		var out bytes.Buffer
		code, _ := asShell(t.Context(), []string{"sh", "-c", line}, &out, &out)
		if code != want.code || want.out != "" && out.String() != want.out {
			t.Errorf("%q: %d %q", line, code, out.String())
		}
	}
}

func FuzzShell(f *testing.F) {
	f.Add("echo 'a' && [ \"$(ls -A /none)\" ] || (echo b; exit 1)")
	f.Add("ln -sf /proc/$$/root/models /none/x && echo")
	f.Fuzz(func(t *testing.T, line string) {
		s := &shell{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
		if err := s.split(t.Context(), strings.ReplaceAll(line, "$(", "")); err != nil {
			return
		}
		if _, _, err := s.list(t.Context(), false); err == nil && s.at > len(s.words) {
			t.Fatal("it read past the end")
		}
	})
}
