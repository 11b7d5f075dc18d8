package box_test

import (
	"context"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/waybill-ml/waybill/policy/bundle"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/library"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

func TestMain(m *testing.M) {
	if box.IsChild() {
		os.Exit(box.Main())
	}
	if len(os.Args) == 3 && os.Args[1] == fakeArg {
		os.Exit(fakeMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

func self(t testing.TB) box.Command {
	t.Helper()
	c, err := box.Self()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// policy makes a bundle of one rule of ours with this body, or of a whole file that brings its own package.
func policy(t testing.TB, body string) *bundle.Bundle {
	t.Helper()
	if !strings.Contains(body, "package ") {
		body = "# METADATA\n# title: T\n# description: D\n# custom:\n#   id: X-001\n#   severity: high\n#   remediation: R\n#   standards: [S]\npackage waybill.rules.x_001\n\n" + body
	}
	b, err := bundle.FromFS(fstest.MapFS{"a.rego": {Data: []byte(body)}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func base(t testing.TB, b *bundle.Bundle) []byte {
	t.Helper()
	doc, err := library.Base(b.Digest())
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// big grows a text tenfold with each replace: 10, 100, 10^4, 10^6 letters.
const big = `
a0 := "xxxxxxxxxx"
a1 := replace(a0, "x", a0)
a2 := replace(a1, "x", a1)
a3 := replace(a2, "x", a1)
`

// The policies that a gate must survive. Each would, without a process of its own, hold the gate up, or end it.
var attacks = []struct {
	name, body string
	limits     box.Limits
	want       []string // one of them
}{
	{"time: a loop that looks at its context", "default pass := false\npass if count([1 | some i in numbers.range(1, 9000); some j in numbers.range(1, 9000); i * j == -1]) == 0\nfail := set()",
		box.Limits{Timeout: time.Second}, []string{"ran longer than 1s"}},
	{"time: a builtin that looks at nothing", big + "pass := contains(concat(\"\", [a3, \"y\"]), \"y\")\nfail contains {\"msg\": s} if { p := concat(\"\", [\"(\", concat(\"|\", [x | some i in numbers.range(1, 3000); x := sprintf(\"(a|b|.*)%d\", [i])]), \")*$\"]); some n in numbers.range(1, 100000); s := sprintf(\"%v\", [regex.match(p, sprintf(\"%s%d\", [a3, n]))]) }\n",
		box.Limits{Timeout: time.Second, Memory: 1 << 30, Grace: time.Second}, []string{"ran longer than 1s and was killed", "rule could not be evaluated"}},
	{"memory: comprehensions", "pass := count([x | some i in numbers.range(1, 100000); some j in numbers.range(1, 10000); x := [i, j, \"text\"]]) > 0\nfail := set()",
		box.Limits{Timeout: time.Minute, Memory: 64 << 20}, []string{"more than 64 MiB"}},
	{"memory: one builtin, much at once", big + "b := replace(a3, \"x\", a2)\npass := count(b) > 0\nfail := set()",
		box.Limits{Timeout: time.Minute, Memory: 64 << 20}, []string{"more than 64 MiB"}},
	{"memory: more than any machine has", big + "b := replace(a3, \"x\", a3)\npass := count(b) > 0\nfail := set()",
		box.Limits{Timeout: time.Minute, Memory: 64 << 20}, []string{"more than 64 MiB", "panic in evaluation", "died"}},
	{"memory: a range", "pass := count(numbers.range(1, 1000000000)) > 0\nfail := set()",
		box.Limits{Timeout: time.Minute, Memory: 64 << 20}, []string{"more than 64 MiB"}},
	{"stack: a query without end", big + "q := replace(a3, \"x\", \"{a\")\npass := graphql.is_valid(q, \"type Query { a: Query }\")\nfail := set()",
		box.Limits{Timeout: time.Minute, Memory: 1 << 30}, []string{"deeper stack than", "more than 1024 MiB"}},
}

func TestAttacks(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			b := policy(t, a.body)
			start := time.Now()
			d := box.New(self(t), b, a.limits).Evaluate(context.Background(), base(t, b))
			t.Logf("%s: error %q, %+v", time.Since(start).Round(time.Millisecond), d.Error, d.Violations)
			if d.Allow {
				t.Fatalf("allowed: %+v", d)
			}
			text := d.Error
			for _, v := range d.Violations {
				text += v.Message
			}
			found := false
			for _, w := range a.want {
				found = found || strings.Contains(text, w)
			}
			if !found {
				t.Errorf("says %q, want one of %q", text, a.want)
			}
			for _, r := range d.Rules {
				if r.ID == "X-001" && r.Status != decision.Errored {
					t.Errorf("rule: %+v", r)
				}
			}
			none(t)
		})
	}
}
