package lineage

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Folder is a Tree in the file system. Links that lead out of it are refused.
type Folder struct{ Dir string }

// Open implements Tree.
func (f Folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	if err := artifact.CheckPath(name); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(f.Dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	file, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err != nil {
		_ = file.Close() // nothing was read
		return nil, err
	}
	return file, nil
}

// Pull implements Tree.
func (f Folder) Pull(name string) string {
	return "git lfs pull --include=" + ShellWord(GitPath(f.Dir, name))
}
