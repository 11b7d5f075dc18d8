package carrier

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/internal/ratelimit"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Named is a place with what people call it.
type Named struct {
	Name string
	Place
	// Limits pace what comes from it. Time spent waiting for them is not held against the place.
	Limits []*ratelimit.Limiter
}

// Options of a Set. The zero value of each means its default.
type Options struct {
	MinRate int64         // bytes in a second below which a place is too slow: 512
	Window  time.Duration // over which that is measured: 30 s. Nothing at all for so long is too slow as well.
	Answer  time.Duration // within which a place must answer: 1 min
	// MaxPause bounds how long an answer can keep the device away from a place: an hour. Whoever answers in the place's stead
	// must not silence it for ever.
	MaxPause time.Duration
}

// Set is several places as one carrier, in the order of preference. All that are there are asked what a tag is, so that a
// frozen one hides nothing that another shows; content comes from the first that has it. A place that is down, slow or wrong
// comes after the others until that is forgotten, half of it every 30 minutes. A Set is safe for concurrent use.
type Set struct {
	o      Options
	places []*placeState

	mu     sync.Mutex
	given  map[artifact.Digest][]*placeState // who gave bytes of content that is not complete or not known to be right
	alone  map[artifact.Digest]bool          // content that is not to be mixed from several places
	spoilt map[artifact.Digest][]*placeState // who gave other content for it
}

type placeState struct {
	Named

	mu     sync.Mutex
	blame  float64
	at     time.Time // of blame
	last   error
	state  string
	until  time.Time     // not asked before
	why    error         // for until
	pause  time.Duration // at most
	asking bool          // a call that did not return is still under way
}

// How much a failure counts: as many places as it puts this one back.
const (
	dead  = 1
	slow  = 2
	wrong = 8

	halfLife = 30 * time.Minute
	maxBlame = 16
)

// NewSet makes a carrier of at least one place.
func NewSet(o Options, places ...Named) *Set {
	if o.MinRate <= 0 {
		o.MinRate = 512
	}
	if o.Window <= 0 {
		o.Window = 30 * time.Second
	}
	if o.Answer <= 0 {
		o.Answer = time.Minute
	}
	if o.MaxPause <= 0 {
		o.MaxPause = time.Hour
	}
	s := &Set{o: o, given: map[artifact.Digest][]*placeState{}, alone: map[artifact.Digest]bool{}, spoilt: map[artifact.Digest][]*placeState{}}
	for _, p := range places {
		s.places = append(s.places, &placeState{Named: p, state: Unasked, pause: o.MaxPause})
	}
	return s
}

// States of a place.
const (
	Unasked = "unasked"
	OK      = "ok"
	Absent  = "absent"  // not there now: no stick
	Lacking = "lacking" // it answers, and does not have what was asked for
	Down    = "failing" // the last call failed
	Wrong   = "wrong"   // it gave content that was not what its digest says
	Paused  = "paused"  // it asked to be left alone for a while
)

// State is what is known of a place.
type State struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Reason string `json:"reason,omitempty"`
	After  int    `json:"after,omitempty"` // how many places it is put back for its failures
}

// Several tells whether there is more than one place.
func (s *Set) Several() bool { return len(s.places) > 1 }

// States tells what is known of the places, in the order of preference.
func (s *Set) States() []State {
	now := time.Now()
	var out []State
	for _, p := range s.places {
		p.mu.Lock()
		x := State{Name: p.Name, State: p.state, After: p.back(now)}
		if p.last != nil {
			x.Reason = p.last.Error()
		}
		p.mu.Unlock()
		out = append(out, x)
	}
	return out
}

// back is how many places p is put back now. The lock is held.
func (p *placeState) back(now time.Time) int {
	return int(math.Round(p.blame * math.Exp2(-float64(now.Sub(p.at))/float64(halfLife))))
}

func (p *placeState) note(state string, err error, blame float64) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.last = state, err
	if blame > 0 {
		p.blame = min(p.blame*math.Exp2(-float64(now.Sub(p.at))/float64(halfLife))+blame, maxBlame)
		p.at = now
	}
	var pace *PaceError
	if errors.As(err, &pace) && pace.Wait > 0 {
		p.until, p.why = now.Add(min(pace.Wait, p.pause)), err
	}
}

// hasIt ends the note that p lacked something: it was asked for what it need not have, such as the next trust document.
func (p *placeState) hasIt() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state == Lacking {
		p.state, p.last = OK, nil
	}
}

// order is the places, the better first.
func (s *Set) order() []*placeState {
	now := time.Now()
	var out []*placeState
	var ranks []int
	for i, p := range s.places {
		p.mu.Lock()
		rank := i + p.back(now)
		p.mu.Unlock()
		at := len(out)
		for at > 0 && ranks[at-1] > rank {
			at--
		}
		out, ranks = slices.Insert(out, at, p), slices.Insert(ranks, at, rank)
	}
	return out
}

// paused tells whether p is not to be asked now.
func (p *placeState) paused() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	left := time.Until(p.until)
	if left <= 0 {
		return nil
	}
	var pace *PaceError
	_ = errors.As(p.why, &pace)
	p.state = Paused
	return &PaceError{fmt.Errorf("%s asked to be left alone, for %s more: %w", p.Name, left.Round(time.Second), p.why), left, pace != nil && pace.Limited}
}

// failed makes the note of a call that failed, unless the caller gave up.
func (p *placeState) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
	case errors.Is(err, ErrAbsent):
		p.note(Absent, nil, 0)
	case errors.Is(err, fs.ErrNotExist):
		p.note(Lacking, nil, 0)
	case errors.Is(err, errSlow):
		p.note(Down, err, slow)
	default:
		p.note(Down, err, dead)
	}
	return fmt.Errorf("%s: %w", p.Name, err)
}

var (
	errSlow    = errors.New("too slow")
	errNoReply = fmt.Errorf("%w: no answer in time", errSlow)
	errBusy    = errors.New("the call before has not returned yet")
)

// within calls do and waits for it no longer than limit. do gets a context that ends then, or when the caller ends it after a
// success; a place that does not heed it (a stick that hangs in the kernel) keeps its goroutine, and is not asked again
// before that has ended.
func within[T any](ctx context.Context, p *placeState, limit time.Duration, do func(ctx context.Context) (T, error), drop func(T)) (T, context.CancelCauseFunc, error) {
	var none T
	p.mu.Lock()
	busy := p.asking
	p.mu.Unlock()
	cctx, cancel := context.WithCancelCause(ctx)
	if busy {
		cancel(errBusy)
		return none, cancel, errBusy
	}
	type result struct {
		v   T
		err error
	}
	done := make(chan result, 1)
	go func() {
		v, err := do(cctx)
		done <- result{v, err}
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	var late error
	select {
	case r := <-done:
		if r.err != nil {
			cancel(r.err)
		}
		return r.v, cancel, r.err
	case <-ctx.Done():
		late = context.Cause(ctx)
	case <-t.C:
		late = errNoReply
	}
	cancel(late)
	p.mu.Lock()
	p.asking = true
	p.mu.Unlock()
	go func() {
		r := <-done
		p.mu.Lock()
		p.asking = false
		p.mu.Unlock()
		if r.err == nil && drop != nil {
			drop(r.v)
		}
	}()
	return none, cancel, late
}

// Look asks every place what a tag is. It returns the different answers, those of better places first; without any an error:
// one that matches fs.ErrNotExist when every place that is there answered that it has no such tag, or none is there. insist
// ends all pauses that places asked for: a person wants it now.
func (s *Set) Look(ctx context.Context, tag string, insist bool) ([]artifact.Digest, error) {
	places := s.order()
	answers := make([][]artifact.Digest, len(places))
	errs := make([]error, len(places))
	var wg sync.WaitGroup
	for i, p := range places {
		if insist {
			p.mu.Lock()
			p.until = time.Time{}
			p.mu.Unlock()
		}
		if err := p.paused(); err != nil {
			errs[i] = err
			continue
		}
		wg.Go(func() {
			ds, cancel, err := within(ctx, p, s.o.Answer, func(ctx context.Context) ([]artifact.Digest, error) { return p.Heads(ctx, tag) }, nil)
			cancel(nil)
			if err != nil {
				errs[i] = p.failed(ctx, err)
				return
			}
			p.note(OK, nil, 0)
			answers[i] = ds
		})
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	var out []artifact.Digest
	var bad []error
	for i := range places {
		for _, d := range answers[i] {
			if !slices.Contains(out, d) {
				out = append(out, d)
			}
		}
		if errs[i] != nil && !errors.Is(errs[i], ErrAbsent) && !errors.Is(errs[i], fs.ErrNotExist) {
			bad = append(bad, errs[i])
		}
	}
	switch {
	case len(out) > 0:
		return out, nil
	case len(bad) > 0:
		return nil, errors.Join(bad...)
	}
	return nil, notFound("no carrier has the tag %s", tag)
}

// Resolve implements a carrier of one answer: the best place's.
func (s *Set) Resolve(ctx context.Context, tag string) (artifact.Digest, error) {
	ds, err := s.Look(ctx, tag, false)
	if err != nil {
		return "", err
	}
	return ds[0], nil
}

// Open reads the content of d from offset on, from the best place that has it. When that one breaks off or becomes too slow,
// the reader goes on with the next at the same byte.
func (s *Set) Open(ctx context.Context, d artifact.Descriptor, offset int64) (io.ReadCloser, error) {
	s.mu.Lock()
	if len(s.given) > maxGiven {
		clear(s.given)
	}
	switch {
	case offset == 0:
		delete(s.given, d.Digest)
	case len(s.given[d.Digest]) == 0:
		s.given[d.Digest] = []*placeState{nil} // who gave what is here already is not known
	}
	alone, spoilt := s.alone[d.Digest] && offset == 0, s.spoilt[d.Digest]
	s.mu.Unlock()
	f := &flow{s: s, ctx: ctx, d: d, at: offset, left: s.order(), alone: alone}
	if len(spoilt) < len(s.places) { // when all have done so, all may try again
		f.left = slices.DeleteFunc(f.left, func(p *placeState) bool { return slices.Contains(spoilt, p) })
	}
	if err := f.next(nil); err != nil {
		return nil, err
	}
	return f, nil
}

// maxGiven bounds what is remembered about unfinished content.
const maxGiven = 1024

func (s *Set) gave(d artifact.Digest, p *placeState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.given[d], p) {
		s.given[d] = append(s.given[d], p)
	}
}

// Spoiled says that the content that came for d was not what its digest says. Who gave all of it is put far back; where
// several did, nobody knows which of them it was, and d comes from one at a time from now on. more tells whether another
// attempt, from the start, may bring something else.
func (s *Set) Spoiled(d artifact.Digest) (more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	givers := s.given[d]
	delete(s.given, d)
	if len(givers) != 1 || givers[0] == nil {
		if len(s.alone) > maxGiven {
			clear(s.alone)
		}
		more = !s.alone[d]
		s.alone[d] = true
		return more
	}
	if len(s.spoilt) > maxGiven {
		clear(s.spoilt)
	}
	p := givers[0]
	p.note(Wrong, fmt.Errorf("it gave other content for %s", d.Short()), wrong)
	if !slices.Contains(s.spoilt[d], p) {
		s.spoilt[d] = append(s.spoilt[d], p)
		more = len(s.spoilt[d]) < len(s.places)
	}
	return more
}
