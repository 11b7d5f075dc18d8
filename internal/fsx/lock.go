package fsx

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// errLocked says that another holder has the lock.
var errLocked = errors.New("locked")

// Lock takes an advisory lock on the file at path, which it creates when missing and never removes (a removed lock
// file would let two processes lock two files of one name). It waits until ctx is done; then the error wraps
// ctx.Err(). A shared lock admits other shared holders. The lock belongs to the open file, so it excludes other
// processes and other calls in this one alike, and it dies with the process. The returned function releases it.
func Lock(ctx context.Context, path string, shared bool) (release func() error, err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	for wait := time.Millisecond; ; wait = min(wait*2, 50*time.Millisecond) {
		err := tryLock(f, shared)
		if err == nil {
			return f.Close, nil // closing the file releases the lock
		}
		if !errors.Is(err, errLocked) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return nil, errors.Join(fmt.Errorf("lock %s: held by another process: %w", path, ctx.Err()), f.Close())
		case <-t.C:
		}
	}
}
