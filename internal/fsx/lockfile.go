package fsx

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"time"
)

// LockDir is a directory in which lock files are made; *os.Root is one.
type LockDir interface {
	OpenFile(name string, flag int, perm fs.FileMode) (*os.File, error)
	Stat(name string) (fs.FileInfo, error)
	Remove(name string) error
}

// LockRemovable takes an exclusive lock on the file name in dir, like Lock, but its holder may remove the file when it
// lets go: who gets the lock looks whether the name still means the file that it locked. wait, if it is not nil, is called once
// before waiting for another holder. The lock dies with its process, so there are no stale owners.
func LockRemovable(ctx context.Context, dir LockDir, name string, wait func()) (release func(remove bool) error, err error) {
	for pause := time.Millisecond; ; pause = min(pause*2, 50*time.Millisecond) {
		f, err := dir.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		err = tryLock(f, false)
		if err == nil {
			if ok, err := sameFile(dir, f, name); err == nil && ok {
				return func(remove bool) error { return unlock(dir, f, name, remove) }, nil
			} else if err != nil {
				return nil, errors.Join(fmt.Errorf("lock %s: %w", name, err), f.Close())
			}
		}
		// Held, or removed by the holder before: open the name anew.
		if cerr := f.Close(); cerr != nil {
			return nil, fmt.Errorf("lock %s: %w", name, cerr)
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, errLocked) {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if wait != nil {
			wait()
			wait = nil
		}
		t := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, fmt.Errorf("lock %s: held by another process: %w", name, ctx.Err())
		case <-t.C:
		}
	}
}

func sameFile(dir LockDir, f *os.File, name string) (bool, error) {
	now, err := dir.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	own, err := f.Stat()
	if err != nil {
		return false, err
	}
	return os.SameFile(own, now), nil
}

func unlock(dir LockDir, f *os.File, name string, remove bool) error {
	// Where an open file cannot be removed, one that others have open by now cannot be removed either.
	late := runtime.GOOS == "windows"
	var err error
	if remove && !late {
		err = dir.Remove(name)
	}
	err = errors.Join(err, f.Close())
	if remove && late {
		_ = dir.Remove(name)
	}
	return err
}
