// Package state is what a device remembers across power cuts: which artifacts are its current, previous and kept
// ones, what it is in the middle of, and the floors that never fall. One document holds it all and is replaced as a
// whole; blobs lie beside it by digest.
package state

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/journal"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// Schema is the value of Doc.Schema.
const Schema = "waybill.dev/state/v1"

// Doc is the durable state. A Doc that Store.Doc returned is a copy.
type Doc struct {
	Schema string `json:"schema"`
	// Serial counts saved documents; it names the file and never repeats.
	Serial uint64 `json:"serial"`
	// Device is the id of the device key that this state belongs to.
	Device string `json:"device"`
	// Trust is the newest trust document accepted; its bytes lie in the blob store.
	Trust TrustPin `json:"trust"`
	// TimeFloor is the latest signed time seen: the clock is never taken to be before it.
	TimeFloor time.Time `json:"timeFloor"`
	// Starts counts starts since the last one that came to its end: that loaded what serves.
	Starts   int                 `json:"starts,omitempty"`
	Channels map[string]*Channel `json:"channels"`
	// Journal is a prefix of the journal that existed when this document was saved.
	Journal journal.Head `json:"journal"`
	// Events counts the decisions ever made; each has its number in journal.Entry.Serial.
	Events uint64 `json:"events"`
	// Outbox holds decisions made with this or an earlier document that the journal may not have yet.
	Outbox []journal.Entry `json:"outbox,omitempty"`
	// Rebuilt is set once the documents before were lost. It is never changed, only replaced.
	Rebuilt *Rebuilt `json:"rebuilt,omitempty"`
}

// TrustPin names a trust document.
type TrustPin struct {
	Version int             `json:"version"`
	Digest  artifact.Digest `json:"digest"`         // of the document
	File    artifact.Digest `json:"file,omitempty"` // of the blob that holds it with its signatures
}

// Channel is the state of one followed channel.
type Channel struct {
	Name string `json:"name"`

	// Generation and Seq never fall; Record is the digest of the record's bundle that raised them.
	Generation int             `json:"generation"`
	Seq        int64           `json:"seq"`
	Record     artifact.Digest `json:"record,omitempty"`
	Expires    time.Time       `json:"expires"`
	// Tag is the manifest digest under the channel's tag when it was last handled to the end.
	Tag artifact.Digest `json:"tag,omitempty"`
	// EpochFloor never falls; it rises when an activation under a record with a higher one is committed.
	EpochFloor int64 `json:"epochFloor"`
	// Unproven says that nothing on the device proves how far it had followed the channel: it follows no record.
	Unproven bool `json:"unproven,omitempty"`

	Current  *Slot  `json:"current,omitempty"`
	Previous *Slot  `json:"previous,omitempty"`
	Factory  *Slot  `json:"factory,omitempty"` // what the device was delivered with, once it was proved here
	Kept     []Slot `json:"kept,omitempty"`    // committed before, newest first, without Current and Previous

	Intent     *Intent               `json:"intent,omitempty"`
	Quarantine map[string]Quarantine `json:"quarantine,omitempty"` // by digest
	// Pinned is set by a local rollback: the channel's record at this seq is not activated again.
	Pinned *Pin `json:"pinned,omitempty"`
	// Waiting is the target of the accepted record while the device's own policy does not allow it.
	Waiting *Waiting `json:"waiting,omitempty"`
	// Frozen is set while the accepted record freezes the channel.
	Frozen *Frozen `json:"frozen,omitempty"`
	// FactoryTries counts the times that the factory artifact was being loaded for the first time.
	FactoryTries *Tries `json:"factoryTries,omitempty"`
	// Loading counts, for committed artifacts, starts that did not come back from loading them.
	Loading map[artifact.Digest]int `json:"loading,omitempty"`
	// Crashes counts restarts that found an unfinished activation of the current record.
	Crashes int `json:"crashes,omitempty"`
	// Rollbacks are the times of automatic rollbacks, newest last, bounded.
	Rollbacks []time.Time `json:"rollbacks,omitempty"`
	// LastRollback and LastRefusal are kept for people.
	LastRollback *Note `json:"lastRollback,omitempty"`
	LastRefusal  *Note `json:"lastRefusal,omitempty"`
}

// Slot is one artifact that was activated or is about to be: the manifest by digest and what people call it.
type Slot struct {
	Digest  artifact.Digest `json:"digest"`
	Size    int64           `json:"size"` // of the manifest
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Epoch   int64           `json:"epoch"`
	Seq     int64           `json:"seq"` // of the record that brought it
	// Committed is when it passed its trial; zero for a candidate.
	Committed time.Time `json:"committed"`
	// Since is when it last became current.
	Since time.Time `json:"since"`
	// Proof is what its golden vectors took on this device when it was last measured. It is never changed, only replaced.
	Proof *Proof `json:"proof,omitempty"`
}

// Proof is what the golden vectors of an artifact took on this device: times in nanoseconds, memory in bytes of linear memory
// with the weights that are mapped into it.
type Proof struct {
	Vectors int           `json:"vectors"`
	Calls   int           `json:"calls"` // more than Vectors when they were repeated to tell times
	First   time.Duration `json:"firstNs"`
	P50     time.Duration `json:"p50Ns"`
	P99     time.Duration `json:"p99Ns"`
	Memory  uint64        `json:"memory"`
}

// String tells the figures for the journal; "" for none.
func (p *Proof) String() string {
	if p == nil {
		return ""
	}
	return fmt.Sprintf("; %d golden vectors reproduced, %d calls: first %s, p50 %s, p99 %s, memory %d bytes", p.Vectors, p.Calls, p.First, p.P50, p.P99, p.Memory)
}

// Kind is the reason for an activation.
type Kind string

// Kinds of intents.
const (
	Update   Kind = "update"   // a new record
	Rollback Kind = "rollback" // a person on this device
)

// Step is how far an intent is.
type Step string

// Steps, in order. The step is made durable before its work begins.
const (
	Fetching Step = "fetching"
	Fetched  Step = "fetched"
	Verified Step = "verified"
	Admitted Step = "admitted"
	Staged   Step = "staged"
	Shadow   Step = "shadow" // only where the channel has a shadow run
	Trial    Step = "trial"
)

// Intent is an activation under way. Target is where to go when it fails; it is copied from the committed state when
// the intent is made and never worked out again.
type Intent struct {
	Kind       Kind            `json:"kind"`
	Step       Step            `json:"step"`
	Candidate  Slot            `json:"candidate"`
	Target     *Slot           `json:"target,omitempty"` // nil: nothing served before
	Generation int             `json:"generation"`
	Seq        int64           `json:"seq"`
	Tag        artifact.Digest `json:"tag,omitempty"`
	EpochFloor int64           `json:"epochFloor"` // becomes the channel's at commit
	Keep       []Slot          `json:"keep,omitempty"`
	Blobs      []Blob          `json:"blobs,omitempty"` // pinned evidence, so that GC leaves it alone
	Reason     string          `json:"reason,omitempty"`
	Started    time.Time       `json:"started"`
}

// Waiting is a model that may not be taken yet.
type Waiting struct {
	Slot       Slot      `json:"slot"`
	Generation int       `json:"generation"` // of the record, with Slot.Seq
	Action     string    `json:"action"`     // what was not allowed: download or activate
	Since      time.Time `json:"since"`
	Reason     string    `json:"reason"` // when the waiting began
}

// Frozen is a freeze of the channel.
type Frozen struct {
	Since  time.Time `json:"since"` // when the record that began it was issued
	Seq    int64     `json:"seq"`
	Reason string    `json:"reason"`
}

// Tries counts how often loading a digest was begun and not ended, one way or the other.
type Tries struct {
	Digest  artifact.Digest `json:"digest"`
	Crashes int             `json:"crashes"`
}

// Blob is a digest with its size.
type Blob struct {
	Digest artifact.Digest `json:"digest"`
	Size   int64           `json:"size"`
}

// Quarantine bars a digest until the channel's seq passes Seq.
type Quarantine struct {
	Generation int       `json:"generation"`
	Seq        int64     `json:"seq"`
	Reason     string    `json:"reason"`
	At         time.Time `json:"at"`
}

// Pin bars the record at Seq because a person went back from it.
type Pin struct {
	Generation int       `json:"generation"`
	Seq        int64     `json:"seq"`
	At         time.Time `json:"at"`
}

// Note is an event for people.
type Note struct {
	At     time.Time       `json:"at"`
	From   artifact.Digest `json:"from,omitempty"`
	To     artifact.Digest `json:"to,omitempty"`
	Seq    int64           `json:"seq,omitempty"`
	Record artifact.Digest `json:"record,omitempty"`
	Reason string          `json:"reason"`
}

// Channel returns the channel's state, adding it when it is new.
func (d *Doc) Channel(name string) *Channel {
	if d.Channels == nil {
		d.Channels = map[string]*Channel{}
	}
	c, ok := d.Channels[name]
	if !ok {
		c = &Channel{Name: name}
		d.Channels[name] = c
	}
	return c
}

// Clone copies d deeply.
func (d *Doc) Clone() *Doc {
	c := *d
	c.Outbox = slices.Clone(d.Outbox)
	c.Channels = make(map[string]*Channel, len(d.Channels))
	for n, ch := range d.Channels {
		c.Channels[n] = ch.Clone()
	}
	return &c
}

// Clone copies c deeply.
func (c *Channel) Clone() *Channel {
	x := *c
	x.Current, x.Previous, x.Factory = c.Current.clone(), c.Previous.clone(), c.Factory.clone()
	x.Kept = slices.Clone(c.Kept)
	if c.Intent != nil {
		i := *c.Intent
		i.Target, i.Keep, i.Blobs = c.Intent.Target.clone(), slices.Clone(c.Intent.Keep), slices.Clone(c.Intent.Blobs)
		x.Intent = &i
	}
	x.Quarantine, x.Loading = maps.Clone(c.Quarantine), maps.Clone(c.Loading)
	x.Rollbacks = slices.Clone(c.Rollbacks)
	x.Pinned, x.Waiting, x.Frozen = copyOf(c.Pinned), copyOf(c.Waiting), copyOf(c.Frozen)
	x.LastRollback, x.LastRefusal = copyOf(c.LastRollback), copyOf(c.LastRefusal)
	return &x
}

func (s *Slot) clone() *Slot { return copyOf(s) }

func copyOf[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// Slots lists every artifact that must stay on the device: current, previous, kept, factory, and those of an intent.
// Each digest once, in that order.
func (c *Channel) Slots() []Slot {
	var out []Slot
	add := func(s *Slot) {
		if s != nil && !slices.ContainsFunc(out, func(o Slot) bool { return o.Digest == s.Digest }) {
			out = append(out, *s)
		}
	}
	add(c.Current)
	add(c.Previous)
	for i := range c.Kept {
		add(&c.Kept[i])
	}
	add(c.Factory)
	if c.Intent != nil {
		add(c.Intent.Target)
		add(&c.Intent.Candidate)
	}
	return out
}

// Forget takes digests out of what can be gone back to: they have been tried and cannot be served. Current and Factory stay.
func (c *Channel) Forget(broken []artifact.Digest) {
	if c.Previous != nil && slices.Contains(broken, c.Previous.Digest) {
		c.Previous = nil
	}
	c.Kept = slices.DeleteFunc(c.Kept, func(s Slot) bool { return slices.Contains(broken, s.Digest) })
}

// Raise notes that a record gives digest d an epoch: what runs must not fall below the floor that comes with it.
func (c *Channel) Raise(d artifact.Digest, epoch int64) {
	for _, s := range []*Slot{c.Current, c.Previous, c.Factory} {
		if s != nil && s.Digest == d {
			s.Epoch = max(s.Epoch, epoch)
		}
	}
}

// Committed finds a digest that passed its trial on this device and is still kept.
func (c *Channel) Committed(d artifact.Digest) (Slot, bool) {
	for _, s := range c.Slots() {
		if s.Digest == d && !s.Committed.IsZero() {
			return s, true
		}
	}
	return Slot{}, false
}

// Barred tells why digest d may not be activated under the record (generation, seq), or "".
func (c *Channel) Barred(d artifact.Digest, generation int, seq int64) string {
	if q, ok := c.Quarantine[string(d)]; ok && q.Generation == generation && q.Seq >= seq {
		return q.Reason
	}
	if p := c.Pinned; p != nil && p.Generation == generation && p.Seq >= seq {
		return "rolled back on this device"
	}
	return ""
}
