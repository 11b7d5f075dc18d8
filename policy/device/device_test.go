package device

import (
	"bytes"
	"context"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/waybill-ml/waybill/edge-runtime/deviceinput"
	"github.com/waybill-ml/waybill/edge-runtime/deviceinput/deviceinputtest"
	"github.com/waybill-ml/waybill/edge-runtime/devicepolicy"
	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/policy/bundle"
	policyrego "github.com/waybill-ml/waybill/policy/rego"
)

const head = "package waybill.device\n\ndefault allow := false\n\n"

func policyOf(t testing.TB, files map[string]string) *bundle.Bundle {
	t.Helper()
	fsys := fstest.MapFS{}
	for n, c := range files {
		fsys[n] = &fstest.MapFile{Data: []byte(c)}
	}
	b, err := bundle.FromFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func one(t testing.TB, body string) *bundle.Bundle {
	t.Helper()
	return policyOf(t, map[string]string{"device.rego": head + body})
}

// opa prepares allow in OPA itself: the other reading of the same files.
func opa(t testing.TB, b *bundle.Bundle, strict bool) func(raw []byte) (bool, error) {
	t.Helper()
	files, err := Modules(b)
	if err != nil {
		t.Fatal(err)
	}
	opts := []func(*rego.Rego){rego.Query("data.waybill.device.allow"), rego.StrictBuiltinErrors(strict)}
	for n, c := range files {
		opts = append(opts, rego.Module(n, c))
	}
	q, err := rego.New(opts...).PrepareForEval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return func(raw []byte) (bool, error) {
		v, err := ast.ValueFromReader(bytes.NewReader(raw))
		if err != nil {
			return false, err
		}
		rs, err := q.Eval(context.Background(), rego.EvalParsedInput(v))
		return rs.Allowed(), err
	}
}

func encode(t testing.TB, d *deviceinput.Document) []byte {
	t.Helper()
	raw, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// unsafe are policies that allow when a reading fails. Every one compiles; without the lint it allows on a device whose
// readings have all failed, though its author wanted none of them to.
var unsafe = []struct{ name, rego, want string }{
	{"not over a reading", `allow if not input.device.battery.charging`, "`not` over a value that may be missing"},
	{"not over a comparison", `allow if not input.device.battery.percent == 5`, "`not` over a value that may be missing"},
	{"not over a label", `allow if not input.device.labels.frozen`, "`not` over a value that may be missing"},
	{"not over an alias", "allow if {\n\tb := input.device.battery\n\tnot b.charging\n}", "`not` over a value that may be missing"},
	{"not over an import", "import input.device as d\nallow if not d.metered.value", "`not` over a value that may be missing"},
	{"not over a helper", "low if input.device.battery.percent < 30\nallow if not low", "`not` over a value that may be missing"},
	{"not over a helper of a helper", "low if input.device.battery.percent < 30\nbad if low\nallow if not bad", "`not` over a value that may be missing"},
	{"a helper that is false by default", "default low := false\nlow if input.device.battery.percent < 30\nallow if low == false", "low has a default"},
	{"a helper with an else", "low := true if {\n\tinput.device.battery.percent < 30\n} else := false\nallow if low == false", "low has an else"},
	{"not over a function", "low(x) if x < 30\nallow if not low(input.device.battery)", "`not` over a value that may be missing"},
	{"not in a function, of its parameter", "ok(b) if not b.charging\nallow if ok(input.device.battery)", "`not` over a value that may be missing"},
	{"a function with an else", "low(b) := true if {\n\tb.percent < 30\n} else := false\nallow if low(input.device.battery) == false", "low has an else"},
	{"an empty comprehension", "allow if count([x | x := input.device.battery.percent; x < 30]) == 0", "a comprehension"},
	{"an empty set comprehension", "allow if {x | x := input.device.temperature.celsius; x > 60} == set()", "a comprehension"},
	{"a comprehension over a helper", "hot if input.device.temperature.celsius > 60\nallow if [1 | hot] == []", "a comprehension"},
	{"an empty set", "bad contains \"battery\" if input.device.battery.percent < 30\nallow if count(bad) == 0", "bad is a set or object"},
	{"an empty object", "bad[\"battery\"] := 1 if input.device.battery.percent < 30\nallow if count(bad) == 0", "count sees which readings are missing"},
	{"an object of rules", "bad.battery := 1 if input.device.battery.percent < 30\nbad.other := 1 if input.device.class == \"x\"\nallow if data.waybill.device.bad == {}", "is an object of rules"},
	{"a default for a reading", `allow if object.get(input.device.battery, "percent", 100) >= 30`, "object.get sees which readings are missing"},
	{"a default for a reading by path", `allow if object.get(input, ["device", "battery", "percent"], 100) >= 30`, "object.get sees which readings are missing"},
	{"a merged default", `allow if object.union({"percent": 100}, input.device.battery).percent >= 30`, "object.union sees which readings are missing"},
	{"members counted", `allow if count(input.device.battery) < 3`, "count sees which readings are missing"},
	{"members named", `allow if count(object.keys(input.device.battery) & {"percent"}) == 0`, "object.keys sees which readings are missing"},
	{"every over readings", "allow if {\n\tevery x in input.device.battery {\n\t\tx != 5\n\t}\n}", "`every` over readings"},
	{"a reading replaced", "ok if input.device.battery.percent >= 30\nallow if ok with input.device.battery.percent as 100", "`with` replaces"},
	{"not by a variable", "allow if {\n\tsome k in [\"charging\"]\n\tnot input.device.battery[k]\n}", "`not` over a value that may be missing"},
	{"a set of labels that lacks one", `allow if ("frozen" in input.device.labels) == false`, "`in` sees which readings are missing"},
	{"not over a document that no device has", `allow if not data.limits.paused`, "data.limits.paused is not on the device"},
	{"not over a rule of the gate", `allow if not data.main.deny`, "data.main.deny is not on the device"},
	{"a rule that nobody asks", "allow if input.device.class != \"\"\ndeny if input.device.memory.known == false", "deny is never asked"},
	{"allow by default", "", "must be false"},
	{"allow else", "allow if {\n\tinput.device.battery.percent >= 30\n} else := true", "allow has an else"},
}

// safe are policies that the lint accepts.
var safe = []struct{ name, rego string }{
	{"a comparison", `allow if input.device.battery.percent >= 30`},
	{"the other way round", `allow if input.device.temperature.celsius < 60`},
	{"false by value", `allow if input.device.metered.value == false`},
	{"unequal", `allow if input.device.power.source != "battery"`},
	{"an alias", "allow if {\n\tb := input.device.battery\n\tb.percent >= 30\n}"},
	{"a helper", "full if input.device.battery.percent >= 30\nfull if input.device.battery.charging == true\nallow if full"},
	{"a function", "within(x, low, high) if {\n\tx >= low\n\tx <= high\n}\nallow if within(input.device.battery.percent, 30, 100)"},
	{"computed", "allow if {\n\tneed := input.model.memory.bytes * 2\n\tinput.device.memory.freeBytes - need > 1000000\n}"},
	{"hours", "allow if {\n\tinput.time.local.minutesOfDay >= 60\n\tinput.time.local.minutesOfDay < 300\n\tinput.time.local.weekday in {\"saturday\", \"sunday\"}\n}"},
	{"not over what is always there", "allow if {\n\tnot input.device.class in {\"edge-xs\"}\n\tinput.device.storage.freeBytes > 1000\n}"},
	{"a label", "allow if {\n\tinput.device.labels.site == \"a\"\n\tinput.device.memory.freeBytes > 1\n}"},
	{"a label with its default", "allow if {\n\tring := object.get(input.device.labels, \"ring\", \"stable\")\n\tnot ring == \"frozen\"\n\tinput.device.network.connected == true\n}"},
	{"any label", "allow if {\n\t\"a\" in input.device.labels\n\tinput.device.storage.freeBytes > 1\n}"},
	{"constants", "big := {\"edge-l\", \"edge-xl\"}\nneeds := {\"edge-l\": 10, \"edge-xl\": 20}\nallow if {\n\tinput.device.class in big\n\tinput.device.battery.percent >= needs[input.device.class]\n}\nallow if {\n\tnot input.device.class in big\n\tinput.device.battery.percent >= 50\n}"},
	{"a comprehension over constants", "limits := [20, 30, 40]\nallow if {\n\thigh := [x | some x in limits; x > 25]\n\tinput.device.battery.percent >= min(high)\n}"},
	{"reasons as they like", "allow if input.device.battery.percent >= 30\nreasons contains \"no battery reading\" if not input.device.battery.percent"},
	{"a default that no reading feeds", "default ring := 1\nring := 2 if input.device.class == \"edge-s\"\nallow if {\n\tring == 2\n\tinput.device.battery.percent >= 30\n}"},
	{"fails in a builtin", "allow if {\n\tto_number(input.device.labels.limit) < input.device.battery.percent\n}\nallow if {\n\t100 / (input.device.battery.percent - 50) > 2\n}"},
	{"every over constants", "allow if {\n\tevery x in [10, 20] {\n\t\tinput.device.battery.percent > x\n\t}\n}"},
}

// blind is a device whose every reading failed.
func blind() *deviceinput.Document {
	d := deviceinputtest.Good()
	forget(d, func(string) bool { return true })
	d.Device.Labels = map[string]string{}
	return d
}

// forget makes readings fail.
func forget(d *deviceinput.Document, which func(name string) bool) {
	x := &d.Device
	for name, f := range map[string]func(){
		"local":       func() { d.Time.Local = deviceinput.Local{} },
		"memory":      func() { x.Memory = deviceinput.Memory{} },
		"storage":     func() { x.Storage = deviceinput.Storage{} },
		"battery":     func() { x.Battery = deviceinput.Battery{} },
		"power":       func() { x.Power = deviceinput.Power{} },
		"network":     func() { x.Network = deviceinput.Network{} },
		"metered":     func() { x.Metered = deviceinput.Metered{} },
		"temperature": func() { x.Temperature = deviceinput.Temperature{} },
		"need":        func() { d.Model.Memory = deviceinput.Need{} },
		"current":     func() { d.Current = deviceinput.Current{} },
	} {
		if which(name) {
			f()
		}
	}
}

func TestLintRefuses(t *testing.T) {
	for _, c := range unsafe {
		t.Run(c.name, func(t *testing.T) {
			b := one(t, c.rego)
			if c.name == "allow by default" {
				b = policyOf(t, map[string]string{"device.rego": "package waybill.device\n\ndefault allow := true\n"})
			}
			_, err := Compile(t.Context(), b)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "device.rego:") {
				t.Fatalf("got %v, want %q with file and line", err, c.want)
			}
			// The check left out: on a blind device the module allows.
			modules, found, err := parse(b)
			if err != nil || len(found) > 0 {
				t.Fatal(found, err)
			}
			if _, found := check(modules); len(found) > 0 {
				t.Fatalf("refused without the lint too: %v", found)
			}
			m, err := build(t.Context(), modules)
			if err != nil {
				t.Fatal(err)
			}
			in := encode(t, blind())
			p := load(t, m.Code)
			if d := p.Evaluate(t.Context(), in); !d.Allow {
				t.Errorf("without the lint it does not allow either: %+v", d)
			}
			if ok, err := opa(t, b, false)(in); !ok {
				t.Errorf("OPA does not allow either: %v", err)
			}
		})
	}
}

func load(t testing.TB, code []byte) *devicepolicy.Policy {
	t.Helper()
	e, err := engine.New(t.Context(), engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := devicepolicy.Load(t.Context(), e, code, devicepolicy.WithTimeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = p.Close(context.Background())
		_ = e.Close(context.Background())
	})
	return p
}

// What the lint accepts never allows with fewer readings what it did not allow with more, and the module and OPA agree,
// whether or not a builtin fails.
func TestSafePolicies(t *testing.T) {
	const inputs = 160
	var cases, allowed, failed int
	for i, c := range safe {
		t.Run(c.name, func(t *testing.T) {
			b := one(t, c.rego)
			m, err := Compile(t.Context(), b)
			if err != nil {
				t.Fatal(err)
			}
			p, lax, strict := load(t, m.Code), opa(t, b, false), opa(t, b, true)
			rng := rand.New(rand.NewPCG(uint64(i), 7))
			yes := 0
			for range inputs {
				d := deviceinputtest.Random(rng)
				full := encode(t, d)
				got := p.Evaluate(t.Context(), full)
				if got.Err != nil {
					t.Fatalf("%v\n%s", got.Err, full)
				}
				want, err := lax(full)
				if err != nil {
					t.Fatal(err)
				}
				if got.Allow != want {
					t.Fatalf("the module says %v, OPA %v\n%s", got.Allow, want, full)
				}
				// A builtin that fails can only take a way to be allowed away.
				sure, serr := strict(full)
				if serr != nil {
					failed++
				} else if sure != got.Allow {
					t.Fatalf("strict OPA says %v, the module %v\n%s", sure, got.Allow, full)
				}
				cases++
				if got.Allow {
					yes++
				}
				forget(d, func(string) bool { return rng.IntN(3) == 0 })
				less := encode(t, d)
				if got.Allow {
					continue
				}
				if again := p.Evaluate(t.Context(), less); again.Allow {
					t.Fatalf("not allowed with\n%s\nallowed with less known\n%s", full, less)
				}
			}
			allowed += yes
			if yes == 0 || yes == inputs {
				t.Errorf("allowed %d of %d: the inputs say nothing", yes, inputs)
			}
			if d := p.Evaluate(t.Context(), encode(t, blind())); d.Allow {
				t.Errorf("allowed on a blind device: %+v", d)
			}
		})
	}
	t.Logf("%d inputs, %d allowed, the same in the module and in OPA; a builtin failed in %d", cases, allowed, failed)
	if failed == 0 {
		t.Error("no builtin ever failed")
	}
}

func TestCompileRefuses(t *testing.T) {
	for name, c := range map[string]struct{ rego, want string }{
		"a member that no input has":  {"allow if input.device.batery.percent > 3", "device.rego:5: rego_type_error: undefined ref: input.device.batery"},
		"a clock":                     {"allow if time.now_ns() > 3", "device.rego:5: rego_type_error: undefined function time.now_ns (a device has no clock"},
		"the network":                 {`allow if http.send({"method":"get","url":"http://example.com"}).status_code == 200`, "undefined function http.send (not one of the"},
		"a builtin of the host":       {`allow if sprintf("%d", [input.device.battery.percent]) == "3"`, "undefined function sprintf"},
		"another builtin of the host": {`allow if semver.compare(input.model.version, "1.0.0") > 0`, "undefined function semver.compare"},
		"random":                      {`allow if rand.intn("x", 2) == 1`, "undefined function rand.intn"},
		"no syntax":                   {"allow if {", "device.rego:5: rego_parse_error"},
		"types that never fit":        {`allow if input.device.battery.percent == "30"`, "device.rego:5: rego_type_error"},
		"two values":                  {"allow := true if input.device.class == \"a\"\nallow := false if input.device.class == \"b\"", "may only be true"},
		"a function":                  {"", "there is no allow"},
	} {
		t.Run(name, func(t *testing.T) {
			b := one(t, c.rego)
			if name == "a function" {
				b = policyOf(t, map[string]string{"device.rego": "package waybill.device\n\nyes if true\n"})
			}
			if _, err := Compile(t.Context(), b); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
		})
	}
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"no device policy": {map[string]string{"a.rego": "package waybill.rules.met_001\n"}, "no file is in package waybill.device"},
		"data":             {map[string]string{"a.rego": head, "data.json": `{"limit":3}`}, "a device has no data documents"},
		"no default":       {map[string]string{"a.rego": "package waybill.device\n\nallow if input.device.class == \"a\"\n"}, "`default allow := false` is missing"},
	} {
		if _, err := Compile(t.Context(), policyOf(t, c.files)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

// The same files give the same bytes, in whatever order the compiler meets them and whatever else is in the folder.
func TestDeterministic(t *testing.T) {
	files := map[string]string{"a.rego": head + "import data.waybill.device.hours\n\nallow if {\n\thours.night\n\tinput.device.battery.percent >= 30\n}\n",
		"lib/hours.rego": "package waybill.device.hours\n\nnight if input.time.local.minutesOfDay < 300\n\nnight if input.time.local.minutesOfDay >= 1380\n"}
	first, err := Compile(t.Context(), policyOf(t, files))
	if err != nil {
		t.Fatal(err)
	}
	files["gate.rego"] = "package waybill.rules.met_001\n\npass := true\n"
	for range 10 {
		m, err := Compile(t.Context(), policyOf(t, files))
		if err != nil {
			t.Fatal(err)
		}
		if m.Digest != first.Digest || !bytes.Equal(m.Code, first.Code) {
			t.Fatalf("%s, then %s", first.Digest, m.Digest)
		}
	}
}

// The example in the repository: its own tests pass, no lint finds anything, and devices can load it.
func TestExample(t *testing.T) {
	fsys := os.DirFS("../../examples/device-policy")
	b, err := bundle.FromFS(fsys)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Compile(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := fs.ReadFile(fsys, "input.json")
	if err != nil {
		t.Fatal(err)
	}
	if d := load(t, m.Code).Evaluate(t.Context(), raw); d.Allow || d.Why() != "battery 12 %, needs 30 % or mains" {
		t.Errorf("%+v", d)
	}
	rs, err := policyrego.RunTests(t.Context(), fsys, policyrego.TestOptions{Timeout: time.Minute})
	if err != nil || len(rs) < 10 {
		t.Fatalf("%d tests, %v", len(rs), err)
	}
	for _, r := range rs {
		if r.Status != policyrego.TestPassed {
			t.Errorf("%s:%d %s: %s", r.File, r.Line, r.Name, r.Reason)
		}
	}
}

// The example in the documentation compiles.
func TestDocumentation(t *testing.T) {
	raw, err := os.ReadFile("../../docs/device-policy.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(strings.ReplaceAll(string(raw), "\r\n", "\n"), "```rego\n")
	code, _, ok2 := strings.Cut(rest, "```\n")
	if !ok || !ok2 {
		t.Fatal("there is no example")
	}
	if _, err := Compile(t.Context(), policyOf(t, map[string]string{"device.rego": code})); err != nil {
		t.Error(err)
	}
}

// Every builtin of the list is compiled into the module: one that asked its host for it would not load. A newer OPA that moves
// one to the host shows here.
func TestBuiltinsAreInTheModule(t *testing.T) {
	arg := func(of types.Type) string {
		switch of.(type) {
		case types.Number:
			return "2"
		case types.String:
			return `"a"`
		case *types.Array:
			return `["a", "b"]`
		case *types.Set:
			return `{"a"}`
		case *types.Object:
			return `{"a": 1}`
		}
		return `{{"a"}}`
	}
	special := map[string]string{"numbers.range": "numbers.range(1, 3)", "object.get": `object.get({"a": 1}, "a", 2)`, "to_number": `to_number("1")`,
		"count": `count("a")`, "sum": "sum([1])", "product": "product([1])", "max": "max([1])", "min": "min([1])", "concat": `concat("a", ["b"])`,
		"sort": "sort([1])", "internal.member_2": `1 in [1]`, "internal.member_3": `0, 1 in [1]`, "internal.template_string": `$"a {input.device.class}"`,
		"array.slice": "array.slice([1], 0, 1)", "object.keys": `object.keys({"a": 1})`, "object.remove": `object.remove({"a": 1}, ["a"])`, "object.filter": `object.filter({"a": 1}, ["a"])`,
		"and": "{1} & {2}", "or": "{1} | {2}", "minus": "3 - 2", "intersection": "intersection({{1}})", "union": "union({{1}})", "glob.match": `glob.match("a*", ["."], "ab")`}
	var body strings.Builder
	n := 0
	for _, name := range builtins {
		b, ok := ast.BuiltinMap[name]
		if !ok {
			t.Errorf("OPA has no builtin %s", name)
			continue
		}
		if name == "eq" || name == "assign" {
			continue // compiled away
		}
		call, ok := special[name]
		if !ok {
			var args []string
			for _, a := range b.Decl.FuncArgs().Args {
				args = append(args, arg(a))
			}
			call = name + "(" + strings.Join(args, ", ") + ")"
		}
		n++
		// Through a value that is not known when it is compiled, so that nothing is worked out beforehand.
		body.WriteString("used contains x if {\n\tinput.device.class == \"edge-s\"\n\tx := " + call + "\n}\n\n")
	}
	m, err := Compile(t.Context(), one(t, "allow if count(used) > 0\n\n"+body.String()))
	if err != nil {
		t.Fatal(err)
	}
	d := deviceinputtest.Good()
	d.Device.Class = "edge-s"
	if got := load(t, m.Code).Evaluate(t.Context(), encode(t, d)); !got.Allow {
		t.Errorf("%+v", got)
	}
	t.Logf("%d builtins", n)
}
