package fleet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/trust"
	"github.com/waybill-ml/waybill/oci/verify"
)

// reportSkew is how far a report may lie ahead of the reader's clock.
const reportSkew = 10 * time.Minute

// Line is what is kept of the newest report of a device in a channel; also what a reader remembers between two looks.
type Line struct {
	Device  string          `json:"device"`
	Channel string          `json:"channel"`
	At      time.Time       `json:"at"`
	Entries int64           `json:"entries"` // of the journal
	Head    artifact.Digest `json:"head"`
	Seq     int64           `json:"seq"`
	State   string          `json:"state"`
	Running artifact.Digest `json:"running,omitempty"`
	Version string          `json:"version,omitempty"`
	Stale   bool            `json:"stale,omitempty"`
	Pinned  bool            `json:"pinned,omitempty"`
	// Rollback, Refusal and Waiting are the reasons that the report gives.
	Rollback   string          `json:"rollback,omitempty"`
	RolledBack artifact.Digest `json:"rolledBack,omitempty"` // from what
	Refusal    string          `json:"refusal,omitempty"`
	Waiting    string          `json:"waiting,omitempty"`
	Clock      bool            `json:"clockOk"`
	Requests   int64           `json:"requests"`
	Errors     int64           `json:"errors"`
}

// Alarm is something about a device that a person should look at.
type Alarm struct {
	Device  string `json:"device"`
	Channel string `json:"channel"`
	What    string `json:"what"`
}

// ErrOlder says that a newer report of the device is known.
var ErrOlder = errors.New("a newer report of this device is known")

// Tally takes reports from anywhere, believes the genuine ones and keeps the newest of each device in each channel.
type Tally struct {
	reg    Register
	now    time.Time
	lines  map[[2]string]Line
	alarms map[Alarm]bool
	off    string // check that tests leave out
}

// NewTally begins with what was seen at an earlier look; nil: nothing.
func NewTally(reg Register, seen []Line, now time.Time) *Tally {
	t := &Tally{reg: reg, now: now, lines: map[[2]string]Line{}, alarms: map[Alarm]bool{}}
	for _, l := range seen {
		if _, ok := reg[l.Device]; ok {
			t.lines[[2]string{l.Device, l.Channel}] = l
		}
	}
	return t
}

// Add takes one signed report. An error says why it does not count; ErrOlder is one that is genuine.
func (t *Tally) Add(raw []byte) (*evidence.Status, error) {
	st, err := t.verify(raw)
	if err != nil {
		return nil, err
	}
	l := lineOf(st)
	at := [2]string{l.Device, l.Channel}
	was, ok := t.lines[at]
	if !ok {
		t.lines[at] = l
		return st, nil
	}
	alarm := func(format string, args ...any) {
		t.alarms[Alarm{l.Device, l.Channel, fmt.Sprintf(format, args...)}] = true
	}
	switch {
	case l.Entries == was.Entries && l.Head != was.Head:
		alarm("two journals of %d entries: the device was copied, or its disk put back", l.Entries)
	case l.Entries < was.Entries && l.At.After(was.At):
		alarm("its journal has %d entries at %s, and had %d before: it was damaged, or the disk put back", l.Entries, l.At.Format(time.RFC3339), was.Entries)
	}
	older := l.Entries <= was.Entries && !l.At.After(was.At)
	if older && t.off != "order" {
		if l == was {
			return st, nil // the same report again
		}
		return st, diag.Errorf("%w: of %s with %d journal entries, after %s with %d", ErrOlder,
			was.At.Format(time.RFC3339), was.Entries, l.At.Format(time.RFC3339), l.Entries)
	}
	if l.Seq < was.Seq {
		alarm("its seq fell from %d to %d", was.Seq, l.Seq)
	}
	t.lines[at] = l
	return st, nil
}

// verify checks a report against the register alone: the device signed it, about itself.
func (t *Tally) verify(raw []byte) (*evidence.Status, error) {
	b, err := evidence.ParseBundle(raw)
	if err != nil {
		return nil, err
	}
	id, err := b.KeyID()
	if err != nil {
		return nil, err
	}
	s, err := evidence.ParseStatement(b.DSSEEnvelope.Payload)
	if err != nil {
		return nil, err
	}
	d, known := t.reg[id]
	if !known && t.off == "stranger" { // believe the key that the report brings along: the first device will do
		for _, d = range t.reg {
			break
		}
	} else if !known {
		return nil, diag.Errorf("signed by key %s, which is no device of the register", id[:12])
	}
	pub, _, err := trust.ParsePublic([]byte(d.Public))
	if err != nil {
		return nil, err
	}
	if t.off != "signature" && t.off != "stranger" && !verify.Signature(pub, evidence.PayloadType, b.DSSEEnvelope.Payload, b.DSSEEnvelope.Signatures[0].Sig) {
		return nil, diag.Errorf("the signature of device %s does not fit: the report was altered", id[:12])
	}
	if s.PredicateType != evidence.TypeStatus {
		return nil, diag.Errorf("a %s statement, not a status", evidence.NameOf(s.PredicateType))
	}
	st, err := evidence.ParseStatus(s.Predicate)
	switch {
	case err != nil:
		return nil, err
	case st.Device != id && t.off != "device":
		return nil, diag.Errorf("a report about device %.12s, signed by device %s", st.Device, id[:12])
	case st.Subject() != s.SubjectDigest():
		return nil, diag.Errorf("it says that %s runs and is about %s", st.Running.Short(), s.SubjectDigest().Short())
	case st.At.After(t.now.Add(reportSkew)) && t.off != "future":
		return nil, diag.Errorf("it is dated %s, in the future", st.At.Format(time.RFC3339))
	}
	if st.Class != d.Class {
		t.alarms[Alarm{id, st.Channel, fmt.Sprintf("it calls itself class %q and was enrolled as %q", st.Class, d.Class)}] = true
	}
	return st, nil
}

func lineOf(s *evidence.Status) Line {
	l := Line{
		Device: s.Device, Channel: s.Channel, At: s.At.UTC(), Entries: s.Journal.Entries, Head: s.Journal.Head, Seq: s.Seq, State: s.State,
		Running: s.Running, Version: s.Version, Stale: s.Stale, Pinned: s.Pinned, Clock: s.Clock == nil || s.Clock.OK,
	}
	if s.Rollback != nil {
		l.Rollback, l.RolledBack = s.Rollback.Reason, s.Rollback.From
	}
	if s.Refusal != nil && s.Refusal.Seq >= s.Seq {
		l.Refusal = s.Refusal.Reason
	}
	if s.Waiting != nil {
		l.Waiting = s.Waiting.Reason
	}
	if s.Health != nil {
		l.Requests, l.Errors = s.Health.Requests, s.Health.Errors
	}
	return l
}

// Lines are the newest reports, ordered by channel and device.
func (t *Tally) Lines() []Line {
	return slices.SortedFunc(maps.Values(t.lines), func(a, b Line) int {
		if c := strings.Compare(a.Channel, b.Channel); c != 0 {
			return c
		}
		return strings.Compare(a.Device, b.Device)
	})
}

// Running is how many devices run an artifact.
type Running struct {
	Digest  artifact.Digest `json:"digest,omitempty"` // "": nothing
	Version string          `json:"version,omitempty"`
	State   string          `json:"state"`
	Devices int             `json:"devices"`
}

// Why is a reason and how many devices give it.
type Why struct {
	Kind    string          `json:"kind"` // rolled-back, refused, waiting
	Digest  artifact.Digest `json:"digest,omitempty"`
	Reason  string          `json:"reason"` // as one of them gives it
	Devices int             `json:"devices"`
	Example string          `json:"example"` // one of them
}

// Picture is what a channel looks like on the devices of the register.
type Picture struct {
	Channel string `json:"channel"`
	// Devices of the register, Reported those whose report is young enough, Silent the others; Never is the part of them
	// that never reported.
	Devices  int       `json:"devices"`
	Reported int       `json:"reported"`
	Silent   int       `json:"silent"`
	Never    int       `json:"never"`
	Stale    int       `json:"stale"`
	Pinned   int       `json:"pinned"`
	ClockBad int       `json:"clockBehind"`
	Requests int64     `json:"requests"`
	Errors   int64     `json:"errors"`
	Running  []Running `json:"running"`
	Reasons  []Why     `json:"reasons"`
	Quiet    []Quiet   `json:"quiet"` // longest silence first, never first of all; bounded
	Alarms   []Alarm   `json:"alarms"`
}

// Quiet is a device that is silent, with its last word.
type Quiet struct {
	Device string    `json:"device"`
	Since  time.Time `json:"since,omitzero"` // zero: it never reported
}

// maxQuiet bounds the list of devices that are silent.
const maxQuiet = 100

// Picture sums up the channel. A device that said nothing within silent counts as silent and for nothing else. class ""
// means all devices of the register.
func (t *Tally) Picture(channel, class string, silent time.Duration) *Picture {
	p := &Picture{Channel: channel, Running: []Running{}, Reasons: []Why{}, Quiet: []Quiet{}, Alarms: []Alarm{}}
	type run struct {
		d     artifact.Digest
		v, st string
	}
	type why struct {
		kind string
		d    artifact.Digest
		text string
	}
	runs, whys := map[run]int{}, map[why]*Why{}
	count := func(kind string, d artifact.Digest, reason, device string) {
		if reason == "" {
			return
		}
		k := why{kind, d, kindOf(reason)}
		if whys[k] == nil {
			whys[k] = &Why{Kind: kind, Digest: d, Reason: reason, Example: device}
		}
		whys[k].Devices++
	}
	for _, id := range slices.Sorted(maps.Keys(t.reg)) {
		if class != "" && t.reg[id].Class != class {
			continue
		}
		p.Devices++
		l, ok := t.lines[[2]string{id, channel}]
		if !ok || t.now.Sub(l.At) > silent {
			p.Silent++
			if !ok {
				p.Never++
			}
			p.Quiet = append(p.Quiet, Quiet{id, l.At})
			continue
		}
		p.Reported++
		runs[run{l.Running, l.Version, l.State}]++
		p.Requests += l.Requests
		p.Errors += l.Errors
		for _, x := range []struct {
			on bool
			n  *int
		}{{l.Stale, &p.Stale}, {l.Pinned, &p.Pinned}, {!l.Clock, &p.ClockBad}} {
			if x.on {
				*x.n++
			}
		}
		if l.RolledBack != l.Running { // it went back, and did not come to like it since
			count("rolled-back", l.RolledBack, l.Rollback, id)
		}
		count("refused", "", l.Refusal, id)
		count("waiting", "", l.Waiting, id)
	}
	for r, n := range runs {
		p.Running = append(p.Running, Running{r.d, r.v, r.st, n})
	}
	slices.SortFunc(p.Running, func(a, b Running) int {
		return cmpOr(b.Devices-a.Devices, strings.Compare(string(a.Digest), string(b.Digest)), strings.Compare(a.State, b.State), strings.Compare(a.Version, b.Version))
	})
	for _, w := range whys {
		p.Reasons = append(p.Reasons, *w)
	}
	slices.SortFunc(p.Reasons, func(a, b Why) int {
		return cmpOr(b.Devices-a.Devices, strings.Compare(a.Kind, b.Kind), strings.Compare(string(a.Digest), string(b.Digest)), strings.Compare(a.Reason, b.Reason))
	})
	slices.SortStableFunc(p.Quiet, func(a, b Quiet) int { return a.Since.Compare(b.Since) })
	p.Quiet = p.Quiet[:min(len(p.Quiet), maxQuiet)]
	for a := range t.alarms {
		if a.Channel == channel {
			p.Alarms = append(p.Alarms, a)
		}
	}
	slices.SortFunc(p.Alarms, func(a, b Alarm) int {
		return cmpOr(strings.Compare(a.Device, b.Device), strings.Compare(a.What, b.What))
	})
	return p
}

// kindOf is the part of a reason that devices have in common: what stands before the first figure.
func kindOf(reason string) string {
	if i := strings.IndexAny(reason, "0123456789"); i > 0 {
		return reason[:i]
	}
	return reason
}

func cmpOr(cs ...int) int {
	for _, c := range cs {
		if c != 0 {
			return c
		}
	}
	return 0
}
