package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/registry/servertest"
)

// interop is one thing that another program does with what we made, or we with what it made. Words are split at spaces, lines of waybill at "; ".
// REF is the artifact in a registry, REPO its repository, NEW a reference of this row's own, FILE what save wrote, LAY the same unpacked,
// IMAGE a container image of it that a publisher signed, FOLDER the pulled files, OUT a new path, RUN a folder with a short name.
type interop struct {
	tool, what string
	before     string // lines of waybill that come first; "" for none. Where then is given too, its last line must fail after them: not proven yet
	line       string
	then       string // lines of waybill that must succeed afterwards; "" for none
	says       string // what the program must say, a regular expression; "" for anything
	limit      string // what the program says instead, where it cannot; a regular expression
	why        string // of the limit, for the table
}

const cosignFlags = " --key publisher.pub --insecure-ignore-tlog --trusted-root root.json "

// onRegistry is tried against every registry.
func onRegistry() []interop {
	return []interop{
		{tool: "oras", what: "pull the files", line: "pull --plain-http REF -o OUT"},
		{tool: "oras", what: "discover the evidence", line: "discover --plain-http REF"},
		{tool: "oras", what: "copy with evidence into a layout; verified there", line: "cp -r --from-plain-http REF --to-oci-layout OUT:1", then: "verify layout:OUT:1"},
		{tool: "oras", what: "copy with evidence to another repository; verified there", line: "cp -r --from-plain-http --to-plain-http REF REPO-oras:1", then: "verify REPO-oras:1"},
		{tool: "oras", what: "attach a note; listed by inspect", line: "attach --plain-http --artifact-type application/x.note REF note.txt", then: "inspect REF"},
		{tool: "crane", what: "validate", line: "validate --remote REF"},
		{tool: "crane", what: "copy to another repository; read there", line: "cp REF REPO-crane:1", then: "inspect REPO-crane:1"},
		{tool: "crane", what: "pull into a layout", line: "pull --format=oci REF OUT"},
		{tool: "skopeo", what: "read the manifest", line: "inspect --raw --tls-verify=false docker://REF"},
		{tool: "skopeo", what: "copy into a layout; read there", line: "copy --src-tls-verify=false docker://REF oci:OUT:1", then: "inspect layout:OUT:1"},
		{tool: "skopeo", what: "copy to another repository; read there", line: "copy --src-tls-verify=false --dest-tls-verify=false docker://REF docker://REPO-skopeo:1", then: "inspect REPO-skopeo:1"},
		{tool: "cosign", what: "verify", line: "verify --new-bundle-format --allow-insecure-registry" + cosignFlags + "REF"},
		{tool: "cosign", what: "verify-attestation", line: "verify-attestation --new-bundle-format --allow-insecure-registry --type https://sigstore.dev/cosign/sign/v1" + cosignFlags + "REF"},
		{tool: "cosign-v3", what: "verify", line: "verify --allow-insecure-registry" + cosignFlags + "REF"},
		{tool: "cosign-v3", what: "verify-attestation", line: "verify-attestation --allow-insecure-registry --type https://sigstore.dev/cosign/sign/v1" + cosignFlags + "REF"},
		{tool: "podman", what: "pull", line: "--root RUN/r --runroot RUN/s --tmpdir RUN/t --cgroup-manager cgroupfs --events-backend none --storage-driver vfs pull --tls-verify=false REF",
			limit: "unsupported image-specific operation on artifact", why: "podman 4 takes container images only; it has no artifact command"},
	}
}

// onFile is tried with a saved file and with the layout in it.
func onFile() []interop {
	return []interop{
		{tool: "oras", what: "tags of the layout", line: "repo tags --oci-layout LAY"},
		{tool: "oras", what: "discover the evidence in the layout", line: "discover --oci-layout LAY:1.0.0"},
		{tool: "oras", what: "copy with evidence from the layout; verified there", line: "cp -r --from-oci-layout LAY:1.0.0 --to-oci-layout OUT:1", then: "verify layout:OUT:1"},
		{tool: "oras", what: "copy with evidence from the file itself; verified there", line: "cp -r --from-oci-layout FILE:1.0.0 --to-oci-layout OUT:1", then: "verify layout:OUT:1"},
		{tool: "skopeo", what: "copy from the file; read there", line: "copy oci-archive:FILE:1.0.0 oci:OUT:1", then: "inspect layout:OUT:1"},
		{tool: "cosign-v3", what: "verify --local-image", line: "verify" + cosignFlags + "--local-image LAY"},
		{tool: "cosign-v3", what: "verify-attestation --local-image", line: "verify-attestation --type https://sigstore.dev/cosign/sign/v1" + cosignFlags + "--local-image LAY"},
		{tool: "cosign", what: "verify --local-image", line: "verify" + cosignFlags + "--local-image LAY", limit: "no signatures associated with the image",
			why: "version 2 reads only its legacy signatures from a layout; from a registry it reads ours"},
		{tool: "podman", what: "pull oci-archive:", line: "--root RUN/r --runroot RUN/s --tmpdir RUN/t --cgroup-manager cgroupfs --events-backend none --storage-driver vfs pull oci-archive:FILE:1.0.0",
			limit: "unsupported image-specific operation on artifact", why: "podman 4 takes container images only"},
	}
}

// onImage is tried with a container image.
func onImage() []interop {
	return []interop{
		{tool: "oras", what: "discover bill of materials and signatures of the container image", line: "discover --plain-http --platform linux/ARCH IMAGE", says: `(?s)vnd\.cyclonedx\+json.*vnd\.dev\.sigstore\.bundle|vnd\.dev\.sigstore\.bundle.*vnd\.cyclonedx\+json`},
		{tool: "crane", what: "validate the container image", line: "validate --remote IMAGE", limit: "gzip: invalid header", why: "it takes every layer for a compressed one; ours are plain tars, as their media type says"},
		{tool: "skopeo", what: "read the container image's labels", line: "inspect --tls-verify=false docker://IMAGE", says: "dev.waybill.artifact.digest"},
		{tool: "skopeo", what: "copy the container image, its digest the same", line: "copy --preserve-digests --src-tls-verify=false --dest-tls-verify=false docker://IMAGE docker://REPO-copied:1"},
		{tool: "cosign", what: "verify the container image", line: "verify --new-bundle-format --allow-insecure-registry" + cosignFlags + "IMAGE"},
		{tool: "cosign-v3", what: "verify the container image", line: "verify --allow-insecure-registry" + cosignFlags + "IMAGE"},
		{tool: "cosign-v3", what: "verify the container image by a key that did not sign", line: "verify --allow-insecure-registry" + strings.Replace(cosignFlags, "publisher.pub", "root.pub", 1) + "IMAGE",
			limit: "(?i)invalid signature|could not verify|no matching", why: "as it must be"},
		{tool: "podman", what: "pull the container image", line: "--root RUN/r --runroot RUN/s --tmpdir RUN/t --cgroup-manager cgroupfs --events-backend none --storage-driver vfs pull --tls-verify=false IMAGE"},
	}
}

// TestInterop runs the other programs on what we push and save, and reads what they write. What comes out is the table in
// docs/interop.md, which must be what it is here; WAYBILL_WRITE_INTEROP=1 writes it.
func TestInterop(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts many programs")
	}
	versions := map[string]string{}
	missing := 0
	for tool, arg := range map[string]string{"model_signing": "--version", "oras": "version", "crane": "version", "skopeo": "--version", "cosign": "version", "cosign-v3": "version", "podman": "--version"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing++
			if os.Getenv("WAYBILL_REQUIRE_TOOLS") != "" {
				t.Errorf("%s is not installed, and WAYBILL_REQUIRE_TOOLS is set", tool)
			}
			continue
		}
		out, err := outside(t, t.TempDir(), tool, arg)
		v := regexp.MustCompile(`v?\d+\.\d+\.\d+`).FindString(out)
		if err != nil || v == "" {
			t.Fatalf("%s: %v\n%s", tool, err, out)
		}
		versions[tool] = strings.TrimPrefix(v, "v")
	}
	if len(versions) == 0 {
		t.Skip("none of oras, crane, skopeo, cosign, cosign-v3, podman, model_signing is installed")
	}
	x := newTrial(t, "")
	furnishSigned(t, x)
	furnishTheirs(t, x)
	if _, ok := versions["cosign"]; ok {
		if out, err := outside(t, x.dir, "cosign", "trusted-root", "create", "--out", "root.json"); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	var rows []string
	try := func(t *testing.T, place string, c interop, vars map[string]string) {
		v, ok := versions[c.tool]
		if !ok {
			t.Skipf("%s is not installed", c.tool)
		}
		out := filepath.Join(t.TempDir(), "out")
		short, err := os.MkdirTemp("", "wb") // podman takes no long paths
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(short)
		fill := func(s string) []string {
			s = strings.ReplaceAll(s, "NEW", fmt.Sprintf("REPO-%d:1", len(rows)))
			for _, k := range []string{"REF", "REPO", "IMAGE", "FILE", "LAY", "FOLDER"} {
				s = strings.ReplaceAll(s, k, vars[k])
			}
			return strings.Fields(strings.NewReplacer("RUN", short, "OUT", out, "ARCH", runtime.GOARCH).Replace(s))
		}
		lines := func(s string) [][]string {
			var all [][]string
			for _, l := range strings.Split(s, "; ") {
				if l != "" {
					all = append(all, fill(l))
				}
			}
			return all
		}
		for _, l := range lines(c.before) {
			x.must(l...)
		}
		if then := lines(c.then); c.before != "" && len(then) > 0 {
			if code, _, errs := x.run(then[len(then)-1]...); code != 3 {
				t.Errorf("%s, before the program ran: exit code %d, want 3\n%s", c.then, code, errs)
			}
		}
		text, err := outside(t, x.dir, c.tool, fill(c.line)...)
		result := "yes"
		switch {
		case c.limit != "" && err == nil:
			t.Errorf("it works now: the table must say so\n%s", text)
		case c.limit != "" && !regexp.MustCompile(c.limit).MatchString(text):
			t.Errorf("it fails otherwise than known: %v\n%s", err, text)
		case c.limit != "":
			result = "no: " + c.why
		case err != nil:
			t.Errorf("%v\n%s", err, text)
		case !regexp.MustCompile(c.says).MatchString(text):
			t.Errorf("it does not say %s\n%s", c.says, text)
		default:
			for _, l := range lines(c.then) {
				x.must(l...)
			}
		}
		rows = append(rows, fmt.Sprintf("| %s | %s | %s | %s | %s |", strings.ReplaceAll(strings.TrimSuffix(c.tool, "-v3"), "_", "-"), v, c.what, place, result))
	}
	saved, lay := filepath.Join(x.dir, "saved.tar"), filepath.Join(x.dir, "lay")
	x.must("save", "breast-cancer:1.0.0", "--out", saved)
	unpack(t, saved, lay)
	all := append(onRegistry(), theirsOnRegistry()...)
	for _, kind := range servertest.Kinds() {
		t.Run(string(kind), func(t *testing.T) {
			s := servertest.Start(t, servertest.Options{Kind: kind})
			repo := s.Host + "/ml/breast-cancer"
			x.must("push", "breast-cancer:1.0.0", repo+":1.0.0")
			for _, c := range all {
				t.Run(c.tool+" "+c.what, func(t *testing.T) {
					try(t, string(kind), c, map[string]string{"REF": repo + ":1.0.0", "REPO": repo, "FILE": saved, "LAY": lay})
				})
			}
		})
	}
	t.Run("image", func(t *testing.T) {
		s := servertest.Start(t, servertest.Options{Kind: servertest.Kinds()[0]})
		repo := s.Host + "/images/breast-cancer"
		x.must("image", "breast-cancer:1.0.0", "--platform", "linux/"+runtime.GOARCH, "--runtime", serveProgram(t), "--push", repo+":1.0.0", "--key", "publisher.key")
		for _, c := range onImage() {
			t.Run(c.tool+" "+c.what, func(t *testing.T) {
				try(t, string(servertest.Kinds()[0]), c, map[string]string{"IMAGE": repo + ":1.0.0", "REPO": repo})
			})
		}
	})
	t.Run("file", func(t *testing.T) {
		for _, c := range onFile() {
			t.Run(c.tool+" "+c.what, func(t *testing.T) {
				try(t, "saved file", c, map[string]string{"FILE": saved, "LAY": lay})
			})
		}
	})
	t.Run("files", func(t *testing.T) {
		folder := pullWithOMS(t, x)
		for _, c := range onFolder() {
			t.Run(c.tool+" "+c.what, func(t *testing.T) { try(t, "pulled files", c, map[string]string{"FOLDER": folder}) })
		}
	})
	if t.Failed() || missing > 0 || len(rows) != len(servertest.Kinds())*len(all)+len(onImage())+len(onFile())+len(onFolder()) {
		return // no whole table
	}
	checkInterop(t, rows)
}

// checkInterop compares the table with the one in the documentation.
func checkInterop(t *testing.T, rows []string) {
	t.Helper()
	const name = "../../docs/interop.md"
	text := `# Other programs

What other programs do with what Waybill pushes and saves, and Waybill with what they write. The table is made by ` + "`TestInterop`" + ` in
` + "`internal/cli`" + `, which runs each program and fails when a line is no longer so. A "no" is checked too: the program must still fail in the way
that is known. "embedded" is ` + "`waybill registry serve`" + `, "docker-registry" is Debian's 2.8, "distribution" is CNCF distribution v3.
"verified there" is ` + "`waybill verify`" + ` on the copy: content, and the release by a publisher; crane and skopeo copy no evidence, so what they
copied is read, not verified. "verified here" is ` + "`waybill verify`" + ` again, which must refuse the artifact before the program signs and accept it
afterwards; keys are Waybill's own, made by ` + "`waybill keys generate`" + `, but for Model Signing's, which are plain PEM.

| program | version | what it does | where | works |
|---|---|---|---|---|
` + strings.Join(rows, "\n") + "\n"
	if os.Getenv("WAYBILL_WRITE_INTEROP") != "" {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("\n%s", text)
	b, err := os.ReadFile(name)
	if err != nil || strings.ReplaceAll(string(b), "\r\n", "\n") != text {
		t.Errorf("%s is not what came out here (%v); run with WAYBILL_WRITE_INTEROP=1", name, err)
	}
}

// outside runs another program with a home of its own and nothing of the user's.
func outside(t *testing.T, dir, tool string, args ...string) (string, error) {
	t.Helper()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, "auth.json"), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 2*time.Minute)
	defer stop()
	c := exec.CommandContext(ctx, tool, args...)
	c.Dir = dir
	c.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "XDG_RUNTIME_DIR=" + home, "TUF_ROOT=" + home, "DOCKER_CONFIG=" + home, "TMPDIR=" + home,
		"REGISTRY_AUTH_FILE=" + filepath.Join(home, "auth.json"), "COSIGN_PASSWORD=correct horse battery staple", "SystemRoot=" + os.Getenv("SystemRoot")}
	out, err := c.CombinedOutput()
	return string(out), err
}

// furnishSigned packs a model, with the release of a publisher that the trust document names.
func furnishSigned(t *testing.T, x *trial) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(x.dir, "v1"), os.DirFS("../../examples/breast-cancer/v1")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(x.dir, "note.txt"), []byte("looked at"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, l := range []string{"pack v1", "keys generate --role root", "keys generate --role publisher", "trust init --root root.pub",
		"trust add trust.yaml publisher.pub --role publisher", "trust sign trust.yaml --key root.key", "sign breast-cancer:1.0.0 --key publisher.key"} {
		x.must(strings.Fields(l)...)
	}
}

// unpack unpacks a file that we made.
func unpack(t *testing.T, name, dir string) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tr := tar.NewReader(f)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
