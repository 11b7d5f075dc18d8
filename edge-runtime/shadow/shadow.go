// Package shadow compares a model that is not serving yet with the one that is, on copies of live requests: what the candidate
// would have answered, and how long it would have taken. Nothing that it does or fails to do reaches a client: copies are taken
// when an answer is done, wait in a bounded queue, and are run one at a time.
package shadow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Runner is a loaded model; *engine.Model is one.
type Runner interface {
	Interface() *artifact.Interface
	RunTimed(ctx context.Context, ins []engine.Tensor) ([]engine.Tensor, time.Duration, error)
}

// Config of a Run.
type Config struct {
	Sample     float64       // part of the requests that is copied, 0 to 1
	RTol, ATol float64       // floating-point numbers may differ by ATol + RTol*|live|; both 0: bit for bit
	Timeout    time.Duration // of one call of the candidate
	// QueueBytes bounds the tensors that wait, and QueueLen their requests; what comes on top is dropped and counted. 0: 16 MiB, 64.
	QueueBytes int64
	QueueLen   int
}

// Result is what was seen so far. Durations are those of inference alone, in nanoseconds, over the newest compared requests.
type Result struct {
	Seen      int64 `json:"seen"`      // answered by the live model
	Compared  int64 `json:"compared"`  // run by the candidate too
	Different int64 `json:"different"` // of those: another answer, or none
	Failed    int64 `json:"failed"`    // of those: the candidate gave an error
	Dropped   int64 `json:"dropped"`   // not run: too many were waiting
	// Largest is the largest absolute difference of two numbers, and First tells the first answer that differed.
	Largest float64       `json:"largest"`
	First   string        `json:"first,omitempty"`
	P50     time.Duration `json:"p50Ns"`
	P99     time.Duration `json:"p99Ns"`
	LiveP50 time.Duration `json:"liveP50Ns"`
	LiveP99 time.Duration `json:"liveP99Ns"`
}

// window is how many latencies of each model are kept.
const window = 1024

// copied is one request with its live answer.
type copied struct {
	ins, outs []engine.Tensor
	took      time.Duration
	bytes     int64
}

// Run is one comparison. Safe for concurrent use.
type Run struct {
	cfg       Config
	candidate Runner
	cmp       comparer
	inputs    []int // position of each of the candidate's inputs among the live ones

	work   chan copied
	ctx    context.Context
	cancel context.CancelFunc
	done   chan struct{}

	mu      sync.Mutex
	stopped bool
	credit  float64 // of Sample
	waiting int
	bytes   int64
	res     Result
	mine    []time.Duration
	live    []time.Duration
}

// Start begins a comparison of candidate with a live model of that interface; Stop ends it. It is an error when the candidate
// cannot be asked what the live model is asked.
func Start(candidate Runner, live *artifact.Interface, cfg Config) (*Run, error) {
	if cfg.QueueBytes <= 0 {
		cfg.QueueBytes = 16 << 20
	}
	if cfg.QueueLen <= 0 {
		cfg.QueueLen = 64
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}
	r := &Run{cfg: cfg, candidate: candidate, work: make(chan copied, cfg.QueueLen), done: make(chan struct{})}
	iface := candidate.Interface()
	for _, p := range iface.Inputs {
		i := slices.IndexFunc(live.Inputs, func(l artifact.Port) bool { return l.Name == p.Name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("it has an input %q that requests to the live model do not carry", p.Name)
		case live.Inputs[i].DType != p.DType || live.Inputs[i].Kind != p.Kind:
			return nil, fmt.Errorf("its input %q is a %s of %s, that of the live model a %s of %s", p.Name, p.Kind, p.DType, live.Inputs[i].Kind, live.Inputs[i].DType)
		}
		r.inputs = append(r.inputs, i)
	}
	var err error
	if r.cmp, err = newComparer(live.Outputs, iface.Outputs, cfg.RTol, cfg.ATol); err != nil {
		return nil, err
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	go r.loop()
	return r, nil
}

// Offer hands over one answered request. It never blocks; the tensors must not be changed any more. What waits is looked at
// once ctx, that of the request, has ended, so that its answer goes out first.
func (r *Run) Offer(ctx context.Context, ins, outs []engine.Tensor, took time.Duration) {
	c := copied{ins: ins, outs: outs, took: took}
	for _, t := range [][]engine.Tensor{ins, outs} {
		for i := range t {
			c.bytes += size(&t[i])
		}
	}
	if !r.admit(c.bytes) {
		return
	}
	if ctx.Done() == nil {
		r.enqueue(c)
		return
	}
	context.AfterFunc(ctx, func() { r.enqueue(c) })
}

// admit counts the request and tells whether it is one to copy and there is room for it.
func (r *Run) admit(bytes int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped {
		return false
	}
	r.res.Seen++
	if r.credit += r.cfg.Sample; r.credit < 1 {
		return false
	}
	r.credit--
	if r.waiting > 0 && (r.bytes+bytes > r.cfg.QueueBytes || r.waiting >= r.cfg.QueueLen) {
		r.res.Dropped++
		return false
	}
	r.waiting++
	r.bytes += bytes
	return true
}

func (r *Run) enqueue(c copied) {
	select {
	case r.work <- c: // admit counted the places
	case <-r.ctx.Done():
	}
}

func (r *Run) loop() {
	defer close(r.done)
	for {
		select {
		case <-r.ctx.Done():
			return
		case c := <-r.work:
			r.compare(c)
		}
	}
}

// compare runs the candidate on one copied request.
func (r *Run) compare(c copied) {
	ins := make([]engine.Tensor, len(r.inputs))
	for i, from := range r.inputs {
		ins[i] = c.ins[from]
	}
	ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Timeout)
	outs, took, err := r.candidate.RunTimed(ctx, ins)
	cancel()
	var d diff
	if err == nil {
		d = r.cmp.compare(c.outs, outs)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting--
	r.bytes -= c.bytes
	if r.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return // stopped meanwhile: that says nothing about the candidate
	}
	r.res.Compared++
	switch {
	case err != nil:
		r.res.Failed++
		d.what = "it gave an error: " + err.Error()
	default:
		r.mine, r.live = slide(r.mine, took), slide(r.live, c.took)
		r.res.Largest = max(r.res.Largest, d.largest)
	}
	if d.what != "" {
		r.res.Different++
		if r.res.First == "" {
			r.res.First = d.what
		}
	}
}

func slide(w []time.Duration, d time.Duration) []time.Duration {
	if len(w) == window {
		w = append(w[:0], w[1:]...)
	}
	return append(w, d)
}

// Result tells what was seen so far.
func (r *Run) Result() Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	res := r.res
	res.P50, res.P99 = percentiles(r.mine)
	res.LiveP50, res.LiveP99 = percentiles(r.live)
	return res
}

func percentiles(w []time.Duration) (p50, p99 time.Duration) {
	if len(w) == 0 {
		return 0, 0
	}
	v := slices.Sorted(slices.Values(w))
	return v[(len(v)*50+99)/100-1], v[(len(v)*99+99)/100-1]
}

// Stop ends the comparison and waits for the call under way, which is interrupted. The candidate is free after that.
func (r *Run) Stop() {
	r.mu.Lock()
	r.stopped = true
	r.mu.Unlock()
	r.cancel()
	<-r.done
}

func size(t *engine.Tensor) int64 {
	n := int64(len(t.Data)) + 8*int64(len(t.Shape)) + 64
	for _, s := range t.Strings {
		n += int64(len(s)) + 16
	}
	for i := range t.Elems {
		n += size(&t.Elems[i])
	}
	return n
}
