package lock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
)

// File takes the lock file name.lock in dir, which is made when missing, for the processes of one machine. It dies with its
// process, so that there are no stale ones and nothing to steal. Who holds it stands beside it, for people.
func File(ctx context.Context, dir, name string, o Options) (*Held, error) {
	me, clock, err := o.holder()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("lock in %s: %w", dir, err)
	}
	path, note := filepath.Join(dir, name+".lock"), filepath.Join(dir, name+".holder")
	try := func(wait time.Duration) (func() error, error) {
		ctx, cancel := context.WithTimeout(ctx, wait)
		defer cancel()
		return fsx.Lock(ctx, path, false)
	}
	release, err := try(20 * time.Millisecond)
	if busy(ctx, err) && o.Wait > 0 {
		if o.Waiting != nil {
			o.Waiting(readNote(note))
		}
		release, err = try(o.Wait)
	}
	if busy(ctx, err) {
		return nil, &HeldError{Holder: readNote(note)}
	}
	if err != nil {
		return nil, err
	}
	if b, err := json.Marshal(me); err == nil {
		_ = fsx.WriteFileAtomic(fsx.OS{}, note, b, 0o644) // nothing rests on it
	}
	return &Held{me: me, clock: clock, stop: release}, nil
}

func busy(ctx context.Context, err error) bool {
	return errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil
}

func readNote(path string) Holder {
	b, err := fsx.ReadFile(fsx.OS{}, path, MaxValue)
	if err != nil {
		return Holder{}
	}
	h, _ := decode(b)
	return h
}
