package cli

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// What a policy says in the tests of other programs: by data, so that a program that drops the data denies otherwise.
const (
	theirPolicy = "package main\n\ndeny contains msg if {\n\tinput.artifact.size > data.limits.size\n\tmsg := sprintf(\"%d bytes, at most %d\", [input.artifact.size, data.limits.size])\n}\n"
	theirDenial = "11 bytes, at most 10"
)

// policyInterop is one thing that another program does with a policy artifact.
type policyInterop struct {
	tool, what string
	run        func(t *testing.T, p *pushedPolicy) error
	result     string // for the table
	limit      string // what the error says, where it cannot; a regular expression
}

// pushedPolicy is a signed policy in the embedded registry.
type pushedPolicy struct {
	dir, ref, host string
	digest         string   // of the manifest
	layers         []string // their digests
}

// sameFiles tells whether dir holds the policy as it was written, and nothing else.
func (p *pushedPolicy) sameFiles(dir string) error {
	var got []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		want, err := os.ReadFile(filepath.Join(p.dir, "rules", rel))
		if err != nil || string(want) != string(b) {
			return fmt.Errorf("%s is not what was packed: %q (%w)", rel, b, err)
		}
		got = append(got, filepath.ToSlash(rel))
		return nil
	})
	if want := "limits/data.json main.rego policy.json"; err == nil && strings.Join(got, " ") != want {
		err = fmt.Errorf("files %v, want %s", got, want)
	}
	return err
}

// denies runs a program that must deny the large document with the message of the policy, and let the small one pass.
func (p *pushedPolicy) denies(t *testing.T, tool string, args ...string) error {
	t.Helper()
	large, _ := outside(t, p.dir, tool, append(args, "large.json")...)
	small, err := outside(t, p.dir, tool, append(args, "small.json")...)
	if !strings.Contains(large, theirDenial) || strings.Contains(small, "at most 10") || err != nil {
		return fmt.Errorf("large: %s\nsmall: %s (%w)", large, small, err)
	}
	return nil
}

func policyInterops() []policyInterop {
	tool := func(name string, words string) func(*testing.T, *pushedPolicy) error {
		return func(t *testing.T, p *pushedPolicy) error {
			out, err := outside(t, p.dir, name, strings.Fields(strings.ReplaceAll(words, "REF", p.ref))...)
			if err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		}
	}
	const flags = " --key policy.pub --allow-insecure-registry --insecure-ignore-tlog --trusted-root root.json REF"
	return []policyInterop{
		{tool: "conftest", what: "`conftest pull oci://...`, then `conftest test`", result: "the files, with data; the same denial", run: func(t *testing.T, p *pushedPolicy) error {
			const to = "theirs" // it takes a path relative to where it runs
			if out, err := outside(t, p.dir, "conftest", "pull", "--policy", to, "oci://"+p.ref); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			if err := p.sameFiles(filepath.Join(p.dir, to)); err != nil {
				return err
			}
			return p.denies(t, "conftest", "test", "--no-color", "--output", "json", "--policy", to, "--data", to)
		}},
		{tool: "opa", what: "`opa exec` with the artifact as a bundle of an OCI service", result: "the same denial; OPA checks no signature of it", run: func(t *testing.T, p *pushedPolicy) error {
			conf := filepath.Join(t.TempDir(), "opa.yaml")
			text := fmt.Sprintf("services: {reg: {url: \"http://%s\", type: oci}}\nbundles: {gov: {service: reg, resource: %q}}\npersistence_directory: %q\n", p.host, p.ref, t.TempDir())
			if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
				return err
			}
			return p.denies(t, "opa", "exec", "--config-file", conf, "--decision", "main/deny", "--timeout", "1m")
		}},
		{tool: "oras", what: "`oras pull`", result: "the files; layers 0 and 1 have no name and are skipped", run: func(t *testing.T, p *pushedPolicy) error {
			to := t.TempDir()
			if out, err := outside(t, p.dir, "oras", "pull", "--plain-http", p.ref, "-o", to); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return p.sameFiles(to)
		}},
		{tool: "oras", what: "`oras cp -r` into a layout", result: "with the signature", run: func(t *testing.T, p *pushedPolicy) error {
			to := filepath.Join(t.TempDir(), "lay")
			if out, err := outside(t, p.dir, "oras", "cp", "-r", "--from-plain-http", p.ref, "--to-oci-layout", to+":1"); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			out, err := outside(t, p.dir, "oras", "discover", "--format", "json", "--oci-layout", to+":1")
			if err != nil || !strings.Contains(out, "application/vnd.dev.sigstore.bundle") {
				return fmt.Errorf("%w\n%s", err, out)
			}
			return nil
		}},
		{tool: "crane", what: "`crane manifest`, `crane digest`", result: "as the registry has them", run: func(t *testing.T, p *pushedPolicy) error {
			for _, verb := range []string{"manifest", "digest"} {
				out, err := outside(t, p.dir, "crane", verb, p.ref)
				if err != nil || !strings.Contains(out, map[string]string{"manifest": p.layers[0], "digest": p.digest}[verb]) {
					return fmt.Errorf("%s: %w\n%s", verb, err, out)
				}
			}
			return nil
		}},
		{tool: "crane", what: "`crane pull --format=oci`", result: "the whole artifact", run: func(t *testing.T, p *pushedPolicy) error {
			to := filepath.Join(t.TempDir(), "lay")
			if out, err := outside(t, p.dir, "crane", "pull", "--format=oci", p.ref, to); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
			for _, l := range p.layers {
				if _, err := os.Stat(filepath.Join(to, "blobs", "sha256", strings.TrimPrefix(l, "sha256:"))); err != nil {
					return err
				}
			}
			return nil
		}},
		{tool: "crane", what: "`crane validate`", limit: "mismatched fs layers .5. and diff ids .0.", result: "no: it takes the artifact for an image because of layer 1, and wants its diff ids", run: tool("crane", "validate --remote REF")},
		{tool: "cosign-v3", what: "`cosign verify` with the policy key", result: "verifies. The key signs nothing but policies, so `verify` cannot be shown anything else", run: tool("cosign-v3", "verify"+flags)},
		{tool: "cosign-v3", what: "`cosign verify-attestation --type https://github.com/waybill-ml/waybill/predicate/policy/v1` with the policy key", result: "verifies", run: tool("cosign-v3", "verify-attestation --type https://github.com/waybill-ml/waybill/predicate/policy/v1"+flags)},
		{tool: "cosign-v3", what: "`cosign verify` with another key", limit: "no matching attestations: failed to verify signature", result: "refused", run: func(t *testing.T, p *pushedPolicy) error {
			return tool("cosign-v3", "verify"+strings.Replace(flags, "policy.pub", "other.pub", 1))(t, p)
		}},
	}
}

// TestPolicyInterop pushes a policy to the embedded registry, signed, and reads it with other programs: the same files,
// the same denial, the same signature. A program with a limit must still fail in the way that docs/environments.md tells.
func TestPolicyInterop(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many programs")
	}
	versions := policyToolVersions(t)
	x := newTrial(t, "")
	writeTree(t, x.dir, map[string][]byte{
		"rules/main.rego": []byte(theirPolicy), "rules/limits/data.json": []byte("{\"size\": 10}\n"), "rules/policy.json": []byte("{\"name\": \"governance\", \"version\": \"2.3\"}\n"),
		"large.json": []byte(`{"artifact": {"size": 11}}`), "small.json": []byte(`{"artifact": {"size": 10}}`),
	})
	p := &pushedPolicy{dir: x.dir, host: x.reg, ref: x.reg + "/ml/governance:2.3"}
	for _, l := range []string{"keys generate --role policy", "keys generate --role policy --out other.key", "policy push rules " + p.ref + " --key policy.key"} {
		x.must(strings.Fields(l)...)
	}
	p.read(t)
	if _, ok := versions["cosign-v3"]; ok {
		if out, err := outside(t, x.dir, "cosign-v3", "trusted-root", "create", "--out", "root.json"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	rows := []string{}
	for _, c := range policyInterops() {
		t.Run(strings.ReplaceAll(c.what, "/", "-"), func(t *testing.T) {
			v, ok := versions[c.tool]
			if !ok {
				t.Skipf("%s is not installed", c.tool)
			}
			switch err := c.run(t, p); {
			case c.limit == "" && err != nil:
				t.Error(err)
			case c.limit != "" && err == nil:
				t.Error("it works now: the table must say so")
			case c.limit != "" && !regexp.MustCompile(c.limit).MatchString(err.Error()):
				t.Errorf("it fails otherwise than known: %v", err)
			}
			rows = append(rows, fmt.Sprintf("| %s %s | %s | %s |", strings.TrimSuffix(c.tool, "-v3"), v, c.what, c.result))
		})
	}
	if t.Failed() || len(rows) != len(policyInterops()) {
		return // no whole table
	}
	const name, head = "../../docs/environments.md", "| program | what | result |\n|---|---|---|\n"
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(raw), "\r\n", "\n")
	before, rest, ok := strings.Cut(text, head)
	if !ok {
		t.Fatalf("%s has no table of programs", name)
	}
	for strings.HasPrefix(rest, "|") {
		_, rest, _ = strings.Cut(rest, "\n")
	}
	want := before + head + strings.Join(rows, "\n") + "\n" + rest
	if os.Getenv("WAYBILL_WRITE_INTEROP") != "" {
		if err := os.WriteFile(name, []byte(want), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != text {
		t.Errorf("the table in %s is not what came out here; run with WAYBILL_WRITE_INTEROP=1:\n%s", name, strings.Join(rows, "\n"))
	}
}

// policyToolVersions asks each program for its version; one that is absent is left out, and fails the test where tools are required.
func policyToolVersions(t *testing.T) map[string]string {
	t.Helper()
	versions := map[string]string{}
	for _, tool := range []string{"conftest", "opa", "oras", "crane", "cosign-v3"} {
		path, err := exec.LookPath(tool)
		if err != nil {
			if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
				t.Errorf("%s is not installed, and WAYBILL_REQUIRE_TOOLS is set", tool)
			}
			continue
		}
		info, err := buildinfo.ReadFile(path) // what conftest says of itself is its OPA's version
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		versions[tool] = strings.TrimPrefix(info.Main.Version, "v")
	}
	if len(versions) == 0 {
		t.Skip("none of conftest, opa, oras, crane, cosign-v3 is installed")
	}
	return versions
}

// read asks the registry for the manifest.
func (p *pushedPolicy) read(t *testing.T) {
	t.Helper()
	repo, tag, _ := strings.Cut(strings.TrimPrefix(p.ref, p.host+"/"), ":")
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.host+"/v2/"+repo+"/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s %v %s", res.Status, err, b)
	}
	var m struct {
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(b, &m); err != nil || len(m.Layers) != 5 {
		t.Fatalf("%v %s", err, b)
	}
	p.digest = string(artifact.DigestOf(b))
	for _, l := range m.Layers {
		p.layers = append(p.layers, l.Digest)
	}
}
