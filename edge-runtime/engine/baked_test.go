package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// bake is the code of the module, as Bake writes it.
func bake(t *testing.T, code []byte) Baked {
	t.Helper()
	cache, b := filepath.Join(t.TempDir(), "cache"), Baked{Dir: filepath.Join(t.TempDir(), "code")}
	e := newEngine(t, Config{CacheDir: cache, CacheSecret: secret})
	mustLoad(t, e, code, vectorIface(code))
	var err error
	if b.Digest, err = Bake(cache, b.Dir); err != nil {
		t.Fatal(err)
	}
	return b
}

// reindex lets edit change the index, and gives the digest of the new one: what only those can do who say what the digest must be.
func (b *Baked) reindex(t *testing.T, edit func(*baked)) {
	t.Helper()
	name := filepath.Join(b.Dir, bakedIndex)
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var idx baked
	if err := json.Unmarshal(raw, &idx); err != nil {
		t.Fatal(err)
	}
	edit(&idx)
	if raw, err = json.Marshal(idx); err == nil {
		err = os.Remove(name) // it is read-only
	}
	if err == nil {
		err = os.WriteFile(name, raw, 0o400)
	}
	if err != nil {
		t.Fatal(err)
	}
	b.Digest = digestOf(raw)
}

// Bake gives the same bytes twice; they are used, and nothing is compiled beside them.
func TestBakedIsUsed(t *testing.T) {
	compilerOnly(t)
	b := bake(t, doubler().bytes())
	if again := bake(t, doubler().bytes()); again.Digest != b.Digest {
		t.Errorf("%s, then %s", b.Digest, again.Digest)
	}
	before, err := hashFiles(b.Dir)
	if err != nil {
		t.Fatal(err)
	}
	if v, log := runDoubler(t, Config{Baked: b}); v != 42 || !strings.Contains(log, "the code that came along is used") {
		t.Errorf("%v, log %q", v, log)
	}
	if after, err := hashFiles(b.Dir); err != nil || len(after) != len(before) { // wazero keeps what it compiles there
		t.Errorf("%v, then %v, %v", before, after, err)
	}
}

// Code of another CPU, module or index, and code that was altered, is left alone and the module compiled.
func TestBakedIsNotUsed(t *testing.T) {
	compilerOnly(t)
	for name, c := range map[string]struct {
		module []byte
		alter  func(t *testing.T, b *Baked)
		says   string
	}{
		"another module": {evil().bytes(), func(*testing.T, *Baked) {}, "another module or machine"},
		"another CPU": {doubler().bytes(), func(t *testing.T, b *Baked) {
			b.reindex(t, func(i *baked) {
				for n, sum := range i.Files { // the folder is named after the key, and that after the CPU
					_, rest, _ := strings.Cut(n, "/")
					i.CPU, i.Files = "i486", map[string]string{strings.Repeat("0", 64) + "/" + rest: sum}
				}
			})
		}, "cpu i486"},
		"an altered entry": {doubler().bytes(), func(t *testing.T, b *Baked) {
			file := native(t, entry(t, b.Dir))
			code, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			code[len(code)/2] ^= 1
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, code, 0o400); err != nil {
				t.Fatal(err)
			}
		}, "was changed"},
		"a further file": {doubler().bytes(), func(t *testing.T, b *Baked) {
			if err := os.WriteFile(filepath.Join(entry(t, b.Dir), "more"), nil, 0o400); err != nil {
				t.Fatal(err)
			}
		}, "other files"},
		"another index": {doubler().bytes(), func(t *testing.T, b *Baked) {
			pin := b.Digest
			b.reindex(t, func(i *baked) { i.Wazero += "-" })
			b.Digest = pin
		}, "its index has digest"},
		"no pin": {doubler().bytes(), func(_ *testing.T, b *Baked) { b.Digest = "" }, "its index has digest"},
	} {
		t.Run(name, func(t *testing.T) {
			b := bake(t, c.module)
			c.alter(t, &b)
			if v, log := runDoubler(t, Config{Baked: b}); v != 42 || !strings.Contains(log, c.says) || strings.Contains(log, "is used") {
				t.Errorf("%v, log %q", v, log)
			}
		})
	}
}

// Planted code runs as soon as whoever plants it may say what the digest of the index must be: nothing but the pin keeps it away.
func TestBakedPinIsAllThereIs(t *testing.T) {
	compilerOnly(t)
	b, theirs := bake(t, doubler().bytes()), bake(t, evil().bytes())
	code, err := os.ReadFile(native(t, entry(t, theirs.Dir)))
	if err != nil {
		t.Fatal(err)
	}
	file := native(t, entry(t, b.Dir))
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, code, 0o400); err != nil {
		t.Fatal(err)
	}
	if v, log := runDoubler(t, Config{Baked: b}); v != 42 || !strings.Contains(log, "was changed") {
		t.Errorf("%v, log %q", v, log)
	}
	pin := b.Digest
	b.reindex(t, func(i *baked) {
		for n := range i.Files {
			i.Files[n] = strings.TrimPrefix(digestOf(code), "sha256:")
		}
	})
	if v, _ := runDoubler(t, Config{Baked: b}); v == 42 {
		t.Error("with a pin of the attacker's the planted code does not run: this test shows nothing")
	}
	b.Digest = pin
	if v, log := runDoubler(t, Config{Baked: b}); v != 42 || !strings.Contains(log, "its index has digest") {
		t.Errorf("%v, log %q", v, log)
	}
}

// entry is the only one of a folder that Bake has made.
func entry(t *testing.T, dir string) string {
	t.Helper()
	for _, e := range entries(t, dir) {
		if filepath.Base(e) != bakedIndex {
			return e
		}
	}
	t.Fatal("no entry")
	return ""
}
