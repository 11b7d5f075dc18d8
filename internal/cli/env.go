package cli

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// Env is all of the outside world that a command may touch, so that the same command runs in a test, inside the demo
// and from main. It is never changed after Run began.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	StdinTTY       bool
	StdoutTTY      bool
	StderrTTY      bool
	Getenv         func(string) string // empty means unset
	Dir            string              // absolute working directory; relative paths are resolved with Call.Abs
	Home           string              // the user's home directory; may be empty
	Now            func() time.Time
	Rand           io.Reader
	// ReadPassword prompts on the terminal; nil means there is none.
	ReadPassword func(prompt string) ([]byte, error)
	// Box starts this program again to evaluate a policy; nil means that policies are evaluated in this process.
	Box *box.Command
}

// DataDir is where Waybill keeps its own data (the local store): WAYBILL_HOME, else the platform's folder for user data.
func (e *Env) DataDir() (string, error) {
	if d := e.Getenv("WAYBILL_HOME"); d != "" {
		return e.abs(d), nil
	}
	if runtime.GOOS == "windows" {
		if d := e.Getenv("LocalAppData"); d != "" {
			return filepath.Join(d, "waybill"), nil
		}
	} else if d := e.Getenv("XDG_DATA_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "waybill"), nil
	}
	if e.Home == "" {
		return "", errors.New("no home directory: set WAYBILL_HOME")
	}
	switch runtime.GOOS {
	case "darwin", "ios":
		return filepath.Join(e.Home, "Library", "Application Support", "waybill"), nil
	case "windows":
		return filepath.Join(e.Home, "AppData", "Local", "waybill"), nil
	}
	return filepath.Join(e.Home, ".local", "share", "waybill"), nil
}

func (e *Env) abs(p string) string {
	if filepath.IsAbs(p) {
		return filepath.Clean(p)
	}
	return filepath.Join(e.Dir, p)
}

// Main runs the command line of this process and returns its exit code. The first SIGINT or SIGTERM cancels the
// context; a second one ends the process at once.
func Main() int {
	if box.IsChild() {
		return box.Main()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)
	dir, err := os.Getwd()
	if err != nil {
		dir = "."
	}
	home, _ := os.UserHomeDir() // empty where there is none; DataDir says so
	e := &Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		StdinTTY:  term.IsTerminal(int(os.Stdin.Fd())),
		StdoutTTY: term.IsTerminal(int(os.Stdout.Fd())),
		StderrTTY: term.IsTerminal(int(os.Stderr.Fd())),
		Getenv:    os.Getenv,
		Dir:       dir, Home: home,
		Now: time.Now, Rand: rand.Reader,
	}
	if e.StdinTTY {
		e.ReadPassword = func(prompt string) ([]byte, error) {
			if _, err := io.WriteString(os.Stderr, prompt); err != nil {
				return nil, err
			}
			b, err := term.ReadPassword(int(os.Stdin.Fd()))
			_, _ = io.WriteString(os.Stderr, "\n")
			return b, err
		}
	}
	self, err := box.Self()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return int(diag.Failure)
	}
	e.Box = &self
	return Run(ctx, e, os.Args[1:])
}
