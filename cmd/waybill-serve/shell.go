package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
)

// KServe runs a modelcar's image with "sh -c" and a line of ln, sleep, echo, ls and tests, to hand the files in it over to the server
// beside it. shell runs such lines, so that the image needs no real one: words, quotes, $$, $(...), &&, ||, ;, and ( ). It
// starts no process and knows the six commands below and no others; anything else is an error.
type shell struct {
	out, err io.Writer
	words    []word
	at       int
}

// word is one word or operator.
type word struct {
	text string
	op   bool
}

// asShell runs the program under another name: sh -c LINE, ln, or sleep. ok is false when it is none of these.
func asShell(ctx context.Context, args []string, stdout, stderr io.Writer) (code int, ok bool) {
	name := filepath.Base(args[0])
	if len(args) > 1 && args[1] == "sh" { // as arguments of the entry point
		name, args = "sh", args[1:]
	}
	s := &shell{out: stdout, err: stderr}
	switch name {
	case "sh":
		if len(args) != 3 || args[1] != "-c" {
			fmt.Fprintln(stderr, "sh: only sh -c LINE")
			return 2, true
		}
		return s.line(ctx, args[2]), true
	case "ln", "sleep":
		return s.command(ctx, append([]string{name}, args[1:]...)), true
	}
	return 0, false
}

// exited ends a list of commands.
type exited struct{ code int }

// line runs one line.
func (s *shell) line(ctx context.Context, text string) int {
	if err := s.split(ctx, text); err != nil {
		fmt.Fprintln(s.err, "sh:", err)
		return 2
	}
	code, end, err := s.list(ctx, true)
	if err == nil && s.at < len(s.words) {
		err = diag.Errorf("unexpected %q", s.words[s.at].text)
	}
	if err != nil {
		fmt.Fprintln(s.err, "sh:", err)
		return 2
	}
	if end != nil {
		return end.code
	}
	return code
}

// list runs commands that &&, || and ; join; run is false where they are only read.
func (s *shell) list(ctx context.Context, run bool) (code int, end *exited, err error) {
	do := run
	for {
		c, e, err := s.one(ctx, do && end == nil)
		if err != nil {
			return 0, nil, err
		}
		if do && end == nil {
			code, end = c, e
		}
		if s.at == len(s.words) || !s.words[s.at].op || s.words[s.at].text == ")" {
			return code, end, nil
		}
		switch s.words[s.at].text {
		case "&&":
			do = run && code == 0
		case "||":
			do = run && code != 0
		case ";":
			do = run
		default:
			return 0, nil, diag.Errorf("unexpected %q", s.words[s.at].text)
		}
		s.at++
		if s.at == len(s.words) && s.words[s.at-1].text == ";" {
			return code, end, nil
		}
	}
}

// one runs one command or a group.
func (s *shell) one(ctx context.Context, run bool) (int, *exited, error) {
	if s.at < len(s.words) && s.words[s.at] == (word{"(", true}) {
		s.at++
		code, end, err := s.list(ctx, run)
		if err != nil {
			return 0, nil, err
		}
		if s.at == len(s.words) || s.words[s.at] != (word{")", true}) {
			return 0, nil, diag.Errorf("a ( is not closed")
		}
		s.at++
		if end != nil { // it ends the group, which is a shell of its own
			code = end.code
		}
		return code, nil, nil
	}
	var args []string
	for s.at < len(s.words) && !s.words[s.at].op {
		args = append(args, s.words[s.at].text)
		s.at++
	}
	if len(args) == 0 {
		return 0, nil, diag.Errorf("a command is missing")
	}
	if !run {
		return 0, nil, nil
	}
	if args[0] == "exit" {
		code := 0
		if len(args) > 1 {
			n, err := strconv.ParseUint(args[1], 10, 8)
			if err != nil {
				return 0, nil, diag.Errorf("exit %s: %w", args[1], err)
			}
			code = int(n)
		}
		return code, &exited{code}, nil
	}
	return s.command(ctx, args), nil, nil
}

// command runs one of the commands.
func (s *shell) command(ctx context.Context, args []string) int {
	fail := func(err error) int {
		fmt.Fprintf(s.err, "%s: %v\n", args[0], err)
		return 1
	}
	switch rest := args[1:]; args[0] {
	case "echo":
		fmt.Fprintln(s.out, strings.Join(rest, " "))
		return 0
	case "ln":
		if len(rest) != 3 || rest[0] != "-s" && rest[0] != "-sf" {
			return fail(diag.Errorf("only ln -s[f] TARGET NAME"))
		}
		name := rest[2]
		if st, err := os.Stat(name); err == nil && st.IsDir() { // into a folder
			name = filepath.Join(name, filepath.Base(rest[1]))
		}
		if rest[0] == "-sf" {
			if st, err := os.Lstat(name); err == nil && !st.IsDir() {
				if err := os.Remove(name); err != nil {
					return fail(err)
				}
			}
		}
		if err := os.Symlink(rest[1], name); err != nil {
			return fail(err)
		}
		return 0
	case "sleep":
		if len(rest) != 1 {
			return fail(diag.Errorf("only sleep SECONDS"))
		}
		if rest[0] == "infinity" {
			<-ctx.Done()
			return 143 // as a shell tells of SIGTERM
		}
		seconds, err := strconv.ParseFloat(rest[0], 64)
		if err != nil || seconds < 0 || seconds > 1e9 {
			return fail(diag.Errorf("%q is no number of seconds", rest[0]))
		}
		t := time.NewTimer(time.Duration(seconds * float64(time.Second)))
		defer t.Stop()
		select {
		case <-t.C:
			return 0
		case <-ctx.Done():
			return 143
		}
	case "[":
		return s.test(rest)
	case "ls":
		if len(rest) != 2 || rest[0] != "-A" {
			return fail(diag.Errorf("only ls -A FOLDER"))
		}
		list, err := os.ReadDir(rest[1])
		if err != nil {
			return fail(err)
		}
		for _, e := range list {
			fmt.Fprintln(s.out, e.Name())
		}
		return 0
	}
	fmt.Fprintf(s.err, "sh: %s: not found\n", args[0])
	return 127
}

// test is [ -d NAME ], [ -f NAME ], [ -e NAME ] or [ TEXT ].
func (s *shell) test(args []string) int {
	if len(args) == 0 || args[len(args)-1] != "]" || len(args) > 3 {
		fmt.Fprintln(s.err, "[: only [ -d NAME ], [ -f NAME ], [ -e NAME ], [ TEXT ]")
		return 2
	}
	yes := len(args) == 2 && args[0] != ""
	if len(args) == 3 {
		st, err := os.Stat(args[1])
		switch args[0] {
		case "-d":
			yes = err == nil && st.IsDir()
		case "-f":
			yes = err == nil && st.Mode().IsRegular()
		case "-e":
			yes = err == nil
		default:
			fmt.Fprintf(s.err, "[: %s is not known\n", args[0])
			return 2
		}
	}
	if yes {
		return 0
	}
	return 1
}

// split makes words and operators of a line. Substitutions happen here, before anything runs, which is right for lines whose
// commands change nothing that a later substitution reads.
func (s *shell) split(ctx context.Context, text string) error {
	var w strings.Builder
	open := false // there is a word, though it may be empty
	flush := func() {
		if open {
			s.words = append(s.words, word{w.String(), false})
		}
		w.Reset()
		open = false
	}
	quoted := false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case c == '\'' && !quoted:
			end := strings.IndexByte(text[i+1:], '\'')
			if end < 0 {
				return diag.Errorf("a quote is not closed")
			}
			w.WriteString(text[i+1 : i+1+end])
			i += end + 1
			open = true
		case c == '"':
			quoted, open = !quoted, true
		case c == '$' && strings.HasPrefix(text[i:], "$$"):
			w.WriteString(strconv.Itoa(os.Getpid()))
			i++
			open = true
		case c == '$' && strings.HasPrefix(text[i:], "$("):
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				return diag.Errorf("a $( is not closed")
			}
			var out strings.Builder
			inner := text[i+2 : i+end]
			if strings.ContainsAny(inner, "$'\"(") {
				return diag.Errorf("%q is more than this shell can", inner)
			}
			(&shell{out: &out, err: s.err}).line(ctx, inner)
			w.WriteString(strings.TrimRight(out.String(), "\n"))
			i += end
			open = true
		case strings.IndexByte("$`\\", c) >= 0, !quoted && strings.IndexByte("*?~<>{}#&|", c) >= 0 && !slices.Contains([]string{"&&", "||"}, text[i:min(i+2, len(text))]):
			return diag.Errorf("%q is more than this shell can", string(c))
		case quoted:
			w.WriteByte(c)
		case c == ' ' || c == '\t' || c == '\n':
			flush()
		case c == '&' || c == '|':
			flush()
			s.words = append(s.words, word{text[i : i+2], true})
			i++
		case c == ';' || c == '(' || c == ')':
			flush()
			s.words = append(s.words, word{string(c), true})
		default:
			w.WriteByte(c)
			open = true
		}
	}
	if quoted {
		return diag.Errorf("a quote is not closed")
	}
	flush()
	return nil
}
