package engine

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sort"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"golang.org/x/sys/cpu"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
)

// The compile cache holds native code, which no digest of the artifact covers and which wazero guards with a CRC only:
// who can plant a file there runs code in this process. So each module has a directory of its own, named after module
// digest, wazero version and CPU, with a manifest of its files that is authenticated with a secret of the device. A
// directory that does not verify is removed before wazero sees it, and the module is compiled again.

const (
	minSecret    = 16
	manifestName = "manifest.json"
	maxManifest  = 64 << 10
	workPrefix   = "new-"
)

// cacheManifest is the content of manifest.json.
type cacheManifest struct {
	Key   string            `json:"key"`   // what the directory was made for
	Files map[string]string `json:"files"` // slash path to hex SHA-256
	MAC   string            `json:"mac"`   // hex HMAC-SHA-256 over the document with an empty MAC
}

// cacheEntry is one module's opened directory.
type cacheEntry struct {
	dir   string // final place
	work  string // where a fresh entry is built until seal moves it to dir; "" when dir verified
	key   string
	cache wazero.CompilationCache

	secret []byte
	baked  bool // read only: nothing is kept in it
}

// cacheCheck verifies a directory; a parameter, so that a test can show what happens without the check.
type cacheCheck func(dir, key string, secret []byte) error

// openCache opens, or makes, the directory for a module. A cache that other users can write is an error; one that cannot
// be used otherwise (a full disk) is logged and done without: nil, nil.
func (e *Engine) openCache(code []byte, ours bool) (*cacheEntry, error) {
	if err := os.MkdirAll(e.cfg.CacheDir, 0o700); err != nil {
		return nil, err
	}
	if err := private(e.cfg.CacheDir); err != nil {
		return nil, err
	}
	c, err := openCacheEntry(e.cfg.CacheDir, cacheKey(code, ours), e.cfg.CacheSecret, verifyEntry, e.cfg.Log)
	if err != nil {
		e.cfg.Log("compile cache", fmt.Sprintf("not used: %v", err))
		return nil, nil
	}
	if e.opened != nil {
		e.opened(c)
	}
	return c, nil
}

// cacheKey names everything that native code depends on.
func cacheKey(code []byte, ours bool) string {
	return fmt.Sprintf("module sha256:%x, wazero %s, %s/%s, cpu %s, bounded %t",
		sha256.Sum256(code), wazeroVersion(), runtime.GOOS, runtime.GOARCH, cpuFeatures(), ours)
}

func openCacheEntry(root, key string, secret []byte, check cacheCheck, log func(step, line string)) (*cacheEntry, error) {
	id := sha256.Sum256([]byte(key))
	c := &cacheEntry{dir: filepath.Join(root, hex.EncodeToString(id[:])), key: key, secret: secret}
	use := c.dir
	_, err := os.Lstat(c.dir)
	if err == nil {
		if err = check(c.dir, key, secret); err != nil {
			log("compile cache", fmt.Sprintf("dropped %s: %v", filepath.Base(c.dir), err))
			if err := os.RemoveAll(c.dir); err != nil {
				return nil, err
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err != nil {
		sweep(root)
		// Built aside and moved in one step: another process never sees half an entry.
		if c.work, err = os.MkdirTemp(root, workPrefix); err != nil {
			return nil, err
		}
		use = c.work
	}
	c.cache, err = wazero.NewCompilationCacheWithDir(use)
	return c, err
}

// sweep removes what processes that died left behind.
func sweep(root string) {
	old, _ := filepath.Glob(filepath.Join(root, workPrefix+"*"))
	for _, d := range old {
		if st, err := os.Lstat(d); err == nil && time.Since(st.ModTime()) > time.Hour {
			_ = os.RemoveAll(d)
		}
	}
}

// touch marks an entry as used now, for prune. Times are not covered by the manifest.
func (c *cacheEntry) touch() {
	now := time.Now()
	_ = os.Chtimes(c.dir, now, now)
}

// prune removes the entries that were not used for longest until the rest has at most limit bytes; the entry keep stays.
// An entry that another process is about to read may go too: that process then compiles.
func prune(root, keep string, limit int64) {
	dirs, err := os.ReadDir(root)
	if err != nil {
		return
	}
	type item struct {
		dir  string
		size int64
		used time.Time
	}
	var items []item
	var total int64
	for _, d := range dirs {
		st, err := d.Info()
		if err != nil || !d.IsDir() || strings.HasPrefix(d.Name(), workPrefix) {
			continue
		}
		it := item{dir: filepath.Join(root, d.Name()), used: st.ModTime()}
		_ = filepath.WalkDir(it.dir, func(_ string, f fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if st, err := f.Info(); err == nil && st.Mode().IsRegular() {
				it.size += st.Size()
			}
			return nil
		})
		total += it.size
		items = append(items, it)
	}
	sort.Slice(items, func(i, j int) bool { return items[i].used.Before(items[j].used) })
	for _, it := range items {
		if total <= limit {
			return
		}
		if it.dir != keep && os.RemoveAll(it.dir) == nil {
			total -= it.size
		}
	}
}

// private refuses a cache directory that other users of the machine can write, that belongs to another one, or that is a link: who
// owns the link says where it leads.
func private(dir string) error {
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return diag.Errorf("%s is no directory (a link is followed by nobody here)", dir)
	}
	if err := owned(dir, st); err != nil {
		return diag.Errorf("%w; make it 0700 and the agent's own", err)
	}
	return nil
}

// seal writes the manifest of a fresh entry and moves it to its place. No fsync: a file that was torn by a power cut
// does not verify later. When another process was first, its entry stays.
func (c *cacheEntry) seal() error {
	if c.work == "" {
		return nil
	}
	defer func() { _ = os.RemoveAll(c.work) }()
	files, err := hashFiles(c.work)
	if err != nil {
		return err
	}
	m := cacheManifest{Key: c.key, Files: files}
	if m.MAC, err = m.mac(c.secret); err != nil {
		return err
	}
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(c.work, manifestName), b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(c.work, c.dir); err != nil {
		if _, statErr := os.Lstat(c.dir); statErr == nil {
			return nil
		}
		return err
	}
	return nil
}

// discard removes what a failed compilation left.
func (c *cacheEntry) discard() {
	if c != nil && c.work != "" {
		_ = os.RemoveAll(c.work)
	}
}

// mac authenticates the manifest. Map keys are sorted by encoding/json.
func (m cacheManifest) mac(secret []byte) (string, error) {
	m.MAC = ""
	b, err := json.Marshal(m)
	if err != nil {
		return "", err
	}
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("waybill compile cache v1\n"))
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil)), nil
}

// verifyEntry checks a directory against its manifest: the MAC, the key, and exactly the files it lists.
func verifyEntry(dir, key string, secret []byte) error {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return diag.Errorf("it has no manifest: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxManifest+1))
	_ = f.Close()
	if err != nil || len(b) > maxManifest {
		return errors.Join(errors.New("its manifest cannot be read"), err)
	}
	var m cacheManifest
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&m); err != nil {
		return diag.Errorf("its manifest is malformed: %w", err)
	}
	want, err := m.mac(secret)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(want), []byte(m.MAC)) {
		return errors.New("its manifest is not authentic")
	}
	if m.Key != key {
		return errors.New("its manifest is for another module or machine")
	}
	got, err := hashFiles(dir)
	if err != nil {
		return err
	}
	if len(got) != len(m.Files) {
		return diag.Errorf("it holds %d files, its manifest lists %d", len(got), len(m.Files))
	}
	for name, sum := range m.Files {
		if got[name] != sum {
			return diag.Errorf("file %s was changed", name)
		}
	}
	return nil
}

// hashFiles hashes every file below dir except the manifest; anything but files and directories is refused.
func hashFiles(dir string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		if rel == manifestName {
			return nil
		}
		if !d.Type().IsRegular() {
			return diag.Errorf("%s is no regular file", rel)
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		files[filepath.ToSlash(rel)] = hex.EncodeToString(h.Sum(nil))
		return nil
	})
	return files, err
}

// CacheSecret reads the device secret for the compile cache from a file, making it (0600, 32 random bytes) when there
// is none, one too short to be a secret, as a power cut may leave it, or one that others could read or put there: all entries
// of the cache are then made anew.
func CacheSecret(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err == nil && len(b) >= minSecret && secretKept(path) {
		return b, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	b = make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := fsx.WriteFileAtomic(fsx.OS{}, path, b, 0o600); err != nil {
		return nil, diag.Errorf("write the cache secret: %w", err)
	}
	return b, nil
}

// secretKept tells whether nobody else can know the secret or have put it there.
func secretKept(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode().IsRegular() && owned(path, st) == nil && (runtime.GOOS == "windows" || st.Mode().Perm()&0o077 == 0)
}

func wazeroVersion() string {
	if bi, ok := debug.ReadBuildInfo(); ok {
		for _, d := range bi.Deps {
			if d.Path == "github.com/tetratelabs/wazero" {
				return d.Version
			}
		}
	}
	return "unknown"
}

// cpuFeatures lists what wazero's code generator looks at.
func cpuFeatures() string {
	var f []string
	for _, x := range []struct {
		name string
		have bool
	}{
		{"sse3", cpu.X86.HasSSE3}, {"ssse3", cpu.X86.HasSSSE3}, {"sse41", cpu.X86.HasSSE41}, {"sse42", cpu.X86.HasSSE42},
		{"popcnt", cpu.X86.HasPOPCNT}, {"bmi1", cpu.X86.HasBMI1}, {"bmi2", cpu.X86.HasBMI2}, {"avx2", cpu.X86.HasAVX2},
		{"atomics", cpu.ARM64.HasATOMICS},
	} {
		if x.have {
			f = append(f, x.name)
		}
	}
	return strings.Join(f, "+")
}
