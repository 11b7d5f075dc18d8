package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	edgeengine "github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	module  = "github.com/waybill-ml/waybill"
	program = "waybill-serve"
	sums    = "SHA256SUMS"
)

// Runtime is a waybill-serve for one platform.
type Runtime struct {
	Platform Platform
	Path     string
	Digest   artifact.Digest // of the file
	Size     int64
	How      string // it was found, for people
	info     *debug.BuildInfo
	code     edgeengine.Baked // of one artifact, made by Bake
}

// OpenRuntime checks that a file is a waybill-serve for the platform that an image without a single library can run.
func OpenRuntime(path string, p Platform) (Runtime, error) {
	fail := func(err error) (Runtime, error) {
		code := diag.Usage
		if errors.Is(err, fs.ErrNotExist) {
			code = diag.NotFound
		}
		return Runtime{}, diag.Wrap(code, err, "the runtime %s", path).Hint("waybill image REF --runtime FILE, a waybill-serve of the release for %s", p)
	}
	f, err := elf.Open(path)
	var format *elf.FormatError
	if errors.As(err, &format) {
		return fail(errors.New("it is no program for Linux"))
	}
	if err != nil {
		return fail(err)
	}
	defer f.Close()
	if want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[p.Arch]; f.Machine != want {
		return fail(fmt.Errorf("it is for %s, not for %s", f.Machine, p))
	}
	for _, g := range f.Progs {
		if g.Type == elf.PT_INTERP {
			return fail(errors.New("it needs shared libraries, of which an image has none: build it with CGO_ENABLED=0"))
		}
	}
	r := Runtime{Platform: p, Path: path}
	if r.info, err = buildinfo.ReadFile(path); err != nil {
		return fail(errors.New("it is no Go program"))
	}
	if want := module + "/cmd/" + program; r.info.Path != want {
		return fail(fmt.Errorf("it is %s, not %s", r.info.Path, want))
	}
	file, err := os.Open(path)
	if err != nil {
		return fail(err)
	}
	defer file.Close()
	h := sha256.New()
	if r.Size, err = io.Copy(h, file); err != nil {
		return fail(err)
	}
	r.Digest = artifact.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	return r, nil
}

// Find says where to look for runtimes.
type Find struct {
	Given  string // a file, or a folder of a release; "": the other places
	Beside string // folder of this program, where a release or an installation may lie
	Source string // folder in or below which the source tree may lie around
	Work   string // folder for what is built
	// Digests are those that a runtime may have, from wherever it comes. nil: what is said to be of the release has the digest that this
	// program knows, when it is one of a release itself, and else the one in the list of checksums beside it.
	Digests []artifact.Digest
}

// pins are the digests of the runtimes that were released together with this program: PLATFORM=HEX, joined by commas. `make release` has
// the linker set it, so that who has checked waybill has checked them; it is empty in what others build.
var pins string

// pinned gives what a runtime must have that is said to be of the release; none where this program is no release.
func (x Find) pinned(p Platform) []artifact.Digest {
	if x.Digests != nil {
		return x.Digests
	}
	if pins == "" {
		return nil
	}
	out := []artifact.Digest{} // a release without one for p takes none
	for pin := range strings.SplitSeq(pins, ",") {
		if name, sum, ok := strings.Cut(pin, "="); ok && name == p.String() {
			out = append(out, artifact.Digest("sha256:"+sum))
		}
	}
	return out
}

// hold refuses a runtime that has none of the digests; nil ones hold nothing.
func hold(r Runtime, may []artifact.Digest) (Runtime, error) {
	if may == nil || slices.Contains(may, r.Digest) {
		return r, nil
	}
	want := "this waybill was released without one"
	if len(may) > 0 {
		want = "pinned is " + strings.Join(texts(may), " or ")
	}
	return Runtime{}, diag.New(diag.Verification, "%s has digest %s; %s", r.Path, r.Digest, want).
		Hint("waybill image REF --runtime %s --runtime-digest DIGEST, of a program that you trust", r.Path)
}

func texts(ds []artifact.Digest) (out []string) {
	for _, d := range ds {
		out = append(out, string(d))
	}
	return out
}

// Runtime finds waybill-serve for a platform: the given file or release, one beside this program, or built from the source tree.
func (x Find) Runtime(ctx context.Context, p Platform) (Runtime, error) {
	if x.Given != "" {
		st, err := os.Stat(x.Given)
		if err == nil && st.IsDir() {
			r, err := fromRelease(x.Given, p, x.pinned(p))
			if errors.Is(err, fs.ErrNotExist) {
				err = diag.Wrap(diag.NotFound, err, "there is no %s for %s in %s", program, p, x.Given).Hint("make release")
			}
			return r, err
		}
		return held(x.Digests)(how(x.Given, p, "given"))
	}
	if x.Beside != "" {
		r, err := fromRelease(x.Beside, p, x.pinned(p))
		if !errors.Is(err, fs.ErrNotExist) {
			return r, err
		}
		if path := filepath.Join(x.Beside, program); isFile(path) {
			if r, err := how(path, p, "found beside waybill"); err == nil { // one for another platform is none
				return hold(r, x.pinned(p))
			}
		}
	}
	root, ok := moduleRoot(x.Source)
	if _, err := exec.LookPath("go"); err != nil || !ok {
		return Runtime{}, diag.New(diag.NotFound, "there is no %s for %s", program, p).
			Line("looked for %s-%s-%s and %s beside this program; Go and Waybill's source tree, to build it from, are not both here", program, p.OS, p.Arch, program).
			Hint("waybill image REF --runtime %s-%s-%s, from the release", program, p.OS, p.Arch)
	}
	return held(x.Digests)(build(ctx, root, x.Work, p))
}

// held is hold of what was found.
func held(may []artifact.Digest) func(Runtime, error) (Runtime, error) {
	return func(r Runtime, err error) (Runtime, error) {
		if err != nil {
			return r, err
		}
		return hold(r, may)
	}
}

func how(path string, p Platform, word string) (Runtime, error) {
	r, err := OpenRuntime(path, p)
	r.How = word
	return r, err
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// fromRelease takes a file of `make release` and holds it against the digests that are pinned, without any against the checksums beside
// it, which tell of a broken download only: whoever could write the file could write them.
func fromRelease(dir string, p Platform, may []artifact.Digest) (Runtime, error) {
	name := fmt.Sprintf("%s-%s-%s", program, p.OS, p.Arch)
	path := filepath.Join(dir, name)
	if _, err := os.Stat(path); err != nil {
		return Runtime{}, err
	}
	r, err := how(path, p, "of the release")
	if err != nil {
		return r, err
	}
	if may != nil {
		return hold(r, may)
	}
	list, err := os.ReadFile(filepath.Join(dir, sums))
	if err != nil {
		return r, diag.New(diag.Verification, "%s has no %s beside it", path, sums).Hint("waybill image REF --runtime %s, if you trust the file", path)
	}
	for line := range strings.Lines(string(list)) {
		sum, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if ok && strings.TrimLeft(file, " *") == name {
			if "sha256:"+sum != string(r.Digest) {
				return r, diag.New(diag.Verification, "%s has digest %s, %s says %s", path, r.Digest, sums, sum)
			}
			return r, nil
		}
	}
	return r, diag.New(diag.Verification, "%s does not list %s", filepath.Join(dir, sums), name)
}

// moduleRoot finds this program's source tree in dir or above it.
func moduleRoot(dir string) (string, bool) {
	for d := dir; d != ""; d = filepath.Dir(d) {
		b, err := os.ReadFile(filepath.Join(d, "go.mod"))
		if err == nil && bytes.HasPrefix(b, []byte("module "+module+"\n")) {
			return d, true
		}
		if filepath.Dir(d) == d {
			break
		}
	}
	return "", false
}

// build cross-compiles the program as a release does, but for the stamp of the version control system: the same sources give the
// same bytes whatever the state of the tree around them.
func build(ctx context.Context, root, work string, p Platform) (Runtime, error) {
	out := filepath.Join(work, fmt.Sprintf("%s-%s-%s", program, p.OS, p.Arch))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-gcflags=errors=-l", "-gcflags=fmt=-l", "-ldflags=-s -w -buildid=", "-o", out, "./cmd/"+program)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+p.OS, "GOARCH="+p.Arch, "CGO_ENABLED=0", "GOFLAGS=", "GOAMD64=", "GOARM64=")
	if b, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return Runtime{}, ctx.Err()
		}
		return Runtime{}, diag.Wrap(diag.Failure, err, "build %s for %s", program, p).Line("%s", strings.TrimSpace(string(b)))
	}
	return how(out, p, "built from the source tree")
}

// layer is the layer of a runtime. In a modelcar it is the shell too, which hands over the files.
func (r Runtime) layer(v Variant) (blob, error) {
	es := []entry{{name: server[1:], file: r.Path, sum: r.Digest, mode: 0o555}}
	if v == Modelcar {
		es = append(es, entry{name: "bin/"})
		for _, n := range []string{"ln", "sh", "sleep"} {
			es = append(es, entry{name: "bin/" + n, link: server})
		}
	}
	return layerOf(es)
}
