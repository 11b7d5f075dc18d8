package ui

import (
	"fmt"
	"sync"
	"time"
)

// Progress is a line that is rewritten while bytes move. It shows only when stderr is a terminal and neither --quiet
// nor --output json is on; otherwise its methods do nothing. Safe for concurrent use.
type Progress struct {
	mu    sync.Mutex
	u     *UI
	label string
	total int64
	done  int64
	last  time.Time
	now   func() time.Time
	shown bool

	mark   time.Time // since when, and since how many bytes, the rate is taken
	marked int64
	rate   int64 // bytes a second; 0 while it is not known
}

// rateSpan is over what time a rate is taken: what a resumed transfer begins with shows in it only for that long.
const rateSpan = time.Second

// Progress starts a line; total 0 means unknown. now is the clock.
func (u *UI) Progress(label string, total int64, now func() time.Time) *Progress {
	return &Progress{u: u, label: label, total: total, now: now, mark: now()}
}

// Begin sets the total when it is known only later, and starts to measure the rate.
func (p *Progress) Begin(total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.total, p.mark, p.marked, p.rate = total, p.now(), p.done, 0
}

// Add counts n more bytes.
func (p *Progress) Add(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.u.Quiet || p.u.JSON || !p.u.Err.TTY {
		return
	}
	if t := p.now(); t.Sub(p.last) >= 100*time.Millisecond {
		p.last, p.shown = t, true
		of := ""
		if p.total > 0 {
			of = fmt.Sprintf(" of %s (%d %%)", Bytes(p.total), p.done*100/p.total)
		}
		if d := t.Sub(p.mark); d >= rateSpan {
			p.rate = max(0, int64(float64(p.done-p.marked)/d.Seconds()))
			p.mark, p.marked = t, p.done
		}
		if p.rate > 0 {
			of += fmt.Sprintf("  %s/s", Bytes(p.rate))
		}
		p.u.Err.Printf("\r\x1b[2K  %-10s %s%s", p.label, Bytes(p.done), of)
	}
}

// Done removes the line.
func (p *Progress) Done() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		p.u.Err.Printf("\r\x1b[2K")
		p.shown = false
	}
}
