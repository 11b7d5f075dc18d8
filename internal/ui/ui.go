// Package ui writes to the terminal: data to stdout, talk to stderr, colour only where it is wanted and never as the
// only carrier of meaning, aligned columns, and figures with units. It reads no environment and holds no global state;
// internal/cli builds one UI per command.
package ui

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Options decide how a UI behaves.
type Options struct {
	Out, Err       io.Writer
	OutTTY, ErrTTY bool
	Color          string // auto, always, never
	NoColor        bool   // NO_COLOR is set (auto only)
	ForceColor     bool   // CLICOLOR_FORCE is set (auto only)
	JSON           bool   // --output json
	Quiet          bool   // no talk on stderr
	Verbose        bool   // -v: say what was decided and why
}

// UI is the terminal of one command. Its methods are safe for concurrent use.
type UI struct {
	Out, Err *Stream
	JSON     bool
	Quiet    bool
	Verbose  bool
}

// New builds a UI.
func New(o Options) *UI {
	color := func(tty bool) bool {
		switch o.Color {
		case "always":
			return true
		case "never":
			return false
		}
		return !o.NoColor && (tty || o.ForceColor)
	}
	return &UI{
		Out:     &Stream{w: o.Out, color: color(o.OutTTY), TTY: o.OutTTY},
		Err:     &Stream{w: o.Err, color: color(o.ErrTTY), TTY: o.ErrTTY},
		JSON:    o.JSON,
		Quiet:   o.Quiet,
		Verbose: o.Verbose,
	}
}

// Data prints one line of data to stdout. In JSON mode a command prints through PrintJSON only.
func (u *UI) Data(format string, args ...any) { u.Out.line(fmt.Sprintf(format, args...)) }

// PrintJSON prints v to stdout as indented JSON without HTML escaping, with a final newline.
func (u *UI) PrintJSON(v any) error {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return u.Out.write(b.String())
}

// Say prints one line of talk to stderr, unless --quiet.
func (u *UI) Say(format string, args ...any) {
	if !u.Quiet {
		u.Err.line(fmt.Sprintf(format, args...))
	}
}

// Field prints "  label      text" to stderr, unless --quiet: the lines of a running command's report.
func (u *UI) Field(label, format string, args ...any) {
	if !u.Quiet {
		u.Err.line(fmt.Sprintf("  %-10s %s", label, fmt.Sprintf(format, args...)))
	}
}

// Why prints one line of explanation to stderr, with -v only.
func (u *UI) Why(format string, args ...any) {
	if u.Verbose && !u.Quiet {
		u.Err.line(u.Err.Dim(fmt.Sprintf(format, args...)))
	}
}

// Warn prints a warning to stderr, also with --quiet.
func (u *UI) Warn(format string, args ...any) {
	u.Err.line(u.Err.Yellow("warning:") + " " + fmt.Sprintf(format, args...))
}

// Stream is one output with its own decision about colour.
type Stream struct {
	mu    sync.Mutex
	w     io.Writer
	color bool
	TTY   bool
}

// Write implements io.Writer.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}

func (s *Stream) write(t string) error {
	_, err := s.Write([]byte(t))
	return err
}

// line writes t and a newline. An error (a closed pipe) has no reader left to tell.
func (s *Stream) line(t string) { _ = s.write(t + "\n") }

// Printf writes to the stream.
func (s *Stream) Printf(format string, args ...any) { _ = s.write(fmt.Sprintf(format, args...)) }

func (s *Stream) sgr(code, t string) string {
	if !s.color || t == "" {
		return t
	}
	return "\x1b[" + code + "m" + t + "\x1b[0m"
}

// Green marks what is proven or succeeded, Yellow what is claimed or a warning, Red what is refused or failed, Cyan a
// command to run. The word itself must already say it.
func (s *Stream) Green(t string) string  { return s.sgr("32", t) }
func (s *Stream) Yellow(t string) string { return s.sgr("33", t) }
func (s *Stream) Red(t string) string    { return s.sgr("31", t) }
func (s *Stream) Cyan(t string) string   { return s.sgr("36", t) }
func (s *Stream) Bold(t string) string   { return s.sgr("1", t) }
func (s *Stream) Dim(t string) string    { return s.sgr("2", t) }
