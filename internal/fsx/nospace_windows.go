package fsx

import (
	"errors"
	"syscall"

	"golang.org/x/sys/windows"
)

// NoSpace tells whether err says that the disk is full.
func NoSpace(err error) bool {
	return errors.Is(err, windows.ERROR_DISK_FULL) || errors.Is(err, windows.ERROR_HANDLE_DISK_FULL) || errors.Is(err, syscall.ENOSPC)
}
