//go:build !windows

package fsx

import (
	"errors"
	"syscall"
)

// NoSpace tells whether err says that the disk, or the user's share of it, is full.
func NoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
