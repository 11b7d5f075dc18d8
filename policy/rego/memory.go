package rego

import (
	"context"
	"fmt"
	"runtime/metrics"
	"time"
)

// DefaultMemory bounds what one evaluation may add to the heap.
const DefaultMemory = 512 << 20

// MemoryError says that a policy used more than its bound.
type MemoryError struct{ Limit int64 }

func (e *MemoryError) Error() string {
	return fmt.Sprintf("the policy used more than %d MiB of memory", e.Limit>>20)
}

// TimeError says that a policy ran longer than its bound.
type TimeError struct{ Limit time.Duration }

func (e *TimeError) Error() string { return fmt.Sprintf("the policy ran longer than %s", e.Limit) }

const heapMetric = "/memory/classes/heap/objects:bytes"

// heap is what the objects of this process take, those not yet swept included.
func heap() int64 {
	s := []metrics.Sample{{Name: heapMetric}}
	metrics.Read(s)
	return int64(s[0].Value.Uint64())
}

// bounded gives a context that ends with a *TimeError or a *MemoryError as its cause. The heap is that of the whole
// process, so what other goroutines allocate meanwhile counts too: it can deny too early, never too late. It stops what
// looks at its context; a single builtin that does not is stopped only by a process of its own (package box).
func bounded(ctx context.Context, timeout time.Duration, memory int64) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithTimeoutCause(ctx, timeout, &TimeError{timeout})
	ctx, cancel := context.WithCancelCause(ctx)
	start, done := heap(), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(5 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
				if heap()-start > memory {
					cancel(&MemoryError{memory})
					return
				}
			}
		}
	}()
	return ctx, func() { cancel(context.Canceled); stop(); <-done }
}
