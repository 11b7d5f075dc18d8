package image

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/edgetest"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// evil is a static waybill-serve that differs from the real one: what a place is made to hold whose writer means ill.
func evil(t *testing.T, r Runtime) []byte {
	t.Helper()
	return append(must[[]byte](t)(os.ReadFile(r.Path)), "and more"...)
}

func write(t *testing.T, file string, b []byte) {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A program that is said to be of the release is taken by the digest that this program was released with, whatever the list of
// checksums beside it says. Without the pin the other program would go into the image.
func TestAnotherProgramOfTheRelease(t *testing.T) {
	amd, arm := both()[0], both()[1]
	r := programs(t, amd)[0]
	dist, beside, nowhere := t.TempDir(), t.TempDir(), t.TempDir()
	name := program + "-linux-amd64"
	bad := evil(t, r)
	sum := artifact.DigestOf(bad)
	write(t, filepath.Join(dist, name), bad)
	write(t, filepath.Join(dist, sums), []byte(sum.Hex()+"  "+name+"\n")) // in order: he wrote both
	write(t, filepath.Join(beside, program), bad)
	find := func(x Find, p Platform) (Runtime, diag.Code, string) {
		x.Work = t.TempDir()
		got, err := x.Runtime(t.Context(), p)
		if err != nil {
			return got, diag.CodeOf(err), diag.Render(err)
		}
		return got, diag.OK, ""
	}
	places := []Find{{Given: dist}, {Beside: dist, Source: nowhere}, {Beside: beside, Source: nowhere}}

	for _, x := range places { // the attack, without the pin
		if got, code, text := find(x, amd); code != diag.OK || got.Digest != sum {
			t.Fatalf("without the pin %+v: exit code %d, %s", x, code, text)
		}
	}
	released := func(s string) {
		was := pins
		pins = s
		t.Cleanup(func() { pins = was })
	}
	released("linux/amd64=" + r.Digest.Hex() + ",linux/arm64=" + strings.Repeat("1", 64))
	for _, x := range places {
		got, code, text := find(x, amd)
		if code != diag.Verification || !strings.Contains(text, string(sum)) || !strings.Contains(text, "pinned is "+string(r.Digest)) || got.Path != "" {
			t.Errorf("%+v: exit code %d, %s", x, code, text)
		}
	}
	// What the user names himself, by file or by digest, is his word.
	if _, code, text := find(Find{Given: filepath.Join(dist, name)}, amd); code != diag.OK {
		t.Errorf("%d %s", code, text)
	}
	for _, x := range append(places, Find{Given: filepath.Join(dist, name)}) {
		x.Digests = []artifact.Digest{artifact.EmptyDigest, sum}
		if _, code, text := find(x, amd); code != diag.OK {
			t.Errorf("%+v: %d %s", x, code, text)
		}
		x.Digests = []artifact.Digest{r.Digest}
		if _, code, text := find(x, amd); code != diag.Verification || !strings.Contains(text, string(r.Digest)) {
			t.Errorf("%+v: %d %s", x, code, text)
		}
	}
	if _, code, text := find(Find{Source: must[string](t)(filepath.Abs(".")), Digests: []artifact.Digest{sum}}, amd); code != diag.Verification {
		t.Errorf("what is built has another digest: %d %s", code, text)
	}
	// The right one needs no list, and one for a platform that the release is not for is none.
	write(t, filepath.Join(dist, name), must[[]byte](t)(os.ReadFile(r.Path)))
	if got, code, text := find(Find{Given: dist}, amd); code != diag.OK || got.Digest != r.Digest {
		t.Errorf("%d %s", code, text)
	}
	write(t, filepath.Join(dist, program+"-linux-arm64"), must[[]byte](t)(os.ReadFile(programs(t, arm)[0].Path)))
	released("linux/amd64=" + r.Digest.Hex())
	if _, code, text := find(Find{Given: dist}, arm); code != diag.Verification || !strings.Contains(text, "released without one") {
		t.Errorf("%d %s", code, text)
	}
}

// Between the check and the image the program's file becomes another one.
func TestProgramChangesAfterTheCheck(t *testing.T) {
	p, target := released(t)
	s := staged(t, p, target)
	r := programs(t, both()[0])[0]
	bad := evil(t, r)
	file := filepath.Join(t.TempDir(), program)
	write(t, file, bad[:r.Size])
	swapped := must[Runtime](t)(OpenRuntime(file, r.Platform))
	write(t, file, bad)
	for what, err := range map[string]error{
		"image":  func() error { _, err := Build(s, []Runtime{swapped}, Options{Variant: Plain}); return err }(),
		"folder": Folder(s, swapped, filepath.Join(t.TempDir(), "function")),
	} {
		if diag.CodeOf(err) != diag.Verification || !strings.Contains(err.Error(), "changed since it was checked") {
			t.Errorf("%s: exit code %d, %v", what, diag.CodeOf(err), err)
		}
	}
	swapped.Digest = "" // without the check
	root := filepath.Join(t.TempDir(), "function")
	if err := Folder(s, swapped, root); err != nil {
		t.Fatal(err)
	}
	if got := must[[]byte](t)(os.ReadFile(filepath.Join(root, program))); artifact.DigestOf(got) != artifact.DigestOf(bad) {
		t.Error("without the check the attack fails all the same")
	}
}

// TestPinIsLinked is run again by TestReleaseIsPinned, by a test program that is linked as a release is.
func TestPinIsLinked(t *testing.T) {
	want := os.Getenv("WAYBILL_TEST_PINS")
	if want == "" {
		t.Skip("TestReleaseIsPinned runs it")
	}
	if got := (Find{}).pinned(both()[1]); pins != want || len(got) != 1 || string(got[0]) != "sha256:"+strings.TrimPrefix(want[strings.LastIndex(want, "=")+1:], "=") {
		t.Errorf("pins %q, for arm64 %v", pins, got)
	}
}

// `make release` builds waybill-serve first and each waybill with the digests of what came out; the linker takes them.
func TestReleaseIsPinned(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("releases are made on Linux")
	}
	mk := edgetest.Tool(t, "make")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "Makefile"), must[[]byte](t)(os.ReadFile("../../Makefile")))
	// In place of Go: what is built is the command line.
	fake := filepath.Join(dir, "fake")
	write(t, fake, []byte("#!/bin/sh\nall=\"$GOOS $GOARCH $*\"\nwhile [ \"$1\" != -o ]; do shift; done\nprintf '%s\\n' \"$all\" >\"$2\"\n"))
	if err := os.Chmod(fake, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), mk, "release", "GO="+fake, "VERSION=v1")
	cmd.Dir = dir
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	file := func(name string) []byte { return must[[]byte](t)(os.ReadFile(filepath.Join(dir, "dist", name))) }
	want := "linux/amd64=" + artifact.DigestOf(file("waybill-serve-linux-amd64")).Hex() + ",linux/arm64=" + artifact.DigestOf(file("waybill-serve-linux-arm64")).Hex()
	link := ""
	for _, n := range []string{"waybill-linux-amd64", "waybill-linux-arm64", "waybill-darwin-arm64", "waybill-darwin-amd64", "waybill-windows-amd64.exe"} {
		m := regexp.MustCompile(`-X (\S+\.pins)=(\S+)`).FindStringSubmatch(string(file(n)))
		if m == nil || m[2] != want {
			t.Fatalf("%s: %s, not %s", n, file(n), want)
		}
		link = "-X " + m[1] + "=" + m[2]
	}
	if !strings.Contains(string(file(sums)), "waybill-serve-linux-amd64") {
		t.Errorf("%s: %s", sums, file(sums))
	}
	test := exec.CommandContext(t.Context(), "go", "test", "-ldflags="+link, "-run", "^TestPinIsLinked$", "-count=1", "-v", ".")
	test.Env = append(os.Environ(), "WAYBILL_TEST_PINS="+want)
	if b, err := test.CombinedOutput(); err != nil || !strings.Contains(string(b), "--- PASS: TestPinIsLinked") {
		t.Errorf("%v\n%s", err, b)
	}
}
