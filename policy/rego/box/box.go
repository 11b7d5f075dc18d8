// Package box evaluates a policy in a process of its own, so that no policy can take the gate down or hold it up.
//
// Inside one Go process there is no hard bound: a builtin that does not look at its context cannot be stopped, and a stack
// overflow or an allocation that fails ends the process, whatever is deferred. So the program starts itself again; the
// child compiles the policy, evaluates it and writes the decision to its standard output. The child bounds its own memory
// and time and the parent kills it when its time is over. A child that dies, is killed, or answers too much or nonsense is
// a denial that says so. The decision itself is that of package rego: same policy and document, same bytes, in a box or not.
//
// Memory is bounded by the kernel too where it can be told to (Linux: RLIMIT_DATA). Elsewhere the child watches its
// own heap, which a single huge allocation can outrun; then the machine's own limit ends the child, and that is a denial.
package box

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/rego"
)

// Limits of one child. Zero fields have defaults.
type Limits struct {
	Timeout time.Duration `json:"timeout"` // of compilation and evaluation together; rego.DefaultTimeout
	Memory  int64         `json:"memory"`  // bytes that the policy may use; rego.DefaultMemory
	Grace   time.Duration `json:"grace"`   // beyond the timeout, to start and to say itself that it ran out of time; DefaultGrace
}

// DefaultGrace is short, since it only decides who ends a policy that is too slow.
const DefaultGrace = 3 * time.Second

// Bounds of what a child may write.
const (
	maxAnswer = 8 << 20
	maxStderr = 64 << 10
)

func (l Limits) full() Limits {
	if l.Timeout <= 0 {
		l.Timeout = rego.DefaultTimeout
	}
	if l.Memory <= 0 {
		l.Memory = rego.DefaultMemory
	}
	if l.Grace <= 0 {
		l.Grace = DefaultGrace
	}
	return l
}

// Command starts a program whose main hands over to Main when IsChild says so.
type Command struct {
	Path string
	Args []string // the whole of argv
}

// Self is the running program. Its main must begin with: if box.IsChild() { os.Exit(box.Main()) }. A program that does not
// would start again from the top, which is why a child never starts a child.
func Self() (Command, error) {
	path, err := os.Executable()
	if err != nil {
		return Command{}, fmt.Errorf("policy box: %w", err)
	}
	return Command{Path: path, Args: []string{os.Args[0], arg}}, nil
}

// Box is one policy, evaluated outside of this process. Safe for concurrent use.
type Box struct {
	cmd    Command
	policy *bundle.Bundle
	limits Limits

	mu    sync.Mutex
	rules []rego.RuleInfo // as the first child that compiled the policy told them
}

// New makes a box. Nothing is started, or even parsed, before Evaluate or Describe.
func New(cmd Command, b *bundle.Bundle, l Limits) *Box {
	return &Box{cmd: cmd, policy: b, limits: l.full()}
}

// Bundle is the policy.
func (x *Box) Bundle() *bundle.Bundle { return x.policy }

// Rules lists the policy's rules once Evaluate or Describe has compiled it; empty before, and for one that does not compile.
func (x *Box) Rules() []rego.RuleInfo {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.Clone(x.rules)
}

// learn keeps what the child said about the rules.
func (x *Box) learn(rules []rego.RuleInfo) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.rules == nil {
		x.rules = rules
	}
}

// Failure says that a child gave no answer to go by.
type Failure struct{ Reason string }

func (e *Failure) Error() string { return e.Reason }

// Evaluate decides over doc, the canonical bytes of a facts document. It always returns a decision: a policy that does not
// compile and whatever befalls the child are denials with their reason. It returns after the timeout and grace at the latest,
// and the child is gone by then.
func (x *Box) Evaluate(ctx context.Context, doc []byte) decision.Decision {
	d := decision.New(string(x.policy.Digest()), string(artifact.DigestOf(doc)))
	if len(doc) > input.MaxBytes {
		d.Error = fmt.Sprintf("the facts document has %d bytes, limit %d", len(doc), input.MaxBytes)
		return d
	}
	d.Environment = environment(doc)
	answers, err := x.run(ctx, request{Op: opEvaluate, Limits: x.limits, Tar: len(x.policy.Tar()), Doc: len(doc)}, doc)
	for _, a := range answers {
		if a.Compiled != nil {
			x.learn(a.Compiled.Rules)
			for _, r := range a.Compiled.Rules {
				d.Rules = append(d.Rules, decision.Rule{ID: r.ID, Title: r.Title, Severity: r.Severity, Level: r.Level, Status: decision.Errored})
			}
		}
	}
	if err != nil {
		d.Error = err.Error()
		for i := range d.Rules {
			d.Rules[i].Detail = d.Error
		}
		return d
	}
	got, err := accept(answers, d)
	if err != nil {
		d.Error = err.Error()
		return d
	}
	return got
}

// accept takes the decision out of the answers, after a second look: it must be about this policy and this document, and
// allow only if its own rows do.
func accept(answers []answer, want decision.Decision) (decision.Decision, error) {
	if len(answers) != 2 || answers[0].Compiled == nil || answers[1].Decision == nil {
		return decision.Decision{}, &Failure{"the policy's process gave no decision"}
	}
	d, err := decision.Parse(*answers[1].Decision)
	if err != nil {
		return d, &Failure{"the policy's process answered nonsense: " + err.Error()}
	}
	again := d
	again.Close()
	switch {
	case d.PolicyDigest != want.PolicyDigest || d.InputDigest != want.InputDigest:
		return d, &Failure{"the policy's process decided about something else"}
	case d.Allow && (!again.Allow || d.Environment != want.Environment):
		return d, &Failure{"the policy's process allows what its own rules do not"}
	}
	return d, nil
}

// environment reads the name that the document gives its environment; "" when it cannot.
func environment(doc []byte) string {
	var in struct {
		Environment struct {
			Name string `json:"name"`
		} `json:"environment"`
	}
	if json.Unmarshal(doc, &in) != nil {
		return ""
	}
	return in.Environment.Name
}

// Compiled is what a policy says about itself once it compiled.
type Compiled struct {
	Rules    []rego.RuleInfo `json:"rules"`
	Profiles []string        `json:"profiles"`
}

// Describe compiles the policy and lists its rules and profiles. A policy that does not compile is an error with the
// compiler's words; a *Failure says that the compiler itself did not survive it.
func (x *Box) Describe(ctx context.Context) (*Compiled, error) {
	answers, err := x.run(ctx, request{Op: opDescribe, Limits: x.limits, Tar: len(x.policy.Tar())}, nil)
	if err != nil {
		return nil, err
	}
	if len(answers) != 1 || answers[0].Compiled == nil {
		return nil, &Failure{"the policy's process gave no answer"}
	}
	x.learn(answers[0].Compiled.Rules)
	return answers[0].Compiled, nil
}

// run starts a child, feeds it and collects what it answers. The answers before a failure are returned with it.
func (x *Box) run(ctx context.Context, rq request, doc []byte) ([]answer, error) {
	if os.Getenv(childEnv) != "" {
		return nil, &Failure{"a policy's process may not start another one"}
	}
	head, err := json.Marshal(rq)
	if err != nil {
		return nil, fmt.Errorf("policy box: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, x.limits.Timeout+x.limits.Grace)
	defer cancel()
	cmd := exec.CommandContext(ctx, x.cmd.Path)
	cmd.Args = x.cmd.Args
	cmd.Env = childEnviron()
	cmd.Stdin = io.MultiReader(bytes.NewReader(append(head, '\n')), bytes.NewReader(x.policy.Tar()), bytes.NewReader(doc))
	out, errs := &capped{limit: maxAnswer, over: cancel}, &capped{limit: maxStderr}
	cmd.Stdout, cmd.Stderr = out, errs
	cmd.WaitDelay = 2 * time.Second // for pipes that something else holds open
	err = cmd.Run()                 // returns when the child is reaped
	answers, bad := parseAnswers(out.Bytes())
	switch {
	case out.Over():
		return nil, &Failure{fmt.Sprintf("the policy's process wrote more than %d MiB", maxAnswer>>20)}
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return answers, &Failure{(&rego.TimeError{Limit: x.limits.Timeout}).Error() + " and was killed"}
	case ctx.Err() != nil:
		return answers, ctx.Err()
	case err != nil:
		return answers, x.death(err, string(errs.Bytes()))
	case bad != nil:
		return nil, &Failure{"the policy's process answered nonsense: " + bad.Error()}
	}
	for _, a := range answers {
		if a.Error != "" {
			return answers, errors.New(a.Error)
		}
	}
	return answers, nil
}

// death tells what ended a child, from its exit code and what the Go runtime wrote last.
func (x *Box) death(err error, stderr string) error {
	var ee *exec.ExitError
	if !errors.As(err, &ee) {
		return &Failure{"the policy's process could not be run: " + err.Error()}
	}
	memory := (&rego.MemoryError{Limit: x.limits.Memory}).Error()
	switch code := ee.ExitCode(); {
	case code == exitMemory:
		return &Failure{memory}
	case code == exitTime:
		return &Failure{(&rego.TimeError{Limit: x.limits.Timeout}).Error()}
	case strings.Contains(stderr, "goroutine stack exceeds"), strings.Contains(stderr, "stack overflow"):
		return &Failure{fmt.Sprintf("the policy needs a deeper stack than %d MiB", maxStack>>20)}
	case strings.Contains(stderr, "out of memory"), strings.Contains(stderr, "cannot allocate memory"), strings.Contains(stderr, "failed to create new OS thread"), strings.Contains(stderr, "pthread_create failed"):
		return &Failure{memory}
	default:
		return &Failure{"the policy's process died: " + ee.Error() + fatal(stderr)}
	}
}

// fatal finds what the Go runtime said last.
func fatal(stderr string) string {
	for line := range strings.Lines(stderr) {
		if rest, ok := strings.CutPrefix(line, "fatal error: "); ok {
			return fmt.Sprintf(" (%.100s)", strings.TrimSpace(rest))
		}
	}
	return ""
}

// childEnviron is the whole environment of a child: nothing of the parent's reaches the policy, and the local time zone,
// which some builtins look at, is the same everywhere.
func childEnviron() []string {
	env := []string{childEnv + "=1", "TZ=UTC", "GOTRACEBACK=none"}
	keep := []string{"GOCOVERDIR"}
	if runtime.GOOS == "windows" {
		keep = append(keep, "SYSTEMROOT")
	}
	for _, k := range keep {
		if v := os.Getenv(k); v != "" {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// capped keeps the first limit bytes. With over it ends the child once there is more, else the rest is dropped.
type capped struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	limit int
	full  bool
	over  func()
}

func (c *capped) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := c.limit - c.buf.Len(); len(p) > room {
		c.buf.Write(p[:room])
		c.full = true
		if c.over != nil {
			c.over()
		}
		return len(p), nil
	}
	return c.buf.Write(p)
}

func (c *capped) Bytes() []byte { c.mu.Lock(); defer c.mu.Unlock(); return c.buf.Bytes() }
func (c *capped) Over() bool    { c.mu.Lock(); defer c.mu.Unlock(); return c.full }
