package engine

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
)

var secret = []byte("0123456789abcdef")

// entries lists the entry directories of a cache.
func entries(t *testing.T, dir string) []string {
	t.Helper()
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var n []string
	for _, e := range es {
		n = append(n, filepath.Join(dir, e.Name()))
	}
	return n
}

// native returns the file of native code inside an entry.
func native(t *testing.T, entry string) string {
	t.Helper()
	m, err := filepath.Glob(filepath.Join(entry, "wazero-*", "*"))
	if err != nil || len(m) != 1 {
		t.Fatalf("native code files %v, %v", m, err)
	}
	return m[0]
}

func compilerOnly(t *testing.T) {
	if err := tryCompiler(t.Context()); err != nil {
		t.Skipf("the cache is for the compiler: %v", err)
	}
}

// bounded is a model as wazero gets it.
func bounded(t *testing.T, code []byte) []byte {
	t.Helper()
	b, err := newEngine(t, Config{}).bound(&guest{ours: true}, code)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func runDoubler(t *testing.T, cfg Config) (float32, string) {
	t.Helper()
	var log lines
	cfg.Log = log.add
	e := newEngine(t, cfg)
	code := doubler().bytes()
	m := mustLoad(t, e, code, vectorIface(code))
	outs, err := m.Run(t.Context(), []Tensor{Of([]float32{21})})
	if err != nil {
		t.Fatal(err)
	}
	v, _ := Values[float32](outs[0])
	if err := e.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return v[0], log.String()
}

func TestCacheIsUsed(t *testing.T) {
	compilerOnly(t)
	dir := filepath.Join(t.TempDir(), "cache")
	cfg := Config{CacheDir: dir, CacheSecret: secret}
	if v, _ := runDoubler(t, cfg); v != 42 {
		t.Fatalf("%v", v)
	}
	es := entries(t, dir)
	if len(es) != 1 {
		t.Fatalf("entries %v", es)
	}
	before, err := os.Stat(native(t, es[0]))
	if err != nil {
		t.Fatal(err)
	}
	v, log := runDoubler(t, cfg)
	after, err := os.Stat(native(t, es[0]))
	if err != nil {
		t.Fatal(err)
	}
	if v != 42 || log != "" || !os.SameFile(before, after) || len(entries(t, dir)) != 1 {
		t.Errorf("second run: %v, log %q", v, log)
	}
}

func TestCacheNeedsSecret(t *testing.T) {
	if _, err := New(t.Context(), Config{CacheDir: t.TempDir(), CacheSecret: []byte("short")}); err == nil {
		t.Error("a cache without a secret was accepted")
	}
}

func TestCacheRefusesPublicDirectory(t *testing.T) {
	compilerOnly(t)
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	code := doubler().bytes()
	_, err := newEngine(t, Config{CacheDir: dir, CacheSecret: secret}).Load(t.Context(), code, WeightsSource{}, vectorIface(code))
	if err == nil || !strings.Contains(err.Error(), "other users") {
		t.Errorf("error %v", err)
	}
}

// evil is the doubler compiled from another module, under the doubler's name: what an attacker who can write the
// directory, but does not know the secret, would plant. It returns 3*x.
func evil() mod {
	m := doubler()
	part := m.fns[5].body
	// in+in becomes in+in+in: one more load of the element and one more add before the store.
	m.fns[5].body = []byte(strings.Replace(string(part), string(cat(addF, storeF(0))),
		string(cat(in(), cat([]byte{0x28, 2}, uleb(80)), get(local), con(4), mul, add, loadF(0), addF, addF, storeF(0))), 1))
	return m
}

// plant fills the doubler's cache entry with evil's native code, under the file name that wazero looks for.
func plant(t *testing.T, dir string, manifestSecret []byte) {
	t.Helper()
	e := newEngine(t, Config{})
	code := evil().bytes()
	m := mustLoad(t, e, code, vectorIface(code))
	outs, err := m.Run(t.Context(), []Tensor{Of([]float32{21})})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := Values[float32](outs[0]); v[0] != 63 {
		t.Fatalf("the evil module returns %v, not 63", v[0])
	}
	// The name of the file depends on the module only: take it from an honest run, the content from evil's.
	good, bad := filepath.Join(t.TempDir(), "good"), filepath.Join(t.TempDir(), "bad")
	runDoubler(t, Config{CacheDir: good, CacheSecret: secret})
	e2 := newEngine(t, Config{CacheDir: bad, CacheSecret: secret})
	mustLoad(t, e2, code, vectorIface(code))
	ge, be := entries(t, good)[0], entries(t, bad)[0]
	b, err := os.ReadFile(native(t, be))
	if err != nil {
		t.Fatal(err)
	}
	rel, err := filepath.Rel(ge, native(t, ge))
	if err != nil {
		t.Fatal(err)
	}
	entry := filepath.Join(dir, filepath.Base(ge))
	if err := os.MkdirAll(filepath.Dir(filepath.Join(entry, rel)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(entry, rel), b, 0o600); err != nil {
		t.Fatal(err)
	}
	if manifestSecret != nil {
		c := cacheEntry{dir: entry + "-moved", work: entry, key: cacheKey(bounded(t, doubler().bytes()), true), secret: manifestSecret}
		if err := c.seal(); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(entry+"-moved", entry); err != nil {
			t.Fatal(err)
		}
	}
}

// Planted native code is dropped, with or without a manifest; and the check is what does it.
func TestPlantedEntryIsDropped(t *testing.T) {
	compilerOnly(t)
	for name, manifest := range map[string][]byte{"no manifest": nil, "foreign manifest": []byte("fedcba9876543210")} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.Chmod(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			plant(t, dir, manifest)
			v, log := runDoubler(t, Config{CacheDir: dir, CacheSecret: secret})
			if v != 42 {
				t.Errorf("planted code ran: %v", v)
			}
			if !strings.Contains(log, "dropped") {
				t.Errorf("log %q does not say so", log)
			}
		})
	}
	t.Run("without the check", func(t *testing.T) {
		dir := t.TempDir()
		plant(t, dir, nil)
		none := func(string, string, []byte) error { return nil }
		c, err := openCacheEntry(dir, cacheKey(bounded(t, doubler().bytes()), true), secret, none, func(string, string) {})
		if err != nil {
			t.Fatal(err)
		}
		e := newEngine(t, Config{})
		rt := wazero.NewRuntimeWithConfig(t.Context(), e.runtimeConfig(false, 64<<20).WithCompilationCache(c.cache))
		code := bounded(t, doubler().bytes())
		g := &guest{eng: e, name: "m", ours: true, reentrant: true, limit: 64 << 20, outputs: 1, rt: rt, cache: c.cache, slots: make(chan struct{}, 1)}
		g.want.Heap, g.want.Context = testHeap, testCtx
		if g.compiled, err = rt.CompileModule(t.Context(), code); err != nil {
			t.Fatal(err)
		}
		if g.info, err = checkModule(g.compiled, code, true); err != nil {
			t.Fatal(err)
		}
		outs, _, err := g.run(t.Context(), []Tensor{Of([]float32{21})})
		if err != nil {
			t.Fatal(err)
		}
		if v, _ := Values[float32](outs[0]); v[0] != 63 {
			t.Errorf("the attack does not work even without the check (%v): this test proves nothing", v[0])
		}
		if err := g.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// Each way to tamper with a sealed entry is noticed.
func TestTamperedEntryIsDropped(t *testing.T) {
	compilerOnly(t)
	for name, tamper := range map[string]func(t *testing.T, entry string){
		"code changed": func(t *testing.T, entry string) {
			p := native(t, entry)
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			b[len(b)/2] ^= 1
			if err := os.WriteFile(p, b, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"file added": func(t *testing.T, entry string) {
			if err := os.WriteFile(filepath.Join(filepath.Dir(native(t, entry)), "x"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"file removed": func(t *testing.T, entry string) {
			if err := os.Remove(native(t, entry)); err != nil {
				t.Fatal(err)
			}
		},
		"manifest torn": func(t *testing.T, entry string) {
			if err := os.Truncate(filepath.Join(entry, manifestName), 20); err != nil {
				t.Fatal(err)
			}
		},
		"key changed": func(t *testing.T, entry string) {
			p := filepath.Join(entry, manifestName)
			b, err := os.ReadFile(p)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(p, []byte(strings.Replace(string(b), "bounded true", "bounded false", 1)), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"is a file": func(t *testing.T, entry string) {
			if err := os.RemoveAll(entry); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(entry, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "cache")
			cfg := Config{CacheDir: dir, CacheSecret: secret}
			runDoubler(t, cfg)
			entry := entries(t, dir)[0]
			tamper(t, entry)
			if v, log := runDoubler(t, cfg); v != 42 || !strings.Contains(log, "dropped") {
				t.Errorf("%v, log %q", v, log)
			}
			if v, log := runDoubler(t, cfg); v != 42 || log != "" {
				t.Errorf("after it was made anew: %v, log %q", v, log)
			}
		})
	}
	t.Run("another secret", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "cache")
		runDoubler(t, Config{CacheDir: dir, CacheSecret: secret})
		if v, log := runDoubler(t, Config{CacheDir: dir, CacheSecret: []byte("another secret ..")}); v != 42 || !strings.Contains(log, "not authentic") {
			t.Errorf("%v, log %q", v, log)
		}
	})
}

func TestCacheSecretFile(t *testing.T) {
	p := filepath.Join(t.TempDir(), "keys", "cache.key")
	a, err := CacheSecret(p)
	if err != nil || len(a) != 32 {
		t.Fatalf("%d bytes, %v", len(a), err)
	}
	b, err := CacheSecret(p)
	if err != nil || string(a) != string(b) {
		t.Errorf("the secret changed: %v", err)
	}
	if st, err := os.Stat(p); err != nil || runtime.GOOS != "windows" && st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	// What a power cut may leave behind is no secret, and no reason to stop.
	if err := os.WriteFile(p, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := CacheSecret(p)
	if err != nil || len(c) != 32 || string(c) == string(a) {
		t.Errorf("after a torn write: %d bytes, %v", len(c), err)
	}
}

// A cache that cannot be written is done without: the model runs, and the log says why.
func TestCacheThatFailsIsDoneWithout(t *testing.T) {
	compilerOnly(t)
	dir := filepath.Join(t.TempDir(), "cache")
	var log lines
	e := newEngine(t, Config{CacheDir: dir, CacheSecret: secret, Log: log.add})
	e.opened = func(c *cacheEntry) {
		if err := os.RemoveAll(c.work); err != nil { // wazero's write fails, as on a full disk
			t.Error(err)
		}
	}
	code := doubler().bytes()
	m := mustLoad(t, e, code, vectorIface(code))
	outs, err := m.Run(t.Context(), []Tensor{Of([]float32{21})})
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := Values[float32](outs[0]); v[0] != 42 || !strings.Contains(log.String(), "not used") {
		t.Errorf("%v, log %q", v, log.String())
	}
	if es := entries(t, dir); len(es) != 0 {
		t.Errorf("left behind: %v", es)
	}
	// A module that is no module fails all the same, and leaves nothing.
	e.opened = nil
	if _, err := e.Load(t.Context(), code[:100], WeightsSource{}, vectorIface(code[:100])); err == nil {
		t.Error("a truncated module was loaded")
	}
	if es := entries(t, dir); len(es) != 0 {
		t.Errorf("left behind: %v", es)
	}
}

// The cache keeps to its limit; the entry in use and the newer ones stay.
func TestCacheIsPruned(t *testing.T) {
	compilerOnly(t)
	dir := filepath.Join(t.TempDir(), "cache")
	load := func(min int, limit int64) {
		e := newEngine(t, Config{CacheDir: dir, CacheSecret: secret, CacheLimit: limit})
		m := doubler()
		m.min = min
		code := m.bytes()
		mustLoad(t, e, code, vectorIface(code))
	}
	for i := range 3 {
		load(2+i, 1<<30)
		for _, d := range entries(t, dir) { // age them all by an hour, so that the order is certain
			st, err := os.Stat(d)
			if err != nil {
				t.Fatal(err)
			}
			old := st.ModTime().Add(-time.Hour)
			if err := os.Chtimes(d, old, old); err != nil {
				t.Fatal(err)
			}
		}
	}
	if es := entries(t, dir); len(es) != 3 {
		t.Fatalf("entries %v", es)
	}
	load(2, 1<<30) // the oldest is used again
	load(9, 1)     // and now there is room for one
	es := entries(t, dir)
	if len(es) != 1 {
		t.Fatalf("entries %v", es)
	}
	m := doubler()
	m.min = 9
	code := m.bytes()
	if err := verifyEntry(es[0], cacheKey(bounded(t, code), true), secret); err != nil {
		t.Errorf("the entry in use was removed: %v", err)
	}
}
