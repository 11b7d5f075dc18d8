package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/edge-runtime/shadow"
	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/internal/fsx"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
)

// StatusSchema is the value of Status.Schema.
const StatusSchema = "waybill.dev/edge-status/v1"

// Status is what `waybill-edge status` shows; its JSON is a contract.
type Status struct {
	Schema   string          `json:"schema"`
	Device   string          `json:"device"`
	Running  bool            `json:"agentRunning"`
	Version  string          `json:"version"`
	At       time.Time       `json:"at"`
	Trust    int             `json:"trustVersion"`
	ClockOK  bool            `json:"clockOk"` // the clock is not behind the latest signed time
	Clock    string          `json:"clock"`   // ok, behind floor, no time
	Journal  journal.Head    `json:"journal"`
	Free     uint64          `json:"freeBytes"`
	Channels []ChannelStatus `json:"channels"`
	// AgentState is running, starting or stopping as the agent itself says; from the state on disk it is down, silent (it holds
	// the socket and does not answer) or busy (another process has the state directory).
	AgentState string    `json:"agentState,omitempty"`
	PID        int       `json:"pid,omitempty"` // of the agent, or of what has the state directory
	Started    time.Time `json:"started,omitzero"`
	// ClockFloor is the latest signed time seen; the clock is never taken to be before it.
	ClockFloor time.Time `json:"clockFloor,omitzero"`
	// JournalState is verified, or what is wrong with the journal; "" when nobody looked.
	JournalState string `json:"journalState,omitempty"`
	// WatchdogSeconds is the time after which the service manager restarts an agent that hangs; 0: it does not.
	WatchdogSeconds float64 `json:"watchdogSeconds,omitempty"`
	// Rebuilt says that the state was lost and put together again, and what it lacks.
	Rebuilt *state.Rebuilt `json:"rebuilt,omitempty"`
}

// ChannelStatus is one line of it.
type ChannelStatus struct {
	Channel    string    `json:"channel"`
	Model      string    `json:"model"`
	Seq        int64     `json:"seq"`
	EpochFloor int64     `json:"epochFloor,omitempty"`
	Expires    time.Time `json:"expires"`
	Stale      bool      `json:"stale"` // the record has expired: no new activation until it is refreshed
	State      string    `json:"state"` // empty, committed, fetching ... trial
	// Serving is the digest that answers requests; absent when none does, or when the agent is down.
	Serving artifact.Digest `json:"serving,omitempty"`
	// TrialEnds is when the candidate will have passed, unless it fails before.
	TrialEnds    time.Time        `json:"trialEnds,omitzero"`
	Current      *state.Slot      `json:"current,omitempty"`
	Candidate    *state.Slot      `json:"candidate,omitempty"`
	Previous     *state.Slot      `json:"previous,omitempty"`
	Kept         []state.Slot     `json:"kept"`
	Factory      *state.Slot      `json:"factory,omitempty"`
	Health       *Stats           `json:"health,omitempty"` // of what serves now; absent when the agent is down
	Shadow       *shadow.Result   `json:"shadow,omitempty"` // of the comparison under way
	LastRollback *state.Note      `json:"lastRollback,omitempty"`
	LastRefusal  *state.Note      `json:"lastRefusal,omitempty"`
	Quarantine   []QuarantineNote `json:"quarantine"`
	Pinned       bool             `json:"pinned"` // rolled back here: stays until the channel moves on
	// Waiting is the model that the device's own policy does not let it take now, with the newest reason.
	Waiting *state.Waiting `json:"waiting,omitempty"`
	// Deadly counts, by digest, how often the process ended while an artifact was loaded that is passed over for that; AgainAt is
	// when the running agent, which serves nothing, loads one of them again unless the channel has something else.
	Deadly  map[artifact.Digest]int `json:"deadly,omitempty"`
	AgainAt time.Time               `json:"againAt,omitzero"`
	// Carriers are the places that the channel comes from, as the running agent found them last.
	Carriers []CarrierStatus `json:"carriers,omitempty"`
	// WindowsClosed is why no maintenance window opens on this device: it does not know their time zone.
	WindowsClosed string        `json:"windowsClosed,omitempty"`
	Frozen        *state.Frozen `json:"frozen,omitempty"` // the channel tells its devices to keep what they run
}

// QuarantineNote is a digest that is not activated again under the present record.
type QuarantineNote struct {
	Digest artifact.Digest `json:"digest"`
	state.Quarantine
}

// States that are not steps of an intent.
const (
	StateEmpty     = "empty"
	StateCommitted = "committed"
)

// StatusOf makes the part of a Status that the durable document tells.
func StatusOf(d *state.Doc, now time.Time) Status {
	s := Status{
		Schema: StatusSchema, Device: d.Device, At: now.UTC(), Trust: d.Trust.Version,
		ClockOK: !now.Before(d.TimeFloor), Clock: clockState(now, d.TimeFloor), ClockFloor: d.TimeFloor, Journal: d.Journal, Channels: []ChannelStatus{}, Rebuilt: d.Rebuilt,
	}
	if now.Before(d.TimeFloor) {
		now = d.TimeFloor
	}
	for _, name := range sorted(d.Channels) {
		c := d.Channels[name].Clone()
		cs := ChannelStatus{
			Channel: name, Seq: c.Seq, EpochFloor: c.EpochFloor, Expires: c.Expires, Stale: c.Record != "" && !now.Before(c.Expires),
			State: StateEmpty, Current: c.Current, Previous: c.Previous, Kept: c.Kept, Factory: c.Factory,
			LastRollback: c.LastRollback, LastRefusal: c.LastRefusal, Quarantine: []QuarantineNote{}, Pinned: c.Pinned != nil,
			Waiting: c.Waiting, Frozen: c.Frozen, Deadly: deathsOf(c),
		}
		if cs.Kept == nil {
			cs.Kept = []state.Slot{}
		}
		if c.Current != nil {
			cs.State, cs.Model = StateCommitted, c.Current.Name
		}
		if c.Intent != nil {
			cs.State, cs.Candidate, cs.Model = string(c.Intent.Step), &c.Intent.Candidate, c.Intent.Candidate.Name
		}
		for _, q := range sorted(c.Quarantine) {
			cs.Quarantine = append(cs.Quarantine, QuarantineNote{artifact.Digest(q), c.Quarantine[q]})
		}
		s.Channels = append(s.Channels, cs)
	}
	return s
}

// Status tells what the device does now. It does not wait for an activation under way.
func (a *Agent) Status() Status {
	d := a.Store.Doc()
	for _, f := range a.followers {
		d.Channel(f.cfg.Name)
	}
	s := StatusOf(d, a.Clock.Now())
	s.Device, s.Running, s.Version, s.Trust, s.Journal = a.Signer.KeyID(), true, a.cfg.Version, a.Trust().Version, a.Journal.Head()
	if free, err := a.blobs.Free(0); err == nil {
		s.Free = free
	}
	for i := range s.Channels {
		f := a.follower(s.Channels[i].Channel)
		if f == nil {
			continue // followed once, no longer
		}
		s.Channels[i].Model, s.Channels[i].Carriers = f.cfg.Model, f.carriers()
		s.Channels[i].WindowsClosed = f.cfg.Windows.Closed()
		if w, why := s.Channels[i].Waiting, f.waitWhy.Load(); w != nil && why != nil {
			w.Reason = *why
		}
		if at := f.againAt.Load(); at != nil {
			s.Channels[i].AgainAt = at.UTC()
		}
		if end := f.trialEnd.Load(); end != 0 && s.Channels[i].State == string(state.Trial) {
			s.Channels[i].TrialEnds = a.Clock.Now().Add(time.Duration(end) - a.Clock.Up()).UTC()
		}
		if run := f.shadowed.Load(); run != nil {
			res := (*run).Result()
			s.Channels[i].Shadow = &res
		}
		if s.Channels[i].State != StateEmpty {
			st := a.Server.Stats(f.cfg.Model)
			s.Channels[i].Health = &st
		}
	}
	return s
}

// History returns the newest journal entries, oldest first.
func (a *Agent) History(max int) ([]journal.Entry, error) { return a.Journal.Tail(max) }

// reportEvents bounds the events in one report.
const reportEvents = 32

// report signs what this channel serves as status/v1, keeps it as a file, and hands it to the Reporter. It follows
// everything that changes what serves; failing is logged and tried again, and changes nothing else. A slow Reporter
// keeps nobody waiting.
func (f *follower) report(ctx context.Context) {
	if f.sendFailed.Swap(false) {
		f.unsent = true
	}
	if f.unsent || f.silentTooLong() {
		slot, bundle, err := f.statement()
		if err == nil && bundle != nil {
			err = fsx.WriteFileAtomic(f.a.FS, filepath.Join(f.a.Store.Dir(), "status-"+f.cfg.Name+".json"), bundle, 0o600)
		}
		if err != nil {
			f.a.Log.Warn("report", "channel", f.cfg.Name, "error", err)
			return
		}
		if bundle == nil {
			return // nothing to tell yet
		}
		f.unsent, f.hasReported, f.reported = false, true, f.a.Clock.Up()
		f.send(ctx, slot, bundle)
	}
}

// reportTime bounds handing over one report.
const reportTime = 10 * time.Second

// send hands a report over, after those before it.
func (f *follower) send(ctx context.Context, slot state.Slot, bundle []byte) {
	if f.cfg.Reporter == nil {
		return
	}
	before, done := f.sent, make(chan struct{})
	f.sent = done
	go func() {
		defer close(done)
		if before != nil {
			<-before
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reportTime)
		defer cancel()
		if err := f.cfg.Reporter.Report(ctx, slot, bundle); err != nil {
			f.sendFailed.Store(true)
			f.a.Log.Warn("report", "channel", f.cfg.Name, "error", err)
		}
	}()
}

// statement makes the signed status of this channel; none while nothing serves and nothing has happened.
func (f *follower) statement() (state.Slot, []byte, error) {
	c := f.state()
	var slot state.Slot
	switch {
	case f.live != nil:
		slot = f.live.slot
	case c.Record == "" && c.LastRefusal == nil:
		return state.Slot{}, nil, nil
	}
	s := evidence.Status{
		Device: f.a.Signer.KeyID(), Class: f.a.cfg.Class, Labels: f.a.cfg.Labels, Channel: f.cfg.Name, Model: f.cfg.Model,
		Seq: c.Seq, State: StateCommitted, Running: slot.Digest, At: f.a.now().Truncate(time.Second), Runtime: "waybill-edge " + f.a.cfg.Version,
		Events: []evidence.StatusEvent{}, Trust: f.a.Trust().Version,
	}
	head := f.a.Journal.Head()
	s.Journal = evidence.JournalHead{Entries: head.Entries, Head: head.Digest()}
	if s.Labels == nil {
		s.Labels = map[string]string{}
	}
	if c.Previous != nil {
		s.Previous = c.Previous.Digest
	}
	if c.Intent != nil && c.Intent.Step == state.Trial && c.Intent.Candidate.Digest == s.Running {
		s.State = string(state.Trial)
		if c.Current != nil {
			s.Previous = c.Current.Digest
		}
	} else if r := c.LastRollback; r != nil && r.To == s.Running && c.Current != nil && !r.At.Before(c.Current.Since) {
		s.State = KindRolledBack
	}
	f.describe(&s, c, slot)
	entries, err := f.a.Journal.Tail(512)
	if err != nil {
		return state.Slot{}, nil, err
	}
	for _, e := range entries {
		if e.Channel != f.cfg.Name || e.Digest == "" || !reported(e.Kind) {
			continue
		}
		s.Events = append(s.Events, evidence.StatusEvent{At: e.At.Truncate(time.Second), Kind: e.Kind, Digest: e.Digest, From: e.From, Reason: e.Reason, Seq: e.Seq})
	}
	if n := len(s.Events) - reportEvents; n > 0 {
		s.Events = s.Events[n:]
	}
	st, err := evidence.NewStatement(evidence.TypeStatus, f.cfg.Model, s.Subject(), s)
	if err != nil {
		return state.Slot{}, nil, fmt.Errorf("status: %w", err)
	}
	bundle, err := f.a.Signer.Sign(st)
	if err != nil {
		return state.Slot{}, nil, fmt.Errorf("sign the status: %w", err)
	}
	if len(bundle) > artifact.MaxBundle {
		return state.Slot{}, nil, errors.New("the status is too large")
	}
	return slot, bundle, nil
}

func reported(kind string) bool {
	switch kind {
	case KindTrial, KindCommitted, KindRolledBack, KindRefused, KindQuarantined, KindFallback:
		return true
	}
	return false
}
