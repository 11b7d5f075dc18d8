package cisteps

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

const component = "../../templates/waybill.yml"

// gitlab reads both documents of the component: its inputs, and the job with the values that inputs have.
func gitlab(t *testing.T, with map[string]string) (spec, job map[string]any) {
	t.Helper()
	raw, err := os.ReadFile(component)
	if err != nil {
		t.Fatal(err)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	var second map[string]any
	if err := d.Decode(&spec); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(&second); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(new(any)); err != io.EOF {
		t.Fatalf("a third document: %v", err)
	}
	values := map[string]string{}
	for n, i := range spec["spec"].(map[string]any)["inputs"].(map[string]any) {
		if v, ok := i.(map[string]any)["default"]; ok {
			values[n] = v.(string)
		}
	}
	for n, v := range with {
		if _, ok := spec["spec"].(map[string]any)["inputs"].(map[string]any)[n]; !ok {
			t.Fatalf("the component has no input %s", n)
		}
		values[n] = v
	}
	// GitLab puts inputs into the texts of the parsed document, so that a value cannot leave its place in the YAML.
	ref := regexp.MustCompile(`\$\[\[ inputs\.([a-z0-9-]+) \]\]`)
	var fill func(any) any
	fill = func(v any) any {
		switch v := v.(type) {
		case string:
			return ref.ReplaceAllStringFunc(v, func(m string) string {
				x, ok := values[ref.FindStringSubmatch(m)[1]]
				if !ok {
					t.Fatalf("%s has no value", m)
				}
				return x
			})
		case []any:
			for i := range v {
				v[i] = fill(v[i])
			}
			return v
		case map[string]any:
			out := map[string]any{}
			for k, x := range v {
				out[fill(k).(string)] = fill(x)
			}
			return out
		}
		return v
	}
	return spec, fill(second).(map[string]any)
}

const jobImage = "reg.example/tools/waybill@sha256:1678a013e1b1a0449bd46bc90877ad7286e0cc097b107ba72f829f441614adab"

// runGitLab runs the job's script as GitLab's shell does: variables in the environment, the lines of the script one after another.
func (w *world) runGitLab(with map[string]string, secrets ...string) (string, int) {
	w.t.Helper()
	with["job-image"] = jobImage
	_, jobs := gitlab(w.t, with)
	job := jobs["waybill"].(map[string]any)
	env := append([]string{"CI=true", "GITLAB_CI=true"}, secrets...)
	for n, v := range job["variables"].(map[string]any) {
		if m, ok := v.(map[string]any); ok {
			v = m["value"]
		}
		env = append(env, n+"="+v.(string))
	}
	script := ""
	for _, l := range job["script"].([]any) {
		script += l.(string) + "\n"
	}
	_, log, code := w.exec(env, "bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script)
	return log, code
}

func TestGitLabComponentDeniesThenReleases(t *testing.T) {
	w := newWorld(t)
	w.govern()
	with := map[string]string{"project": "model", "image": w.repo, "tag": "1.0.0", "environment": "staging", "waybill": "waybill", "sign": "key", "gate-sign": "key"}
	secrets := []string{"WAYBILL_CI_KEY=publisher.key", "WAYBILL_CI_GATE_KEY=gate.key", "WAYBILL_CI_PASSWORD=" + passphrase, "WAYBILL_CI_GATE_PASSWORD=" + passphrase}
	log, code := w.runGitLab(with, secrets...)
	if code != 4 || w.hasTag("1.0.0") || strings.Contains(log, passphrase) {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	if !strings.Contains(w.file(".waybill-ci/gate.xml"), "<failure") || !json.Valid([]byte(w.file(".waybill-ci/gate.codequality.json"))) {
		t.Error("the reports are not there")
	}
	w.validReports(filepath.Join(w.dir, ".waybill-ci/gate.xml"), filepath.Join(w.dir, ".waybill-ci/gate.sarif"))
	env := w.file(".waybill-ci/waybill.env")
	m := regexp.MustCompile(`^WAYBILL_DIGEST=(sha256:[0-9a-f]{64})\nWAYBILL_REFERENCE=(\S+)\nWAYBILL_VERDICT=FAILED\nWAYBILL_DEPLOYED=\n$`).FindStringSubmatch(env)
	if m == nil {
		t.Fatalf("dotenv: %q", env)
	}
	w.measure(m[2])
	if log, code = w.runGitLab(with, secrets...); code != 0 || !w.hasTag("1.0.0") || !strings.Contains(w.file(".waybill-ci/waybill.env"), "WAYBILL_VERDICT=PASSED\n") {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	if left, err := filepath.Glob(filepath.Join(w.dir, "tmp", "waybill.*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

func TestGitLabComponentRunsNoInput(t *testing.T) {
	w := newWorld(t)
	mark := filepath.Join(w.dir, "owned")
	spec, _ := gitlab(t, map[string]string{"job-image": jobImage})
	for n := range spec["spec"].(map[string]any)["inputs"].(map[string]any) {
		if n == "job-image" || n == "job-name" || n == "stage" { // GitLab's own, and no variable of the script
			continue
		}
		with := map[string]string{"project": "model", "image": w.repo, "environment": "staging", "waybill": "waybill", "sign": "none", "gate-sign": "dry-run"}
		with[n] = strings.Join(hostile(mark), " ")
		if log, code := w.runGitLab(with); code == 0 && n != "trust" {
			t.Errorf("%s: exit code 0\n%s", n, log)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Fatalf("%s was run", n)
		}
	}
}

// The component's text of the steps is that of the action, no input stands in its script, and secrets are no inputs.
func TestGitLabComponentHoldsTheSteps(t *testing.T) {
	spec, jobs := gitlab(t, map[string]string{"job-image": jobImage})
	job := jobs["waybill"].(map[string]any)
	want, err := os.ReadFile(filepath.Join(actionDir, "steps.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if got := job["variables"].(map[string]any)["WB_STEPS"].(map[string]any)["value"]; got != string(want) {
		if os.Getenv("WAYBILL_WRITE_STEPS") != "" {
			writeSteps(t, string(want))
		}
		t.Error("templates/waybill.yml has other steps than .github/actions/waybill/steps.sh: WAYBILL_WRITE_STEPS=1 go test ./internal/cisteps -run HoldsTheSteps")
	}
	for n, i := range spec["spec"].(map[string]any)["inputs"].(map[string]any) {
		if strings.Contains(n, "password") || strings.HasSuffix(n, "key") {
			t.Errorf("%s is an input", n)
		}
		if n == "job-image" && !regexp.MustCompile(i.(map[string]any)["regex"].(string)).MatchString(jobImage) {
			t.Error("job-image refuses a digest")
		}
	}
	raw, err := os.ReadFile(component)
	if err != nil {
		t.Fatal(err)
	}
	if _, script, _ := strings.Cut(string(raw), "  script:"); strings.Contains(script, "$[[") {
		t.Error("an input stands in the script")
	}

	s := schema(t, "gitlab/gitlab-ci.json")
	for _, d := range []map[string]any{spec, jobs} {
		if err := s.Validate(d); err != nil {
			t.Error(err)
		}
	}
	job["artifacts"].(map[string]any)["when"] = "sometimes"
	if s.Validate(jobs) == nil {
		t.Error("the schema accepts anything")
	}
}

// writeSteps brings the steps into the component, indented as they stand there.
func writeSteps(t *testing.T, steps string) {
	t.Helper()
	raw, err := os.ReadFile(component)
	if err != nil {
		t.Fatal(err)
	}
	const in = "    WB_STEPS:\n      expand: false\n      value: |\n"
	head, rest, ok := strings.Cut(string(raw), in)
	_, tail, ok2 := strings.Cut(rest, "\n  script:\n")
	if !ok || !ok2 {
		t.Fatal("the component has no steps")
	}
	var b strings.Builder
	for _, l := range strings.SplitAfter(strings.TrimSuffix(steps, "\n"), "\n") {
		if l != "\n" {
			b.WriteString("        ")
		}
		b.WriteString(l)
	}
	if err := os.WriteFile(component, []byte(head+in+b.String()+"\n  script:\n"+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}

func schemas(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("WAYBILL_SCHEMAS")
	if dir == "" {
		t.Skip("WAYBILL_SCHEMAS names no folder with the published schemas")
	}
	return dir
}

// kfpPython is a Python with kfp.
func kfpPython(t *testing.T) string {
	t.Helper()
	python := os.Getenv("WAYBILL_KFP_PYTHON")
	if python == "" {
		if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
			t.Fatal("WAYBILL_KFP_PYTHON names no Python with kfp")
		}
		t.Skip("WAYBILL_KFP_PYTHON names no Python with kfp")
	}
	return python
}

// kubeflow compiles the component with the real SDK and returns what it wrote.
func kubeflow(t *testing.T) map[string]any {
	t.Helper()
	python := kfpPython(t)
	out := filepath.Join(t.TempDir(), "waybill.yaml")
	const script = "../../integrations/kubeflow/waybill_component.py"
	if b, err := exec.Command(python, "-B", script, "--image", jobImage, "--out", out).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	if b, err := exec.Command(python, "-B", script, "--image", "reg.example/tools/waybill:latest", "--out", out+".tag").CombinedOutput(); err == nil || !strings.Contains(string(b), "pinned by its digest") {
		t.Errorf("a tag: %v\n%s", err, b)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := yaml.Unmarshal(raw, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// pipelineSpec holds a compiled component or pipeline against the published schema, where that is at hand.
func pipelineSpec(t *testing.T, spec map[string]any) {
	t.Helper()
	if dir := os.Getenv("WAYBILL_SCHEMAS"); dir != "" {
		c := protocompile.Compiler{Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{
			ImportPaths: []string{filepath.Join(dir, "kubeflow-pipelines/api/v2alpha1")},
			Accessor: func(p string) (io.ReadCloser, error) {
				if strings.HasSuffix(p, "google/rpc/status.proto") {
					return io.NopCloser(strings.NewReader("syntax = \"proto3\"; package google.rpc; import \"google/protobuf/any.proto\"; message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }")), nil
				}
				return os.Open(p)
			},
		})}
		files, err := c.Compile(context.Background(), "pipeline_spec.proto")
		if err != nil {
			t.Fatal(err)
		}
		m := files[0].Messages().ByName(protoreflect.Name("PipelineSpec"))
		raw, err := json.Marshal(spec)
		if err != nil {
			t.Fatal(err)
		}
		if err := protojson.Unmarshal(raw, dynamicpb.NewMessage(m)); err != nil {
			t.Errorf("not as pipeline_spec.proto has it: %v", err)
		}
		if protojson.Unmarshal([]byte(`{"noSuchField": 1}`), dynamicpb.NewMessage(m)) == nil {
			t.Error("the schema accepts anything")
		}
	}
}

func TestKubeflowComponent(t *testing.T) {
	spec := kubeflow(t)
	pipelineSpec(t, spec)
	container := spec["deploymentSpec"].(map[string]any)["executors"].(map[string]any)["exec-waybill"].(map[string]any)["container"].(map[string]any)
	if container["image"] != jobImage {
		t.Errorf("image %v", container["image"])
	}

	w := newWorld(t)
	w.govern()
	run := func(with map[string]string) (string, int) {
		var argv []string
		for _, part := range []string{"command", "args"} {
			for _, a := range container[part].([]any) {
				s := a.(string)
				if strings.HasPrefix(s, "{{$.") {
					keys := regexp.MustCompile(`\['([^']*)'\]`).FindAllStringSubmatch(s, -1)
					v, ok := with[keys[0][1]]
					if !ok {
						t.Fatalf("%s has no value", s)
					}
					s = v
				}
				argv = append(argv, s)
			}
		}
		_, log, code := w.exec([]string{"WAYBILL_CI_KEY=publisher.key", "WAYBILL_CI_GATE_KEY=gate.key", "WAYBILL_CI_PASSWORD=" + passphrase, "WAYBILL_CI_GATE_PASSWORD=" + passphrase}, argv[0], argv[1:]...)
		return log, code
	}
	with := map[string]string{"model": "model", "repository": w.repo, "environment": "staging", "tag": "1.0.0", "source": "", "name": "", "model_version": "", "license": "", "sign": "key", "gate_sign": "key",
		"trust": "trust.signed", "environments": "environments.signed", "fail_on_denied": "yes",
		"deploy": "no", "targets": "", "deploy_sign": "key", "images": "", "runtime": ""}
	for _, o := range []string{"digest", "verdict", "junit", "sarif", "deployment"} {
		with[o] = filepath.Join(w.dir, "out", o, "data")
	}
	if log, code := run(with); code != 4 || w.hasTag("1.0.0") || w.file("out/verdict/data") != "FAILED" {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	with["fail_on_denied"] = "no"
	if log, code := run(with); code != 0 || w.hasTag("1.0.0") || w.file("out/verdict/data") != "FAILED" || !strings.Contains(w.file("out/junit/data"), "<failure") {
		t.Fatalf("a denial handed on: exit code %d\n%s", code, log)
	}
	w.measure(w.repo + "@" + w.file("out/digest/data"))
	if log, code := run(with); code != 0 || !w.hasTag("1.0.0") || w.file("out/verdict/data") != "PASSED" || strings.Contains(log, passphrase) {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	with["model"], with["source"], with["name"], with["model_version"], with["tag"] = w.approved(), "mlflow:", "churn", "2.0.0", "2.0.0"
	if log, code := run(with); code != 0 || w.file("out/verdict/data") != "FAILED" || !w.hasTag("candidate-"+w.file("out/digest/data")[7:23]) || w.hasTag("2.0.0") {
		t.Fatalf("an MLflow model: exit code %d\n%s", code, log)
	}
	mark := filepath.Join(w.dir, "owned")
	for _, n := range []string{"model", "source", "repository", "tag", "environment", "name", "model_version", "license", "trust", "deploy", "targets", "deploy_sign", "images", "runtime"} {
		bad := map[string]string{}
		for k, v := range with {
			bad[k] = v
		}
		bad[n] = strings.Join(hostile(mark), " ")
		if log, code := run(bad); code == 0 {
			t.Errorf("%s: exit code 0\n%s", n, log)
		}
		if _, err := os.Stat(mark); err == nil {
			t.Fatal(fmt.Errorf("%s was run", n))
		}
	}
}
