package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/edge-runtime/carrier"
	"github.com/waybill-ml/waybill/edge-runtime/config"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/registry/servertest"
	"github.com/waybill-ml/waybill/oci/verify/verifytest"
)

// A device reaches a registry with an authority of its own and mutual TLS by what enrolment wrote, with absolute paths of
// flags and with paths beside the configuration; and without either of them it does not.
func TestChannelOverMutualTLS(t *testing.T) {
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	t.Setenv("REGISTRY_AUTH_FILE", "")
	w := verifytest.New(t)
	s := servertest.Start(t, servertest.Options{Kind: servertest.Embedded, TLS: true, ClientTLS: true})
	cert, key := s.CA.Client()
	dir := t.TempDir()
	trust, out := filepath.Join(dir, "trust.signed"), filepath.Join(dir, "edge")
	if err := os.WriteFile(trust, w.Trust(), 0o600); err != nil {
		t.Fatal(err)
	}
	args := func(more ...string) []string {
		return append([]string{"enroll", "--out", out, "--class", "edge-s", "--trust", trust, "--trust-digest", string(w.TrustRef().Digest), "--follow", s.Host + "/ml/churn"}, more...)
	}
	for _, c := range []struct {
		want string
		args []string
	}{
		{"no certificate in PEM form", args("--ca-file", key)},
		{"read the certificate authority", args("--ca-file", s.CA.File+".no")},
		{"no certificate", args("--client-key", key)},
		{"client certificate", args("--client-cert", cert)},
	} {
		if _, err := command1(t, c.args...); diag.CodeOf(err) != diag.Usage || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.args, err)
		}
	}
	cfgFile := filepath.Join(out, "config.json")
	if _, err := os.Stat(cfgFile); err == nil {
		t.Error("a configuration with certificates that cannot be used")
	}
	if _, err := command1(t, args("--ca-file", s.CA.File, "--client-cert", cert, "--client-key", key)...); err != nil {
		t.Fatal(err)
	}
	edit := func(f func(*config.Channel)) {
		b, err := os.ReadFile(cfgFile)
		if err != nil {
			t.Fatal(err)
		}
		var c map[string]json.RawMessage
		if err := json.Unmarshal(b, &c); err != nil {
			t.Fatal(err)
		}
		var cs []config.Channel
		if err := json.Unmarshal(c["channels"], &cs); err != nil {
			t.Fatal(err)
		}
		f(&cs[0])
		if c["channels"], err = json.Marshal(cs); err != nil {
			t.Fatal(err)
		}
		if b, err = json.Marshal(c); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cfgFile, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	reach := func(content string) error {
		c, err := config.Load(cfgFile)
		if err != nil {
			t.Fatal(err)
		}
		repo, err := c.Channels[0].Remote()
		if err != nil {
			t.Fatal(err)
		}
		d, err := registry.PushBytes(t.Context(), repo, "application/octet-stream", []byte(content))
		if err != nil {
			return err
		}
		rc, err := carrier.NewRegistry(repo).Open(t.Context(), d, 0)
		if err != nil {
			return err
		}
		defer rc.Close()
		if b, err := io.ReadAll(rc); err != nil || string(b) != content {
			t.Errorf("%q came back as %q (%v)", content, b, err)
		}
		return nil
	}
	if err := reach("by flags"); err != nil {
		t.Errorf("absolute paths: %v", err)
	}
	for from, to := range map[string]string{s.CA.File: "ca.pem", cert: "client.pem", key: "client.key"} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(out, to), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	edit(func(c *config.Channel) { c.CAFile, c.ClientCert, c.ClientKey = "ca.pem", "client.pem", "client.key" })
	if err := reach("beside the configuration"); err != nil {
		t.Errorf("relative paths: %v", err)
	}
	edit(func(c *config.Channel) { c.ClientCert, c.ClientKey = "", "" })
	if err := reach("without a certificate"); diag.CodeOf(err) != diag.Registry {
		t.Errorf("without a certificate: %v", err)
	}
	edit(func(c *config.Channel) { c.CAFile = "" })
	if err := reach("without the authority"); diag.CodeOf(err) != diag.Registry || !strings.Contains(diag.Render(err), "not believed") {
		t.Errorf("without the authority: %v", err)
	}
}
