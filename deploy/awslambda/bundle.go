package awslambda

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"time"

	"github.com/waybill-ml/waybill/deploy"
)

// What Lambda takes of code that comes with the request, and of it unpacked.
const (
	maxZip      = 50 << 20
	maxUnzipped = 250 << 20
)

// Zip is the file that Lambda is sent for a folder: what Apply uploads of a release with a bundle. It has limits, deploy.ErrTooLarge.
func Zip(dir string) ([]byte, error) {
	c, err := zipped(dir)
	if err != nil {
		return nil, err
	}
	return c.zip, nil
}

// zipped packs a folder with an executable bootstrap in its root, for the runtime provided.al2023: sorted, at one time, with modes
// 0755 and 0644, so that the same files have the same CodeSha256 on every machine.
func zipped(dir string) (*code, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%w: the bundle: %w", deploy.ErrRelease, err)
	}
	defer func() { _ = root.Close() }()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	var total int64
	bootstrap := false
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return fmt.Errorf("%s is neither a file nor a folder", name)
		}
		if total += info.Size(); total > maxUnzipped {
			return fmt.Errorf("%w: the files have more than %d bytes; deploy an image", deploy.ErrTooLarge, maxUnzipped)
		}
		h := &zip.FileHeader{Name: path.Clean(name), Method: zip.Deflate, Modified: time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)}
		h.SetMode(0o644)
		if info.Mode()&0o111 != 0 || name == "bootstrap" {
			h.SetMode(0o755)
		}
		bootstrap = bootstrap || name == "bootstrap"
		w, err := z.CreateHeader(h)
		if err != nil {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		_, err = io.Copy(w, f)
		return err
	})
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: the bundle %s: %w", deploy.ErrRelease, dir, err)
	}
	if !bootstrap {
		return nil, fmt.Errorf("%w: the bundle %s has no file bootstrap", deploy.ErrRelease, dir)
	}
	if b.Len() > maxZip {
		return nil, fmt.Errorf("%w: the zip has %d bytes, Lambda takes %d with a request; deploy an image", deploy.ErrTooLarge, b.Len(), maxZip)
	}
	sum := sha256.Sum256(b.Bytes())
	return &code{zip: b.Bytes(), sha: base64.StdEncoding.EncodeToString(sum[:])}, nil
}
