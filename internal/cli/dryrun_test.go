package cli

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ucli "github.com/urfave/cli/v2"

	"github.com/waybill-ml/waybill/internal/once"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/server"
	"github.com/waybill-ml/waybill/oci/store"
)

// trial is a copy of a folder with keys, documents, a store and a registry, in which commands run.
type trial struct {
	t      *testing.T
	dir    string
	home   string
	reg    string       // host:port of the registry, whose content is in dir/registry
	writes atomic.Int64 // requests that change something
}

func newTrial(t *testing.T, from string) *trial {
	t.Helper()
	x := &trial{t: t, dir: t.TempDir()}
	x.home = filepath.Join(x.dir, "home")
	if from != "" {
		if err := os.CopyFS(x.dir, os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
		keys, err := filepath.Glob(filepath.Join(x.dir, "*.key"))
		if err != nil || len(keys) == 0 {
			t.Fatal("no keys", err)
		}
		for _, k := range keys { // whose mode the copy does not keep
			if err := os.Chmod(k, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	s, err := server.New(filepath.Join(x.dir, "registry"), server.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			x.writes.Add(1)
		}
		s.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	x.reg = strings.TrimPrefix(h.URL, "http://")
	return x
}

// run runs a command line; {REG} in it is the registry's address.
func (x *trial) run(args ...string) (code int, stdout, stderr string) {
	x.t.Helper()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "{REG}", x.reg)
	}
	var out, errb bytes.Buffer
	env := &Env{
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errb, Dir: x.dir, Home: x.home, Now: time.Now, Rand: rand.Reader,
		Getenv: func(k string) string {
			return map[string]string{"WAYBILL_HOME": x.home, "WAYBILL_PASSWORD": "correct horse battery staple", "DOCKER_CONFIG": x.home}[k]
		},
	}
	code = Run(x.t.Context(), env, args)
	return code, out.String(), errb.String()
}

func (x *trial) must(args ...string) string {
	x.t.Helper()
	code, out, errs := x.run(args...)
	if code != 0 {
		x.t.Fatalf("waybill %s: exit code %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return strings.TrimSpace(out)
}

// treeOf is all files and folders below a folder, locks left out, with their content and mode.
func treeOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || strings.HasPrefix(d.Name(), ".waybill.") {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, p)
		if d.IsDir() {
			out[rel] = info.Mode().String()
			return nil
		}
		b, err := os.ReadFile(p)
		out[rel] = info.Mode().String() + "\x00" + string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// changes names what differs between two trees.
func changes(before, after map[string]string) []string {
	var out []string
	for p, v := range after {
		if was, ok := before[p]; !ok {
			out = append(out, p+" is new")
		} else if was != v {
			out = append(out, p+" changed")
		}
	}
	for p := range before {
		if _, ok := after[p]; !ok {
			out = append(out, p+" is gone")
		}
	}
	slices.Sort(out)
	return out
}

// readOnly are the commands that change nothing, or nothing of the user's; "" is a line that is tried below, else the
// reason why the command has no --dry-run though it writes.
func readOnly() map[string]string {
	return map[string]string{
		"approvals":       "it reads",
		"audit show":      "", // it has --dry-run for its --html file
		"bench":           "it measures",
		"channel history": "", "channel show": "", "channel verify": "", "channel status": "it reads; --seen is its own memory",
		"complete": "", "completion": "", "help": "", "version": "",
		"demo":     "it plays in a folder of its own",
		"diff":     "",
		"env show": "", "env verify": "",
		"facts":         "",
		"inspect":       "",
		"keys show":     "",
		"policy digest": "", "policy eval": "it reads", "policy list": "", "policy explain": "", "policy verify": "", "env diff": "",
		"predict":        "it prints",
		"registry serve": "what it stores is what its clients push",
		"status":         "it asks platforms",
		"store ls":       "", "store stat": "", "store verify": "",
		"oms verify": "it reads",
		"test":       "it runs cases",
		"trust show": "", "trust verify": "",
		"verify": "",
	}
}

// dryRuns are lines that change something when --dry-run is taken away, for every command that has the flag.
func dryRuns() map[string][]string {
	const v1, v2 = "breast-cancer:1.0.0", "breast-cancer:2.0.0"
	const remote = "{REG}/ml/breast-cancer"
	return map[string][]string{
		"init":             {"init fresh/model.onnx"},
		"pack":             {"pack v1 --tag again", "pack v1 --without-source"},
		"compile":          {"compile fresh/model.onnx --out built --explain-svg graph.svg"},
		"push":             {"push " + v2 + " {REG}/ml/other:2.0.0"},
		"pull":             {"pull " + remote + ":1.0.0 candidate:1", "pull " + remote + ":1.0.0 --out files"},
		"copy":             {"copy " + v1 + " layout:stick:1", "copy " + remote + ":1.0.0 {REG}/other/bc:1", "copy " + v1 + " other:1"},
		"save":             {"save " + v1 + " --out one.tar", "save " + remote + ":1.0.0 --with-evidence --channel prod --out site.tar"},
		"image":            {"image " + v1 + " --runtime {SERVE} --out image.tar --key publisher.key", "image " + remote + ":1.0.0 --runtime {SERVE} --variant lambda --push {REG}/images/bc:1 --out layout"},
		"bundle":           {"bundle " + v1 + " --out web", "bundle " + remote + ":1.0.0 --for node --out web"},
		"load":             {"load saved.tar --name loaded:1", "load saved.tar --trust trust.signed --require-evidence --papers papers"},
		"store rm":         {"store rm " + v1},
		"store prune":      {"store prune --untagged"},
		"store own":        {"store own referring:1", "store own"},
		"keys generate":    {"keys generate --role approver", "keys generate --role approver --out deep/er.key"},
		"keys import":      {"keys import elsewhere.pem --role approver --out imported.key"},
		"trust init":       {"trust init --root root.pub --out other.yaml"},
		"trust add":        {"trust add trust.yaml --expires 400d"},
		"trust revoke":     {"trust revoke trust.yaml --deny sha256:" + strings.Repeat("ab", 32)},
		"trust rule":       {"trust rule trust.yaml evaluation --max-age 90d"},
		"trust rotate":     {"trust rotate trust.yaml third.pub --key-id {SECOND} --old revoke"},
		"oms export":       {"oms export " + v2 + " --out model.sig"},
		"trust sign":       {"trust sign next/trust.yaml --key root.key"},
		"sign":             {"sign " + v2 + " --key second.key", "sign " + remote + ":1.0.0 --key second.key"},
		"attest":           {"attest " + v2 + " --type dataset --predicate v1/dataset.json --key evaluator.key"},
		"approve":          {"approve " + v1 + " --role ml-lead --reason looked --key approver0.key"},
		"gate":             {"gate {NOW} --env prod --key gate.key"},
		"policy pack":      {"policy pack --out policy.tar", "policy pack"},
		"policy push":      {"policy push builtin {REG}/policies/new:1.0", "policy push {REG}/policies/governance:1.0 {REG}/policies/copy:1.0"},
		"policy pull":      {"policy pull {REG}/policies/governance:1.0 --out rules", "policy pull {REG}/policies/governance:1.0"},
		"policy lint":      {"policy lint --sarif lint.sarif"},
		"policy test":      {"policy test --run ID-001 --junit tests.xml"},
		"policy fmt":       {"policy fmt fresh"},
		"policy conftest":  {"policy conftest --out rules-for-conftest"},
		"env init":         {"env init dev --out dev.yaml"},
		"env sign":         {"env sign environments.yaml --key root.key --out again.signed"},
		"channel publish":  {"channel publish prod {NOW} --key deployer.key"},
		"channel freeze":   {"channel freeze prod " + remote + " --reason wrong --key deployer.key"},
		"channel refresh":  {"channel refresh prod " + remote + " --key deployer.key"},
		"channel rollback": {"channel rollback prod " + remote + " --to {BEFORE} --reason worse --key deployer.key"},
		"audit show":       {"audit show " + v1 + " --html page.html"},
	}
}

// looks are lines of commands that only read.
func looks() []string {
	return []string{
		"inspect breast-cancer:1.0.0", "inspect {REG}/ml/breast-cancer:1.0.0 --output json", "inspect saved.tar", "inspect fresh/model.onnx",
		"verify breast-cancer:1.0.0", "verify {REG}/ml/breast-cancer:2.0.0 --env prod", "facts {NOW} --env prod",
		"diff breast-cancer:1.0.0 {REG}/ml/breast-cancer:2.0.0",
		"channel show prod {REG}/ml/breast-cancer", "channel history prod {REG}/ml/breast-cancer", "channel verify prod {REG}/ml/breast-cancer",
		"env show", "env verify", "keys show publisher.pub", "trust show", "trust verify trust.signed",
		"policy list", "policy explain MET-001", "policy digest", "store ls", "store stat", "store verify", "audit show breast-cancer:1.0.0",
		"version", "help sign", "completion bash",
	}
}

// Every command that changes something has --dry-run, which does all the reading and checking and changes nothing: no file
// and, on a registry, not by one request. Without the flag the same line does change something.
func TestDryRun(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("it runs every command twice")
	}
	lines := dryRuns()
	var walk func(level []Command, path string)
	walk = func(level []Command, path string) {
		for _, c := range level {
			p := strings.TrimSpace(path + " " + c.Name)
			walk(c.Sub, p)
			if c.Run == nil || c.Hidden {
				continue
			}
			has := slices.ContainsFunc(c.Flags, func(f ucli.Flag) bool { return f.Names()[0] == "dry-run" })
			_, reads := readOnly()[p]
			switch {
			case !has && !reads:
				t.Errorf("waybill %s has no --dry-run and is not known to change nothing", p)
			case has && len(lines[p]) == 0 && !slices.Contains(untried(), p):
				t.Errorf("waybill %s has --dry-run, and no line here tries it", p)
			}
		}
	}
	walk(commands(), "")

	base := newTrial(t, "")
	vars := furnish(t, base)
	expand := func(x *trial, line string) []string {
		for k, v := range vars {
			line = strings.ReplaceAll(line, k, v)
		}
		return strings.Fields(strings.ReplaceAll(line, base.reg, x.reg))
	}
	for _, cmd := range slices.Sorted(maps.Keys(lines)) {
		for _, line := range lines[cmd] {
			t.Run(line, func(t *testing.T) {
				x := newTrial(t, base.dir)
				before := treeOf(t, x.dir)
				code, out, errs := x.run(append(expand(x, line), "--dry-run")...)
				if code != 0 {
					t.Fatalf("exit code %d\n%s%s", code, out, errs)
				}
				if d := changes(before, treeOf(t, x.dir)); len(d) > 0 {
					t.Errorf("a dry run changed: %s", strings.Join(d, ", "))
				}
				if n := x.writes.Load(); n > 0 {
					t.Errorf("a dry run sent %d requests that write", n)
				}
				if out+errs == "" {
					t.Error("a dry run says nothing")
				}
				if code, out, errs = x.run(expand(x, line)...); code != 0 {
					t.Fatalf("without --dry-run: exit code %d\n%s%s", code, out, errs)
				}
				if len(changes(before, treeOf(t, x.dir))) == 0 && x.writes.Load() == 0 {
					t.Error("without --dry-run it changes nothing either: the line proves nothing")
				}
			})
		}
	}
	t.Run("commands that read", func(t *testing.T) {
		x := newTrial(t, base.dir)
		for _, line := range looks() {
			before := treeOf(t, x.dir)
			x.must(expand(x, line)...)
			if d := changes(before, treeOf(t, x.dir)); len(d) > 0 {
				t.Errorf("%s changed: %s", line, strings.Join(d, ", "))
			}
		}
		if n := x.writes.Load(); n > 0 {
			t.Errorf("%d requests that write", n)
		}
	})
	t.Run("on a machine that never ran it", func(t *testing.T) {
		x := newTrial(t, "")
		before := treeOf(t, x.dir)
		for _, line := range []string{"store ls", "store stat", "store verify", "store prune --dry-run", "policy list"} {
			x.must(strings.Fields(line)...)
		}
		for _, line := range []string{"inspect churn:1.0", "verify churn:1.0", "copy churn:1.0 layout:x:1 --dry-run", "store rm churn:1.0 --dry-run"} {
			if code, out, errs := x.run(strings.Fields(line)...); code != 7 {
				t.Errorf("%s: exit code %d\n%s%s", line, code, out, errs)
			}
		}
		if d := changes(before, treeOf(t, x.dir)); len(d) > 0 {
			t.Errorf("a look changed: %s", strings.Join(d, ", "))
		}
	})
}

// untried are commands with --dry-run that need a service that is not here; the tests of that service try the flag.
func untried() []string {
	return []string{"keys register", "channel unfreeze", "channel provision", "deploy", "promote", "rollback"}
}

// refer puts an artifact into the trial's store whose only layer is a file elsewhere.
func refer(t *testing.T, x *trial, path string) {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(x.home, "store"), store.Options{Create: true, References: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	in, err := s.Import(t.Context(), f, path, store.ImportOptions{How: store.HowReference})
	if err != nil {
		t.Fatal(err)
	}
	c, err := s.PutBytes(t.Context(), artifact.MediaTypeEmpty, []byte(artifact.EmptyConfig))
	if err != nil {
		t.Fatal(err)
	}
	b, err := artifact.Canonical(artifact.Manifest{SchemaVersion: 2, MediaType: artifact.MediaTypeManifest, ArtifactType: "application/x-test",
		Config: c, Layers: []artifact.Descriptor{{MediaType: "application/octet-stream", Digest: in.Digest, Size: in.Size}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.PutManifest(t.Context(), b, artifact.MediaTypeManifest, store.PutOptions{Ref: "referring:1"}); err != nil {
		t.Fatal(err)
	}
}

// furnish fills a trial: two models with evidence, one of them on the registry and in a channel, keys, trust document,
// environments, an archive.
func furnish(t *testing.T, x *trial) map[string]string {
	t.Helper()
	for _, v := range []string{"v1", "v2"} {
		if err := os.CopyFS(filepath.Join(x.dir, v), os.DirFS("../../examples/breast-cancer/"+v)); err != nil {
			t.Fatal(err)
		}
	}
	model, err := os.ReadFile(filepath.Join(x.dir, "v1", "model.onnx"))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{"fresh", "next"} {
		if err := os.MkdirAll(filepath.Join(x.dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(x.dir, "fresh", "main.rego"), []byte("package main\n\ndeny contains \"x\" if { input.x==1 }\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "fresh", "model.onnx"), model, 0o600); err != nil {
		t.Fatal(err)
	}
	line := func(s string) string { return x.must(strings.Fields(s)...) }
	weights := filepath.Join(x.dir, "weights.bin")
	if err := os.WriteFile(weights, []byte("no other file is like this one"), 0o600); err != nil {
		t.Fatal(err)
	}
	refer(t, x, weights)
	line("pack v1")
	line("pack v2")
	for _, r := range []string{"root", "publisher", "evaluator", "gate", "deployer"} {
		line("keys generate --role " + r)
	}
	line("keys generate --role approver --out approver0.key")
	second := line("keys generate --role publisher --out second.key")
	line("keys generate --role publisher --out third.key")
	line("env init prod")
	policy := line("policy digest")
	line("policy push builtin {REG}/policies/governance:1.0")
	line("trust init --root root.pub")
	for _, r := range []string{"publisher", "evaluator", "gate", "deployer"} {
		line("trust add trust.yaml " + r + ".pub --role " + r)
	}
	line("trust add trust.yaml second.pub --role publisher --name second")
	line("trust add trust.yaml approver0.pub --role approver --approver-role ml-lead --policy " + policy)
	line("trust sign trust.yaml --key root.key")
	line("env sign environments.yaml --key root.key")
	for _, f := range []string{"trust.yaml", "trust.signed"} { // the next version, not signed yet
		b, err := os.ReadFile(filepath.Join(x.dir, f))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(x.dir, "next", f), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	line("trust add next/trust.yaml --expires 500d")
	evidence := func(ref, v string) {
		line("sign " + ref + " --key publisher.key")
		line("attest " + ref + " --type evaluation --predicate " + v + "/evaluation.json --key evaluator.key")
		line("attest " + ref + " --type dataset --predicate " + v + "/dataset.json --key evaluator.key")
	}
	evidence("breast-cancer:1.0.0", "v1")
	v0 := line("push breast-cancer:1.0.0 {REG}/ml/breast-cancer:1.0.0")
	evidence("breast-cancer:2.0.0", "v2")
	v1 := line("push breast-cancer:2.0.0 {REG}/ml/breast-cancer:2.0.0")
	line("sign breast-cancer:2.0.0 --oms --key publisher.key")
	line("gate " + v0 + " --env prod --key gate.key")
	line("channel publish prod " + v0 + " --key deployer.key")
	line("gate " + v1 + " --env prod --key gate.key")
	line("channel publish prod " + v1 + " --key deployer.key")
	line("gate " + v1 + " --env prod --key gate.key") // against the channel as it is now
	line("save {REG}/ml/breast-cancer:1.0.0 --with-evidence --out saved.tar")
	line("copy breast-cancer:1.0.0 spare:1")
	line("store rm spare:1")
	priv, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "elsewhere.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	// Something for prune: a blob that nothing needs.
	b := []byte("nobody needs this")
	if err := os.WriteFile(filepath.Join(x.home, "store", "blobs", "sha256", strings.TrimPrefix(string(artifact.DigestOf(b)), "sha256:")), b, 0o600); err != nil {
		t.Fatal(err)
	}
	_, v0d, _ := strings.Cut(v0, "@")
	return map[string]string{"{NOW}": v1, "{BEFORE}": v0d, "{SECOND}": second[:12], "{SERVE}": serveProgram(t)}
}
