package image

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Each place is looked into in turn, and a file that is not what it should be is named with the reason.
func TestFind(t *testing.T) {
	r := programs(t, Platform{"linux", "amd64"})[0]
	amd, arm := Platform{"linux", "amd64"}, Platform{"linux", "arm64"}
	dist := t.TempDir()
	b := must[[]byte](t)(os.ReadFile(r.Path))
	put := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dist, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find := func(x Find, p Platform, code diag.Code, says string) {
		t.Helper()
		x.Work = t.TempDir()
		got, err := x.Runtime(t.Context(), p)
		text := got.How
		if err != nil {
			text = diag.Render(err)
		}
		if diag.CodeOf(err) != code || !strings.Contains(text, says) {
			t.Errorf("%+v %s: exit code %d, %s", x, p, diag.CodeOf(err), text)
		}
		if err == nil && got.Digest != r.Digest {
			t.Errorf("%+v: another program", x)
		}
	}
	nowhere := t.TempDir()
	find(Find{Source: nowhere}, amd, diag.NotFound, "--runtime waybill-serve-linux-amd64")
	find(Find{Given: dist}, amd, diag.NotFound, "make release")
	put("waybill-serve-linux-amd64", b)
	find(Find{Given: dist}, amd, diag.Verification, "SHA256SUMS")
	put("SHA256SUMS", []byte("00  waybill-linux-amd64\n"))
	find(Find{Given: dist}, amd, diag.Verification, "does not list")
	put("SHA256SUMS", []byte(strings.Repeat("0", 64)+"  waybill-serve-linux-amd64\n"))
	find(Find{Given: dist}, amd, diag.Verification, "says 0000")
	put("SHA256SUMS", fmt.Appendf(nil, "%s  waybill-serve-linux-amd64\n", r.Digest.Hex()))
	find(Find{Given: dist}, amd, diag.OK, "of the release")
	find(Find{Beside: dist, Source: nowhere}, amd, diag.OK, "of the release")
	find(Find{Beside: dist, Source: nowhere}, arm, diag.NotFound, "waybill-serve-linux-arm64")
	find(Find{Given: filepath.Join(dist, "waybill-serve-linux-amd64")}, amd, diag.OK, "given")
	find(Find{Given: filepath.Join(dist, "waybill-serve-linux-amd64")}, arm, diag.Usage, "not for linux/arm64")
	find(Find{Given: filepath.Join(dist, "SHA256SUMS")}, amd, diag.Usage, "no program for Linux")
	find(Find{Given: filepath.Join(dist, "none")}, amd, diag.NotFound, "none")
	beside := t.TempDir()
	if err := os.WriteFile(filepath.Join(beside, program), b, 0o600); err != nil {
		t.Fatal(err)
	}
	find(Find{Beside: beside, Source: nowhere}, amd, diag.OK, "beside")
	find(Find{Beside: beside, Source: nowhere}, arm, diag.NotFound, "source tree")
	find(Find{Source: must[string](t)(filepath.Abs("."))}, amd, diag.OK, "built")
}

func TestPlatforms(t *testing.T) {
	for _, p := range both() {
		if got, err := ParsePlatform(p.String()); err != nil || got != p {
			t.Errorf("%s: %v, %v", p, got, err)
		}
	}
	for _, s := range []string{"", "amd64", "linux", "windows/amd64", "linux/arm", "linux/arm64/v8"} {
		if _, err := ParsePlatform(s); diag.CodeOf(err) != diag.Usage {
			t.Errorf("%q: %v", s, err)
		}
	}
}
