// Package cisteps holds the tests of the steps that CI systems run: GitHub's composite action, GitLab's component and
// the component of Kubeflow Pipelines. They are executed as they stand in their files, with real registries and keys.
package cisteps

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/waybill-ml/waybill/internal/cli"
	"github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/policy/rego/box"
)

// asWaybill makes this test's own binary the waybill that the steps run.
const asWaybill = "CISTEPS_AS_WAYBILL"

func TestMain(m *testing.M) {
	if os.Getenv(asWaybill) != "" || box.IsChild() { // the child in which policy is evaluated has no environment of ours
		os.Exit(cli.Main())
	}
	os.Exit(m.Run())
}

// world is a project with keys, trust and environments, a registry, and the environment that a runner gives.
type world struct {
	t              *testing.T
	dir, repo, bin string
	env            []string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("the steps run in a Unix shell")
	}
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("no bash")
	}
	w := &world{t: t, dir: t.TempDir()}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.bin = filepath.Join(w.dir, "bin")
	w.mkdir("bin", "tmp", "docker", "home")
	if err := os.Symlink(self, filepath.Join(w.bin, "waybill")); err != nil {
		t.Fatal(err)
	}
	w.env = []string{asWaybill + "=1", "PATH=" + w.bin + ":" + os.Getenv("PATH"), "HOME=" + w.dir + "/home", "WAYBILL_HOME=" + w.dir + "/authors",
		"DOCKER_CONFIG=" + w.dir + "/docker", "TMPDIR=" + w.dir + "/tmp"}
	if err := os.CopyFS(filepath.Join(w.dir, "model"), os.DirFS("../../examples/breast-cancer/v1")); err != nil {
		t.Fatal(err)
	}
	s, err := server.New(filepath.Join(w.dir, "registry"), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	w.repo = strings.TrimPrefix(srv.URL, "http://") + "/ml/breast-cancer"
	return w
}

func (w *world) mkdir(names ...string) {
	w.t.Helper()
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(w.dir, n), 0o755); err != nil {
			w.t.Fatal(err)
		}
	}
}

const passphrase = "correct-horse-97%battery"

// govern makes the keys, the trust document and the environments.
func (w *world) govern() {
	w.t.Helper()
	for _, role := range []string{"root", "publisher", "evaluator", "gate", "deployer"} {
		w.waybill("keys", "generate", "--role", role)
	}
	w.waybill("trust", "init", "--root", "root.pub")
	for _, role := range []string{"publisher", "evaluator", "gate", "deployer"} {
		w.waybill("trust", "add", "trust.yaml", role+".pub", "--role", role)
	}
	w.waybill("trust", "add", "trust.yaml", "--policy", strings.TrimSpace(w.waybill("policy", "digest")))
	w.waybill("trust", "sign", "trust.yaml", "--key", "root.key")
	w.waybill("env", "init", "staging", "--namespace", "ml", "--profile", "baseline")
	w.waybill("env", "sign", "environments.yaml", "--key", "root.key")
}

// measure attaches what the policy asks for to a digest in the registry, as its evaluator does.
func (w *world) measure(ref string) {
	w.t.Helper()
	for _, kind := range []string{"evaluation", "dataset"} {
		w.waybill("attest", ref, "--type", kind, "--predicate", "model/"+kind+".json", "--key", "evaluator.key")
	}
}

func (w *world) waybill(args ...string) string {
	w.t.Helper()
	out, log, code := w.exec([]string{"WAYBILL_PASSWORD=" + passphrase}, "waybill", args...)
	if code != 0 {
		w.t.Fatalf("waybill %q: exit code %d\n%s", args, code, log)
	}
	return out
}

func (w *world) exec(env []string, name string, args ...string) (out, both string, code int) {
	w.t.Helper()
	if name == "waybill" {
		name = filepath.Join(w.bin, name)
	}
	cmd := exec.Command(name, args...)
	cmd.Dir = w.dir
	cmd.Env = append(append([]string{}, w.env...), env...)
	var o, b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &b
	err := cmd.Run()
	if cmd.ProcessState == nil {
		w.t.Fatalf("%s: %v", name, err)
	}
	return o.String(), o.String() + b.String(), cmd.ProcessState.ExitCode()
}

func (w *world) file(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

// hasTag says whether the repository has a tag.
func (w *world) hasTag(tag string) bool {
	_, _, code := w.exec(nil, "waybill", "inspect", w.repo+":"+tag)
	return code == 0
}

type action struct {
	Inputs  map[string]struct{ Default string }
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Using string
		Steps []struct {
			Name, ID, If, Shell, Run, Uses string
			Env                            map[string]string
		}
	}
}

const actionDir = "../../.github/actions/waybill"

func readAction(t *testing.T) action {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(actionDir, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var a action
	d := yaml.NewDecoder(bytes.NewReader(raw))
	if err := d.Decode(&a); err != nil {
		t.Fatal(err)
	}
	return a
}

// result is what a job sees of an action.
type result struct {
	code         int
	raw, log     string // as the steps wrote it, and as the runner keeps it: without commands, secrets masked
	annotations  []string
	outputs      map[string]string
	summary      string
	failed, temp string
}

var expression = regexp.MustCompile(`\$\{\{\s*(.*?)\s*\}\}`)

// run does with the action what GitHub's runner does: expressions are values of env only, steps after a failure run when they say
// always(), and the log is searched for commands.
func (w *world) run(with map[string]string) result {
	w.t.Helper()
	a := readAction(w.t)
	inputs := map[string]string{}
	for n, i := range a.Inputs {
		inputs[n] = i.Default
	}
	for n, v := range with {
		if _, ok := a.Inputs[n]; !ok {
			w.t.Fatalf("the action has no input %s", n)
		}
		inputs[n] = v
	}
	temp, err := os.MkdirTemp(w.dir, "runner")
	if err != nil {
		w.t.Fatal(err)
	}
	path, err := filepath.Abs(actionDir)
	if err != nil {
		w.t.Fatal(err)
	}
	steps := map[string]map[string]string{}
	value := func(e string) string {
		if n, ok := strings.CutPrefix(e, "inputs."); ok {
			v, known := inputs[n]
			if !known {
				w.t.Fatalf("%s: no such input", e)
			}
			return v
		}
		if p := strings.Split(e, "."); len(p) == 4 && p[0] == "steps" && p[2] == "outputs" {
			return steps[p[1]][p[3]]
		}
		w.t.Fatalf("the runner of this test does not know %s", e)
		return ""
	}
	r := result{outputs: map[string]string{}, temp: temp}
	var masks []string
	for i, s := range a.Runs.Steps {
		if !w.holds(s.If, r.code != 0, value) {
			continue
		}
		out := filepath.Join(temp, fmt.Sprint("output", i))
		summary := filepath.Join(temp, fmt.Sprint("summary", i))
		script := filepath.Join(temp, fmt.Sprint("script", i, ".sh"))
		for f, text := range map[string]string{out: "", summary: "", script: s.Run} {
			if err := os.WriteFile(f, []byte(text), 0o600); err != nil {
				w.t.Fatal(err)
			}
		}
		cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", script)
		cmd.Dir = w.dir
		cmd.Env = append(append([]string{}, w.env...), "GITHUB_ACTIONS=true", "CI=true", "GITHUB_ACTION_PATH="+path, "RUNNER_TEMP="+temp, "GITHUB_OUTPUT="+out, "GITHUB_STEP_SUMMARY="+summary)
		for n, v := range s.Env {
			cmd.Env = append(cmd.Env, n+"="+expression.ReplaceAllStringFunc(v, func(e string) string { return value(expression.FindStringSubmatch(e)[1]) }))
		}
		var b bytes.Buffer
		cmd.Stdout, cmd.Stderr = &b, &b
		err := cmd.Run()
		if cmd.ProcessState == nil {
			w.t.Fatal(err)
		}
		if c := cmd.ProcessState.ExitCode(); c != 0 && r.code == 0 {
			r.code, r.failed = c, s.Name
		}
		r.raw += b.String()
		var kept string
		kept, masks, r.annotations = readLog(b.String(), masks, r.annotations)
		r.log += kept
		set := map[string]string{}
		text, err := os.ReadFile(out)
		if err != nil {
			w.t.Fatal(err)
		}
		for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
			if n, v, ok := strings.Cut(line, "="); ok {
				set[n] = v
			} else if line != "" {
				w.t.Fatalf("step %s: %q in GITHUB_OUTPUT", s.Name, line)
			}
		}
		if s.ID != "" {
			steps[s.ID] = set
		}
		sum, err := os.ReadFile(summary)
		if err != nil {
			w.t.Fatal(err)
		}
		r.summary += string(sum)
	}
	for n, o := range a.Outputs {
		r.outputs[n] = value(expression.FindStringSubmatch(o.Value)[1])
	}
	return r
}

// holds evaluates the conditions that the action uses: comparisons with a text and always(), joined by &&.
func (w *world) holds(condition string, failed bool, value func(string) string) bool {
	w.t.Helper()
	ok, always := true, false
	for _, term := range strings.Split(condition, "&&") {
		switch term = strings.TrimSpace(term); {
		case term == "":
		case term == "always()":
			always = true
		case strings.Contains(term, "!="):
			l, r, _ := strings.Cut(term, "!=")
			ok = ok && value(strings.TrimSpace(l)) != strings.Trim(strings.TrimSpace(r), "'")
		case strings.Contains(term, "=="):
			l, r, _ := strings.Cut(term, "==")
			ok = ok && value(strings.TrimSpace(l)) == strings.Trim(strings.TrimSpace(r), "'")
		default:
			w.t.Fatalf("the runner of this test does not know %s", term)
		}
	}
	return ok && (always || !failed)
}

// readLog obeys workflow commands as GitHub's runner does.
func readLog(text string, masks, annotations []string) (string, []string, []string) {
	stopped := ""
	var kept strings.Builder
	for _, line := range strings.SplitAfter(text, "\n") {
		bare := strings.TrimRight(line, "\r\n")
		switch {
		case stopped != "":
			if bare == "::"+stopped+"::" {
				stopped = ""
				continue
			}
		case strings.HasPrefix(bare, "::stop-commands::"):
			stopped = strings.TrimPrefix(bare, "::stop-commands::")
			continue
		case strings.HasPrefix(bare, "::add-mask::"):
			masks = append(masks, strings.NewReplacer("%0D", "\r", "%0A", "\n", "%25", "%").Replace(strings.TrimPrefix(bare, "::add-mask::")))
			continue
		case strings.HasPrefix(bare, "::"):
			annotations = append(annotations, bare)
			continue
		}
		for _, m := range masks {
			line = strings.ReplaceAll(line, m, "***")
		}
		kept.WriteString(line)
	}
	return kept.String(), masks, annotations
}
