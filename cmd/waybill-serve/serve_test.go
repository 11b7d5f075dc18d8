package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/ecslog"
	"github.com/waybill-ml/waybill/edge-runtime/edge"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/registry"
	"github.com/waybill-ml/waybill/oci/trust"
)

// TestMain lets the test binary be waybill-serve itself, so that tests run a real second process without a build.
func TestMain(m *testing.M) {
	switch os.Getenv("WAYBILL_SERVE_TEST_MAIN") {
	case "1":
		main()
	case "unproven":
		os.Exit(int(run(context.Background(), os.Args, os.Getenv, os.Stdout, os.Stderr, unproven)))
	}
	os.Exit(m.Run())
}

// shipped is an artifact with its release in the folder of an OCI layout, and the trust document beside it.
type shipped struct {
	p      *edgetest.Publisher
	target channel.Target
	dir    string // of the layout
	trust  string
}

func ship(t *testing.T, edit ...func(p *edgetest.Publisher)) *shipped {
	t.Helper()
	p := edgetest.NewPublisher(t)
	for _, e := range edit {
		e(p)
	}
	x := &shipped{p: p, target: p.Pack("v1"), dir: t.TempDir()}
	p.Change(x.target) // attaches the release and the verdict
	x.write(t)
	return x
}

// write makes the layout and the trust file anew from what the registry and the world hold.
func (x *shipped) write(t *testing.T) {
	t.Helper()
	var b bytes.Buffer
	items := []registry.SaveItem{{From: x.p.Repo, Target: string(x.target.Digest), Name: "churn:1"}}
	if _, err := registry.Save(t.Context(), &b, items, registry.SaveOptions{}); err != nil {
		t.Fatal(err)
	}
	untar(t, &b, x.dir)
	x.trust = filepath.Join(t.TempDir(), "trust.jsonl")
	if err := os.WriteFile(x.trust, x.p.Trust(), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (x *shipped) env() []string {
	return []string{
		"WAYBILL_ARTIFACT=" + x.dir, "WAYBILL_TRUST=" + x.trust, "WAYBILL_TRUST_DIGEST=" + string(x.p.TrustRef().Digest),
		"WAYBILL_MODEL=" + edgetest.Model, "WAYBILL_LISTEN=127.0.0.1:0",
	}
}

// server is a running process.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	url  string
	log  *bytes.Buffer // read it after wait
	done chan error
}

// launch starts the program and waits until it serves; without an address it has ended.
func launch(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, cmd: exec.Command(exe, args...), log: &bytes.Buffer{}, done: make(chan error, 1)}
	s.cmd.Env, s.cmd.Stderr = append(append(os.Environ(), "WAYBILL_SERVE_TEST_MAIN=1"), env...), s.log
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(stdout)
	for s.url == "" && lines.Scan() {
		if _, at, ok := strings.Cut(lines.Text(), " on "); ok {
			s.url = at
		}
	}
	go func() {
		_, _ = io.Copy(io.Discard, stdout) // to its end, before Wait closes it
		s.done <- s.cmd.Wait()
	}()
	t.Cleanup(func() {
		if s.done != nil {
			_ = s.cmd.Process.Kill()
			<-s.done
		}
	})
	return s
}

// wait gives the exit code once the process has ended.
func (s *server) wait() int {
	s.t.Helper()
	select {
	case <-s.done:
		s.done = nil
		return s.cmd.ProcessState.ExitCode()
	case <-time.After(time.Minute):
		s.t.Fatal("the process does not end")
		return 0
	}
}

// started is launch of a process that must come to serve.
func started(t *testing.T, env []string, args ...string) *server {
	t.Helper()
	s := launch(t, env, args...)
	if s.url == "" {
		t.Fatalf("exit code %d\n%s", s.wait(), s.log)
	}
	return s
}

func call(t *testing.T, method, url, contentType string, body []byte) (int, http.Header, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header, b
}

// question is a request of the Open Inference Protocol.
func question(t *testing.T) []byte {
	t.Helper()
	row, err := edge.Values[float32](edgetest.Row(1))
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(map[string]any{"inputs": []any{map[string]any{"name": "X", "datatype": "FP32", "shape": []int{1, 30}, "data": row}}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestServesAndDrains(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no SIGTERM")
	}
	x := ship(t)
	for _, args := range [][]string{nil, {"serve"}} {
		s := started(t, x.env(), args...)
		if code, _, b := call(t, "GET", s.url+"/v2/health/ready", "", nil); code != 200 {
			t.Errorf("ready: %d %s", code, b)
		}
		code, h, b := call(t, "POST", s.url+"/v2/models/churn/infer", "application/json", question(t))
		if code != 200 || h.Get("Waybill-Digest") != string(x.target.Digest) || !bytes.Contains(b, []byte(`"outputs"`)) {
			t.Errorf("infer: %d %v %s", code, h, b)
		}
		if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if code := s.wait(); code != 0 {
			t.Errorf("exit code %d after SIGTERM\n%s", code, s.log)
		}
		for _, line := range bytes.Split(bytes.TrimSpace(s.log.Bytes()), []byte("\n")) {
			if err := ecslog.CheckLine(line); err != nil {
				t.Errorf("log: %v", err)
			}
		}
	}
}

// The port is the platform's, and compiled code is kept where there is a place for it.
func TestCacheAndFlags(t *testing.T) {
	x := ship(t)
	cache := t.TempDir()
	for range 2 {
		s := started(t, append(x.env(), "WAYBILL_MODEL=nonsense", "WAYBILL_LOG=text"), "--model", edgetest.Model, "--cache", cache, "--digest", string(x.target.Digest))
		if code, _, b := call(t, "POST", s.url+"/v2/models/churn/infer", "application/json", question(t)); code != 200 {
			t.Errorf("infer: %d %s", code, b)
		}
	}
	entries, err := os.ReadDir(filepath.Join(cache, "code"))
	if err != nil || len(entries) == 0 {
		t.Errorf("nothing was kept: %v", err)
	}
}

func TestPortOfThePlatform(t *testing.T) {
	o := &options{}
	for _, c := range []struct{ set, listen, want string }{{"", "", ":8080"}, {"1234", "", ":1234"}, {"1234", "127.0.0.1:9", "127.0.0.1:9"}} {
		o.listen = c.listen
		if got := address(o, func(v string) string { return map[string]string{"PORT": c.set}[v] }, "PORT"); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// What is not proven does not start: nothing is listened on, and the exit code tells why.
func TestFailsClosed(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(p *edgetest.Publisher)
		spoil func(t *testing.T, x *shipped)
		env   []string
		code  diag.Code
		says  string
	}{
		"a layer was altered": {spoil: func(t *testing.T, x *shipped) { alter(t, x.layer(t, artifact.RoleModule)) }, code: diag.Verification, says: "has digest"},
		"the trust document is another's": {spoil: func(t *testing.T, x *shipped) {
			was := x.p.TrustRef().Digest
			x.p.Doc.Issued = x.p.Doc.Issued.Add(time.Second)
			if err := os.WriteFile(x.trust, x.p.Trust(), 0o600); err != nil {
				t.Fatal(err)
			}
			if x.p.TrustRef().Digest == was {
				t.Fatal("it is the same document")
			}
			x.p.Doc.Issued = x.p.Doc.Issued.Add(-time.Second) // the pin is that of the first
		}, code: diag.Verification, says: "trust document"},
		"the key is not the publisher's": {edit: func(p *edgetest.Publisher) {
			for i := range p.Doc.Keys {
				if p.Doc.Keys[i].Role == trust.RolePublisher {
					p.Doc.Revoked = append(p.Doc.Revoked, p.Doc.Keys[i].ID)
				}
			}
		}, code: diag.Verification, says: "revoked"},
		"released under another name":  {env: []string{"WAYBILL_MODEL=other"}, code: diag.Verification, says: "other"},
		"evidence that is not there":   {env: []string{"WAYBILL_EVIDENCE=" + evidence.TypeDataset}, code: diag.Verification, says: "dataset"},
		"another digest":               {env: []string{"WAYBILL_DIGEST=sha256:" + strings.Repeat("0", 64)}, code: diag.NotFound},
		"no artifact":                  {env: []string{"WAYBILL_ARTIFACT=nowhere"}, code: diag.NotFound},
		"no pin of the trust document": {env: []string{"WAYBILL_TRUST_DIGEST=unpinned"}, code: diag.Verification, says: "digest"},
		"the trust document's time is over": {edit: func(p *edgetest.Publisher) {
			p.Doc.Issued, p.Doc.Expires = p.Now.Add(-48*time.Hour), p.Now.Add(-24*time.Hour)
		}, code: diag.Verification, says: "expired"},
		"an address that cannot be": {env: []string{"WAYBILL_LISTEN=127.0.0.1:99999"}, code: diag.Failure},
		"no such variant":           {env: []string{"WAYBILL_VARIANT=mainframe"}, code: diag.Usage, says: "WAYBILL_VARIANT"},
		"a time that is none":       {env: []string{"WAYBILL_GRACE=-1s"}, code: diag.Usage, says: "WAYBILL_GRACE"},
	} {
		t.Run(name, func(t *testing.T) {
			var edit []func(*edgetest.Publisher)
			if c.edit != nil {
				edit = append(edit, c.edit)
			}
			x := ship(t, edit...)
			if c.spoil != nil {
				c.spoil(t, x)
			}
			s := launch(t, append(x.env(), c.env...))
			if s.url != "" {
				t.Fatalf("it serves on %s", s.url)
			}
			if code := s.wait(); code != int(c.code) || !strings.Contains(s.log.String(), "error: ") || !strings.Contains(s.log.String(), c.says) {
				t.Errorf("exit code %d, not %d, or no word of %q:\n%s", code, c.code, c.says, s.log)
			}
		})
	}
}

// A start is no new decision: what was let in while the trust document held starts afterwards too, when its image says as of when.
func TestAsOf(t *testing.T) {
	var then string
	x := ship(t, func(p *edgetest.Publisher) {
		then = p.Now.Add(-36 * time.Hour).Format(time.RFC3339)
		p.Doc.Issued, p.Doc.Expires = p.Now.Add(-48*time.Hour), p.Now.Add(-24*time.Hour)
	})
	s := started(t, append(x.env(), "WAYBILL_AS_OF="+then))
	if code, _, b := call(t, "GET", s.url+"/v2/health/ready", "", nil); code != 200 {
		t.Errorf("ready: %d %s", code, b)
	}
}

func TestCommandLine(t *testing.T) {
	none := func(string) string { return "" }
	for _, c := range []struct {
		args []string
		code diag.Code
		says string
	}{
		{[]string{"version"}, diag.OK, "waybill-serve "},
		{[]string{"help"}, diag.OK, "WAYBILL_TRUST_DIGEST"},
		{[]string{"serve", "--help"}, diag.OK, "--trust"},
		{nil, diag.Usage, "there is nothing to prove the model by"},
		{[]string{"--artefact", "x"}, diag.Usage, "did you mean --artifact?"},
		{[]string{"more"}, diag.Usage, `surplus argument "more"`},
		{[]string{"--listen", "8080"}, diag.Usage, "--listen"},
		{[]string{"--as-of", "yesterday"}, diag.Usage, "--as-of"},
		{[]string{"--log", "xml"}, diag.Usage, "json"},
		{[]string{"--max-body", "-1"}, diag.Usage, "--max-body"},
	} {
		var out bytes.Buffer
		if code := run(t.Context(), append([]string{"waybill-serve"}, c.args...), none, &out, &out, open); code != c.code || !strings.Contains(strings.ReplaceAll(out.String(), "  -", "  --"), c.says) {
			t.Errorf("%q: exit code %d\n%s", c.args, code, out.String())
		}
	}
}

// unproven is the program without its proof.
func unproven(ctx context.Context, o *options, log *slog.Logger) (*edge.Opened, error) {
	return edge.InsecureOpenWithoutAnyProof(ctx, o.artifact, engineConfig(o, log))
}

// Whoever can write into the image puts another model in place of the released one, whole and in order, but for the release that he
// cannot sign. The proof at the start is all that keeps it away: without it the model serves under the name of the other.
func TestAnotherModelInTheImage(t *testing.T) {
	x := ship(t)
	real := x.target
	x.target = x.p.Pack("v2")
	if x.target.Digest == real.Digest {
		t.Fatal("it is the same model")
	}
	x.dir = t.TempDir()
	x.write(t)
	s := launch(t, x.env())
	if s.url != "" {
		t.Fatal("it serves")
	}
	if code := s.wait(); code != int(diag.Verification) {
		t.Errorf("exit code %d\n%s", code, s.log)
	}
	s = started(t, append(x.env(), "WAYBILL_SERVE_TEST_MAIN=unproven"))
	code, h, b := call(t, "POST", s.url+"/v2/models/churn/infer", "application/json", question(t))
	if code != 200 || h.Get("Waybill-Digest") != string(x.target.Digest) {
		t.Errorf("without the proof the attack fails all the same: %d %s", code, b)
	}
}

// layer is the file of the one layer of a role.
func (x *shipped) layer(t *testing.T, r artifact.Role) string {
	t.Helper()
	m, _, err := registry.ReadModel(t.Context(), x.p.Repo, string(x.target.Digest))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range m.Layers {
		if l.Role == r {
			return filepath.Join(x.dir, "blobs", "sha256", l.Digest.Hex())
		}
	}
	t.Fatalf("no layer of role %s", r)
	return ""
}

// alter changes one bit in the middle of a file.
func alter(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
