package cisteps

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/waybill-ml/waybill/deploy/awslambda/lambdatest"
)

// account is one of AWS Lambda that can be told to refuse changes.
type account struct {
	*lambdatest.Server
	refuses atomic.Bool
	changes atomic.Int64
}

func (a *account) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		if a.refuses.Load() {
			lambdatest.Problem(w, http.StatusForbidden, "AccessDeniedException", "User: arn:aws:iam::123456789012:user/ci is not authorized to perform: lambda:UpdateFunctionCode")
			return
		}
		a.changes.Add(1)
	}
	a.Server.ServeHTTP(w, r)
}

// targets gives the environment two functions and the job their credentials, and builds the runtime of their images.
func (w *world) targets() (eu, us *account) {
	w.t.Helper()
	w.govern()
	var urls []string
	for _, a := range []**account{&eu, &us} {
		m, err := lambdatest.LoadModel("")
		if err != nil {
			w.t.Fatal(err)
		}
		*a = &account{Server: lambdatest.New(m)}
		s := httptest.NewServer(*a)
		w.t.Cleanup(s.Close)
		urls = append(urls, s.URL)
	}
	w.env = append(w.env, "AWS_ACCESS_KEY_ID="+us.Creds.ID, "AWS_SECRET_ACCESS_KEY="+us.Creds.Secret, "AWS_SESSION_TOKEN="+us.Creds.Token, "AWS_EC2_METADATA_DISABLED=true")
	document := `version: 2
environments:
  staging:
    namespace: ml
    policy: {digest: "` + strings.TrimSpace(w.waybill("policy", "digest")) + `"}
    profile: baseline
    deviceClasses: [{name: edge-s, memory: 256MiB}]
    metrics: [{name: roc_auc, min: 0.9, minN: 100}]
    licenses: {models: [Apache-2.0], datasets: [CC-BY-4.0]}
    evidence: [evaluation, dataset]
    targets:
`
	for i, name := range []string{"eu", "us"} {
		document += `      - {name: ` + name + `, kind: lambda, image: "` + w.images() + `", function: churn, region: eu-central-1, role: "arn:aws:iam::123456789012:role/churn", endpoint: "` + urls[i] + "\"}\n"
	}
	if err := os.WriteFile(filepath.Join(w.dir, "environments.yaml"), []byte(document), 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.waybill("env", "sign", "environments.yaml", "--key", "root.key")
	cmd := exec.Command("go", "build", "-o", filepath.Join(w.dir, "waybill-serve"), "./cmd/waybill-serve")
	cmd.Dir = filepath.Join("..", "..")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+runtime.GOARCH, "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v\n%s", err, out)
	}
	return eu, us
}

func (w *world) images() string {
	return strings.TrimSuffix(w.repo, "ml/breast-cancer") + "images/churn"
}

// deployment is a release that goes on to the targets.
func (w *world) deployment(how string) map[string]string {
	with := w.release()
	for n, v := range map[string]string{"deploy": how, "images": "lambda@linux/" + runtime.GOARCH + "=" + w.images(), "runtime": "waybill-serve", "deploy-sign": "key", "deploy-key": w.file("deployer.key"), "deploy-password": passphrase} {
		with[n] = v
	}
	return with
}

// running is what has all of the traffic of each target; empty: nothing.
func (w *world) running() (out [2]string) {
	w.t.Helper()
	var st struct {
		Targets []struct {
			Shares []struct {
				Digest string
				Weight int
			}
		}
	}
	if err := json.Unmarshal([]byte(w.waybill("status", "--env", "staging", "--output", "json")), &st); err != nil || len(st.Targets) != 2 {
		w.t.Fatal(err, st)
	}
	for i, t := range st.Targets {
		if len(t.Shares) == 1 && t.Shares[0].Weight == 100 {
			out[i] = t.Shares[0].Digest
		}
	}
	return out
}

// What is denied reaches no target; what passes is planned, then deployed, once; and a platform that fails leaves what ran before.
func TestActionDeploys(t *testing.T) {
	w := newWorld(t)
	eu, us := w.targets()
	denied := w.run(w.deployment("yes"))
	if denied.code != 4 || denied.failed != "gate" || denied.outputs["deployed"] != "" || w.running() != [2]string{} || eu.changes.Load()+us.changes.Load() != 0 {
		t.Fatalf("a denied digest: exit code %d in %q, %q", denied.code, denied.failed, denied.outputs)
	}
	w.measure(denied.outputs["reference"])
	digest := denied.outputs["digest"]

	plan := w.run(w.deployment("plan"))
	if plan.code != 0 || plan.outputs["deployed"] != "planned" || w.running() != [2]string{} || eu.changes.Load()+us.changes.Load() != 0 || !strings.Contains(plan.summary, "    dry run: nothing was changed") {
		t.Fatalf("plan: exit code %d in %q, %q\n%s\n%s", plan.code, plan.failed, plan.outputs, plan.log, plan.summary)
	}
	for range 2 {
		r := w.run(w.deployment("yes"))
		if r.code != 0 || r.outputs["deployed"] != "deployed" || r.outputs["verdict"] != "PASSED" || w.running() != [2]string{digest, digest} {
			t.Fatalf("exit code %d in %q, %q; %q\n%s", r.code, r.failed, r.outputs, w.running(), r.log)
		}
		w.keptSecret(r)
		raw, err := os.ReadFile(r.outputs["deployment"])
		if err != nil || !json.Valid(raw) || !strings.Contains(string(raw), digest) || !strings.Contains(r.summary, "## Deployment to staging: deployed") {
			t.Errorf("%v\n%s\n%s", err, raw, r.summary)
		}
		for _, s := range []string{us.Creds.Secret, us.Creds.Token, strings.Split(w.file("deployer.key"), "\n")[1]} {
			if strings.Contains(r.log+r.summary+string(raw), s) {
				t.Error("a secret is told")
			}
		}
	}
	if !strings.Contains(w.waybill("inspect", w.repo+"@"+digest, "--trust", "trust.signed"), "deployment") {
		t.Error("no deployment is attached to the artifact")
	}

	// A second release; the second target refuses.
	if err := os.CopyFS(filepath.Join(w.dir, "model2"), os.DirFS("../../examples/breast-cancer/v2")); err != nil {
		t.Fatal(err)
	}
	with := w.deployment("yes")
	with["project"], with["tag"] = "model2", "2.0.0"
	second := w.run(with)
	if second.code != 4 {
		t.Fatalf("exit code %d\n%s", second.code, second.log)
	}
	for _, kind := range []string{"evaluation", "dataset"} {
		w.waybill("attest", second.outputs["reference"], "--type", kind, "--predicate", "model2/"+kind+".json", "--key", "evaluator.key")
	}
	us.refuses.Store(true)
	r := w.run(with)
	if r.code != 8 || r.failed != "deploy" || r.outputs["deployed"] != "rolled back" || r.outputs["verdict"] != "PASSED" || w.running() != [2]string{digest, digest} {
		t.Fatalf("a target that refuses: exit code %d in %q, %q; %q\n%s", r.code, r.failed, r.outputs, w.running(), r.log)
	}
	if !strings.Contains(strings.Join(r.annotations, "\n"), "::error title=Waybill::deployment to staging: rolled back") || !strings.Contains(r.summary, "rolled back") {
		t.Errorf("annotations %q\n%s", r.annotations, r.summary)
	}
	us.refuses.Store(false)
	with["targets"] = "us"
	if r := w.run(with); r.code != 0 || w.running() != [2]string{digest, second.outputs["digest"]} {
		t.Fatalf("one target: exit code %d; %q\n%s", r.code, w.running(), r.log)
	}
}

func TestGitLabComponentDeploys(t *testing.T) {
	w := newWorld(t)
	eu, us := w.targets()
	with := map[string]string{"project": "model", "image": w.repo, "environment": "staging", "waybill": "waybill", "sign": "key", "gate-sign": "key",
		"deploy": "yes", "deploy-sign": "key", "images": "lambda@linux/" + runtime.GOARCH + "=" + w.images(), "runtime": "waybill-serve"}
	secrets := []string{"WAYBILL_CI_KEY=publisher.key", "WAYBILL_CI_GATE_KEY=gate.key", "WAYBILL_CI_DEPLOY_KEY=deployer.key", "WAYBILL_CI_PASSWORD=" + passphrase,
		"WAYBILL_CI_GATE_PASSWORD=" + passphrase, "WAYBILL_CI_DEPLOY_PASSWORD=" + passphrase}
	if log, code := w.runGitLab(with, secrets...); code != 4 || eu.changes.Load()+us.changes.Load() != 0 {
		t.Fatalf("exit code %d\n%s", code, log)
	}
	_, rest, _ := strings.Cut(w.file(".waybill-ci/waybill.env"), "WAYBILL_REFERENCE=")
	ref, _, _ := strings.Cut(rest, "\n")
	w.measure(ref)
	log, code := w.runGitLab(with, secrets...)
	_, digest, _ := strings.Cut(ref, "@")
	if code != 0 || w.running() != [2]string{digest, digest} || !strings.Contains(w.file(".waybill-ci/waybill.env"), "WAYBILL_DEPLOYED=deployed\n") || !json.Valid([]byte(w.file(".waybill-ci/deploy.json"))) {
		t.Fatalf("exit code %d; %q\n%s", code, w.running(), log)
	}
	for _, s := range []string{passphrase, us.Creds.Secret, us.Creds.Token} {
		if strings.Contains(log, s) {
			t.Error("the log holds a secret")
		}
	}
}

// What could not be deployed in the end is refused before anything is packed.
func TestActionRefusesDeployments(t *testing.T) {
	w := newWorld(t)
	base := map[string]string{"project": "model", "image": w.repo, "environment": "staging", "waybill": "waybill", "sign": "key", "key": "publisher.key", "gate-sign": "key", "gate-key": "gate.key", "deploy": "yes", "deploy-sign": "key", "deploy-key": "deployer.key"}
	for want, change := range map[string][]string{
		"deploy must be":                    {"deploy", "maybe"},
		"deploy-sign must be":               {"deploy-sign", "none"},
		"deploy-key is empty":               {"deploy-key", ""},
		"deploy without an environment":     {"environment", ""},
		"gate-sign is dry-run":              {"gate-sign", "dry-run"},
		"images are signed by a publisher":  {"images", "lambda=reg.example/x", "sign", "none"},
		"CONTRACT=REPOSITORY":               {"images", "lambada=reg.example/x"},
		"a target begins with a dash":       {"targets", "eu --yes"},
		"deploy-sign are both keyless":      {"deploy-sign", "keyless", "sign", "keyless"},
		"gate-sign and deploy-sign are":     {"deploy-sign", "keyless", "gate-sign", "keyless"},
		"images without an environment":     {"images", "lambda=reg.example/x", "environment", "", "deploy", "no"},
		"sign is key, and the key is empty": {"reference", w.repo + "@sha256:" + strings.Repeat("a", 64), "images", "lambda=reg.example/x", "key", ""},
	} {
		with := map[string]string{}
		for n, v := range base {
			with[n] = v
		}
		for i := 0; i < len(change); i += 2 {
			with[change[i]] = change[i+1]
		}
		if r := w.run(with); r.code != 2 || !strings.Contains(r.log, want) {
			t.Errorf("%s: exit code %d\n%s", want, r.code, r.log)
		}
	}
}
