package fetch

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
)

const (
	bufSize    = 256 << 10
	minSegment = 4 << 20 // of one request; less is not worth another connection
	maxSegment = 64 << 20
)

// download is one pass over one blob, under the lock of its partial file.
type download struct {
	src  Source
	d    artifact.Descriptor
	t    Target
	o    Options
	what string

	f, sf   *os.File // partial file and its state; sf is nil for a blob of one block
	h       header
	answers int   // that brought bytes; under mu
	fetched int64 // under mu
	resumed int64

	mu     sync.Mutex
	more   *sync.Cond // a block was done, or the download is over
	done   []bool
	taken  []bool
	next   int           // no block before it is free
	empty  chan struct{} // closed when every block is done or taken
	failed bool
}

// run fills the partial file and hashes it. kept tells whether an error leaves something for the next process.
func (dl *download) run(ctx context.Context, anew bool) (got artifact.Digest, kept bool, err error) {
	if err := dl.open(anew); err != nil {
		dl.discard()
		return "", false, dl.t.writeError(err)
	}
	dl.more = sync.NewCond(&dl.mu)
	dl.taken, dl.empty = make([]bool, len(dl.done)), make(chan struct{})
	for i, ok := range dl.done {
		if ok {
			dl.resumed += dl.end(i) - dl.start(i)
		}
	}
	if dl.resumed > 0 {
		dl.o.Progress(dl.resumed)
		dl.o.Say(dl.what, fmt.Sprintf("going on: %d of %d bytes are here", dl.resumed, dl.d.Size))
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var hashed error
	over := make(chan struct{})
	go func() {
		defer close(over)
		if got, hashed = dl.hash(); hashed != nil {
			cancel() // nobody needs the rest
		}
	}()
	err = dl.transfer(ctx, anew)
	dl.mu.Lock()
	dl.failed = err != nil
	dl.more.Broadcast()
	dl.mu.Unlock()
	<-over
	if hashed != nil && !errors.Is(hashed, errAbandoned) {
		err = dl.t.writeError(hashed)
	}
	if err == nil {
		return got, false, nil
	}
	if diag.CodeOf(err) == diag.Verification || dl.sf == nil || !dl.any() {
		dl.discard()
		return "", false, err
	}
	have := dl.have()
	dl.close()
	var de *diag.Error
	if errors.Is(err, context.Canceled) && !errors.As(err, &de) {
		err = diag.Wrap(diag.Interrupted, err, "%s", dl.what)
	}
	if errors.As(err, &de) {
		_ = de.Line("%d of %d bytes of %s are kept; the next run goes on from there", have, dl.d.Size, dl.d.Digest.Short())
	}
	return "", true, err
}

// open makes or takes up the partial file and its state.
func (dl *download) open(anew bool) error {
	size := dl.d.Size
	if anew {
		_ = dl.t.Root.Remove(dl.t.Partial) // open below says what is wrong
	}
	var err error
	if blocksOf(size, blockSize(size)) <= 1 {
		dl.h, dl.done = header{Size: size, Block: blockSize(size)}, make([]bool, blocksOf(size, blockSize(size)))
	} else {
		if dl.sf, err = openRegular(dl.t.Root, dl.t.Partial+".state"); err != nil {
			return err
		}
		ok := false
		if !anew {
			dl.h, dl.done, ok = readState(dl.sf, dl.d)
		}
		if ok { // a state without its file is worth nothing
			fi, err := dl.t.Root.Lstat(dl.t.Partial)
			ok = err == nil && fi.Mode().IsRegular() && fi.Size() == size
		}
		if !ok {
			_ = dl.t.Root.Remove(dl.t.Partial)
			if dl.h, dl.done, err = newState(dl.sf, dl.d); err != nil {
				return err
			}
		}
	}
	if dl.f, err = openRegular(dl.t.Root, dl.t.Partial); err != nil {
		return err
	}
	if fi, err := dl.f.Stat(); err != nil {
		return err
	} else if fi.Size() == size && dl.any() {
		return nil
	}
	if err := dl.f.Truncate(0); err != nil {
		return err
	}
	return fsx.Preallocate(dl.f, size)
}

// openRegular opens or makes a file, and takes nothing but a file for one.
func openRegular(root *os.Root, name string) (*os.File, error) {
	if fi, err := root.Lstat(name); err == nil && !fi.Mode().IsRegular() {
		if err := root.Remove(name); err != nil {
			return nil, err
		}
	}
	return root.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
}

func (dl *download) start(i int) int64 { return int64(i) * dl.h.Block }
func (dl *download) end(i int) int64   { return min(int64(i+1)*dl.h.Block, dl.d.Size) }

func (dl *download) any() bool {
	for _, ok := range dl.done {
		if ok {
			return true
		}
	}
	return false
}

func (dl *download) have() (n int64) {
	for i, ok := range dl.done {
		if ok {
			n += dl.end(i) - dl.start(i)
		}
	}
	return n
}

// segment is how much one request asks for at most.
func (dl *download) segment() int64 {
	return min(max(dl.d.Size/64, minSegment), maxSegment)
}

// take hands out the first free run of blocks as a range of bytes.
func (dl *download) take() (from, to int64, ok bool) {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	for dl.next < len(dl.done) && (dl.done[dl.next] || dl.taken[dl.next]) {
		dl.next++
	}
	i := dl.next
	if i == len(dl.done) {
		select {
		case <-dl.empty:
		default:
			close(dl.empty)
		}
		return 0, 0, false
	}
	from = dl.start(i)
	for ; i < len(dl.done) && !dl.done[i] && !dl.taken[i] && dl.end(i)-from <= max(dl.segment(), dl.h.Block); i++ {
		dl.taken[i] = true
		to = dl.end(i)
	}
	return from, to, true
}

// transfer brings every block that is missing.
func (dl *download) transfer(ctx context.Context, whole bool) error {
	if !whole {
		err := dl.ranges(ctx)
		if !errors.Is(err, ErrRange) {
			return err
		}
		dl.o.Say(dl.what, err.Error()+"; going on without ranges")
	}
	return dl.whole(ctx)
}

// ranges asks for segments on several connections. The first answer comes alone: it tells whether ranges work here.
func (dl *download) ranges(ctx context.Context) error {
	from, to, ok := dl.take()
	if !ok {
		return nil
	}
	buf, err := dl.o.Slots.take(ctx, nil)
	if err != nil {
		return err
	}
	p, err := dl.src.Open(ctx, dl.d, from, to, dl.h.Validator)
	if err == nil && !p.Whole && p.Validator != dl.h.Validator {
		if err = dl.setValidator(p.Validator); err != nil {
			_ = p.Body.Close()
			err = dl.t.writeError(err)
		}
	}
	if err != nil || p.Whole {
		if err == nil {
			err = dl.stream(ctx, p, buf)
		}
		dl.o.Slots.give(buf)
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := dl.one(gctx, p, from, to, buf); err != nil {
			return err
		}
		return dl.worker(gctx)
	})
	for range dl.o.Slots.n - 1 {
		g.Go(func() error { return dl.worker(gctx) })
	}
	return g.Wait()
}

// worker brings segments as long as there are any.
func (dl *download) worker(ctx context.Context) error {
	for {
		// A slot first: who waits for one has taken no work from those who have one.
		buf, err := dl.o.Slots.take(ctx, dl.empty)
		if err != nil || buf == nil {
			return err
		}
		from, to, ok := dl.take()
		if !ok {
			dl.o.Slots.give(buf)
			return nil
		}
		if err := dl.one(ctx, nil, from, to, buf); err != nil {
			return err
		}
	}
}

func (dl *download) setValidator(v string) error {
	if len(v) > maxValidator {
		v = ""
	}
	dl.h.Validator = v
	if dl.sf == nil {
		return nil
	}
	b, err := dl.h.encode()
	if err != nil {
		return err
	}
	_, err = dl.sf.WriteAt(b, 0)
	return err
}

// one brings [from, to), over as many answers as it takes, p being the first unless it is nil. It gives the slot back.
func (dl *download) one(ctx context.Context, p *Part, from, to int64, buf []byte) (err error) {
	defer dl.o.Slots.give(buf)
	at, failures := from, 0
	for {
		if p == nil {
			if p, err = dl.src.Open(ctx, dl.d, at, to, dl.h.Validator); err != nil {
				return err
			}
		}
		if p.Whole || p.From != at || p.To <= at {
			_ = p.Body.Close()
			return fmt.Errorf("%w: asked for %d-%d", ErrRange, at, to-1)
		}
		n, rerr := dl.copy(ctx, io.LimitReader(p.Body, min(p.To, to)-at), buf, at, false)
		_ = p.Body.Close()
		p, at = nil, at+n
		if at == to {
			return nil
		}
		var disk diskError
		if errors.As(rerr, &disk) {
			return dl.t.writeError(disk.err)
		}
		if n >= dl.h.Block {
			failures = 0
		}
		failures++
		if err := dl.broke(ctx, at, rerr, failures); err != nil {
			return err
		}
	}
}

// broke asks the source whether to go on after a transfer that ended at an offset.
func (dl *download) broke(ctx context.Context, at int64, err error, failures int) error {
	if cerr := ctx.Err(); cerr != nil {
		return cerr
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	dl.o.hook("broke", failures)
	return dl.src.Again(ctx, fmt.Sprintf("%s at %d of %d bytes", dl.what, at, dl.d.Size), err, failures)
}

// whole is stream with a slot of its own.
func (dl *download) whole(ctx context.Context) error {
	buf, err := dl.o.Slots.take(ctx, nil)
	if err != nil {
		return err
	}
	defer dl.o.Slots.give(buf)
	return dl.stream(ctx, nil, buf)
}

// stream reads the blob from its start in one answer, p when it is not nil, and keeps what is missing.
func (dl *download) stream(ctx context.Context, p *Part, buf []byte) (err error) {
	failures := 0
	for {
		if p == nil {
			if p, err = dl.src.Open(ctx, dl.d, 0, -1, ""); err != nil {
				return err
			}
		}
		before := dl.have()
		n, rerr := dl.copy(ctx, io.LimitReader(p.Body, dl.d.Size), buf, 0, true)
		if n == dl.d.Size {
			// One byte more is a blob that is larger than it may be, whatever its beginning is.
			m, _ := io.ReadFull(p.Body, buf[:1])
			_ = p.Body.Close()
			if m > 0 {
				return diag.New(diag.Verification, "%s: %s has %d bytes", dl.src.Where(), dl.d.Digest, dl.d.Size).Line("more than that came")
			}
			return nil
		}
		_ = p.Body.Close()
		p = nil
		var disk diskError
		if errors.As(rerr, &disk) {
			return dl.t.writeError(disk.err)
		}
		if dl.have()-before >= dl.h.Block {
			failures = 0
		}
		failures++
		if rerr == nil && failures > 1 {
			return diag.New(diag.Verification, "%s: %s has %d bytes", dl.src.Where(), dl.d.Digest, dl.d.Size).Line("only %d came", n)
		}
		if err := dl.broke(ctx, n, rerr, failures); err != nil {
			return err
		}
	}
}

// diskError tells a failure to write from a failure to read.
type diskError struct{ err error }

func (e diskError) Error() string { return e.err.Error() }

// copy writes what r gives at offset at, marks the blocks that are complete, and tells how far it came. A clean end is no error.
// With skip, blocks that are done are read and not written: what was hashed must not change.
func (dl *download) copy(ctx context.Context, r io.Reader, buf []byte, at int64, skip bool) (int64, error) {
	begin := at
	first := true
	for {
		if err := ctx.Err(); err != nil {
			return at - begin, err
		}
		n, err := r.Read(buf)
		if n > 0 {
			dl.mu.Lock()
			dl.fetched += int64(n)
			if first {
				dl.answers++
				first = false
			}
			dl.mu.Unlock()
			if werr := dl.put(buf[:n], at, skip); werr != nil {
				return at - begin, diskError{werr}
			}
			at += int64(n)
		}
		if errors.Is(err, io.EOF) {
			return at - begin, nil
		}
		if err != nil {
			return at - begin, err
		}
	}
}

// put writes b at offset at, and marks every block whose last byte is in it. Whoever calls it has written what comes before in
// that block.
func (dl *download) put(b []byte, at int64, skip bool) error {
	for len(b) > 0 {
		i := int(at / dl.h.Block)
		end := dl.end(i)
		n := min(int64(len(b)), end-at)
		if !skip {
			// As many blocks as there are in one call.
			for i+1 < len(dl.done) && end-at < int64(len(b)) {
				i++
				end = dl.end(i)
			}
			n = min(int64(len(b)), end-at)
		} else if dl.isDone(i) {
			b, at = b[n:], at+n
			continue
		}
		if _, err := dl.f.WriteAt(b[:n], at); err != nil {
			return err
		}
		if err := dl.mark(at, at+n); err != nil {
			return err
		}
		dl.o.Progress(n)
		b, at = b[n:], at+n
	}
	return nil
}

func (dl *download) isDone(i int) bool {
	dl.mu.Lock()
	defer dl.mu.Unlock()
	return dl.done[i]
}

// mark records the blocks that end in (from, to].
func (dl *download) mark(from, to int64) error {
	first := int(from / dl.h.Block)
	last := int(to / dl.h.Block) // blocks before it end at or before to
	if to == dl.d.Size {
		last = len(dl.done)
	}
	if first >= last {
		return nil
	}
	if dl.sf != nil {
		marks := make([]byte, last-first)
		for i := range marks {
			marks[i] = blockDone
		}
		if _, err := dl.sf.WriteAt(marks, headerLen+int64(first)); err != nil {
			return err
		}
	}
	dl.mu.Lock()
	for i := first; i < last; i++ {
		dl.done[i] = true
	}
	dl.more.Broadcast()
	dl.mu.Unlock()
	dl.o.hook("marked", last)
	return nil
}

var errAbandoned = errors.New("abandoned")

// hash reads the file in order, as far as it is complete, while the rest still comes: the bytes are in the page cache then.
func (dl *download) hash() (artifact.Digest, error) {
	h := sha256.New()
	buf := make([]byte, bufSize)
	for i := 0; i < len(dl.done); {
		dl.mu.Lock()
		for !dl.done[i] && !dl.failed {
			dl.more.Wait()
		}
		to := i
		for to < len(dl.done) && dl.done[to] {
			to++
		}
		failed := dl.failed
		dl.mu.Unlock()
		if failed {
			return "", errAbandoned
		}
		for at, end := dl.start(i), dl.end(to-1); at < end; {
			n, err := dl.f.ReadAt(buf[:min(bufSize, end-at)], at)
			h.Write(buf[:n])
			at += int64(n)
			if err != nil && at < end {
				return "", err
			}
		}
		i = to
	}
	return digestOf(h), nil
}

// commit gives the file its name.
func (dl *download) commit() error {
	if dl.o.Durable {
		if err := dl.f.Sync(); err != nil {
			dl.close()
			return dl.t.writeError(err)
		}
	}
	dl.close()
	dl.o.hook("commit", 0)
	if err := dl.t.Root.Rename(dl.t.Partial, dl.t.Name); err != nil {
		return dl.t.writeError(err)
	}
	if dl.sf != nil {
		if err := dl.t.Root.Remove(dl.t.Partial + ".state"); err != nil {
			return dl.t.writeError(err)
		}
	}
	return nil
}

func (dl *download) close() {
	if dl.f != nil {
		_ = dl.f.Close() // synced, or of no more use
	}
	if dl.sf != nil {
		_ = dl.sf.Close()
	}
}

// discard removes what was fetched.
func (dl *download) discard() {
	dl.close()
	_ = dl.t.Root.Remove(dl.t.Partial)
	_ = dl.t.Root.Remove(dl.t.Partial + ".state")
}
