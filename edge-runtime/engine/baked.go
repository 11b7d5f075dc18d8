package engine

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tetratelabs/wazero"

	"github.com/waybill-ml/waybill/internal/diag"
)

// Baked is native code that came along with the program, in a folder that Bake has made and nobody writes. Who vouches for the
// program vouches for the code: Digest, of the folder's index, must come from there and not from beside the folder.
type Baked struct {
	Dir    string
	Digest string // sha256:...
}

const (
	bakedIndex    = "index.json"
	maxBakedIndex = 1 << 20
)

// baked is the content of index.json.
type baked struct {
	Platform string            `json:"platform"`
	CPU      string            `json:"cpu"` // what the code needs, and may not have more of
	Wazero   string            `json:"wazero"`
	Files    map[string]string `json:"files"` // slash path to hex SHA-256
}

// Bake makes out, which must not exist, of what an engine on this machine has kept in cache, and returns the digest of its index. The
// cache must be this process's own.
func Bake(cache, out string) (string, error) {
	files, err := hashFiles(cache)
	if err != nil {
		return "", err
	}
	idx := baked{Platform: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuFeatures(), Wazero: wazeroVersion(), Files: map[string]string{}}
	if err := os.Mkdir(out, 0o755); err != nil {
		return "", err
	}
	for name, sum := range files {
		if path.Base(name) == manifestName || strings.HasPrefix(name, workPrefix) {
			continue // the manifests are authenticated for one device
		}
		b, err := os.ReadFile(filepath.Join(cache, filepath.FromSlash(name)))
		if err != nil {
			return "", err
		}
		to := filepath.Join(out, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(to, b, 0o444); err != nil {
			return "", err
		}
		idx.Files[name] = sum
	}
	if len(idx.Files) == 0 {
		return "", errors.New("no compiled code was kept: this machine cannot run any, or the model needs none")
	}
	b, err := json.Marshal(idx)
	if err != nil {
		return "", err
	}
	return digestOf(b), os.WriteFile(filepath.Join(out, bakedIndex), b, 0o444)
}

func digestOf(b []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(b)) }

// openBaked gives the baked code of a module; nil, with a word in the log, when it is for another machine or was altered.
func (e *Engine) openBaked(code []byte, ours bool) *cacheEntry {
	id := sha256.Sum256([]byte(cacheKey(code, ours)))
	dir := filepath.Join(e.cfg.Baked.Dir, hex.EncodeToString(id[:]))
	err := e.cfg.Baked.check(filepath.Base(dir))
	if err == nil {
		c := &cacheEntry{dir: dir, baked: true}
		if c.cache, err = wazero.NewCompilationCacheWithDir(dir); err == nil {
			return c
		}
	}
	e.cfg.Log("compile cache", fmt.Sprintf("the code that came along is not used: %v", err))
	return nil
}

// check holds the index against its digest and the files of an entry against the index.
func (b Baked) check(entry string) error {
	name := filepath.Join(b.Dir, bakedIndex)
	st, err := os.Stat(name)
	if err == nil && st.Size() > maxBakedIndex {
		err = diag.Errorf("its index has %d bytes", st.Size())
	}
	if err != nil {
		return err
	}
	raw, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if got := digestOf(raw); got != b.Digest {
		return diag.Errorf("its index has digest %s, not %s", got, b.Digest)
	}
	var idx baked
	if err := json.Unmarshal(raw, &idx); err != nil {
		return diag.Errorf("its index is malformed: %w", err)
	}
	want := map[string]string{}
	for name, sum := range idx.Files {
		if at, ok := strings.CutPrefix(name, entry+"/"); ok {
			want[at] = sum
		}
	}
	if len(want) == 0 {
		return diag.Errorf("it was compiled for another module or machine: %s, cpu %s, wazero %s; here are %s/%s, cpu %s, wazero %s",
			idx.Platform, idx.CPU, idx.Wazero, runtime.GOOS, runtime.GOARCH, cpuFeatures(), wazeroVersion())
	}
	got, err := hashFiles(filepath.Join(b.Dir, entry))
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(got) != len(want) {
		return diag.Errorf("it holds other files than its index lists")
	}
	if err != nil {
		return err
	}
	for name, sum := range want {
		if got[name] != sum {
			return diag.Errorf("file %s was changed", name)
		}
	}
	return nil
}
