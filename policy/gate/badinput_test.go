package gate_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/environments"
	"github.com/waybill-ml/waybill/policy/gate"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/policytest"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// A child of these tests is a box, or one in which a builtin panics.
func TestMain(m *testing.M) {
	if box.IsChild() {
		os.Exit(box.Main())
	}
	if len(os.Args) == 2 && os.Args[1] == panickingArg {
		topdown.RegisterBuiltinFunc(ast.Upper.Name, func(topdown.BuiltinContext, []*ast.Term, func(*ast.Term) error) error { panic("index out of range") })
		os.Exit(box.Main())
	}
	os.Exit(m.Run())
}

const panickingArg = "box-with-a-panicking-builtin"

// boxed is a policy of one file, in a process of its own.
func boxed(t *testing.T, src string, l box.Limits, args ...string) *box.Box {
	t.Helper()
	b, err := bundle.FromFS(fstest.MapFS{"main.rego": {Data: []byte(src)}})
	if err != nil {
		t.Fatal(err)
	}
	c, err := box.Self()
	if err != nil {
		t.Fatal(err)
	}
	if args != nil {
		c.Args = append(c.Args[:1:1], args...)
	}
	return box.New(c, b, l)
}

// Each of these is a denial with its reason that can be signed, in bounded time; none is an error that leaves nothing behind, and
// none a pass.
func TestBadInput(t *testing.T) {
	seconds := box.Limits{Timeout: time.Second, Grace: time.Second}
	for name, c := range map[string]struct {
		policy func(*testing.T) gate.Evaluator // nil: the default policy
		world  func(*testing.T, *policytest.World, artifact.Digest)
		rq     func(*gate.Request)
		want   string // in the error, or in a violation
	}{
		"rego that does not parse": {policy: func(t *testing.T) gate.Evaluator { return boxed(t, "package main\ndeny contains", box.Limits{}) }, want: "main.rego:2: rego_parse_error"},
		"rego that reads the clock": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\ndeny contains \"x\" if time.now_ns() < 0", box.Limits{})
		}, want: "undefined function time.now_ns"},
		"rego that loops": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\ndeny contains \"x\" if { some i in numbers.range(1, 100000); some j in numbers.range(1, 100000); i * j == -1 }", seconds)
		}, want: "ran longer than 1s"},
		"rego that recurses": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\na if b\nb if a\ndeny contains \"x\" if a", box.Limits{})
		}, want: "recursive"},
		"a builtin that panics": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\ndeny contains \"x\" if upper(input.model.name) == \"never\"", box.Limits{}, panickingArg)
		}, want: "panic in evaluation: index out of range"},
		"conflicting complete rules": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\nlimit := 1 if input.model.name != \"\"\nlimit := 2 if input.artifact.size > 0\ndeny contains \"x\" if input.artifact.size < limit", box.Limits{})
		}, want: "eval_conflict_error: rule data.main.limit"},
		"conflicting functions": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\nf(x) := 1 if x > 0\nf(x) := 2 if x > 0\ndeny contains \"x\" if f(input.artifact.size) == 3", box.Limits{})
		}, want: "eval_conflict_error: function data.main.f"},
		"a rule that is undefined": {policy: func(t *testing.T) gate.Evaluator {
			return boxed(t, "package main\ndeny := \"x\" if input.artifact.size < 0", box.Limits{})
		}, want: "the rule is undefined"},
		"a policy of another digest than pinned": {world: func(t *testing.T, w *policytest.World, _ artifact.Digest) {
			w.SetEnvironments(t, change(w, func(e *environments.Environment) { e.Policy.Digest = artifact.DigestOf(nil) }))
		}, want: "the environment pins policy " + string(artifact.DigestOf(nil))},
		"a profile that the policy does not know": {world: func(t *testing.T, w *policytest.World, _ artifact.Digest) {
			w.SetEnvironments(t, change(w, func(e *environments.Environment) { e.Profile = "lax" }))
		}, want: `asks for profile "lax"`},
		"100 MB of evidence": {world: func(_ *testing.T, w *policytest.World, d artifact.Digest) {
			for i := range 100 {
				w.Attached[d] = append(w.Attached[d], append([]byte(fmt.Sprint(i)), bytes.Repeat([]byte("x"), 1<<20)...))
			}
		}, want: "bytes"},
		"a threshold for a metric that no one measured": {world: func(t *testing.T, w *policytest.World, _ artifact.Digest) {
			w.SetEnvironments(t, change(w, func(e *environments.Environment) {
				lowest := 0.5
				e.Metrics = append(e.Metrics, environments.Threshold{Name: "recall", Slice: "all", Min: &lowest})
			}))
		}, want: "recall"},
		"a clock in the past":   {rq: func(rq *gate.Request) { rq.Now = rq.Now.AddDate(-5, 0, 0) }, want: "the gate's clock says 2021"},
		"a clock in the future": {rq: func(rq *gate.Request) { rq.Now = rq.Now.AddDate(5, 0, 0) }, want: "expired"},
	} {
		t.Run(name, func(t *testing.T) {
			w, p := world(t)
			var e gate.Evaluator = p
			if c.policy != nil {
				e = c.policy(t)
				w = policytest.New(t, e.Bundle().Digest())
			}
			d := w.Release(t, policytest.Default(), 0.98, 0.1)
			if c.world != nil {
				c.world(t, w, d)
			}
			rq := request(w, p, d, "prod")
			rq.Policy, rq.Environments, rq.Trust = e, w.Environments, w.Trust
			if c.rq != nil {
				c.rq(&rq)
			}
			o := decide(t, w, rq)
			if o.Decision.Allow {
				t.Fatal("allowed")
			}
			text := o.Decision.Error
			for _, v := range o.Decision.Violations {
				text += "\n" + v.ID + " " + v.Message
			}
			if !strings.Contains(text, c.want) || text == "" {
				t.Errorf("says %q, want %q", text, c.want)
			}
			if len(o.InputBytes) > input.MaxBytes {
				t.Errorf("%d bytes of facts", len(o.InputBytes))
			}
			if _, _, err := o.Attest(t.Context(), w.Keys[trust.RoleGate]); err != nil {
				t.Errorf("the denial cannot be attested: %.200v", err)
			}
			if c.policy == nil {
				return
			}
			// The same again, from the record.
			db, err := o.Decision.Canonical()
			if err != nil {
				t.Fatal(err)
			}
			again, err := decision.Parse(db)
			if err != nil || again.Allow {
				t.Errorf("%+v, %v", again, err)
			}
		})
	}
}

// change copies the environments document with prod changed.
func change(w *policytest.World, f func(*environments.Environment)) *environments.Document {
	d := *w.Environments.Document
	d.Environments = map[string]environments.Environment{}
	for n, e := range w.Environments.Document.Environments {
		if n == "prod" {
			f(&e)
		}
		d.Environments[n] = e
	}
	return &d
}

// Facts larger than any gate reads are a denial from either kind of evaluator, and quickly.
func TestFactsOf100MB(t *testing.T) {
	_, p := world(t)
	doc := bytes.Repeat([]byte("x"), 100<<20)
	for _, e := range []gate.Evaluator{p, boxed(t, "package main\ndeny contains \"x\" if false", box.Limits{})} {
		if d := e.Evaluate(context.Background(), doc); d.Allow || !strings.Contains(fmt.Sprint(d.Error, d.Violations), "limit") {
			t.Errorf("%+v", d)
		}
	}
}
