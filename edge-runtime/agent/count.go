package agent

import (
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
)

// Reasons of rollbacks, as they are counted: few, whatever a model or a person says.
const (
	ReasonErrors  = "error_budget"
	ReasonLatency = "latency_budget"
	ReasonMemory  = "memory_budget"
	ReasonGolden  = "golden_vectors"
	ReasonLoad    = "load"
	ReasonShadow  = "shadow"
	ReasonRestart = "restart"
	ReasonHand    = "by_hand"
	ReasonRecord  = "by_record"
	ReasonOther   = "other"
)

// Reasons are all of them.
func Reasons() []string {
	return []string{ReasonErrors, ReasonLatency, ReasonMemory, ReasonGolden, ReasonLoad, ReasonShadow, ReasonRestart, ReasonHand, ReasonRecord, ReasonOther}
}

// Outcomes of polls.
const (
	PollOK         = "ok"
	PollFailed     = "failed"
	PollRefused    = "refused"
	PollRolledBack = "rolled_back"
)

// Outcomes are all of them.
func Outcomes() []string { return []string{PollOK, PollFailed, PollRefused, PollRolledBack} }

// Counts are what a channel has done since the agent started.
type Counts struct {
	Rollbacks map[string]int64 // by reason
	Polls     map[string]int64 // by outcome
	Refused   int64
	Committed int64
	Bytes     int64     // downloaded
	LastPoll  time.Time // that did not fail
}

// tallies keeps the Counts of a channel. Safe for concurrent use.
type tallies struct {
	mu sync.Mutex
	c  Counts
}

func (c *tallies) add(change func(*Counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c.Rollbacks == nil {
		c.c.Rollbacks, c.c.Polls = map[string]int64{}, map[string]int64{}
	}
	change(&c.c)
}

func (c *tallies) snapshot() Counts {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.c
	s.Rollbacks, s.Polls = maps.Clone(s.Rollbacks), maps.Clone(s.Polls)
	return s
}

// Counts are those of a channel that is followed.
func (a *Agent) Counts(channel string) Counts {
	if f := a.follower(channel); f != nil {
		return f.count.snapshot()
	}
	return Counts{}
}

// tally counts a journal entry.
func (a *Agent) tally(e journal.Entry) {
	f := a.follower(e.Channel)
	if f == nil {
		return
	}
	switch e.Kind {
	case KindRolledBack, KindFallback:
		reason := a.reasonOf(e)
		f.count.add(func(c *Counts) { c.Rollbacks[reason]++ })
	case KindRefused:
		f.count.add(func(c *Counts) { c.Refused++ })
	case KindCommitted:
		f.count.add(func(c *Counts) { c.Committed++ })
	}
}

// reasonOf sorts a rollback into one of the Reasons.
func (a *Agent) reasonOf(e journal.Entry) string {
	if e.Reason == errByHand.Error() {
		return ReasonHand
	}
	_, failed := a.Store.Doc().Channel(e.Channel).Quarantine[string(e.From)]
	if e.Kind == KindRolledBack && !failed {
		return ReasonRecord // what it goes back from is not barred: the channel said so
	}
	for _, r := range []struct{ prefix, reason string }{
		{"error budget", ReasonErrors}, {"latency budget", ReasonLatency}, {"memory budget", ReasonMemory}, {"golden vectors", ReasonGolden},
		{"load ", ReasonLoad}, {"shadow", ReasonShadow}, {"the device restarted", ReasonRestart},
	} {
		if strings.HasPrefix(e.Reason, r.prefix) {
			return r.reason
		}
	}
	return ReasonOther
}

// polledWith counts a poll by how it ended.
func (f *follower) polledWith(err error) {
	outcome := PollOK
	switch {
	case err == nil:
	case IsRolledBack(err):
		outcome = PollRolledBack
	case IsRefused(err):
		outcome = PollRefused
	default:
		outcome = PollFailed
	}
	now := f.a.Clock.Now()
	f.count.add(func(c *Counts) {
		c.Polls[outcome]++
		if outcome != PollFailed {
			c.LastPoll = now
		}
	})
}
