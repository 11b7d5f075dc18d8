package fsx

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// However often the lock file is removed and made anew, two holders never meet.
func TestLockRemovable(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	var wg sync.WaitGroup
	inside := 0 // not atomic on purpose: the lock is what orders it
	var mu sync.Mutex
	for i := range 8 {
		wg.Go(func() {
			for j := range 20 {
				release, err := LockRemovable(context.Background(), root, "x.lock", nil)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				inside++
				now := inside
				mu.Unlock()
				if now != 1 {
					t.Errorf("%d holders at once", now)
				}
				mu.Lock()
				inside--
				mu.Unlock()
				if err := release((i+j)%3 != 0); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	release, err := LockRemovable(t.Context(), root, "x.lock", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	asked := 0
	if _, err := LockRemovable(ctx, root, "x.lock", func() { asked++ }); !errors.Is(err, context.DeadlineExceeded) || asked != 1 {
		t.Errorf("a held lock: %v, asked %d times", err, asked)
	}
	if err := release(true); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "x.lock")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the lock file stays: %v", err)
	}
}
