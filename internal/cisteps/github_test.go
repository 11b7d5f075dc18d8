package cisteps

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// release is how a job asks for a whole release by keys, which it holds as the text of secrets.
func (w *world) release() map[string]string {
	return map[string]string{
		"project": "model", "image": w.repo, "tag": "1.0.0", "environment": "staging", "waybill": "waybill",
		"sign": "key", "key": w.file("publisher.key"), "password": passphrase,
		"gate-sign": "key", "gate-key": w.file("gate.key"), "gate-password": passphrase,
	}
}

// What has no evaluation is denied: the job ends with code 4, digest, verdict and every report are there, and no
// tag is set. Once it has been measured the same job passes.
func TestActionDeniesThenReleases(t *testing.T) {
	w := newWorld(t)
	w.govern()
	r := w.run(w.release())
	if r.code != 4 || r.failed != "gate" {
		t.Fatalf("exit code %d in step %q\n%s", r.code, r.failed, r.log)
	}
	if r.outputs["verdict"] != "FAILED" || r.outputs["reference"] != w.repo+"@"+r.outputs["digest"] || !regexp.MustCompile(`^sha256:[0-9a-f]{64}$`).MatchString(r.outputs["digest"]) {
		t.Errorf("outputs %q", r.outputs)
	}
	for _, n := range []string{"sarif", "decision"} {
		raw, err := os.ReadFile(r.outputs[n])
		if err != nil || !json.Valid(raw) || !strings.Contains(string(raw), "MET-001") {
			t.Errorf("%s: %v\n%.300s", n, err, raw)
		}
	}
	w.validReports(r.outputs["junit"], r.outputs["sarif"])
	junit, err := os.ReadFile(r.outputs["junit"])
	if err != nil || !strings.Contains(string(junit), "<failure") {
		t.Errorf("junit: %v", err)
	}
	if !strings.Contains(r.summary, "MET-001") {
		t.Errorf("job summary: %q", r.summary)
	}
	if len(r.annotations) == 0 || !strings.HasPrefix(r.annotations[0], "::error ") {
		t.Errorf("annotations %q", r.annotations)
	}
	if w.hasTag("1.0.0") {
		t.Error("what was denied has the release's tag")
	}
	if !w.hasTag("candidate-" + r.outputs["digest"][7:23]) {
		t.Error("the candidate is not in the registry")
	}
	w.keptSecret(r)

	w.measure(r.outputs["reference"])
	again := w.run(w.release())
	if again.code != 0 || again.outputs["verdict"] != "PASSED" || again.outputs["digest"] != r.outputs["digest"] || !w.hasTag("1.0.0") {
		t.Fatalf("exit code %d in step %q, outputs %q\n%s", again.code, again.failed, again.outputs, again.log)
	}
	w.keptSecret(again)
}

// keptSecret fails when a secret stands in the log, in a report, or in what is left on the runner.
func (w *world) keptSecret(r result) {
	w.t.Helper()
	secrets := []string{passphrase}
	for _, f := range []string{"publisher.key", "gate.key"} {
		secrets = append(secrets, strings.Split(w.file(f), "\n")[1])
	}
	for _, s := range secrets {
		if strings.Contains(r.log, s) {
			w.t.Errorf("the log holds a secret:\n%s", r.log)
		}
		if masked := "::add-mask::" + strings.ReplaceAll(s, "%", "%25") + "\n"; strings.Count(r.raw, s)+strings.Count(r.raw, strings.ReplaceAll(s, "%", "%25")) == 0 || !strings.Contains(r.raw, masked) {
			w.t.Error("a secret is not masked")
		}
	}
	err := filepath.WalkDir(r.temp, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		for _, s := range secrets {
			if strings.Contains(string(b), s) {
				w.t.Errorf("%s holds a secret", p)
			}
		}
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// A dry run decides, and attaches and tags nothing; a digest that is there already is gated without being packed.
func TestActionGatesWhatIsThere(t *testing.T) {
	w := newWorld(t)
	w.govern()
	build := w.release()
	build["environment"] = ""
	r := w.run(build)
	if r.code != 0 || r.outputs["verdict"] != "" || r.outputs["reference"] == "" || w.hasTag("1.0.0") {
		t.Fatalf("exit code %d, outputs %q\n%s", r.code, r.outputs, r.log)
	}
	w.measure(r.outputs["reference"])
	gate := map[string]string{"reference": r.outputs["reference"], "environment": "staging", "waybill": "waybill", "tag": "1.0.0", "gate-sign": "dry-run"}
	d := w.run(gate)
	if d.code != 0 || d.outputs["verdict"] != "PASSED" || w.hasTag("1.0.0") {
		t.Fatalf("dry run: exit code %d, outputs %q\n%s", d.code, d.outputs, d.log)
	}
	gate["gate-sign"], gate["gate-key"], gate["gate-password"] = "key", "gate.key", passphrase
	g := w.run(gate)
	if g.code != 0 || g.outputs["digest"] != r.outputs["digest"] || !w.hasTag("1.0.0") {
		t.Fatalf("exit code %d, outputs %q\n%s", g.code, g.outputs, g.log)
	}
}

// approved makes the folder of an MLflow model, as a run leaves it.
func (w *world) approved() string {
	w.t.Helper()
	w.mkdir("approved")
	const about = "flavors:\n  onnx: {data: model.onnx, onnx_version: 1.18.0}\nrun_id: 4f1d2c3b4a5968778695a4b3c2d1e0f9\n"
	for name, text := range map[string]string{"MLmodel": about, "model.onnx": w.file("model/model.onnx")} {
		if err := os.WriteFile(filepath.Join(w.dir, "approved", name), []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return filepath.Join(w.dir, "approved")
}

// What approval leaves behind is packed without a project, under the name, version and license that the job gives, and its
// run stands in the provenance; a project that is named and is not there is an error.
func TestActionPacksAnApprovedModel(t *testing.T) {
	w := newWorld(t)
	w.approved()
	with := map[string]string{"from": "mlflow:approved", "name": "churn", "model-version": "2.0.0", "license": "MIT OR Apache-2.0", "image": w.repo, "sign": "none", "waybill": "waybill"}
	r := w.run(with)
	if r.code != 0 || r.outputs["reference"] == "" {
		t.Fatalf("exit code %d in %q\n%s", r.code, r.failed, r.log)
	}
	about := w.waybill("inspect", r.outputs["reference"], "--output", "json")
	for _, want := range []string{`"churn"`, `"2.0.0"`, `"MIT OR Apache-2.0"`} {
		if !strings.Contains(about, want) {
			t.Errorf("no %s in %s", want, about)
		}
	}
	with["project"] = "no-such-project"
	if r := w.run(with); r.code == 0 || r.failed != "pack" || r.outputs["digest"] != "" {
		t.Errorf("no such project: exit code %d in %q", r.code, r.failed)
	}
}

// hostile are values that a shell, a flag parser, a log or GITHUB_OUTPUT would act on if one were put there as it is.
func hostile(mark string) []string {
	return []string{
		"$(touch " + mark + ")", "`touch " + mark + "`", "'; touch " + mark + "; '", `"; touch ` + mark + `; "`, "a\ntouch " + mark + "\n",
		"x && touch " + mark, "| touch " + mark, "--help", "-k=/etc/passwd", "a\nverdict=PASSED", "${IFS}touch${IFS}" + mark, "* ? [a]", "a\r::error::b",
	}
}

// No input is ever code: each input in turn holds each hostile value, in every step that sees it.
func TestActionRunsNoInput(t *testing.T) {
	w := newWorld(t)
	mark := filepath.Join(w.dir, "owned")
	base := map[string]string{"project": "model", "image": w.repo, "environment": "staging", "waybill": "waybill", "sign": "none", "gate-sign": "dry-run"}
	all := strings.Join(hostile(mark), " ")
	names := []string{}
	for n := range readAction(t).Inputs {
		names = append(names, n)
	}
	// In one value all of them, for each input; and each of them in the inputs that reach an output or a command line.
	try := func(name, value string) {
		with := map[string]string{}
		for k, v := range base {
			with[k] = v
		}
		with[name] = value
		r := w.run(with)
		if _, err := os.Stat(mark); err == nil {
			t.Fatalf("%s = %q was run", name, value)
		}
		if r.outputs["verdict"] == "PASSED" {
			t.Errorf("%s = %q: outputs %q", name, value, r.outputs)
		}
		for _, a := range r.annotations {
			if strings.HasPrefix(a, "::error::b") {
				t.Errorf("%s = %q: the log obeyed it", name, value)
			}
		}
	}
	for _, n := range names {
		try(n, all)
	}
	for _, n := range []string{"image", "tag", "reference", "environment"} {
		for _, v := range hostile(mark) {
			try(n, v)
		}
	}
	for _, v := range []string{"$(touch " + mark + ")", "'; touch " + mark + "; '", "--dry-run", "--help"} {
		try("project", v)
	}

	// What the test would see: the same value, put into the text of a step.
	if err := exec.Command("bash", "-c", "echo "+hostile(mark)[0]).Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Fatal("the attack does not work where it must")
	}
}

// Expressions stand in env alone, each action of others would be pinned, and the shells are named.
func TestActionKeepsExpressionsOutOfShells(t *testing.T) {
	a := readAction(t)
	if a.Runs.Using != "composite" || len(a.Runs.Steps) == 0 {
		t.Fatalf("%+v", a.Runs)
	}
	for _, s := range a.Runs.Steps {
		if strings.Contains(s.Run, "${{") || s.Shell != "bash" || s.Uses != "" {
			t.Errorf("step %s: %q in %q, uses %q", s.Name, s.Run, s.Shell, s.Uses)
		}
	}
}

// A name of a file that looks like a command is no command for the log, and without the guard it is one.
func TestLogObeysNoForeignText(t *testing.T) {
	w := newWorld(t)
	evil := "#!/bin/sh\necho '::error::forged' >&2\necho '::add-mask::e'\nexit 1\n"
	if err := os.WriteFile(filepath.Join(w.bin, "evil"), []byte(evil), 0o755); err != nil {
		t.Fatal(err)
	}
	r := w.run(map[string]string{"project": "model", "image": w.repo, "sign": "none", "waybill": "evil"})
	if r.code != 1 || len(r.annotations) != 0 || !strings.Contains(r.log, "::error::forged") {
		t.Errorf("exit code %d, annotations %q\n%s", r.code, r.annotations, r.log)
	}
	if _, _, open := readLog("::error::forged\n", nil, nil); len(open) != 1 {
		t.Error("this test's runner obeys nothing at all")
	}
}

// An empty secret, which is what a fork's job has, is an error and no signature less.
func TestActionRefusesWhatIsMissing(t *testing.T) {
	w := newWorld(t)
	for name, with := range map[string]map[string]string{
		"key is empty":        {"project": "model", "image": w.repo, "sign": "key", "waybill": "waybill"},
		"gate-key is empty":   {"project": "model", "image": w.repo, "sign": "none", "environment": "staging", "gate-sign": "key", "waybill": "waybill"},
		"has one identity":    {"project": "model", "image": w.repo, "environment": "staging", "waybill": "waybill"},
		"image is empty":      {"project": "model", "sign": "none", "waybill": "waybill"},
		"holds a tag":         {"project": "model", "image": w.repo + ":1", "sign": "none", "waybill": "waybill"},
		"must name a digest":  {"reference": w.repo + ":1.0.0", "environment": "staging", "waybill": "waybill"},
		"neither a version":   {"project": "model", "image": w.repo, "sign": "none"},
		"pinned by its":       {"project": "model", "image": w.repo, "sign": "none", "waybill-version": "v1.0.0"},
		"must be an https":    {"project": "model", "image": w.repo, "sign": "none", "releases": "http://127.0.0.1"},
		"sign must be":        {"project": "model", "image": w.repo, "sign": "maybe", "waybill": "waybill"},
		"is not there, or no": {"project": "model", "image": w.repo, "sign": "none", "waybill": "no-such-waybill"},
	} {
		if r := w.run(with); r.code != 2 || !strings.Contains(r.log, name) || w.hasTag("1.0.0") {
			t.Errorf("%s: exit code %d\n%s", name, r.code, r.log)
		}
	}
}

// A release is fetched over TLS and refused unless it has the pinned digest.
func TestActionFetchesWhatIsPinned(t *testing.T) {
	w := newWorld(t)
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl")
	}
	program := "#!/bin/sh\nexec waybill \"$@\"\n"
	srv := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1.2.3/waybill-") {
			http.NotFound(rw, r)
			return
		}
		fmt.Fprint(rw, program)
	}))
	t.Cleanup(srv.Close)
	ca := filepath.Join(w.dir, "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "CURL_CA_BUNDLE="+ca)
	sum := sha256.Sum256([]byte(program))
	with := map[string]string{"project": "model", "image": w.repo, "sign": "none", "releases": srv.URL, "waybill-version": "v1.2.3", "waybill-sha256": hex.EncodeToString(sum[:])}
	if r := w.run(with); r.code != 0 || r.outputs["digest"] == "" {
		t.Fatalf("exit code %d in %q\n%s", r.code, r.failed, r.log)
	}
	sum[0] ^= 1
	with["waybill-sha256"] = hex.EncodeToString(sum[:])
	if r := w.run(with); r.code != 3 || r.outputs["digest"] != "" || !strings.Contains(r.log, "not the one that is pinned") {
		t.Fatalf("another digest: exit code %d in %q\n%s", r.code, r.failed, r.log)
	}
}
