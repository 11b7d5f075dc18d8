// Package report brings the signed status of a device to those who want it: a registry, a folder, an HTTP server. Of each
// channel the newest report waits for each of them, on disk too, until it was taken; the device never waits for any of
// them, and none of them changes what the device does.
package report

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Item is one signed report.
type Item struct {
	Device  string          `json:"device"`
	Channel string          `json:"channel"`
	Seq     int64           `json:"seq"`
	At      time.Time       `json:"at"`
	Bundle  artifact.Base64 `json:"bundle"`
}

// Key names the bundle: it is the same for every attempt at it.
func (i Item) Key() string {
	h := sha256.Sum256(i.Bundle)
	return hex.EncodeToString(h[:])
}

// Sink takes reports. Send returns nil once the report was taken; it is called by one goroutine at a time and must end
// soon after ctx does.
type Sink interface {
	// ID tells sinks of one device apart, also across restarts. It holds no secret.
	ID() string
	Send(ctx context.Context, i Item) error
}

// RetryAfter is the error of a sink that said when it may be asked again.
type RetryAfter struct {
	Wait time.Duration
	Err  error
}

func (e *RetryAfter) Error() string { return e.Err.Error() }
func (e *RetryAfter) Unwrap() error { return e.Err }

// Options of a Spool; zero values mean the defaults.
type Options struct {
	Attempt  time.Duration // bound of one attempt; 30 seconds
	First    time.Duration // wait after the first failure, doubled from then on; 5 seconds
	Longest  time.Duration // wait between two attempts at most; 1 hour
	MaxBytes int64         // of what waits on disk; 8 MiB
	Log      *slog.Logger
	Now      func() time.Time
}

// maxAfter bounds what a server may ask for with Retry-After.
const maxAfter = 24 * time.Hour

// Spool holds what was not taken yet. Safe for concurrent use.
type Spool struct {
	fs    fsx.FS
	dir   string
	opts  Options
	sinks []*queue

	mu sync.Mutex
}

// queue is what waits for one sink, by channel.
type queue struct {
	sink    Sink
	id      string // of the files
	waiting map[string]*entry
	wake    chan struct{}
}

type entry struct {
	item     Item
	failures int
	next     time.Time // not before
	said     string    // the error that was logged last
}

// Open reads what an earlier process left in dir, which is made when it is missing. What cannot be read, and what is for a
// sink that is not there any more, is removed: the device will report again. An error says that nothing can be kept
// across a restart; the spool works all the same.
func Open(fsys fsx.FS, dir string, sinks []Sink, o Options) (*Spool, error) {
	for _, d := range []struct {
		v   *time.Duration
		def time.Duration
	}{{&o.Attempt, 30 * time.Second}, {&o.First, 5 * time.Second}, {&o.Longest, time.Hour}} {
		if *d.v <= 0 {
			*d.v = d.def
		}
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8 << 20
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Spool{fs: fsys, dir: dir, opts: o}
	for _, k := range sinks {
		h := sha256.Sum256([]byte(k.ID()))
		s.sinks = append(s.sinks, &queue{sink: k, id: hex.EncodeToString(h[:6]), waiting: map[string]*entry{}, wake: make(chan struct{}, 1)})
	}
	err := fsys.MkdirAll(dir, 0o700)
	if err == nil {
		err = fsys.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return s, fmt.Errorf("spool of reports: %w", err)
	}
	es, err := fsys.ReadDir(dir)
	if err != nil {
		return s, fmt.Errorf("spool of reports: %w", err)
	}
	for _, e := range es {
		if !s.load(e.Name()) {
			if err := fsys.Remove(filepath.Join(dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				o.Log.Warn("spool of reports", "error", err)
			}
		}
	}
	return s, nil
}

// load takes one file; false when it is of no use.
func (s *Spool) load(name string) bool {
	id, channel, ok := strings.Cut(strings.TrimSuffix(name, ".json"), "-")
	i := slices.IndexFunc(s.sinks, func(q *queue) bool { return q.id == id })
	if !ok || i < 0 || fsx.IsTemp(name) {
		return false
	}
	raw, err := fsx.ReadFile(s.fs, filepath.Join(s.dir, name), 2*artifact.MaxBundle)
	if err != nil {
		return false
	}
	var it Item
	if strictjson.Decode(raw, &it) != nil || it.Channel != channel || len(it.Bundle) == 0 {
		return false
	}
	s.sinks[i].waiting[channel] = &entry{item: it}
	return true
}

func (s *Spool) path(q *queue, channel string) string {
	return filepath.Join(s.dir, q.id+"-"+channel+".json")
}

// Put has i sent to every sink, in place of an older report of its channel that still waits. It does not wait for any
// sink. An error says that the report would not survive a restart.
func (s *Spool) Put(i Item) error {
	raw, err := artifact.Canonical(i)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, q := range s.sinks {
		e := q.waiting[i.Channel]
		if e == nil {
			e = &entry{}
			q.waiting[i.Channel] = e
		}
		e.item = i // what failed before is not asked sooner for it
		if err := s.store(q, i.Channel, raw); err != nil {
			errs = append(errs, err)
		}
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
	return errors.Join(errs...)
}

// store keeps a report across restarts; an older one of the same channel is gone when that fails.
func (s *Spool) store(q *queue, channel string, raw []byte) error {
	var used int64
	for _, o := range s.sinks {
		for c, e := range o.waiting {
			if o != q || c != channel {
				used += int64(len(e.item.Bundle))*4/3 + 512
			}
		}
	}
	var err error
	if used+int64(len(raw)) > s.opts.MaxBytes {
		err = fmt.Errorf("spool of reports: %d bytes would wait, the limit is %d", used+int64(len(raw)), s.opts.MaxBytes)
	} else {
		err = fsx.WriteFileAtomic(s.fs, s.path(q, channel), raw, 0o600)
	}
	if err != nil {
		if rerr := s.fs.Remove(s.path(q, channel)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
	}
	return err
}

// Waiting counts the reports that were not taken yet, by the ID of their sink.
func (s *Spool) Waiting() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int{}
	for _, q := range s.sinks {
		out[q.sink.ID()] = len(q.waiting)
	}
	return out
}

// Run sends until ctx ends.
func (s *Spool) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, q := range s.sinks {
		wg.Go(func() { s.serve(ctx, q) })
	}
	wg.Wait()
}

func (s *Spool) serve(ctx context.Context, q *queue) {
	for ctx.Err() == nil {
		it, wait, ok := s.due(q)
		if !ok {
			s.pause(ctx, q, wait)
			continue
		}
		try, cancel := context.WithTimeout(ctx, s.opts.Attempt)
		err := q.sink.Send(try, it)
		cancel()
		if ctx.Err() != nil {
			return // what was under way is sent again, under the same key
		}
		s.settle(q, it, err)
	}
}

// due gives the next report to send, or how long there is none; wait < 0 is until the next Put.
func (s *Spool) due(q *queue) (it Item, wait time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.opts.Now()
	wait = -1
	for _, c := range slices.Sorted(maps.Keys(q.waiting)) {
		e := q.waiting[c]
		d := e.next.Sub(now)
		if d > maxAfter+s.opts.Longest { // the clock was set back
			d = 0
		}
		if d <= 0 {
			return e.item, 0, true
		}
		if wait < 0 || d < wait {
			wait = d
		}
	}
	return Item{}, wait, false
}

func (s *Spool) pause(ctx context.Context, q *queue, wait time.Duration) {
	var timer <-chan time.Time
	if wait >= 0 {
		t := time.NewTimer(wait)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
	case <-q.wake:
	case <-timer:
	}
}

// settle notes what came of an attempt at it.
func (s *Spool) settle(q *queue, it Item, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := q.waiting[it.Channel]
	if err == nil {
		if e.failures > 0 {
			s.opts.Log.Info("report taken", "channel", it.Channel, "to", q.sink.ID(), "attempts", e.failures+1)
		}
		if e.item.Key() != it.Key() { // a newer one came in the meantime
			e.failures, e.next, e.said = 0, time.Time{}, ""
			return
		}
		delete(q.waiting, it.Channel)
		if rerr := s.fs.Remove(s.path(q, it.Channel)); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			s.opts.Log.Warn("spool of reports", "error", rerr) // sent once more after a restart
		}
		return
	}
	e.failures++
	wait := s.opts.First << min(e.failures-1, 20)
	if wait <= 0 || wait > s.opts.Longest {
		wait = s.opts.Longest
	}
	wait += time.Duration(rand.Int64N(int64(wait)/4 + 1)) // devices that lost the server together come back apart
	var after *RetryAfter
	if errors.As(err, &after) {
		wait = max(wait, min(after.Wait, maxAfter))
	}
	e.next = s.opts.Now().Add(wait)
	level := slog.LevelDebug
	if text := err.Error(); text != e.said { // the same failure again is no news
		e.said, level = text, slog.LevelWarn
	}
	s.opts.Log.Log(context.Background(), level, "report", "channel", it.Channel, "to", q.sink.ID(), "error", err, "again_in", wait.Round(time.Second).String())
}
