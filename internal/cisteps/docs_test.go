package cisteps

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
)

// example is the first block of code below a heading of docs/ci.md, with what a reader has to fill in filled in.
func example(t *testing.T, heading, language string) string {
	t.Helper()
	raw, err := os.ReadFile("../../docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(raw), "\n## "+heading+"\n")
	_, code, ok2 := strings.Cut(section, "\n```"+language+"\n")
	code, _, ok3 := strings.Cut(code, "\n```\n")
	if !ok || !ok2 || !ok3 || strings.Contains(code, "\n## ") {
		t.Fatalf("docs/ci.md has no example of %s in %s", heading, language)
	}
	return strings.NewReplacer("@COMMIT", "@"+strings.Repeat("c", 40), "sha256:DIGEST", "sha256:"+strings.Repeat("d", 64), "SHA256 ", strings.Repeat("e", 64)+" ", ": SHA256", ": "+strings.Repeat("e", 64)).Replace(code) + "\n"
}

// schema compiles one of the published schemas, and sees that it does not take everything.
func schema(t *testing.T, name string) *jsonschema.Schema {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(schemas(t), name))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("mem:schema", doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("mem:schema")
	if err != nil {
		t.Fatal(err)
	}
	if s.Validate([]any{7}) == nil {
		t.Fatalf("%s accepts anything", name)
	}
	return s
}

// plainYAML reads a document into what a schema can be held against.
func plainYAML(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	x, err := jsonschema.UnmarshalJSON(bytes.NewReader(raw))
	if err != nil {
		t.Fatal(err)
	}
	return x.(map[string]any)
}

// tool is the path of a program that CI has.
func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal(err)
		}
		t.Skipf("%s is not installed; .ci/run shows how", name)
	}
	return p
}

// The action and the workflow of docs/ci.md are what GitHub takes by its published schemas.
func TestActionMatchesTheSchemas(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(actionDir, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema(t, "schemastore/github-action.json").Validate(plainYAML(t, string(raw))); err != nil {
		t.Error(err)
	}
	if err := schema(t, "schemastore/github-workflow.json").Validate(plainYAML(t, example(t, "GitHub Actions", "yaml"))); err != nil {
		t.Error(err)
	}
}

// actionlint reads the workflow of docs/ci.md with the action beside it: every input and output that it names must be there.
func TestDocsExampleForGitHub(t *testing.T) {
	program := tool(t, "actionlint")
	dir := t.TempDir()
	const local = "./.github/actions/waybill"
	flow := regexp.MustCompile(`waybill-ml/waybill/\.github/actions/waybill@\S+`).ReplaceAllString(example(t, "GitHub Actions", "yaml"), local)
	if !strings.Contains(flow, local) {
		t.Fatal("the example does not use the action")
	}
	action, err := os.ReadFile(filepath.Join(actionDir, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	lint := func(flow string) (string, error) {
		t.Helper()
		for name, text := range map[string]string{".github/workflows/release.yml": flow, ".github/actions/waybill/action.yml": string(action), ".git/HEAD": ""} {
			p := filepath.Join(dir, filepath.FromSlash(name))
			if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(program, "-no-color", "-shellcheck=", "-pyflakes=")
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := lint(flow); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, c := range [][3]string{{"          tag: ", "          tagg: ", `"tagg"`}, {"outputs.sarif }}", "outputs.sariff }}", `"sariff"`}} {
		bad := strings.Replace(flow, c[0], c[1], 1)
		if out, err := lint(bad); bad == flow || err == nil || !strings.Contains(out, c[2]) {
			t.Errorf("%q: actionlint sees nothing: %v\n%s", c[1], err, out)
		}
	}
	// Every other example of the section uses inputs that the action has.
	raw, err := os.ReadFile("../../docs/ci.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(raw), "\n## GitHub Actions\n")
	section, _, _ = strings.Cut(section, "\n## ")
	inputs := readAction(t).Inputs
	found := 0
	for _, m := range regexp.MustCompile(`(?m)^          ([a-z0-9-]+): `).FindAllStringSubmatch(section, -1) {
		if m[1] == "sarif_file" {
			continue
		}
		if found++; inputs[m[1]].Default == "" {
			if _, ok := inputs[m[1]]; !ok {
				t.Errorf("docs/ci.md names an input %s", m[1])
			}
		}
	}
	if found < 15 {
		t.Errorf("%d inputs found in the examples", found)
	}
}

// The pipeline of docs/ci.md is one by GitLab's schema, and what it gives to the component is what that asks for.
func TestDocsExampleForGitLab(t *testing.T) {
	text := example(t, "GitLab CI", "yaml")
	pipeline := plainYAML(t, text)
	with := map[string]string{}
	for n, v := range pipeline["include"].([]any)[0].(map[string]any)["inputs"].(map[string]any) {
		with[n] = v.(string)
	}
	spec, jobs := gitlab(t, with) // fails for an input that is not there
	stage := jobs["waybill"].(map[string]any)["stage"]
	if !strings.Contains(text, stage.(string)) {
		t.Errorf("the pipeline has no stage %s", stage)
	}
	for n, i := range spec["spec"].(map[string]any)["inputs"].(map[string]any) {
		about := i.(map[string]any)
		if _, given := with[n]; !given && about["default"] == nil {
			t.Errorf("the example gives no %s", n)
		}
		if re, ok := about["regex"].(string); ok && !regexp.MustCompile(re).MatchString(with[n]) {
			t.Errorf("%s is %q, which is not %s", n, with[n], re)
		}
	}
	if err := schema(t, "gitlab/gitlab-ci.json").Validate(pipeline); err != nil {
		t.Error(err)
	}
}

// The pipeline of docs/ci.md compiles with the real SDK, and its step has what the component has.
func TestDocsExampleForKubeflow(t *testing.T) {
	python := kfpPython(t)
	dir := t.TempDir()
	code := example(t, "Kubeflow Pipelines", "python") + "\nfrom kfp import compiler\ncompiler.Compiler().compile(pipeline, 'pipeline.yaml')\n"
	if err := os.WriteFile(filepath.Join(dir, "example.py"), []byte(code), 0o600); err != nil {
		t.Fatal(err)
	}
	where, err := filepath.Abs("../../integrations/kubeflow")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-B", "example.py")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PYTHONPATH="+where)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(filepath.Join(dir, "pipeline.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	var spec, platform map[string]any
	if err := d.Decode(&spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(&platform); err != nil {
		t.Fatal(err)
	}
	pipelineSpec(t, spec)
	text, err := json.Marshal(platform)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"WAYBILL_CI_KEY", "WAYBILL_CI_GATE_PASSWORD", "/etc/waybill"} {
		if !strings.Contains(string(text), name) {
			t.Errorf("the compiled pipeline has no %s", name)
		}
	}
}

// validReports holds the reports of a step against their published schemas, where these are at hand.
func (w *world) validReports(junit, sarif string) {
	w.t.Helper()
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		return
	}
	raw, err := os.ReadFile(sarif)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := schema(w.t, "sarif-2.1.0/sarif-schema-2.1.0.json").Validate(plainYAML(w.t, string(raw))); err != nil {
		w.t.Errorf("SARIF: %v", err)
	}
	program, err := exec.LookPath("xmllint")
	if err != nil {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			w.t.Fatal(err)
		}
		return
	}
	for _, name := range []string{"jenkins-junit-10.xsd", "windyroad-JUnit.xsd"} {
		if out, err := exec.Command(program, "--nonet", "--noout", "--schema", filepath.Join(dir, "junit", name), junit).CombinedOutput(); err != nil {
			w.t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// The steps are clean by shellcheck, as a script of a plain POSIX shell.
func TestStepsAreCleanShell(t *testing.T) {
	if out, err := exec.Command(tool(t, "shellcheck"), "--shell=sh", filepath.Join(actionDir, "steps.sh")).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
