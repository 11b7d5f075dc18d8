package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// An authentic entry of another module of this very device is no entry for this one; without the comparison of keys its code runs.
func TestEntryOfAnotherModule(t *testing.T) {
	compilerOnly(t)
	dir, other := filepath.Join(t.TempDir(), "cache"), filepath.Join(t.TempDir(), "other")
	cfg := Config{CacheDir: dir, CacheSecret: secret}
	runDoubler(t, cfg)
	mine := entries(t, dir)[0]
	code := evil().bytes()
	mustLoad(t, newEngine(t, Config{CacheDir: other, CacheSecret: secret}), code, vectorIface(code))
	theirs := entries(t, other)[0]
	// Under the name of the module's own file, as wazero looks for it, and under an authentic manifest for it.
	name := filepath.Base(native(t, mine))
	if err := os.Rename(native(t, theirs), filepath.Join(filepath.Dir(native(t, theirs)), name)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(theirs, manifestName)); err != nil {
		t.Fatal(err)
	}
	seal := cacheEntry{dir: theirs + "-sealed", work: theirs, key: cacheKey(bounded(t, code), true), secret: secret}
	if err := seal.seal(); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(mine); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(theirs+"-sealed", mine); err != nil {
		t.Fatal(err)
	}
	if v, log := runDoubler(t, cfg); v != 42 || !strings.Contains(log, "another module or machine") {
		t.Errorf("%v, log %q", v, log)
	}
}

// A cache directory that is a link, or an entry that is one, leads where somebody else says.
func TestCacheThroughLinks(t *testing.T) {
	compilerOnly(t)
	if runtime.GOOS == "windows" {
		t.Skip("links need a privilege on Windows")
	}
	root := t.TempDir()
	real, link := filepath.Join(root, "real"), filepath.Join(root, "link")
	if err := os.Mkdir(real, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	code := doubler().bytes()
	if _, err := newEngine(t, Config{CacheDir: link, CacheSecret: secret}).Load(t.Context(), code, WeightsSource{}, vectorIface(code)); err == nil || !strings.Contains(err.Error(), "a link") {
		t.Errorf("the directory: %v", err)
	}
	cfg := Config{CacheDir: real, CacheSecret: secret}
	runDoubler(t, cfg)
	entry := entries(t, real)[0]
	if err := os.Rename(entry, filepath.Join(root, "elsewhere")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(root, "elsewhere"), entry); err != nil {
		t.Fatal(err)
	}
	if v, log := runDoubler(t, cfg); v != 42 || !strings.Contains(log, "dropped") {
		t.Errorf("an entry: %v, log %q", v, log)
	}
	if _, err := os.Stat(filepath.Join(root, "elsewhere", manifestName)); err != nil {
		t.Errorf("what the link leads to was removed: %v", err)
	}
}

// Whoever could read the secret can make entries: such a secret is replaced, and with it every entry.
func TestSecretThatOthersKnow(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	p := filepath.Join(t.TempDir(), "cache.secret")
	a, err := CacheSecret(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(p, 0o644); err != nil {
		t.Fatal(err)
	}
	b, err := CacheSecret(p)
	if err != nil || string(a) == string(b) {
		t.Errorf("a secret that others can read was used (%v)", err)
	}
	// A link to a file that an attacker knows.
	known := filepath.Join(t.TempDir(), "known")
	if err := os.WriteFile(known, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(p); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(known, p); err != nil {
		t.Fatal(err)
	}
	c, err := CacheSecret(p)
	if err != nil || string(c) == "0123456789abcdef0123456789abcdef" {
		t.Errorf("a secret behind a link was used (%v)", err)
	}
	if st, err := os.Lstat(p); err != nil || !st.Mode().IsRegular() {
		t.Errorf("the link stays: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(p, 12345, -1); err != nil {
			t.Fatal(err)
		}
		d, err := CacheSecret(p)
		if err != nil || string(d) == string(c) {
			t.Errorf("a secret of another user was used (%v)", err)
		}
	}
}
