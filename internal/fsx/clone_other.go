//go:build !linux && !darwin

package fsx

import (
	"errors"
	"os"
)

func clone(*os.File, string) error { return errors.ErrUnsupported }
