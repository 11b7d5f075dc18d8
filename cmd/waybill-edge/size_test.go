package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/once"
)

// Budgets are the size of the stripped binary in bytes: as it is, and with the build tags keyless and grpcnotrace
// (with keyless alone 26 MB are allowed).
const (
	budget        = 14_000_000
	budgetKeyless = 22_000_000
)

func TestBinarySize(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("builds for another platform")
	}
	binarySize(t, budget, []string{"GOOS=linux", "GOARCH=arm64", "CGO_ENABLED=0"}, "-trimpath")
}

// With the tag it is built for the machine at hand, with packages that other tests have compiled: for another platform it
// would be minutes of sigstore-go. On linux/arm64 it is smaller.
func TestBinarySizeKeyless(t *testing.T) {
	once.Skip(t)
	if testing.Short() {
		t.Skip("links sigstore-go")
	}
	binarySize(t, budgetKeyless, nil, "-tags=keyless,grpcnotrace")
}

func binarySize(t *testing.T, budget int64, env []string, flags ...string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "waybill-edge")
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-ldflags=-s -w", "-o", out}, flags...), ".")...)
	cmd.Env = append(os.Environ(), env...)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	info, err := os.Stat(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("waybill-edge %v %v: %d bytes of %d", env, flags, info.Size(), budget)
	if info.Size() > budget {
		t.Errorf("waybill-edge has %d bytes, the budget is %d", info.Size(), budget)
	}
}

func TestForbiddenImports(t *testing.T) {
	b, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(b))
	if len(deps) < 100 {
		t.Fatalf("only %d packages: the list is not the whole program", len(deps))
	}
	const us = "github.com/waybill-ml/waybill/"
	for _, d := range deps {
		for _, bad := range []string{us + "packager", us + "deploy", us + "audit", us + "oci/sign", us + "oci/server", us + "policy",
			"github.com/sigstore/cosign", "github.com/sigstore/sigstore-go", "github.com/open-policy-agent", "google.golang.org/grpc", "github.com/urfave/cli"} {
			if d == bad || strings.HasPrefix(d, bad+"/") {
				t.Errorf("waybill-edge contains %s", d)
			}
		}
	}
}
