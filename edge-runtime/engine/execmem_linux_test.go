package engine

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const childEnv = "WAYBILL_TEST_EXECMEM"

// TestExecutableMemoryChild runs in a process of its own: with "denied" the kernel lets it make no memory executable, as systemd's
// MemoryDenyWriteExecute and SELinux's execmem do.
func TestExecutableMemoryChild(t *testing.T) {
	how := os.Getenv(childEnv)
	if how == "" {
		t.Skip("runs in a process of its own")
	}
	if how == "denied" {
		const setMDWE, refuseExecGain = 65, 1
		if err := unix.Prctl(setMDWE, refuseExecGain, 0, 0, 0); err != nil {
			fmt.Println("unavailable")
			t.Skipf("the kernel has no PR_SET_MDWE (6.3 or later): %v", err)
		}
	}
	var log lines
	e, err := New(t.Context(), Config{Log: log.add})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = e.Close(t.Context()) }()
	code := doubler().bytes()
	out, err := mustLoad(t, e, code, vectorIface(code)).Run(t.Context(), []Tensor{Of(ramp(100))})
	if err != nil {
		t.Fatal(err)
	}
	_, byName := New(t.Context(), Config{Mode: Compiler})
	fmt.Printf("answer %x\nmode %s, said %t, compiler by name %t\n", out[0].Data, e.Mode(), strings.Contains(log.String(), "interpreted"), byName == nil)
}

func child(t *testing.T, how string, command ...string) (answer, mode string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command[0], append(command[1:], "-test.run=^TestExecutableMemoryChild$")...)
	cmd.Env = append(os.Environ(), childEnv+"="+how)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", how, err, out)
	}
	if bytes.Contains(out, []byte("unavailable")) {
		t.Skip("the kernel has no PR_SET_MDWE (6.3 or later)")
	}
	for l := range strings.Lines(string(out)) {
		if s, ok := strings.CutPrefix(l, "answer "); ok {
			answer = s
		}
		if s, ok := strings.CutPrefix(l, "mode "); ok {
			mode = strings.TrimSpace(s)
		}
	}
	if answer == "" || mode == "" {
		t.Fatalf("%s said:\n%s", how, out)
	}
	return answer, mode
}

// Where the kernel really denies executable memory, models are interpreted, with the same bits, and the log says so.
func TestKernelDeniesExecutableMemory(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want, free := child(t, "free", exe)
	got, denied := child(t, "denied", exe)
	if free != "compiler, said false, compiler by name true" {
		t.Skipf("no compiled code here anyway: %s", free)
	}
	if denied != "interpreter, said true, compiler by name false" {
		t.Errorf("denied: %s", denied)
	}
	if got != want {
		t.Errorf("%s compiled, %s interpreted", want, got)
	}
}

// On Android wazero does not take the compiler by itself: the engine asks for it after the probe. The emulator runs the program for
// android/arm64 on Linux's kernel, with glibc's loader in the place of Android's.
func TestAndroidCompiles(t *testing.T) {
	if os.Getenv("WAYBILL_REQUIRE_TOOLS") == "" {
		t.Skip("builds for android/arm64: set WAYBILL_REQUIRE_TOOLS=1")
	}
	const loader = "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1"
	emu, err := exec.LookPath("qemu-aarch64-static")
	if err != nil {
		t.Fatal("qemu-aarch64-static is not installed (apt-get install qemu-user-static)")
	}
	b, err := os.ReadFile(loader)
	if err != nil {
		t.Fatalf("%v (apt-get install libc6-arm64-cross)", err)
	}
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "system", "bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "system", "bin", "linker64"), b, 0o755); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(root, "engine.test")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-trimpath", "-vet=off", "-o", bin, ".")
	build.Env = append(os.Environ(), "GOOS=android", "GOARCH=arm64", "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want, _ := child(t, "free", exe)
	got, mode := child(t, "free", emu, "-L", root, bin)
	if mode != "compiler, said false, compiler by name true" {
		t.Errorf("android: %s", mode)
	}
	if got != want {
		t.Errorf("%s here, %s on android", want, got)
	}
}
