package jsbundle

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/abi"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// project is a folder of programs beside a bundle, which is installed as the package churn.
type project struct {
	dir  string
	args []string
}

// typescript makes one. WAYBILL_TSC names the compiler; the types of Node are taken from beside it.
func typescript(t *testing.T, bundle string) *project {
	t.Helper()
	tsc, err := filepath.EvalSymlinks(tool(t, os.Getenv("WAYBILL_TSC"), "tsc"))
	if err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join(filepath.Dir(tsc), "..", "..") // node_modules/typescript/bin/tsc
	if _, err := os.Stat(filepath.Join(modules, "@types", "node")); err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatalf("there is no @types/node beside %s", tsc)
		}
		t.Skipf("there is no @types/node beside %s", tsc)
	}
	p := &project{t.TempDir(), []string{tool(t, "node"), tsc, "--noEmit", "--pretty", "false", "--strict", "--skipLibCheck", "false"}}
	if err := os.Mkdir(filepath.Join(p.dir, "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, to := range map[string]string{"churn": bundle, "@types": filepath.Join(modules, "@types"), "undici-types": filepath.Join(modules, "undici-types")} {
		if err := os.Symlink(to, filepath.Join(p.dir, "node_modules", name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(p.dir, "package.json"), []byte(`{"type": "module", "private": true}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return p
}

var tscError = regexp.MustCompile(`(?m)^(\S+?)\(\d+,\d+\): error (TS\d+): (.*)$`)

// check gives what the compiler finds in each program, as "TS2322 message".
func (p *project) check(t *testing.T, args []string, programs map[string]string) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), p.args[0], append(p.args[1:len(p.args):len(p.args)], args...)...)
	cmd.Dir = p.dir
	for name, text := range programs {
		if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd.Args = append(cmd.Args, name)
	}
	out, err := cmd.CombinedOutput()
	found := map[string][]string{}
	for _, m := range tscError.FindAllStringSubmatch(string(out), -1) {
		found[m[1]] = append(found[m[1]], m[2]+" "+m[3])
	}
	if err != nil && len(found) == 0 || err == nil && len(found) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	return found
}

// A user's program has its types checked: what is right passes, with the library checked too, and what is wrong does not.
func TestTypes(t *testing.T) {
	w := example(t)
	_, dir := w.bundle(t, Options{})
	p := typescript(t, dir)
	in, out := quote(w.iface.Inputs[0].Name), quote(w.iface.Outputs[0].Name)
	head := "import { load } from 'churn';\nconst model = await load();\n"
	run := func(inputs string) string { return head + "await model.run(" + inputs + ");\n" }
	tensor := "{ dtype: 'f32', shape: [1, 30], data: new Float32Array(30) }"
	use := fmt.Sprintf(`const model = await load({ digest: 'sha256:00', prove: true, maxMemory: 1 << 20, log: (step, line) => console.log(step + line) });
const x: Inputs = { %s: %s };
const y: Outputs = await model.run(x, { signal: AbortSignal.timeout(1000) });
const t = y[%s];
const n: number = t.shape[0] + t.data.length;
const handle: (r: Request) => Promise<Response> = fetchHandler({ maxBody: 1 << 20, maxQueue: 4, log: (line) => console.log(line) });
await handle(new Request('https://example.com/v2'));
console.log(n);
`, in, tensor, out)
	good := map[string]string{
		"package.mts": "import { load, fetchHandler, serve, type Inputs, type Outputs } from 'churn';\n" + use +
			"const server = await serve({ host: '127.0.0.1', port: 0, prove: true });\nserver.close();\n",
		"file.mts": "import { load, fetchHandler, type Inputs, type Outputs } from './node_modules/churn/node.mjs';\n" + use,
	}
	bad := map[string]struct{ text, says string }{
		"dtype.mts":   {run(fmt.Sprintf("{ %s: { dtype: 'f64', shape: [1, 30], data: new Float64Array(30) } }", in)), `"f32"`},
		"array.mts":   {run(fmt.Sprintf("{ %s: { dtype: 'f32', shape: [1, 30], data: new Float64Array(30) } }", in)), "Float32Array"},
		"list.mts":    {run(fmt.Sprintf("{ %s: { dtype: 'f32', shape: [1, 30], data: [1, 2] } }", in)), "Float32Array"},
		"strings.mts": {run(fmt.Sprintf("{ %s: { dtype: 'string', shape: [1], strings: ['a'] } }", in)), "f32"},
		"shape.mts":   {run(fmt.Sprintf("{ %s: { dtype: 'f32', shape: '1', data: new Float32Array(30) } }", in)), "number[]"},
		"missing.mts": {run("{}"), "is missing in type '{}'"},
		"none.mts":    {run(""), "argument"},
		"unknown.mts": {run(fmt.Sprintf("{ %s: %s, other: %s }", in, tensor, tensor)), "other"},
		"output.mts":  {head + fmt.Sprintf("const y = await model.run({ %s: %s });\ny.other;\n", in, tensor), "other"},
		"digest.mts":  {"import { load } from 'churn';\nawait load({ digest: 7 });\n", "string"},
		"option.mts":  {"import { load } from 'churn';\nawait load({ proove: true });\n", "prove"},
		"name.mts":    {"import { lode } from 'churn';\nlode;\n", "lode"},
		"base.mts":    {"import { load } from 'churn';\nawait load({ base: 'https://example.com' });\n", "base"}, // a browser's
	}
	programs := map[string]string{}
	for name, text := range good {
		programs[name] = text
	}
	for name, c := range bad {
		programs[name] = c.text
	}
	found := p.check(t, []string{"--module", "nodenext", "--target", "es2022", "--types", "node"}, programs)
	for name, errs := range found {
		if _, ok := bad[name]; !ok {
			t.Errorf("%s: %s", name, strings.Join(errs, "\n"))
		}
	}
	for name, c := range bad {
		if errs := found[name]; !strings.Contains(strings.Join(errs, "\n"), c.says) {
			t.Errorf("%s: the compiler finds %q, want something about %s", name, errs, c.says)
		}
	}

	// For a page, which has neither Node's types nor its entry.
	page := map[string]string{
		"page.ts":  "import { load, fetchHandler, type Inputs, type Outputs } from 'churn';\nawait load({ base: new URL('https://example.com/churn/') });\n" + use,
		"serve.ts": "import { serve } from 'churn';\nserve;\n",
	}
	found = p.check(t, []string{"--module", "esnext", "--moduleResolution", "bundler", "--target", "es2022", "--lib", "es2022,dom", "--types", ""}, page)
	if len(found) != 1 || len(found["serve.ts"]) != 1 || !strings.Contains(found["serve.ts"][0], "serve") {
		t.Errorf("%q, want one about serve", found)
	}
}

// Whatever a model has as inputs and outputs, and however it calls them, model.d.mts says it.
func TestTypesOfEveryKind(t *testing.T) {
	w := example(t)
	_, dir := w.bundle(t, Options{})
	p := typescript(t, dir)
	iface := *w.iface
	iface.Inputs, iface.Outputs = nil, nil
	var use strings.Builder
	use.WriteString("import { load, type Inputs } from 'churn';\nexport async function f(x: Inputs): Promise<void> {\n  await (await load()).run(x);\n")
	for _, d := range abi.DTypes() {
		iface.Inputs = append(iface.Inputs, artifact.Port{Name: d.Name, Kind: "tensor", DType: d.Name})
		member := "data.byteLength"
		if d.Name == "string" {
			member = "strings.length"
		}
		fmt.Fprintf(&use, "  { const t: %s = x[%s].dtype; const n: number = x[%s].%s; console.log(t, n); }\n", quote(d.Name), quote(d.Name), quote(d.Name), member)
	}
	if len(iface.Inputs) < 15 {
		t.Fatalf("%d types", len(iface.Inputs))
	}
	for _, kind := range []string{"sequence", "optional", "map"} {
		iface.Inputs = append(iface.Inputs, artifact.Port{Name: kind, Kind: kind, DType: "f32"})
		fmt.Fprintf(&use, "  { const k: %s = x[%s].kind; console.log(k, x[%s].elems.length); }\n", quote(kind), quote(kind), quote(kind))
	}
	for _, name := range []string{"", "a b", `"`, "'", "*/", "\n", "\u2028", "__proto__", "constructor", "7", "é", `\`, "${x}", "class"} {
		iface.Outputs = append(iface.Outputs, artifact.Port{Name: name, Kind: "tensor", DType: "f32", Ranked: true, Shape: []artifact.Dim{{Size: -1, Sym: "*/ " + name}, {Size: -1}, {Size: 3}}})
	}
	use.WriteString("}\n")
	if err := os.WriteFile(filepath.Join(dir, "model.d.mts"), types(&iface), 0o600); err != nil {
		t.Fatal(err)
	}
	if found := p.check(t, []string{"--module", "nodenext", "--target", "es2022", "--types", "node"}, map[string]string{"use.mts": use.String()}); len(found) > 0 {
		t.Errorf("%q", found)
	}
}
