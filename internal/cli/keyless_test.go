package cli_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/waybill-ml/waybill/oci/sign/keyless/keylesstest"
	"github.com/waybill-ml/waybill/oci/trust"
)

// TestKeyless runs testdata/keyless/*.txtar against the real Fulcio, timestamp authority and Rekor v2. Each script finds
// trusted_root.json, signing_config.json, services.json without the log, and tokens; $ISSUER is the OIDC provider.
func TestKeyless(t *testing.T) {
	s := keylesstest.Start(t)
	s.Claims = keylesstest.Workflow("org/repo", "release.yml", "refs/tags/v1.2")
	examples, err := filepath.Abs("../../examples")
	if err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	cmds := scriptCommands()
	cmds["identity"] = func(ts *testscript.TestScript, neg bool, args []string) {
		if neg || len(args) != 3 {
			ts.Fatalf("usage: identity SHOW.json SUBJECT NAME")
		}
		var show struct{ Document trust.Document }
		ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &show))
		for _, i := range show.Document.Identities {
			if i.Subject == args[1] {
				ts.Setenv(args[2], i.ID)
				return
			}
		}
		ts.Fatalf("no identity %s", args[1])
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/keyless",
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			for k, v := range map[string]string{
				"WAYBILL_HOME": filepath.Join(e.WorkDir, ".waybill"), "WAYBILL_PASSWORD": "correct horse battery staple", "EXAMPLES": examples,
				"HOME": e.WorkDir, "DOCKER_CONFIG": filepath.Join(e.WorkDir, "docker"), "TUF_ROOT": filepath.Join(e.WorkDir, "tuf"),
				"ISSUER": s.URL, "FULCIO": s.Fulcio, "REKOR": s.Rekor, "TSA": s.TSA, "RUNNER": s.URL + "/runner?api-version=2.0", "RUNNER_TOKEN": keylesstest.RunnerToken,
			} {
				e.Setenv(k, v)
			}
			for name, text := range map[string]string{
				"trusted_root.json":   string(s.TrustedRoot),
				"signing_config.json": string(s.SigningConfig),
				"services.json":       string(s.WithoutLog(t)),
				"stranger_root.json":  string(keylesstest.StrangerRoot(t)),
				"dev.jwt":             s.Email("dev@example.com"),
				"other.jwt":           s.Email("other@example.com"),
				"gitlab.jwt":          s.Token("/gitlab", "sigstore", later, keylesstest.Pipeline("group/project", ".gitlab-ci.yml", "main")),
				"expired.jwt":         s.Token("/email", "sigstore", time.Now().Add(-time.Minute), map[string]any{"sub": "dev@example.com", "email": "dev@example.com", "email_verified": true}),
				"audience.jwt":        s.Token("/email", "kubernetes", later, map[string]any{"sub": "dev@example.com", "email": "dev@example.com", "email_verified": true}),
				"unverified.jwt":      s.Token("/email", "sigstore", later, map[string]any{"sub": "dev@example.com", "email": "dev@example.com", "email_verified": false}),
			} {
				if err := os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o600); err != nil {
					return err
				}
			}
			return nil
		},
		Cmds: cmds,
	})
}
