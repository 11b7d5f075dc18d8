package engine

import (
	"io/fs"
	"path/filepath"
	"testing"
)

// The estimate is not below what is written, nor without measure above it.
func TestCompiledSize(t *testing.T) {
	compilerOnly(t)
	dir := filepath.Join(t.TempDir(), "cache")
	e := newEngine(t, Config{CacheDir: dir, CacheSecret: secret})
	code := doubler().bytes()
	at, most := e.CompiledSize(int64(len(code)))
	mustLoad(t, e, code, vectorIface(code))
	var wrote int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		wrote += info.Size()
		return err
	})
	if err != nil || at != dir || wrote == 0 || uint64(wrote) > most {
		t.Errorf("%d bytes are in %s, %d in %s were estimated: %v", wrote, dir, most, at, err)
	}
	if _, n := e.CompiledSize(1 << 40); n != 256<<20 {
		t.Errorf("%d bytes, more than the cache ever holds", n)
	}
	for _, cfg := range []Config{{}, {CacheDir: dir, CacheSecret: secret, Mode: Interpreter}} {
		if _, n := newEngine(t, cfg).CompiledSize(1 << 20); n != 0 {
			t.Errorf("%+v: %d bytes for nothing", cfg.Mode, n)
		}
	}
}
