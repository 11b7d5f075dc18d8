package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTable(t *testing.T) {
	b := &bench{size: 1 << 20}
	var out bytes.Buffer
	b.table(&out, []result{
		{Step: "sha256", Tool: "go", Runs: []cost{{Wall: 3 * time.Second}, {Wall: time.Second}, {Wall: 2 * time.Second}}},
		{Step: "push one", Registry: "r", Tool: "t", Runs: []cost{{Wall: 6 * time.Second, Read: 1 << 20, PeakRSS: 5 << 20}, {Wall: time.Second}, {Wall: 4 * time.Second}}},
	})
	if !strings.Contains(out.String(), "| push one | r | t | 2.00 | 0.50 | 4.00 | 0.00 | 0 | 0.00 | 0.00 |") {
		t.Fatal(out.String())
	}
}

// The whole bench on a small model, so that it keeps working as the commands change.
func TestSmallRun(t *testing.T) {
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") == "" {
		t.Skip("builds and runs the command line; set WAYBILL_REQUIRE_TOOLS=1")
	}
	dir := t.TempDir()
	bin := filepath.Join(dir, "transfer")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	c := exec.CommandContext(ctx, bin, "-mib", "4", "-rounds", "1", "-dir", dir, "-registries", "embedded", "-settle=false")
	c.Dir = filepath.Join("..", "..")
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"| push eight | embedded | waybill |", "| push to another repository | embedded | waybill |", "downloaded twice after a kill at half"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}
