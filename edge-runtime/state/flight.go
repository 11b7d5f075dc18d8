package state

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// flights keeps fetches of one digest that several channels want at once apart: the second waits for the first while that gets
// on, and begins one of its own when it does not.
type flights struct {
	mu    sync.Mutex
	at    map[flightKey]*flight
	stall time.Duration // without a byte for this long a flight counts as stuck
}

// flightKey is a digest and the number of its partial file, counting from 0.
type flightKey struct {
	digest artifact.Digest
	n      int
}

type flight struct {
	done  chan struct{}
	bytes atomic.Int64
}

const stallTime = 10 * time.Second

func newFlights() *flights { return &flights{at: map[flightKey]*flight{}, stall: stallTime} }

// join waits for a fetch of d that is under way (wait is true: look again whether it came), or registers one.
func (fs *flights) join(ctx context.Context, d artifact.Digest) (_ *flight, n int, wait bool, err error) {
	fs.mu.Lock()
	first := fs.at[flightKey{d, 0}]
	if first == nil {
		defer fs.mu.Unlock()
		return fs.register(d, 0), 0, false, nil
	}
	fs.mu.Unlock()
	for {
		before := first.bytes.Load()
		timer := time.NewTimer(fs.stall)
		select {
		case <-first.done:
			timer.Stop()
			return nil, 0, true, nil
		case <-ctx.Done():
			timer.Stop()
			return nil, 0, false, context.Cause(ctx)
		case <-timer.C:
		}
		if first.bytes.Load() == before {
			break
		}
	}
	fs.mu.Lock()
	defer fs.mu.Unlock()
	for fs.at[flightKey{d, n}] != nil {
		n++
	}
	return fs.register(d, n), n, false, nil
}

func (fs *flights) register(d artifact.Digest, n int) *flight {
	f := &flight{done: make(chan struct{})}
	fs.at[flightKey{d, n}] = f
	return f
}

func (fs *flights) leave(d artifact.Digest, n int) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	k := flightKey{d, n}
	close(fs.at[k].done)
	delete(fs.at, k)
}

// partialName is the file name of flight n of d.
func partialName(d artifact.Digest, n int) string {
	if n == 0 {
		return d.Hex()
	}
	return fmt.Sprintf("%s.%d", d.Hex(), n)
}
