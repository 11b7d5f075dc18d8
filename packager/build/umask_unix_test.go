//go:build unix

package build_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// The umask, under which a project was checked out and is packed, is not in its digest.
func TestUmask(t *testing.T) {
	was := syscall.Umask(0o022)
	defer syscall.Umask(was)
	got := map[string]artifact.Digest{}
	for mask, mode := range map[int]fs.FileMode{0: 0o666, 0o022: 0o644, 0o077: 0o600} {
		syscall.Umask(mask)
		compiled, plain := copyExample(t), copyBundle(t, "folder")
		for _, f := range []string{filepath.Join(compiled, "model.onnx"), filepath.Join(plain, "waybill.yaml")} {
			info, err := os.Stat(f)
			if err != nil {
				t.Fatal(err)
			}
			if info.Mode().Perm() != mode {
				t.Fatalf("%s: mode %o under umask %o", f, info.Mode().Perm(), mask)
			}
		}
		for what, d := range digestsOf(t, compiled, plain) {
			if got[what] == "" {
				got[what] = d
			}
			if got[what] != d {
				t.Errorf("%s: %s under umask %o, else %s", what, d, mask, got[what])
			}
		}
	}
}
