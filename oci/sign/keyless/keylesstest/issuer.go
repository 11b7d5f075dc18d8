package keylesstest

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"time"
)

// Issuer is an OIDC provider on loopback: discovery, keys, tokens that it signs on request, and the endpoint at which a
// GitHub Actions runner hands out tokens. It has three issuers under one key: /email, /github and /gitlab.
type Issuer struct {
	URL    string
	key    *rsa.PrivateKey
	server *httptest.Server
	Claims map[string]any // of the tokens at the runner's endpoint; set before use
}

// RunnerToken is what a job must show at the runner's endpoint.
const RunnerToken = "the runner's request token"

// NewIssuer starts a provider, which ends with the test.
func NewIssuer(t T) *Issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatalf("issuer: %v", err)
	}
	i := &Issuer{key: key}
	mux := http.NewServeMux()
	for _, name := range []string{"/email", "/github", "/gitlab"} {
		mux.HandleFunc("GET "+name+"/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
			answer(w, map[string]any{
				"issuer": i.URL + name, "jwks_uri": i.URL + "/keys", "id_token_signing_alg_values_supported": []string{"RS256"},
				"authorization_endpoint": i.URL + "/auth", "token_endpoint": i.URL + "/token", "response_types_supported": []string{"id_token"},
				"subject_types_supported": []string{"public"},
			})
		})
	}
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]any{"keys": []any{map[string]string{
			"kty": "RSA", "alg": "RS256", "use": "sig", "kid": "1", "n": enc(key.N.Bytes()), "e": enc(big.NewInt(int64(key.E)).Bytes()),
		}}})
	})
	mux.HandleFunc("GET /runner", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+RunnerToken {
			http.Error(w, "wrong request token", http.StatusUnauthorized)
			return
		}
		answer(w, map[string]string{"value": i.Token("/github", r.URL.Query().Get("audience"), time.Now().Add(5*time.Minute), i.Claims)})
	})
	i.server = httptest.NewServer(mux)
	t.Cleanup(i.server.Close)
	i.URL = i.server.URL
	return i
}

// Token signs a token of one of the issuers. claims may overrule everything.
func (i *Issuer) Token(name, audience string, expires time.Time, claims map[string]any) string {
	c := map[string]any{"iss": i.URL + name, "aud": audience, "exp": expires.Unix(), "iat": time.Now().Add(-time.Minute).Unix()}
	for k, v := range claims {
		c[k] = v
	}
	head, _ := json.Marshal(map[string]string{"alg": "RS256", "kid": "1", "typ": "JWT"})
	body, _ := json.Marshal(c)
	msg := enc(head) + "." + enc(body)
	sum := sha256.Sum256([]byte(msg))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, sum[:])
	if err != nil {
		return err.Error() // no token: whoever reads it says so
	}
	return msg + "." + enc(sig)
}

// Email is a token for a person with that address.
func (i *Issuer) Email(address string) string {
	return i.Token("/email", "sigstore", time.Now().Add(5*time.Minute), map[string]any{"sub": address, "email": address, "email_verified": true})
}

// Workflow is what GitHub says of a job, for a workflow file at a ref of a repository.
func Workflow(repository, file, ref string) map[string]any {
	owner, _, _ := strings.Cut(repository, "/")
	flow := repository + "/.github/workflows/" + file + "@" + ref
	return map[string]any{
		"sub": "repo:" + repository + ":ref:" + ref, "job_workflow_ref": flow, "workflow_ref": flow, "sha": strings.Repeat("a", 40),
		"job_workflow_sha": strings.Repeat("a", 40), "workflow_sha": strings.Repeat("a", 40), "event_name": "push", "repository": repository,
		"workflow": "release", "ref": ref, "runner_environment": "github-hosted", "repository_id": "1", "repository_owner": owner,
		"repository_owner_id": "2", "run_id": "3", "run_attempt": "1", "repository_visibility": "public",
	}
}

// Pipeline is what GitLab says of a job.
func Pipeline(project, file, ref string) map[string]any {
	return map[string]any{
		"sub": "project_path:" + project + ":ref_type:branch:ref:" + ref, "project_path": project, "project_id": "1", "namespace_path": strings.Split(project, "/")[0],
		"namespace_id": "2", "pipeline_id": "3", "pipeline_source": "push", "ref": ref, "ref_path": "refs/heads/" + ref, "ref_type": "branch", "job_id": "4",
		"ci_config_ref_uri": "gitlab.com/" + project + "//" + file + "@refs/heads/" + ref, "ci_config_sha": strings.Repeat("a", 40), "sha": strings.Repeat("a", 40),
		"runner_id": 5, "runner_environment": "gitlab-hosted", "project_visibility": "public", "user_login": "u", "user_email": "u@example.com", "user_id": "6",
	}
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func enc(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
