package cisteps

import (
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/sign/keyless/keylesstest"
)

// governJobs trusts one identity as publisher and one as gate, beside the evaluator's key.
func (w *world) governJobs(s *keylesstest.Stack, issuer, publisher, gate string) {
	w.t.Helper()
	for name, raw := range map[string][]byte{"trusted_root.json": s.TrustedRoot, "signing_config.json": s.SigningConfig} {
		if err := os.WriteFile(filepath.Join(w.dir, name), raw, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, role := range []string{"root", "evaluator"} {
		w.waybill("keys", "generate", "--role", role)
	}
	w.waybill("trust", "init", "--root", "root.pub")
	w.waybill("trust", "add", "trust.yaml", "evaluator.pub", "--role", "evaluator")
	w.waybill("trust", "add", "trust.yaml", "--trusted-root", "trusted_root.json", "--identity", publisher, "--issuer", issuer, "--role", "publisher")
	w.waybill("trust", "add", "trust.yaml", "--identity", gate, "--issuer", issuer, "--role", "gate")
	w.waybill("trust", "add", "trust.yaml", "--policy", strings.TrimSpace(w.waybill("policy", "digest")))
	w.waybill("trust", "sign", "trust.yaml", "--key", "root.key")
	w.waybill("env", "init", "staging", "--namespace", "ml", "--profile", "baseline")
	w.waybill("env", "sign", "environments.yaml", "--key", "root.key")
}

// signedBy fails unless release and verdict are proven, by those identities.
func (w *world) signedBy(ref, publisher, gate string) {
	w.t.Helper()
	_, log, code := w.exec(nil, "waybill", "verify", ref, "--require", "release=1", "--require", "vsa=1")
	if code != 0 || !strings.Contains(log, publisher) || !strings.Contains(log, gate) {
		w.t.Errorf("verify: exit code %d\n%s", code, log)
	}
}

// Jobs sign as themselves, over the real Fulcio, timestamp authority and Rekor: GitHub's runner is asked for a token, GitLab hands
// out the one that the component asks for. Denials are signed too. One job publishes, one of another identity decides.
func TestJobsSignAsThemselves(t *testing.T) {
	s := keylesstest.Start(t)
	t.Run("GitHub", func(t *testing.T) {
		const flows = "https://github.com/org/repo/.github/workflows/"
		const publisher, gate = flows + "release.yml@refs/tags/v1.2", flows + "gate.yml@refs/tags/v1.2"
		w := newWorld(t)
		w.governJobs(s, s.URL+"/github", publisher, gate)
		plain := w.env
		as := func(file string) {
			s.Claims = keylesstest.Workflow("org/repo", file, "refs/tags/v1.2")
			w.env = append(append([]string{}, plain...), "ACTIONS_ID_TOKEN_REQUEST_URL="+s.URL+"/runner?api-version=2.0", "ACTIONS_ID_TOKEN_REQUEST_TOKEN="+keylesstest.RunnerToken)
		}
		build := map[string]string{"project": "model", "image": w.repo, "waybill": "waybill", "signing-config": "signing_config.json"}
		if r := w.run(build); r.code != 2 || r.failed != "sign" || !strings.Contains(r.log, "id-token: write") || r.outputs["reference"] != "" {
			t.Fatalf("a job without the permission: exit code %d in %q\n%s", r.code, r.failed, r.log)
		}
		as("other.yml")
		if r := w.run(build); r.code != 3 || r.failed != "sign" || r.outputs["reference"] != "" {
			t.Errorf("another workflow: exit code %d in %q\n%s", r.code, r.failed, r.log)
		}
		as("release.yml")
		built := w.run(build)
		reference := built.outputs["reference"]
		if built.code != 0 || reference == "" {
			t.Fatalf("exit code %d in %q\n%s", built.code, built.failed, built.log)
		}
		decide := map[string]string{"reference": reference, "tag": "1.0.0", "environment": "staging", "waybill": "waybill", "signing-config": "signing_config.json"}
		as("gate.yml")
		denied := w.run(decide)
		if denied.code != 4 || denied.outputs["verdict"] != "FAILED" || w.hasTag("1.0.0") {
			t.Fatalf("exit code %d in %q\n%s", denied.code, denied.failed, denied.log)
		}
		w.measure(reference)
		as("release.yml")
		if r := w.run(decide); r.code != 3 || r.outputs["verdict"] != "" || w.hasTag("1.0.0") {
			t.Errorf("the publisher decides: exit code %d in %q\n%s", r.code, r.failed, r.log)
		}
		as("gate.yml")
		passed := w.run(decide)
		if passed.code != 0 || passed.outputs["verdict"] != "PASSED" || !w.hasTag("1.0.0") {
			t.Fatalf("exit code %d in %q\n%s", passed.code, passed.failed, passed.log)
		}
		for _, r := range []result{built, denied, passed} {
			if strings.Contains(r.raw, keylesstest.RunnerToken) {
				t.Error("the log holds the runner's token")
			}
		}
		w.env = plain
		w.signedBy(reference, publisher, gate)
	})
	t.Run("GitLab", func(t *testing.T) {
		const publisher, gate = "https://gitlab.com/group/project//.gitlab-ci.yml@refs/heads/main", "https://gitlab.com/group/gate//.gitlab-ci.yml@refs/heads/main"
		w := newWorld(t)
		w.governJobs(s, s.URL+"/gitlab", publisher, gate)
		// as gives a job what GitLab gives it: a token of the audience that the component asks for, in the variable that it names.
		as := func(project string) []string {
			_, jobs := gitlab(t, map[string]string{"job-image": jobImage})
			var out []string
			for name, about := range jobs["waybill"].(map[string]any)["id_tokens"].(map[string]any) {
				token := s.Token("/gitlab", about.(map[string]any)["aud"].(string), time.Now().Add(time.Hour), keylesstest.Pipeline(project, ".gitlab-ci.yml", "main"))
				if !isToken(token) {
					t.Fatal(token)
				}
				out = append(out, name+"="+token)
			}
			if len(out) != 1 {
				t.Fatalf("%d tokens", len(out))
			}
			return out
		}
		build := map[string]string{"project": "model", "image": w.repo, "waybill": "waybill", "signing-config": "signing_config.json"}
		if log, code := w.runGitLab(build); code != 2 || !strings.Contains(log, "SIGSTORE_ID_TOKEN") {
			t.Fatalf("a job without a token: exit code %d\n%s", code, log)
		}
		if log, code := w.runGitLab(build, as("group/project")...); code != 0 {
			t.Fatalf("exit code %d\n%s", code, log)
		}
		_, line, _ := strings.Cut(w.file(".waybill-ci/waybill.env"), "WAYBILL_REFERENCE=")
		reference, _, _ := strings.Cut(line, "\n")
		decide := map[string]string{"reference": reference, "tag": "1.0.0", "environment": "staging", "waybill": "waybill", "signing-config": "signing_config.json"}
		if log, code := w.runGitLab(decide, as("group/gate")...); code != 4 || w.hasTag("1.0.0") {
			t.Fatalf("exit code %d\n%s", code, log)
		}
		w.measure(reference)
		secrets := as("group/gate")
		log, code := w.runGitLab(decide, secrets...)
		if code != 0 || !w.hasTag("1.0.0") {
			t.Fatalf("exit code %d\n%s", code, log)
		}
		if _, token, _ := strings.Cut(secrets[0], "="); strings.Contains(log, token) {
			t.Error("the log holds the token")
		}
		w.signedBy(reference, publisher, gate)
	})
}

func isToken(s string) bool {
	p := strings.Split(s, ".")
	if len(p) != 3 {
		return false
	}
	b, err := base64.RawURLEncoding.DecodeString(p[1])
	return err == nil && json.Valid(b)
}
