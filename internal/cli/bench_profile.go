package cli

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/engine"
	"github.com/waybill-ml/waybill/internal/ui"
	"github.com/waybill-ml/waybill/packager/build"
)

// profileBudget cuts a call into resumes so short that nearly each of them lies within one node.
const profileBudget = 20_000

// benchProfile is where the time of a call goes, and how long the host has to wait meanwhile.
type benchProfile struct {
	Calls   int             `json:"calls"`
	Resumes int             `json:"resumes"` // of one call
	Longest benchResume     `json:"longest_resume"`
	Ticker  benchTicker     `json:"ticker_late_ns"`
	Nodes   []benchNodeTime `json:"nodes"` // those that take the most first
}

// benchResume is the longest piece of work that cannot be interrupted: the least time that it took in all calls, so that
// what the machine did meanwhile does not count.
type benchResume struct {
	Node string `json:"node"`
	NS   int64  `json:"ns"`
}

// benchTicker tells how late the ticks of a millisecond came while calls ran.
type benchTicker struct {
	P50 int64 `json:"p50"`
	P99 int64 `json:"p99"`
	Max int64 `json:"max"`
}

type benchNodeTime struct {
	Node  string  `json:"node"`
	NS    int64   `json:"ns"` // of one call, on average
	Share float64 `json:"share"`
}

// recorder takes down the resumes of one call at a time.
type recorder struct {
	mu    sync.Mutex
	i     int
	best  []benchResume
	total map[string]time.Duration
}

func (r *recorder) resumed(step, node string, took time.Duration) {
	if node == "" {
		node = step
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.i == len(r.best) {
		r.best = append(r.best, benchResume{node, took.Nanoseconds()})
	}
	r.best[r.i].NS = min(r.best[r.i].NS, took.Nanoseconds())
	r.i++
	r.total[node] += took
}

// profile runs the model for about d: first as it always runs, beside a ticker, then in shorter pieces for the nodes.
func profile(ctx context.Context, cfg engine.Config, m build.Module, ins []engine.Tensor, d time.Duration) (*benchProfile, error) {
	whole, _, late, err := record(ctx, cfg, m, ins, d/2)
	if err != nil {
		return nil, err
	}
	out := &benchProfile{Resumes: len(whole.best)}
	for _, b := range whole.best {
		if b.NS > out.Longest.NS {
			out.Longest = b
		}
	}
	sort.Slice(late, func(i, j int) bool { return late[i] < late[j] })
	if n := len(late); n > 0 {
		out.Ticker = benchTicker{late[n/2], late[min(n-1, n*99/100)], late[n-1]}
	}
	cfg.Budget = profileBudget
	fine, calls, _, err := record(ctx, cfg, m, ins, d/2)
	if err != nil {
		return nil, err
	}
	out.Calls = calls
	var all time.Duration
	for _, t := range fine.total {
		all += t
	}
	for n, t := range fine.total {
		out.Nodes = append(out.Nodes, benchNodeTime{n, t.Nanoseconds() / int64(calls), float64(t) / float64(max(all, 1))})
	}
	sort.Slice(out.Nodes, func(i, j int) bool {
		a, b := out.Nodes[i], out.Nodes[j]
		return a.NS > b.NS || a.NS == b.NS && a.Node < b.Node
	})
	return out, nil
}

// record runs calls for about d and tells how late the ticks of a ticker came.
func record(ctx context.Context, cfg engine.Config, m build.Module, ins []engine.Tensor, d time.Duration) (_ *recorder, calls int, late []int64, err error) {
	r := &recorder{total: map[string]time.Duration{}}
	cfg.Resumed = r.resumed
	l, err := runner{cfg}.load(ctx, m)
	if err != nil {
		return nil, 0, nil, err
	}
	defer l.Close(context.WithoutCancel(ctx))
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(time.Millisecond)
		defer t.Stop()
		last := time.Now()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				now := time.Now()
				late = append(late, max(now.Sub(last)-time.Millisecond, 0).Nanoseconds())
				last = now
			}
		}
	}()
	for begin := time.Now(); calls < 3 || time.Since(begin) < d; calls++ {
		r.i = 0
		if _, err = l.Run(ctx, ins); err != nil {
			break
		}
	}
	close(stop)
	<-done
	return r, calls, late, err
}

// print writes the profile as text: the nodes that take the most, and what the host waits for.
func (p *benchProfile) print(w *ui.UI) {
	d := func(n int64) string { return ui.Duration(time.Duration(n)) }
	ui.Table(w.Out, false, [][]string{
		{"resumes", fmt.Sprintf("%s per call, longest %s in %s", ui.Count(int64(p.Resumes)), d(p.Longest.NS), p.Longest.Node)},
		{"ticker", fmt.Sprintf("1 ms ticks late by p50 %s, p99 %s, at most %s", d(p.Ticker.P50), d(p.Ticker.P99), d(p.Ticker.Max))},
	})
	rows := [][]string{{"TIME", "SHARE", "NODE"}}
	for i, n := range p.Nodes {
		if i == 20 {
			rows = append(rows, []string{"", "", fmt.Sprintf("and %d more", len(p.Nodes)-i)})
			break
		}
		rows = append(rows, []string{d(n.NS), fmt.Sprintf("%.1f %%", 100*n.Share), n.Node})
	}
	ui.Table(w.Out, true, rows)
}
