// Package diag is the one error type that users see and the table of exit codes.
//
// Code that knows what went wrong returns a *Error (built with New or Wrap); code in between wraps it
// with %w; the two binaries render it once, at the top, with Render. The package imports only the
// standard library, so that every other package may use it.
package diag

import (
	"errors"
	"fmt"
	"strings"
)

// Code is the exit code of a failure. The values are part of the command line's contract
// (docs/exit-codes.md is generated from Codes).
type Code int

// Exit codes.
const (
	OK           Code = 0   // the command did what it says
	Failure      Code = 1   // it failed, or cases of a test run failed
	Usage        Code = 2   // the command line or a config file is wrong
	Verification Code = 3   // a signature, a digest or a statement did not verify
	Denied       Code = 4   // the policy denied it
	Unsupported  Code = 5   // the model needs something that the compiler does not do
	Registry     Code = 6   // a registry could not be reached, or refused
	NotFound     Code = 7   // a reference, file or digest does not exist
	RolledBack   Code = 8   // the update was undone
	Interrupted  Code = 130 // SIGINT or SIGTERM
)

// Codes lists every exit code in order, with its meaning; docs/exit-codes.md is made from it.
func Codes() []struct {
	Code    Code
	Meaning string
} {
	return []struct {
		Code    Code
		Meaning string
	}{
		{OK, "the command did what it says"},
		{Failure, "it failed, or some cases of a test run failed"},
		{Usage, "the command line or a configuration file is wrong"},
		{Verification, "a signature, a digest or a statement did not verify"},
		{Denied, "the policy denied it"},
		{Unsupported, "the model needs something that the compiler does not support"},
		{Registry, "a registry could not be reached, or it refused"},
		{NotFound, "a reference, a file or a digest does not exist"},
		{RolledBack, "the update was rolled back"},
		{Interrupted, "interrupted by a signal"},
	}
}

// Loc is a position in a text file; Line and Col count from 1, 0 means unknown.
type Loc struct {
	File      string
	Line, Col int
}

// String formats the position as file:line:col, leaving unknown parts out.
func (l Loc) String() string {
	s := l.File
	if l.Line > 0 {
		s += fmt.Sprintf(":%d", l.Line)
		if l.Col > 0 {
			s += fmt.Sprintf(":%d", l.Col)
		}
	}
	return s
}

// Error is a failure that a user reads: what failed, why, and what to do about it.
type Error struct {
	Code  Code     // exit code
	What  string   // the thing or step that failed: "pack churn", "read model.onnx"
	Err   error    // the cause; may be nil when What says it all
	Lines []string // further facts, one per line, shown indented below the error
	Hints []string // commands that can be run, or one sentence
	Loc   Loc      // position in an input file, when there is one
}

// Error returns "what: cause" on one line, with the position in front when known.
func (e *Error) Error() string {
	var b strings.Builder
	if e.Loc.File != "" {
		b.WriteString(e.Loc.String() + ": ")
	}
	b.WriteString(e.What)
	if e.Err != nil {
		if e.What != "" {
			b.WriteString(": ")
		}
		b.WriteString(e.Err.Error())
	}
	return b.String()
}

// Unwrap gives the cause to errors.Is and errors.As.
func (e *Error) Unwrap() error { return e.Err }

// The four below are called from hundreds of places and not inlined: the copies were 60 kB of the device's program.

// New makes an error with code c; what and cause are formatted together: New(NotFound, "resolve %s", ref).
//
//go:noinline
func New(c Code, format string, args ...any) *Error {
	return &Error{Code: c, What: fmt.Sprintf(format, args...)}
}

// Wrap makes an error with code c, a cause, and what was being done. A nil cause gives a nil *Error's worth
// of trouble, so callers pass only real causes.
//
//go:noinline
func Wrap(c Code, cause error, format string, args ...any) *Error {
	return &Error{Code: c, What: fmt.Sprintf(format, args...), Err: cause}
}

// Errorf is fmt.Errorf, for errors that are not for users' eyes by themselves. fmt's own is inlined into each of its callers, two
// hundred bytes a time: what a device carries calls this one.
//
//go:noinline
func Errorf(format string, args ...any) error { return fmt.Errorf(format, args...) }

// Hint adds a hint and returns e.
//
//go:noinline
func (e *Error) Hint(format string, args ...any) *Error {
	e.Hints = append(e.Hints, fmt.Sprintf(format, args...))
	return e
}

// Line adds a fact shown below the error and returns e.
//
//go:noinline
func (e *Error) Line(format string, args ...any) *Error {
	e.Lines = append(e.Lines, fmt.Sprintf(format, args...))
	return e
}

// At sets the position and returns e.
func (e *Error) At(loc Loc) *Error { e.Loc = loc; return e }

// CodeOf returns the exit code for err: OK for nil, that of the outermost *Error in its tree, else Failure.
func CodeOf(err error) Code {
	if err == nil {
		return OK
	}
	var e *Error
	if errors.As(err, &e) {
		return e.Code
	}
	return Failure
}

// Render formats err for a terminal: "error: what: cause", facts indented, then "hint: ..." lines.
// Facts and hints of every *Error on the chain are shown, outermost first, each once.
func Render(err error) string {
	if err == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "error: %s\n", err)
	seen := map[string]bool{}
	var hints []string
	for e := err; e != nil; e = errors.Unwrap(e) {
		d, ok := e.(*Error)
		if !ok {
			continue
		}
		for _, l := range d.Lines {
			if !seen["l"+l] {
				seen["l"+l] = true
				fmt.Fprintf(&b, "  %s\n", l)
			}
		}
		for _, h := range d.Hints {
			if !seen["h"+h] {
				seen["h"+h] = true
				hints = append(hints, h)
			}
		}
	}
	for _, h := range hints {
		fmt.Fprintf(&b, "hint: %s\n", h)
	}
	return b.String()
}
