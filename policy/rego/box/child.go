package box

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/rego"
)

// How a child is told that it is one. Both must be there: the word alone is an unknown command, the variable alone does
// nothing.
const (
	arg      = "__policy-box"
	childEnv = "WAYBILL_POLICY_BOX"
)

// Exit codes of a child that ended itself.
const (
	exitMemory = 81
	exitTime   = 82
)

// maxError bounds the text of one error.
const maxError = 4 << 10

// maxStack bounds one goroutine's stack in a child.
const maxStack = 128 << 20

// Operations.
const (
	opEvaluate = "evaluate"
	opDescribe = "describe"
)

// request is the first line of what a child reads; the policy's tar and the document follow.
type request struct {
	Op     string `json:"op"`
	Limits Limits `json:"limits"`
	Tar    int    `json:"tar"` // bytes
	Doc    int    `json:"doc"` // bytes
}

// answer is one line of what a child writes: first that it compiled, then what it decided; or an error.
type answer struct {
	Compiled *Compiled        `json:"compiled,omitempty"`
	Decision *json.RawMessage `json:"decision,omitempty"`
	Error    string           `json:"error,omitempty"`
}

func parseAnswers(b []byte) ([]answer, error) {
	var out []answer
	for _, line := range bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var a answer
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&a); err != nil {
			return out, err
		}
		out = append(out, a)
	}
	return out, nil
}

// IsChild tells whether this process was started as a box.
func IsChild() bool {
	return len(os.Args) == 2 && os.Args[1] == arg && os.Getenv(childEnv) != ""
}

// Main is the whole of a child; its result is the exit code. It never returns later than the limits that it reads allow.
func Main() int {
	// A parent that never sends its request does not leave a child behind.
	first := time.AfterFunc(time.Minute, func() { os.Exit(exitTime) })
	in := bufio.NewReader(os.Stdin)
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	line, err := in.ReadSlice('\n')
	if err != nil {
		fmt.Fprintln(os.Stderr, "policy box: no request")
		return 2
	}
	var rq request
	if err := json.Unmarshal(line, &rq); err != nil {
		fmt.Fprintln(os.Stderr, "policy box: bad request")
		return 2
	}
	rq.Limits = rq.Limits.full()
	first.Stop()
	time.AfterFunc(rq.Limits.Timeout+rq.Limits.Grace, func() { os.Exit(exitTime) }) // should the parent be gone
	confine(rq.Limits)
	if err := serve(in, out, rq); err != nil {
		if err := out.Encode(answer{Error: oneLine(err)}); err != nil {
			return 1
		}
	}
	return 0
}

// oneLine bounds the text of an error, which may quote the policy.
func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	if len(s) > maxError {
		s = strings.ToValidUTF8(s[:maxError], "") + " ..."
	}
	return s
}

// confine bounds what this process can use from here on.
func confine(l Limits) {
	debug.SetMaxStack(maxStack)
	base := used()
	hard := base + l.Memory + l.Memory/4       // the soft bound, at l.Memory, ends the evaluation with a decision
	debug.SetMemoryLimit(base + l.Memory*9/10) // garbage is collected before it counts
	limitProcess(hard)
	go func() {
		for {
			time.Sleep(2 * time.Millisecond)
			if used() > hard {
				os.Exit(exitMemory)
			}
		}
	}()
}

// used is what this process holds from the system.
func used() int64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64() - s[1].Value.Uint64())
}

func serve(in io.Reader, out *json.Encoder, rq request) error {
	if rq.Tar < 0 || rq.Tar > bundle.MaxBytes || rq.Doc < 0 || rq.Doc > input.MaxBytes {
		return errors.New("policy box: request too large")
	}
	raw, doc := make([]byte, rq.Tar), make([]byte, rq.Doc)
	for _, b := range [][]byte{raw, doc} {
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("policy box: request cut short: %w", err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(context.Background(), rq.Limits.Timeout, &rego.TimeError{Limit: rq.Limits.Timeout})
	defer cancel()
	b, err := bundle.FromTar(raw)
	if err != nil {
		return err
	}
	p, err := rego.Compile(ctx, b, rego.WithTimeout(rq.Limits.Timeout), rego.WithMemory(rq.Limits.Memory))
	if err != nil {
		return err
	}
	if err := out.Encode(answer{Compiled: &Compiled{Rules: p.Rules(), Profiles: p.Profiles()}}); err != nil {
		return err
	}
	if rq.Op != opEvaluate {
		return nil
	}
	return decide(ctx, out, p, doc)
}

func decide(ctx context.Context, out *json.Encoder, p *rego.Policy, doc []byte) error {
	b, err := p.Evaluate(ctx, doc).Canonical()
	if err != nil {
		return err
	}
	raw := json.RawMessage(b)
	return out.Encode(answer{Decision: &raw})
}
