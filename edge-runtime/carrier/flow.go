package carrier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/internal/ratelimit"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// flow reads one content from as many places as it takes.
type flow struct {
	s      *Set
	ctx    context.Context // of the Open call that this reader serves
	d      artifact.Descriptor
	at     int64
	left   []*placeState // not tried yet
	alone  bool          // no change once bytes came
	cur    *placeState
	body   io.ReadCloser
	r      io.Reader               // body, measured and paced
	cancel context.CancelCauseFunc // of the call that gave body
	came   int64
}

// next opens the next place. why is what ended the one before.
func (f *flow) next(why error) error {
	errs := []error{why}
	absent := true
	for len(f.left) > 0 {
		p := f.left[0]
		f.left = f.left[1:]
		if err := p.paused(); err != nil {
			errs, absent = append(errs, err), false
			continue
		}
		body, cancel, err := within(f.ctx, p, f.s.o.Answer, func(ctx context.Context) (io.ReadCloser, error) { return p.Open(ctx, f.d, f.at) },
			func(rc io.ReadCloser) { _ = rc.Close() })
		if err == nil {
			p.hasIt()
			g := guard(f.ctx, body, f.s.o)
			f.cur, f.body, f.r, f.cancel = p, g, ratelimit.Reader(f.ctx, g, p.Limits...), cancel
			return nil
		}
		cancel(nil)
		if f.ctx.Err() != nil {
			return context.Cause(f.ctx)
		}
		absent = absent && (errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrAbsent))
		errs = append(errs, p.failed(f.ctx, err))
	}
	err := errors.Join(errs...)
	if why == nil && absent {
		return fmt.Errorf("no carrier has %s: %w", f.d.Digest.Short(), err)
	}
	return err
}

// Read implements io.Reader.
func (f *flow) Read(p []byte) (int, error) {
	for {
		n, err := f.r.Read(p)
		if n > 0 {
			if f.came == 0 {
				f.s.gave(f.d.Digest, f.cur)
			}
			f.at += int64(n)
			f.came += int64(n)
			return n, nil // an error comes again with the next read
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, io.EOF) && (f.d.Size <= 0 || f.at >= f.d.Size):
			return 0, io.EOF
		case f.ctx.Err() != nil:
			return 0, context.Cause(f.ctx)
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		err = f.cur.failed(f.ctx, fmt.Errorf("%s at %d of %d bytes: %w", f.d.Digest.Short(), f.at, f.d.Size, err))
		_ = f.Close()
		if !f.alone || f.came == 0 {
			f.came = 0
			err = f.next(err)
		}
		if err != nil {
			f.body, f.r = io.NopCloser(nil), broken{err}
			return 0, err
		}
	}
}

// broken gives an error for ever.
type broken struct{ err error }

func (b broken) Read([]byte) (int, error) { return 0, b.err }

// Close implements io.Closer.
func (f *flow) Close() error {
	f.cancel(nil)
	return f.body.Close()
}

// guarded measures a body: in each window of waiting for it at least the rate must have come. It reads ahead in a goroutine
// of its own, so that a body that hangs, in the network or in the kernel, can be left behind.
type guarded struct {
	ctx    context.Context
	body   io.ReadCloser
	o      Options
	pieces chan piece
	free   chan []byte
	stop   chan struct{}
	once   sync.Once

	now    []byte // the rest of the piece that is being read
	buf    []byte // of now
	err    error
	waited time.Duration // in this window
	got    int64         // in this window
}

type piece struct {
	b   []byte
	n   int
	err error
}

// pieceSize is the most that is read ahead.
const pieceSize = 64 << 10

func guard(ctx context.Context, body io.ReadCloser, o Options) *guarded {
	g := &guarded{ctx: ctx, body: body, o: o, pieces: make(chan piece), free: make(chan []byte, 1), stop: make(chan struct{})}
	g.free <- make([]byte, pieceSize)
	go g.pump()
	return g
}

func (g *guarded) pump() {
	for {
		var b []byte
		select {
		case b = <-g.free:
		case <-g.stop:
			return
		}
		n, err := g.body.Read(b)
		select {
		case g.pieces <- piece{b, n, err}:
			if err != nil {
				return
			}
		case <-g.stop:
			return
		}
	}
}

// Read implements io.Reader.
func (g *guarded) Read(p []byte) (int, error) {
	for len(g.now) == 0 {
		if g.err != nil {
			return 0, g.err
		}
		if g.buf != nil {
			g.free <- g.buf
			g.buf = nil
		}
		if err := g.wait(); err != nil {
			g.err = err
			return 0, err
		}
	}
	n := copy(p, g.now)
	g.now = g.now[n:]
	return n, nil
}

// wait takes the next piece. Only the time in which nothing was there counts.
func (g *guarded) wait() error {
	start := time.Now()
	t := time.NewTimer(g.o.Window - g.waited)
	defer t.Stop()
	for {
		select {
		case x := <-g.pieces:
			g.now, g.buf, g.err = x.b[:x.n], x.b, x.err
			g.got += int64(x.n)
			g.waited += time.Since(start)
			if g.waited >= g.o.Window && x.err == nil {
				return g.judge()
			}
			return nil
		case <-g.ctx.Done():
			return context.Cause(g.ctx)
		case <-t.C:
			if err := g.judge(); err != nil {
				return err
			}
			start = time.Now()
			t.Reset(g.o.Window)
		}
	}
}

// judge ends a window.
func (g *guarded) judge() error {
	got := g.got
	g.waited, g.got = 0, 0
	if float64(got) < float64(g.o.MinRate)*g.o.Window.Seconds() {
		return fmt.Errorf("%w: %d bytes in %s, at least %d a second are wanted", errSlow, got, g.o.Window, g.o.MinRate)
	}
	return nil
}

// Close implements io.Closer. It does not wait for a body that hangs.
func (g *guarded) Close() error {
	g.once.Do(func() {
		close(g.stop)
		go func() { _ = g.body.Close() }()
	})
	return nil
}
