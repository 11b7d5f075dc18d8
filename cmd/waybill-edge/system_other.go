//go:build !linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// thisSystem knows less of other systems than of Linux; what is not known is left out of the diagnosis.
func thisSystem() system {
	return system{
		disk: func(dir string) (diskFacts, error) {
			free, err := (fsx.OS{}).FreeBytes(dir)
			if err != nil {
				return diskFacts{}, fmt.Errorf("file system of %s: %w", dir, err)
			}
			return diskFacts{free: free, total: free}, nil
		},
		write: func(dir string) error {
			// Without files that have no name, one in the folder for downloads, which every start empties.
			f, err := os.CreateTemp(filepath.Join(dir, "tmp"), "doctor-")
			if err != nil {
				return err
			}
			_, err = f.Write(make([]byte, 4096))
			return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name()))
		},
		synced: func() (bool, bool) { return false, false },
		rtc:    func() (bool, bool) { return false, false },
		limits: func(int) limitFacts { return limitFacts{} },
		engine: tryEngine,
		total:  func() (uint64, bool) { return 0, false },
	}
}
