package image

import (
	"errors"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/waybill-ml/waybill/internal/diag"
)

// An image with compiled code uses it and compiles nothing; altered, it compiles and says so. Two builds are the same bytes.
func TestBake(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" {
		t.Skip("images are for Linux on amd64 and arm64")
	}
	p, target := released(t)
	s := staged(t, p, target)
	plain := programs(t, native())
	make := func() *Set {
		r := must[Runtime](t)(Bake(t.Context(), s, plain[0], t.TempDir()))
		return must[*Set](t)(Build(s, []Runtime{r}, Options{Variant: Plain}))
	}
	set := make()
	if again := make(); again.Root.Digest != set.Root.Digest {
		t.Errorf("%s, then %s", set.Root.Digest, again.Root.Digest)
	}
	if without := must[*Set](t)(Build(s, plain, Options{Variant: Plain})); without.Root.Digest == set.Root.Digest {
		t.Error("an image without compiled code is the same")
	}
	start := func(alter func(root string)) string {
		root := t.TempDir()
		cfg := unpack(t, set, root)
		alter(root)
		line, log, stop := boot(t, root, cfg, "WAYBILL_CODE="+filepath.Join(root, codeDir))
		_ = stop() // by a signal
		if !strings.HasPrefix(line, "churn on http://") {
			t.Errorf("%q", line)
		}
		return log.String()
	}
	if log := start(func(string) {}); !strings.Contains(log, "the code that came along is used") {
		t.Error(log)
	}
	log := start(func(root string) {
		files := must[[]string](t)(filepath.Glob(filepath.Join(root, codeDir, "*", "wazero-*", "*")))
		flip(t, files[0])
	})
	if !strings.Contains(log, "was changed") || strings.Contains(log, "is used") {
		t.Error(log)
	}
}

// Where programs for a platform do not run, no code is made for it.
func TestBakeElsewhere(t *testing.T) {
	none := func(string) (string, error) { return "", exec.ErrNotFound }
	other := Platform{"linux", map[bool]string{true: "arm64", false: "amd64"}[runtime.GOARCH == "amd64"]}
	var e *diag.Error
	if _, err := runner(other, none); !errors.As(err, &e) || diag.CodeOf(err) != diag.Unsupported || !strings.Contains(err.Error(), other.String()) {
		t.Errorf("%v", err)
	}
	if c, err := runner(other, func(n string) (string, error) { return "/bin/" + n, nil }); err != nil || len(c) != 1 || !strings.HasPrefix(c[0], "/bin/qemu-") {
		t.Errorf("%v, %v", c, err)
	}
	if runtime.GOOS == "linux" {
		if c, err := runner(native(), none); err != nil || c != nil {
			t.Errorf("%v, %v", c, err)
		}
	}
}
