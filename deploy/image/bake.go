package image

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	edgeengine "github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Bake has the very program of an image compile its artifact, and returns r with the code. Code is never made by another program
// for it: what is declared of its CPU is what the program saw when it ran.
func Bake(ctx context.Context, s *Staged, r Runtime, work string) (Runtime, error) {
	command, err := runner(r.Platform, exec.LookPath)
	if err != nil {
		return r, err
	}
	dir := filepath.Join(work, codeDir+"-"+r.Platform.Arch)
	exe := filepath.Join(work, program+"-bake-"+r.Platform.Arch) // the given file need not be executable
	b, err := os.ReadFile(r.Path)
	if err == nil && artifact.DigestOf(b) != r.Digest {
		return r, diag.New(diag.Verification, "the runtime %s has changed meanwhile", r.Path)
	}
	if err == nil {
		err = os.WriteFile(exe, b, 0o700)
	}
	if err != nil {
		return r, diag.Wrap(diag.Failure, err, "make a place to compile in")
	}
	defer os.Remove(exe)
	command = append(command, exe, "bake", dir)
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	for _, e := range environment(s, Plain) {
		cmd.Env = append(cmd.Env, strings.Replace(e, "=/"+artifactDir, "="+s.Dir, 1))
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
		return r, diag.Wrap(diag.Unsupported, err, "compile %s with %s for %s", s.Model, r.Path, r.Platform).Line("%s", strings.TrimSpace(stderr.String()))
	}
	d, err := artifact.ParseDigest(strings.TrimSpace(stdout.String()))
	if err != nil {
		return r, diag.Wrap(diag.Failure, err, "compile %s", s.Model)
	}
	r.code = edgeengine.Baked{Dir: dir, Digest: string(d)}
	return r, nil
}

// runner is the command in front of a program for p: none where such programs run.
func runner(p Platform, find func(string) (string, error)) ([]string, error) {
	if runtime.GOOS == p.OS && runtime.GOARCH == p.Arch {
		return nil, nil
	}
	qemu := "qemu-" + map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[p.Arch]
	for _, n := range []string{qemu, qemu + "-static"} {
		if path, err := find(n); err == nil {
			return []string{path}, nil
		}
	}
	return nil, diag.New(diag.Unsupported, "code for %s cannot be compiled here: programs for it do not run on %s/%s, and there is no %s", p, runtime.GOOS, runtime.GOARCH, qemu).
		Hint("leave out --compile-cache: each start then compiles, or keeps code in WAYBILL_CACHE")
}

// codeLayer is the layer of a folder that Bake has made.
func codeLayer(dir string) (blob, error) {
	var es []entry
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		e := entry{name: filepath.ToSlash(filepath.Join(codeDir, rel)), file: name, mode: 0o444}
		if d.IsDir() {
			e = entry{name: e.name + "/"}
		}
		es = append(es, e)
		return nil
	})
	if err != nil {
		return blob{}, err
	}
	return layerOf(es)
}
