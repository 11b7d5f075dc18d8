package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// serveProgram is waybill-serve for linux/amd64, as a release has it but for its size.
func serveProgram(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "waybill-serve-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	file := filepath.Join(dir, "waybill-serve-linux-amd64")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "github.com/waybill-ml/waybill/cmd/waybill-serve")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=amd64", "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return file
}
