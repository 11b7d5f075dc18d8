package image

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// bootstrapName is what AWS Lambda starts in the folder that a zip was unpacked to.
const bootstrapName = "bootstrap"

// Folder writes what AWS Lambda runs from a zip into dir, which it makes: the runtime, the artifact with the statements that prove it,
// and bootstrap, a script of the shell that says what an image's configuration says: the function's own variables go before. Equal
// inputs give equal files.
func Folder(s *Staged, r Runtime, dir string) (err error) {
	defer func() {
		if err != nil {
			err = diag.Wrap(diag.CodeOf(err), err, "write the folder of the function")
		}
	}()
	models := filepath.Join(dir, artifactDir)
	if err := os.MkdirAll(filepath.Join(models, "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	files := map[string]string{filepath.Join(dir, program): r.Path}
	blobs, err := os.ReadDir(filepath.Join(s.Dir, "blobs", "sha256"))
	if err != nil {
		return err
	}
	if len(blobs) > maxBuildFiles {
		return errors.New("too many files")
	}
	for _, f := range blobs {
		files[filepath.Join(models, "blobs", "sha256", f.Name())] = filepath.Join(s.Dir, "blobs", "sha256", f.Name())
	}
	for _, n := range []string{"index.json", "oci-layout", trustName} {
		files[filepath.Join(models, n)] = filepath.Join(s.Dir, n)
	}
	for to, from := range files {
		mode := os.FileMode(0o644)
		if from == r.Path {
			mode = 0o755
		}
		var want artifact.Digest
		switch {
		case from == r.Path:
			want = r.Digest
		case filepath.Base(filepath.Dir(from)) == "sha256":
			want = artifact.Digest("sha256:" + filepath.Base(from))
		}
		if err := copyFile(to, from, mode, want); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(dir, bootstrapName), []byte(bootstrap(s)), 0o755)
}

// bootstrap is the script. It finds what lies beside it, wherever the zip was unpacked.
func bootstrap(s *Staged) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\nhere=${0%/*}\n")
	for _, v := range environment(s, Lambda) {
		name, value, _ := strings.Cut(v, "=")
		if name == "PATH" {
			continue
		}
		text := quoted(value)
		if rest, ok := strings.CutPrefix(value, "/"+artifactDir); ok {
			text = `"$here"` + quoted("/"+artifactDir+rest)
		}
		fmt.Fprintf(&b, "[ \"${%s+set}\" ] || %s=%s\nexport %s\n", name, name, text, name)
	}
	b.WriteString("exec \"$here\"/" + program + "\n")
	return b.String()
}

// quoted is s as one word of the shell.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func copyFile(to, from string, mode os.FileMode, want artifact.Digest) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	return errors.Join(copyChecked(out, in, from, want), out.Close())
}
