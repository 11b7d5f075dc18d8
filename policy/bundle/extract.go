package bundle

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
)

// WriteDir writes the files of the policy below dir, which must be there and empty. Nothing is written outside of it: names
// were checked when the policy was read, and the operating system checks again.
func (b *Bundle) WriteDir(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("write policy: %w", err)
	}
	defer root.Close()
	for _, n := range b.names {
		if d := path.Dir(n); d != "." {
			if err := root.MkdirAll(filepath.FromSlash(d), 0o755); err != nil {
				return fmt.Errorf("write policy: %w", err)
			}
		}
		f, err := root.OpenFile(filepath.FromSlash(n), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if err != nil {
			return fmt.Errorf("write policy: %w", err)
		}
		_, err = f.Write(b.files[n])
		if cerr := f.Close(); err == nil {
			err = cerr
		}
		if err != nil {
			return fmt.Errorf("write policy: %s: %w", n, err)
		}
	}
	return nil
}
