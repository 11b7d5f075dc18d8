package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Extract writes layers of a model as files below dir, each under its path. A file appears under its name only when
// its whole content has been hashed. It writes through no symbolic link and over no existing file unless force is set.
// dir is made when missing.
func Extract(ctx context.Context, r Repository, layers []artifact.Layer, dir string, force bool) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return diag.Wrap(diag.Failure, err, "write to %s", dir)
	}
	// Everything below goes through the root, which no link inside it can leave.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return diag.Wrap(diag.Failure, err, "write to %s", dir)
	}
	defer root.Close()
	if !force {
		for _, l := range layers {
			if _, err := root.Lstat(filepath.FromSlash(l.Path)); err == nil {
				return diag.Wrap(diag.Usage, fs.ErrExist, "%s", filepath.Join(dir, filepath.FromSlash(l.Path))).
					Hint("choose an empty folder, or add --force")
			}
		}
	}
	for _, l := range layers {
		if err := extract(ctx, r, l, root); err != nil {
			return err
		}
	}
	return nil
}

func extract(ctx context.Context, r Repository, l artifact.Layer, root *os.Root) error {
	if err := artifact.CheckPath(l.Path); err != nil {
		return diag.Wrap(diag.Failure, err, "extract")
	}
	name := filepath.FromSlash(l.Path)
	fail := func(err error) error {
		var de *diag.Error
		if errors.As(err, &de) || ctx.Err() != nil {
			return err
		}
		return diag.Wrap(diag.Failure, err, "write %s", filepath.Join(root.Name(), name))
	}
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fail(err)
	}
	src, err := r.Blob(ctx, l.Descriptor())
	if err != nil {
		return err
	}
	defer src.Close()
	tmp := filepath.Join(filepath.Dir(name), fmt.Sprintf(".%s.partial", l.Digest.Short()))
	_ = root.Remove(tmp) // of an earlier run that was cut off
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return fail(err)
	}
	_, err = io.Copy(f, src)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		_ = root.Remove(tmp)
		return fail(err)
	}
	return fsx.OS{}.SyncDir(filepath.Join(root.Name(), filepath.Dir(name)))
}
