package oms

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// Folder is the outcome of a comparison with a folder. It is right when OK says so.
type Folder struct {
	Files   int      `json:"files"`             // that are right
	Bytes   int64    `json:"bytes"`             // read
	Altered []string `json:"altered,omitempty"` // other content than was signed
	Missing []string `json:"missing,omitempty"`
	Extra   []string `json:"extra,omitempty"` // not signed
	Links   []string `json:"links,omitempty"` // symbolic links, devices and the like: never followed
}

// OK tells whether the folder holds exactly what was signed.
func (f *Folder) OK() bool {
	return len(f.Altered)+len(f.Missing)+len(f.Extra)+len(f.Links) == 0
}

// String tells what is wrong, a few names of each kind.
func (f *Folder) String() string {
	var parts []string
	for _, k := range []struct {
		what  string
		names []string
	}{{"altered", f.Altered}, {"missing", f.Missing}, {"not signed", f.Extra}, {"not a plain file", f.Links}} {
		if n := len(k.names); n > 3 {
			parts = append(parts, fmt.Sprintf("%s: %s and %d more", k.what, strings.Join(k.names[:3], ", "), n-3))
		} else if n > 0 {
			parts = append(parts, k.what+": "+strings.Join(k.names, ", "))
		}
	}
	return strings.Join(parts, "; ")
}

// CheckFolder compares the files below dir with the list. Only what the signed ignore_paths, or ignore, name may be there
// besides. Nothing outside dir is opened, whatever links stand in it.
func (p *Predicate) CheckFolder(ctx context.Context, dir string, ignore []string) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	want := map[string]string{}
	for _, r := range p.Resources {
		want[r.Name] = r.Digest
	}
	f := &Folder{}
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case name == ".":
			return nil
		}
		_, signed := want[name]
		if !signed && (p.ignores(name) || under(name, ignore)) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			f.Links = append(f.Links, name)
		case !signed:
			f.Extra = append(f.Extra, name)
		default:
			sum, n, err := hash(root, name)
			if err != nil {
				return err
			}
			f.Bytes += n
			if sum == want[name] {
				f.Files++
			} else {
				f.Altered = append(f.Altered, name)
			}
		}
		delete(want, name)
		return nil
	})
	if err != nil {
		return nil, err
	}
	for name := range want {
		f.Missing = append(f.Missing, name)
	}
	sort.Strings(f.Missing)
	return f, nil
}

func hash(root *os.Root, name string) (sum string, n int64, err error) {
	file, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return "", 0, err
	}
	defer file.Close()
	h := sha256.New()
	if n, err = io.Copy(h, file); err != nil {
		return "", n, err
	}
	return hex.EncodeToString(h.Sum(nil)), n, nil
}
