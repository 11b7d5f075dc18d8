package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/schedule"
)

// hand is how a poll came to be.
type hand int

const (
	atEase hand = iota // by the schedule
	asked              // somebody asked for it: also what failed a moment ago is tried, also who wants to be left alone is asked
	urgent             // a person on site wants it now: maintenance windows do not count either
)

// wake asks the loop of a channel for a poll.
type wake struct {
	how    hand
	answer chan error
}

// opening is a maintenance window that an update waits for.
type opening struct{ in, lasts time.Duration }

// run polls the channel until ctx ends. Its waits are on a clock that nobody sets: a jump of the date neither stalls nor
// hastens it.
func (f *follower) run(ctx context.Context) {
	log := f.a.Log.With("channel", f.cfg.Name)
	start := time.Now()
	device := f.device()
	var pace schedule.Pace
	f.mu.Lock()
	wait := device.First(f.service())
	f.mu.Unlock()
	for {
		how, answer := atEase, chan error(nil)
		f.beat.expect(wait + f.a.cfg.Stuck)
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case w := <-f.wake:
			timer.Stop()
			how, answer = w.how, w.answer
		case <-timer.C:
		}
		err := f.pollAs(ctx, how)
		if ctx.Err() == nil && err != nil {
			log.Warn("poll", "error", err)
		}
		ask := schedule.Ask{Up: time.Since(start), Random: rand.Uint64()}
		ask.Pace, ask.RetryAfter = after(pace, ofPoll(err))
		pace = ask.Pace
		f.mu.Lock()
		ask.Opens, ask.For = f.opens.in, f.opens.lasts
		again := f.again()
		f.mu.Unlock()
		wait = device.Next(ask)
		if again > 0 {
			wait = min(wait, again)
		}
		log.Debug("poll", "next", wait)
		if answer != nil {
			answer <- err
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// pacer is an error that tells what a server wants of the next request.
type pacer interface {
	error
	Pace() (retryAfter time.Duration, limited bool)
}

// after is the pace after a poll that ended with err. What was refused, or rolled back, says nothing about the network.
func after(p schedule.Pace, err error) (schedule.Pace, time.Duration) {
	var retryAfter time.Duration
	outcome := schedule.Failed
	var say pacer
	if errors.As(err, &say) {
		var limited bool
		if retryAfter, limited = say.Pace(); limited {
			outcome = schedule.Limited
		}
	}
	if err == nil || IsRolledBack(err) || IsRefused(err) && !transient(err) {
		outcome = schedule.Fine
	}
	return p.After(outcome), retryAfter
}

// look polls once, at once even what failed a moment ago if now is set, and waits until the report about it was handed over or
// that failed. Nobody who wants to go back has to wait for either.
func (f *follower) look(ctx context.Context, now bool) error {
	if now {
		return f.pollAs(ctx, asked)
	}
	return f.pollAs(ctx, atEase)
}

func (f *follower) pollAs(ctx context.Context, how hand) error {
	f.a.endStart()
	f.a.reserve()
	f.beat.expect(f.a.cfg.Stuck)
	f.mu.Lock()
	if how != atEase {
		f.seen = nil
	}
	f.hand, f.opens = how, opening{}
	err := f.pollOrResort(ctx)
	if ctx.Err() == nil {
		f.polledWith(ofPoll(err))
	}
	sent := f.sent
	f.mu.Unlock()
	if sent != nil {
		<-sent // bounded by reportTime for each report under way
	}
	return err
}

// Poll asks every channel now and waits until what came of it is committed, rolled back or refused. Run must be running.
func (a *Agent) Poll(ctx context.Context) error { return a.pollAll(ctx, asked) }

// PollNow is Poll for a person on site: maintenance windows do not count. The device's own policy does.
func (a *Agent) PollNow(ctx context.Context) error { return a.pollAll(ctx, urgent) }

func (a *Agent) pollAll(ctx context.Context, how hand) error {
	errs := make([]error, len(a.followers))
	var wg sync.WaitGroup
	for i, f := range a.followers {
		wg.Go(func() { errs[i] = f.polled(ctx, how) })
	}
	wg.Wait()
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// polled has the loop of this channel poll now.
func (f *follower) polled(ctx context.Context, how hand) error {
	w := wake{how, make(chan error, 1)}
	select {
	case f.wake <- w:
		select {
		case err := <-w.answer:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	case <-ctx.Done():
		return ctx.Err()
	}
}
