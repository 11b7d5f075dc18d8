package agent

import (
	"context"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// deaf is a carrier that hangs, and does not hear its context, once it is asked to.
type deaf struct {
	Carrier
	hang    chan struct{} // closed: hang
	release chan struct{}
}

func (h deaf) Resolve(ctx context.Context, tag string) (artifact.Digest, error) {
	select {
	case <-h.hang:
		<-h.release
	default:
	}
	return h.Carrier.Resolve(ctx, tag)
}

func (h deaf) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	return h.Carrier.Open(ctx, d, offset)
}

// An agent that waits for its next poll is alive; one whose loop hangs in a carrier is not, however its clock is set.
func TestAlive(t *testing.T) {
	w, m := newWorld(t), newDeviceFS(t)
	h := deaf{w.reg, make(chan struct{}), make(chan struct{})}
	d := w.mustBoot(m, func(c *Config) {
		c.Stuck, c.Channels[0].Carrier, c.Channels[0].Interval = 20*time.Millisecond, h, time.Hour
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	if err := d.Poll(ctx); err != nil {
		t.Fatal(err)
	}
	eventually := func(want error) {
		t.Helper()
		deadline := time.Now().Add(time.Minute)
		for {
			err := d.Alive(ctx)
			if errors.Is(err, want) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("%v, want %v", err, want)
			}
			time.Sleep(time.Millisecond)
		}
	}
	eventually(nil)
	time.Sleep(3 * d.cfg.Stuck) // longer than any work may take: it sleeps until the next poll, and that is no hang
	if err := d.Alive(ctx); err != nil {
		t.Errorf("while it waits for its next poll: %v", err)
	}
	d.clock.advance(1000 * time.Hour)
	if err := d.Alive(ctx); err != nil {
		t.Errorf("after the clock jumped: %v", err)
	}
	close(h.hang)
	asked := make(chan error, 1)
	go func() { asked <- d.Poll(ctx) }()
	eventually(ErrStuck)
	close(h.release)
	if err := <-asked; err != nil {
		t.Error(err)
	}
	eventually(nil)

	// A lock that nobody gives back.
	d.mu.Lock()
	short, end := context.WithTimeout(ctx, 20*time.Millisecond)
	if err := d.Alive(short); !errors.Is(err, ErrStuck) {
		t.Errorf("with a lock held: %v", err)
	}
	end()
	d.mu.Unlock()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Every kind of journal entry has its place in the log.
func TestEveryKindIsTold(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "events.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	told, seen := tellings(), 0
	ast.Inspect(file, func(n ast.Node) bool {
		v, ok := n.(*ast.ValueSpec)
		if !ok || len(v.Values) != 1 || !strings.HasPrefix(v.Names[0].Name, "Kind") {
			return true
		}
		lit, ok := v.Values[0].(*ast.BasicLit)
		if !ok {
			return true
		}
		kind, err := strconv.Unquote(lit.Value)
		if err != nil {
			t.Fatal(err)
		}
		if seen++; told[kind].message == "" {
			t.Errorf("%s is not told", v.Names[0].Name)
		}
		return true
	})
	if seen < 15 {
		t.Errorf("%d kinds", seen)
	}
}
