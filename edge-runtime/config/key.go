package config

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/devicekey"
)

// OpenKey opens the key that a configuration names: a file or a URI.
func OpenKey(ctx context.Context, fsys fsx.FS, ref string) (*devicekey.Key, error) {
	if devicekey.IsURI(ref) {
		return devicekey.Open(ctx, ref, os.Getenv)
	}
	return ReadKey(fsys, ref)
}

func ReadKey(fsys fsx.FS, path string) (*devicekey.Key, error) {
	raw, err := fsx.ReadFile(fsys, path, 64<<10)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, diag.Wrap(diag.NotFound, fs.ErrNotExist, "read the device key %s", path).Hint("waybill-edge enroll --out %s --class CLASS", filepath.Dir(path))
	}
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read the device key")
	}
	if info, err := fsys.Stat(path); err == nil && info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
		return nil, diag.New(diag.Failure, "the device key %s may be read by others (mode %04o)", path, info.Mode().Perm()).Hint("chmod 600 %s", path)
	}
	key, err := devicekey.Parse(raw)
	if err != nil {
		return nil, diag.Wrap(diag.Failure, err, "read the device key %s", path)
	}
	return key, nil
}
