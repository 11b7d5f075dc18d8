//go:build !linux

package doctor

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// thisSystem knows less of other systems than of Linux; what is not known is left out of the diagnosis.
func thisSystem() System {
	return System{
		Disk: func(dir string) (DiskFacts, error) {
			free, err := (fsx.OS{}).FreeBytes(dir)
			if err != nil {
				return DiskFacts{}, fmt.Errorf("file system of %s: %w", dir, err)
			}
			return DiskFacts{Free: free, Total: free}, nil
		},
		Write: func(dir string) error {
			// Without files that have no name, one in the folder for downloads, which every start empties.
			f, err := os.CreateTemp(filepath.Join(dir, "tmp"), "doctor-")
			if err != nil {
				return err
			}
			_, err = f.Write(make([]byte, 4096))
			return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
		},
		Synced: func() (bool, bool) { return false, false },
		RTC:    func() (bool, bool) { return false, false },
		Limits: func(int) LimitFacts { return LimitFacts{} },
		Engine: tryEngine,
		Total:  func() (uint64, bool) { return 0, false },
	}
}
