// Package session keeps the state of streams between their calls: so many, so many bytes, for so long. One request works on
// a session at a time; the others wait in the order in which they came. A session belongs to the model that it began
// with, which it keeps from being closed.
package session

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
)

// Why there is no session to go on with. Callers tell them apart with errors.Is.
var (
	// ErrGone: it has ended, expired, or was never begun here. A new one must be started.
	ErrGone = errors.New("there is no such session")
	// ErrFull: no room for another session, or for another waiting request.
	ErrFull = errors.New("too many sessions")
	// ErrTooLarge: the state has grown beyond what the server keeps. The session stays as it was.
	ErrTooLarge = errors.New("the session's state is too large")
)

// Why sessions end, as the metrics show it.
const (
	Ended    = "end"      // by its client
	Restart  = "restart"  // its client began it anew
	Expired  = "expired"  // nobody asked for TTL
	Replaced = "replaced" // its model was replaced, and Grace is over
	Failed   = "failed"   // it did not get through its first request
	Closed   = "closed"   // the server stops
)

// Config bounds a store. Zero fields have the defaults named.
type Config struct {
	Max      int           // sessions at once; 64
	MaxBytes int64         // of all their states; 16 MiB
	TTL      time.Duration // between two requests of a session; 1 minute
	Grace    time.Duration // after its model was replaced; 10 seconds
	Waiting  int           // requests that may wait for one session; 16
	// Started and Ended hear of sessions. They are called with the store locked: they must not call it. nil: nobody does.
	Started func(model string)
	Ended   func(model, reason string)
}

// Owner is the model that a session began with.
type Owner interface {
	// Digest identifies what the model computes: states of the same digest go together.
	Digest() string
	// Retain keeps it from being closed until Release; false when it is closed.
	Retain() bool
	Release()
}

type key struct{ model, id string }

// session is one stream. Its fields belong to Store.mu but for state, which belongs to the holder of turn.
type session struct {
	key     key
	turn    chan struct{} // holds one token while a request works
	waiting int
	state   []engine.Tensor
	bytes   int64
	owner   Owner
	until   time.Time // TTL
	grace   time.Time // zero while its model serves
	over    string    // the reason, once it has ended
	told    string    // what its clients are told then
}

// overhead is what a session costs besides its state, in bytes.
const overhead = 512

// Store keeps sessions. It is safe for concurrent use. Close it.
type Store struct {
	cfg Config

	mu     sync.Mutex
	all    map[key]*session // those that ended lately too, without their state
	dead   []*session       // those, oldest first
	bytes  int64
	live   int
	next   time.Time // when sweep has something to look at; zero for never
	timer  *time.Timer
	closed bool
}

// New makes a store.
func New(cfg Config) *Store {
	if cfg.Max <= 0 {
		cfg.Max = 64
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 16 << 20
	}
	if cfg.TTL <= 0 {
		cfg.TTL = time.Minute
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 10 * time.Second
	}
	if cfg.Waiting <= 0 {
		cfg.Waiting = 16
	}
	if cfg.Started == nil {
		cfg.Started = func(string) {}
	}
	if cfg.Ended == nil {
		cfg.Ended = func(string, string) {}
	}
	return &Store{cfg: cfg, all: map[key]*session{}}
}

// Lease is the right to advance a session by one request.
type Lease struct {
	store *Store
	s     *session
	first bool
}

// Start begins the session anew, whatever there was under its name, and waits for no one. first is its state; owner is
// retained for it.
func (st *Store) Start(model, id string, owner Owner, first []engine.Tensor) (*Lease, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.sweep()
	if st.closed {
		return nil, fmt.Errorf("%w: the server stops", ErrGone)
	}
	k := key{model, id}
	if old := st.all[k]; old != nil && old.over == "" {
		st.end(old, Restart, "it was started anew")
	}
	size := sizeOf(first)
	switch {
	case size > st.cfg.MaxBytes:
		return nil, fmt.Errorf("%w: %d bytes of %d", ErrTooLarge, size, st.cfg.MaxBytes)
	case st.live >= st.cfg.Max:
		return nil, fmt.Errorf("%w: %d are open", ErrFull, st.live)
	case st.bytes+size > st.cfg.MaxBytes:
		return nil, fmt.Errorf("%w: their states take %d bytes of %d", ErrFull, st.bytes, st.cfg.MaxBytes)
	case !owner.Retain():
		return nil, fmt.Errorf("%w: its model was closed", ErrGone)
	}
	s := &session{key: k, turn: make(chan struct{}, 1), state: first, bytes: size, owner: owner, until: time.Now().Add(st.cfg.TTL)}
	s.turn <- struct{}{}
	st.all[k] = s
	st.live++
	st.bytes += size
	st.cfg.Started(model)
	st.note(s.until)
	return &Lease{st, s, true}, nil
}

// Join waits for the session's turn. active is the model that serves now: a session of the same digest goes over to it.
func (st *Store) Join(ctx context.Context, model, id string, active Owner) (*Lease, error) {
	st.mu.Lock()
	st.sweep()
	s := st.all[key{model, id}]
	if err := s.gone(id); err != nil {
		st.mu.Unlock()
		return nil, err
	}
	if s.waiting >= st.cfg.Waiting {
		st.mu.Unlock()
		return nil, fmt.Errorf("%w: %d requests wait for session %q already", ErrFull, s.waiting, id)
	}
	s.waiting++
	st.mu.Unlock()
	var err error
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	s.waiting--
	if err != nil {
		return nil, err
	}
	if s.over == "" && s.graceOver(time.Now()) {
		st.end(s, Replaced, replaced) // a session that is never idle ends too
	}
	if err := s.gone(id); err != nil {
		<-s.turn
		st.drop(s)
		return nil, err
	}
	if active != nil && active != s.owner && active.Digest() == s.owner.Digest() && active.Retain() {
		s.owner.Release()
		s.owner, s.grace = active, time.Time{}
	}
	return &Lease{st, s, false}, nil
}

// gone tells why there is nothing to go on with.
func (s *session) gone(id string) error {
	switch {
	case s == nil:
		return fmt.Errorf("%w: %q was not started here, or has ended; send sequence_start to begin", ErrGone, id)
	case s.over != "":
		return fmt.Errorf("%w: %q is over: %s; send sequence_start to begin anew", ErrGone, id, s.told)
	}
	return nil
}

// State is what the session has come to. It must not be changed.
func (l *Lease) State() []engine.Tensor { return l.s.state }

// Owner is the model that the session belongs to. It stays open as long as the lease.
func (l *Lease) Owner() Owner { return l.s.owner }

// Commit takes the state after a request; without it the session stays as it was. With end it is over.
func (l *Lease) Commit(state []engine.Tensor, end bool) error {
	st := l.store
	st.mu.Lock()
	defer st.mu.Unlock()
	l.first = false
	if l.s.over != "" {
		return nil // started anew, or the server stops; this request was answered by what it began with
	}
	if end {
		st.end(l.s, Ended, "its client ended it")
		return nil
	}
	size := sizeOf(state)
	if st.bytes-l.s.bytes+size > st.cfg.MaxBytes {
		return fmt.Errorf("%w: it needs %d bytes, and the states of all sessions may take %d", ErrTooLarge, size, st.cfg.MaxBytes)
	}
	st.bytes += size - l.s.bytes
	l.s.state, l.s.bytes = state, size
	return nil
}

// Release ends the lease: the next request has its turn. A session whose first request did not commit is over.
func (l *Lease) Release() {
	st := l.store
	st.mu.Lock()
	defer st.mu.Unlock()
	if l.first && l.s.over == "" {
		st.end(l.s, Failed, "its first request failed")
	}
	l.s.until = time.Now().Add(st.cfg.TTL)
	if l.s.over == "" && l.s.graceOver(time.Now()) {
		st.end(l.s, Replaced, replaced)
	}
	<-l.s.turn
	if l.s.over != "" {
		st.drop(l.s)
		return
	}
	st.note(l.s.until)
}

// Replace tells that digest answers under model from now on ("" for none): sessions of another digest end after Grace.
func (st *Store) Replace(model, digest string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	at := time.Now().Add(st.cfg.Grace)
	for k, s := range st.all {
		switch {
		case k.model != model || s.over != "":
		case s.owner.Digest() == digest:
			s.grace = time.Time{}
		case s.grace.IsZero():
			s.grace = at
			st.note(at)
		}
	}
}

// Usage returns how many sessions there are and what they take.
func (st *Store) Usage() (sessions int, bytes int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.live, st.bytes
}

// Close ends all sessions. Requests that work on one finish.
func (st *Store) Close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closed = true
	for _, s := range st.all {
		if s.over == "" {
			st.end(s, Closed, "the server stopped")
		}
	}
	if st.timer != nil {
		st.timer.Stop()
	}
}

// end takes s out of service. Its owner is given back by the request that works on it, or at once. st.mu is held.
func (st *Store) end(s *session, reason, told string) {
	s.over, s.told = reason, told
	st.live--
	st.bytes -= s.bytes
	s.bytes = 0
	st.cfg.Ended(s.key.model, reason)
	st.dead = append(st.dead, s)
	for len(st.dead) > st.cfg.Max { // what is remembered of them is bounded too
		if old := st.dead[0]; st.all[old.key] == old {
			delete(st.all, old.key)
		}
		st.dead[0] = nil
		st.dead = st.dead[1:]
	}
	select {
	case s.turn <- struct{}{}:
		<-s.turn
		st.drop(s)
	default:
	}
}

// drop gives the owner of an ended session back, once.
func (st *Store) drop(s *session) {
	if s.owner != nil {
		s.owner.Release()
		s.owner, s.state = nil, nil
	}
}

// sweep ends what is over, when it is time for that. st.mu is held.
func (st *Store) sweep() {
	now := time.Now()
	if st.next.IsZero() || now.Before(st.next) {
		return
	}
	st.next = time.Time{}
	for _, s := range st.all {
		switch {
		case s.over != "":
		case len(s.turn) == 0 && s.graceOver(now):
			st.end(s, Replaced, replaced)
		case len(s.turn) == 0 && !now.Before(s.until):
			st.end(s, Expired, fmt.Sprintf("nobody asked for %s", st.cfg.TTL))
		default:
			// What is past belongs to a session that a request works on, and ends with it.
			if now.Before(s.until) {
				st.note(s.until)
			}
			if now.Before(s.grace) {
				st.note(s.grace)
			}
		}
	}
}

const replaced = "its model was replaced, and the new one cannot go on with its state"

func (s *session) graceOver(now time.Time) bool { return !s.grace.IsZero() && !now.Before(s.grace) }

// note makes sure that sweep runs at t, if that is a time. st.mu is held.
func (st *Store) note(t time.Time) {
	if t.IsZero() || st.closed || !st.next.IsZero() && !t.Before(st.next) {
		return
	}
	st.next = t
	d := max(time.Until(t), time.Millisecond)
	if st.timer != nil {
		st.timer.Reset(d)
		return
	}
	st.timer = time.AfterFunc(d, func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.sweep()
	})
}

func sizeOf(state []engine.Tensor) int64 {
	n := int64(overhead)
	for i := range state {
		n += int64(len(state[i].Data)) + 8*int64(len(state[i].Shape))
	}
	return n
}
