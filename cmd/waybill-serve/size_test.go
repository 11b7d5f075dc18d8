package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
)

// budget is the size of the stripped binary for linux/arm64 in bytes, built as the release builds it.
const budget = 12_000_000

func TestBinarySize(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("builds for another platform")
	}
	out := filepath.Join(t.TempDir(), "waybill-serve")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
	cmd.Env = append(os.Environ(), "GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("waybill-serve: %d bytes of %d", info.Size(), budget)
	if info.Size() > budget {
		t.Errorf("waybill-serve has %d bytes, the budget is %d", info.Size(), budget)
	}
}
