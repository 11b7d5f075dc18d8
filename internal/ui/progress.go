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
}

// Progress starts a line; total 0 means unknown. now is the clock.
func (u *UI) Progress(label string, total int64, now func() time.Time) *Progress {
	return &Progress{u: u, label: label, total: total, now: now}
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
