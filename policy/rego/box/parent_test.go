package box_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/decision"
	"github.com/waybill-ml/waybill/policy/rego"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// fakeArg makes the test binary a child that behaves as its second argument says.
const fakeArg = "fake-policy-box"

// fakeMain is what a child may do that has been taken over, or broken.
func fakeMain(mode string) int {
	raw, _ := io.ReadAll(os.Stdin)
	head, rest, _ := bytes.Cut(raw, []byte("\n"))
	var rq struct{ Tar, Doc int }
	if json.Unmarshal(head, &rq) != nil {
		return 9
	}
	doc := rest[rq.Tar:]
	compiled := `{"compiled":{"rules":[{"id":"X-001","level":"deny"}],"profiles":[]}}` + "\n"
	say := func(d decision.Decision) {
		b, err := json.Marshal(d)
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s{\"decision\":%s}\n", compiled, b)
	}
	d := decision.New(string(artifact.DigestOf(rest[:rq.Tar])), string(artifact.DigestOf(doc)))
	d.Environment = "prod"
	d.Rules = []decision.Rule{{ID: "X-001", Level: "deny", Status: decision.Pass}}
	switch mode {
	case "good":
		d.Close()
		say(d)
	case "sleeps":
		fmt.Print(compiled)
		select {}
	case "floods":
		for {
			if _, err := os.Stdout.Write(bytes.Repeat([]byte("x"), 1<<20)); err != nil {
				return 1
			}
		}
	case "floods stderr":
		for range 64 {
			_, _ = os.Stderr.Write(bytes.Repeat([]byte("x"), 1<<20))
		}
		return 3
	case "nonsense":
		fmt.Println("allow")
	case "silent":
	case "half":
		fmt.Print(compiled + `{"decision":{"schema":`)
	case "no decision":
		fmt.Print(compiled)
	case "decides twice":
		d.Close()
		say(d)
		say(d)
	case "other policy":
		d.PolicyDigest = "sha256:" + strings.Repeat("1", 64)
		d.Close()
		say(d)
	case "other document":
		d.InputDigest = "sha256:" + strings.Repeat("1", 64)
		d.Close()
		say(d)
	case "other environment":
		d.Environment = "dev"
		d.Close()
		say(d)
	case "allows a failed rule":
		d.Rules[0].Status = decision.Fail
		d.Allow = true
		say(d)
	case "allows without rules":
		d.Rules, d.Allow = []decision.Rule{}, true
		say(d)
	case "allows with an error":
		d.Close()
		d.Error = "x"
		say(d)
	case "panics":
		panic("a builtin")
	case "exits 0 after an error":
		fmt.Print(compiled + `{"error":"the policy is broken"}` + "\n")
	case "decides and dies":
		d.Close()
		say(d)
		return 3
	}
	return 0
}

// Whatever a child does, the parent denies with the reason, in bounded time, and leaves nothing running.
func TestChildrenThatMisbehave(t *testing.T) {
	b := policy(t, "pass := true\nfail := set()")
	doc := base(t, b)
	fake := func(mode string) *box.Box {
		c := self(t)
		return box.New(box.Command{Path: c.Path, Args: []string{c.Args[0], fakeArg, mode}}, b, box.Limits{Timeout: 500 * time.Millisecond, Grace: 100 * time.Millisecond})
	}
	slow := func(mode string) *box.Box { // where the answer matters, not the time
		c := self(t)
		return box.New(box.Command{Path: c.Path, Args: []string{c.Args[0], fakeArg, mode}}, b, box.Limits{Timeout: time.Minute})
	}
	if d := slow("good").Evaluate(context.Background(), doc); !d.Allow {
		t.Fatalf("the fake must be able to allow, or this test shows nothing: %+v", d)
	}
	for mode, want := range map[string]string{
		"sleeps": "ran longer than 500ms and was killed", "floods": "wrote more than 8 MiB", "floods stderr": "died: exit status 3",
		"nonsense": "answered nonsense", "silent": "gave no decision", "half": "answered nonsense", "no decision": "gave no decision",
		"decides twice": "gave no decision", "other policy": "about something else", "other document": "about something else",
		"other environment": "own rules do not", "allows a failed rule": "own rules do not", "allows without rules": "own rules do not",
		"allows with an error": "own rules do not", "panics": "died: exit status 2", "exits 0 after an error": "the policy is broken",
		"decides and dies": "died: exit status 3",
	} {
		t.Run(mode, func(t *testing.T) {
			x := slow(mode)
			if mode == "sleeps" {
				x = fake(mode)
			}
			d := x.Evaluate(context.Background(), doc)
			if d.Allow || !strings.Contains(d.Error, want) {
				t.Errorf("allow %t, error %q, want %q", d.Allow, d.Error, want)
			}
			if d.PolicyDigest != string(b.Digest()) || d.InputDigest != string(artifact.DigestOf(doc)) {
				t.Errorf("digests: %+v", d)
			}
			none(t)
		})
	}
	t.Run("cannot be started", func(t *testing.T) {
		d := box.New(box.Command{Path: t.TempDir() + "/none", Args: []string{"none"}}, b, box.Limits{}).Evaluate(context.Background(), doc)
		if d.Allow || !strings.Contains(d.Error, "could not be run") {
			t.Errorf("%+v", d)
		}
	})
	t.Run("context ends", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		time.AfterFunc(50*time.Millisecond, cancel)
		if d := slow("sleeps").Evaluate(ctx, doc); d.Allow || !strings.Contains(d.Error, "context canceled") {
			t.Errorf("%+v", d)
		}
		none(t)
	})
}

// A child inside a child would be a machine full of children where a main forgets to ask IsChild.
func TestNoBoxInABox(t *testing.T) {
	b := policy(t, "pass := true\nfail := set()")
	t.Setenv("WAYBILL_POLICY_BOX", "1")
	if d := box.New(self(t), b, box.Limits{}).Evaluate(context.Background(), base(t, b)); d.Allow || !strings.Contains(d.Error, "may not start another") {
		t.Errorf("%+v", d)
	}
}

// In a box or not: the same bytes.
func TestSameDecision(t *testing.T) {
	for name, body := range map[string]string{
		"pass": "pass := true\nfail := set()", "fail": "pass := false\nfail contains {\"msg\": \"<no> & \u00e9\"}", "skip": "pass := false\nfail := set()\nskip := \"why\"",
		"error": "pass := 1 / count(input.exceptions) > 0\nfail := set()", "user": "package main\ndeny contains \"no\" if true",
	} {
		t.Run(name, func(t *testing.T) {
			b := policy(t, body)
			p, err := rego.Compile(context.Background(), b)
			if err != nil {
				t.Fatal(err)
			}
			for _, doc := range [][]byte{base(t, b), []byte("{}"), append(base(t, b), ' ')} {
				want, err := p.Evaluate(context.Background(), doc).Canonical()
				if err != nil {
					t.Fatal(err)
				}
				got, err := box.New(self(t), b, box.Limits{}).Evaluate(context.Background(), doc).Canonical()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("in the box:\n%s\nin process:\n%s", got, want)
				}
			}
		})
	}
}

// A policy that does not compile, or that the compiler does not survive, denies too; Describe says why.
func TestPoliciesThatDoNotCompile(t *testing.T) {
	deep := "package main\ndeny contains \"x\" if { a := " + strings.Repeat("[", 90000) + strings.Repeat("]", 90000) + "; a }"
	for name, c := range map[string]struct{ body, want string }{
		"does not parse": {"package main\ndeny contains", "a.rego:2"},
		"the clock":      {"package main\ndeny contains \"x\" if time.now_ns() > 0", "time.now_ns"},
		"nested deeply":  {deep, ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := policy(t, c.body)
			x := box.New(self(t), b, box.Limits{})
			d := x.Evaluate(context.Background(), base(t, b))
			t.Logf("error %.200q", d.Error)
			if d.Allow || d.Error == "" || !strings.Contains(d.Error, c.want) {
				t.Errorf("%+v", d)
			}
			if _, err := x.Describe(context.Background()); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("describe: %v", err)
			}
			none(t)
		})
	}
}

// Small files that keep the compiler busy for longer than anyone waits.
func TestCompilerBombs(t *testing.T) {
	for name, body := range map[string]string{
		"comprehensions": "package main\ndeny contains \"x\" if { a := " + strings.Repeat("[x | x := ", 4000) + "1" + strings.Repeat("]", 4000) + "; a }",
		"sum":            "package main\ndeny contains \"x\" if { a := 1" + strings.Repeat("+1", 50000) + "; a }",
	} {
		t.Run(name, func(t *testing.T) {
			b := policy(t, body)
			if n := len(b.Tar()); n > 200<<10 {
				t.Fatalf("%d bytes are no small file", n)
			}
			d := box.New(self(t), b, box.Limits{Timeout: time.Second, Grace: 200 * time.Millisecond}).Evaluate(context.Background(), base(t, b))
			if d.Allow || !strings.Contains(d.Error, "ran longer than 1s") {
				t.Errorf("%+v", d)
			}
			none(t)
		})
	}
}

func TestDescribe(t *testing.T) {
	b := policy(t, "pass := true\nfail := set()")
	c, err := box.New(self(t), b, box.Limits{}).Describe(context.Background())
	if err != nil || len(c.Rules) != 2 || c.Rules[1].ID != "X-001" {
		t.Errorf("%+v, %v", c, err)
	}
	x := box.New(self(t), b, box.Limits{})
	if x.Rules() != nil {
		t.Error("rules before anything was compiled")
	}
	if x.Evaluate(context.Background(), base(t, b)); len(x.Rules()) != 2 {
		t.Errorf("%+v", x.Rules())
	}
}

func TestDocumentTooLargeForABox(t *testing.T) {
	b := policy(t, "pass := true\nfail := set()")
	d := box.New(self(t), b, box.Limits{}).Evaluate(context.Background(), bytes.Repeat([]byte("x"), 100<<20))
	if d.Allow || !strings.Contains(d.Error, "limit") {
		t.Errorf("%+v", d)
	}
}
