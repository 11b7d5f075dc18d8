package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/examples"
	"github.com/waybill-ml/waybill/internal/version"
)

const (
	model     = "breast-cancer"
	namespace = "ml"
	module    = "github.com/waybill-ml/waybill"
)

// stepRuntime finds waybill-edge beside this program, or builds it from the source tree around the user.
func stepRuntime(ctx context.Context, w *world) (string, error) {
	name := "waybill-edge"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	how := "given"
	if w.edgeBin = w.o.Edge; w.edgeBin == "" {
		if self, err := os.Executable(); err == nil {
			if self, err = filepath.EvalSymlinks(self); err == nil {
				beside := filepath.Join(filepath.Dir(self), name)
				if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
					w.edgeBin, how = beside, "found beside waybill"
				}
			}
		}
	}
	if w.edgeBin == "" {
		root, err := moduleRoot(w.o.Dir)
		if err != nil {
			return "", err
		}
		w.edgeBin, how = w.path("bin", name), "built"
		args := []string{"build", "-o", w.edgeBin, "./cmd/waybill-edge"}
		w.printf("   %s\n", w.o.UI.Err.Cyan("$ go "+shell(args)))
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = root
		group(cmd)
		cmd.Cancel = func() error { return killGroup(cmd.Process) }
		cmd.WaitDelay = 5 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			if ctx.Err() != nil {
				return "", ctx.Err()
			}
			return "", fmt.Errorf("go build: %w: %s", err, firstLines(string(out), 5))
		}
	}
	o, err := w.deviceQuiet(ctx, "version")
	if err != nil {
		return "", err
	}
	if !strings.Contains(o.stdout, version.Number) {
		return "", fmt.Errorf("%s is %s, this program is version %s", w.edgeBin, firstLines(o.stdout, 1), version.Number)
	}
	return fmt.Sprintf("waybill-edge %s, %s", version.Number, how), nil
}

// moduleRoot finds the source tree of this program in dir or above it.
func moduleRoot(dir string) (string, error) {
	for d := dir; ; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module "+module+"\n") {
			return d, nil
		}
		if filepath.Dir(d) == d {
			return "", fmt.Errorf("there is no waybill-edge beside this program, and %s is not in its source tree: run go install %s/cmd/waybill-edge, or run the demo in the repository", dir, module)
		}
	}
}

func stepRegistry(ctx context.Context, w *world) (string, error) {
	var err error
	w.reg, w.host, err = w.start(ctx, regexp.MustCompile(`registry on http://(127\.0\.0\.1:\d+)`), "registry", "serve", "--addr", "127.0.0.1:0", "--root", "registry")
	if err != nil {
		return "", err
	}
	return "an OCI registry answers on " + w.host + " and keeps its content on disk", nil
}

// repo is the repository that everything goes to.
func (w *world) repo() string { return w.host + "/" + namespace + "/" + model }

// ref is the digest reference of a version in the registry.
func (w *world) ref(v string) string { return w.repo() + "@" + w.digests[v] }

// example writes the example projects into the work area.
func (w *world) example() error {
	sub, err := fs.Sub(examples.BreastCancer, ".")
	if err != nil {
		return err
	}
	return os.CopyFS(w.dir, sub)
}

func stepPack(ctx context.Context, w *world) (string, error) {
	if err := w.example(); err != nil {
		return "", err
	}
	var err error
	if w.rows, err = readRows(w.path(model)); err != nil {
		return "", err
	}
	o, err := w.run(ctx, 12, "pack", model+"/v1")
	if err != nil {
		return "", err
	}
	first := o.last()
	_, w.digests["v1"], _ = strings.Cut(first, "@")
	if !strings.HasPrefix(w.digests["v1"], "sha256:") {
		return "", fmt.Errorf("pack printed %q, no digest", first)
	}
	// Again, in another folder and into another store.
	if err := copyTree(w.path(model, "v1"), w.path("elsewhere", "copy")); err != nil {
		return "", err
	}
	home := w.vars["WAYBILL_HOME"]
	w.vars["WAYBILL_HOME"] = w.path("elsewhere", "home")
	w.say("again, from a copy in another folder into an empty store:")
	o, err = w.run(ctx, 0, "pack", "elsewhere/copy", "--quiet")
	w.vars["WAYBILL_HOME"] = home
	if err != nil {
		return "", err
	}
	w.tail(o.stdout, 1)
	if o.last() != first {
		return "", fmt.Errorf("packing twice gave %s and %s", first, o.last())
	}
	return "packed twice, one digest: " + w.digests["v1"][:19], nil
}

// keys makes one encrypted key for each role, the trust document and the environments.
func (w *world) keys(ctx context.Context) error {
	for _, role := range []string{"root", "publisher", "evaluator", "gate", "deployer"} {
		if _, err := w.run(ctx, 0, "keys", "generate", "--role", role); err != nil {
			return err
		}
		b, err := os.ReadFile(w.path(role + ".key"))
		if err != nil {
			return err
		}
		if !strings.Contains(string(b), "ENCRYPTED") {
			return fmt.Errorf("%s.key is not encrypted", role)
		}
	}
	if _, err := w.run(ctx, 0, "trust", "init", "--root", "root.pub"); err != nil {
		return err
	}
	for _, role := range []string{"publisher", "evaluator", "gate", "deployer"} {
		if _, err := w.run(ctx, 0, "trust", "add", "trust.yaml", role+".pub", "--role", role); err != nil {
			return err
		}
	}
	if _, err := w.run(ctx, 0, "env", "init", "staging", "prod", "--namespace", namespace); err != nil {
		return err
	}
	o, err := w.run(ctx, 1, "policy", "digest")
	if err != nil {
		return err
	}
	w.digests["policy"] = o.last()
	if _, err := w.run(ctx, 0, "trust", "add", "trust.yaml", "--policy", o.last()); err != nil {
		return err
	}
	w.say("a device makes its own key; the trust document names it too, so that its reports can be believed:")
	if _, err := w.device(ctx, 0, "enroll", "--out", "device", "--class", "edge-s"); err != nil {
		return err
	}
	if _, err := w.run(ctx, 0, "trust", "add", "trust.yaml", "device/device.pub", "--role", "device"); err != nil {
		return err
	}
	if o, err = w.run(ctx, 0, "trust", "sign", "trust.yaml", "--key", "root.key"); err != nil {
		return err
	}
	w.digests["trust"] = o.last()
	_, err = w.run(ctx, 0, "env", "sign", "environments.yaml", "--key", "root.key")
	return err
}

// release signs, attests and pushes a packed version. Only the first one is shown in full.
func (w *world) release(ctx context.Context, v, tag string) error {
	local := model + ":" + tag
	if v != "v1" {
		o, err := w.run(ctx, 0, "pack", model+"/"+v)
		if err != nil {
			return err
		}
		_, w.digests[v], _ = strings.Cut(o.last(), "@")
	}
	for _, args := range [][]string{
		{"sign", local, "--key", "publisher.key"},
		{"attest", local, "--type", "evaluation", "--predicate", model + "/" + v + "/evaluation.json", "--key", "evaluator.key"},
		{"attest", local, "--type", "dataset", "--predicate", model + "/" + v + "/dataset.json", "--key", "evaluator.key"},
		{"push", local, w.repo() + ":" + tag},
	} {
		o, err := w.run(ctx, 0, args...)
		if err != nil {
			return err
		}
		if !strings.HasSuffix(o.last(), "@"+w.digests[v]) {
			return fmt.Errorf("waybill %s printed %q, not the digest %s", args[0], o.last(), w.digests[v])
		}
	}
	return nil
}

// gate lets a version pass both environments.
func (w *world) gate(ctx context.Context, v string, lines int) error {
	if _, err := w.expect(ctx, 0, regexp.MustCompile(`ALLOWED`), 0, "gate", w.ref(v), "--env", "staging", "--key", "gate.key"); err != nil {
		return err
	}
	_, err := w.expect(ctx, 0, regexp.MustCompile(`ALLOWED`), lines, "gate", w.ref(v), "--env", "prod", "--key", "gate.key")
	return err
}

func stepGate(ctx context.Context, w *world) (string, error) {
	if err := w.keys(ctx); err != nil {
		return "", err
	}
	if err := w.release(ctx, "v1", "1.0.0"); err != nil {
		return "", err
	}
	if err := w.gate(ctx, "v1", 8); err != nil {
		return "", err
	}
	if _, err := w.run(ctx, 3, "verify", w.ref("v1"), "--env", "prod"); err != nil {
		return "", err
	}
	return "signed, measured, allowed for prod; the signed verdict is attached to the digest", nil
}

// channelRecord is what the demo reads of channel show.
type channelRecord struct {
	Seq    int64
	Digest string
}

// channelHead reads the channel's present record.
func (w *world) channelHead(ctx context.Context) (channelRecord, error) {
	o := w.quiet(ctx, "channel", "show", "prod", w.repo(), "--output", "json")
	if o.code != 0 {
		return channelRecord{}, fmt.Errorf("channel show: exit code %d: %s", o.code, firstLines(o.stderr, 3))
	}
	var v struct {
		Record struct {
			Seq    int64 `json:"seq"`
			Target struct {
				Digest string `json:"digest"`
			} `json:"target"`
		} `json:"record"`
	}
	if err := json.Unmarshal([]byte(o.stdout), &v); err != nil {
		return channelRecord{}, err
	}
	return channelRecord{v.Record.Seq, v.Record.Target.Digest}, nil
}
