package agent

import (
	"encoding/json"
	"time"

	"github.com/waybill-ml/waybill/edge-runtime/state"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
)

// facts are what an entry of the journal holds beside what people read: enough to put the durable document together again.
// Entries of earlier versions have none.
type facts struct {
	Generation int             `json:"generation,omitempty"`
	EpochFloor int64           `json:"epochFloor,omitempty"`
	Record     artifact.Digest `json:"record,omitempty"`  // of its bundle
	Repeats    bool            `json:"repeats,omitempty"` // the record says again what the one before it said
	Issued     time.Time       `json:"issued,omitzero"`
	Expires    time.Time       `json:"expires,omitzero"`
	Attested   time.Time       `json:"attested,omitzero"` // the latest time that the evidence proves
	Target     *state.Slot     `json:"target,omitempty"`
	Pinned     bool            `json:"pinned,omitempty"`  // a person went back
	Factory    bool            `json:"factory,omitempty"` // it is on the device, which says nothing of what serves
	Lost       bool            `json:"lost,omitempty"`    // what was decided before this entry is no longer in the journal
}

// data is f as it stands in an entry.
func (f facts) data() json.RawMessage {
	if f.Target != nil {
		s := *f.Target
		s.Proof = nil // the reason tells it
		f.Target = &s
	}
	raw, err := json.Marshal(f)
	if err != nil {
		return nil // a time beyond the year 9999: the entry is worth more than what it adds
	}
	return raw
}

func factsOf(r *channel.Record, bundle artifact.Digest, kind channel.Kind) facts {
	t := slotOf(r.Target, r.Seq)
	return facts{Generation: r.Generation, EpochFloor: r.EpochFloor, Record: bundle, Repeats: kind == channel.Refresh || kind == channel.Halts, Issued: r.Issued, Expires: r.Expires, Target: &t}
}

// decodeFacts reads the data of an entry.
func decodeFacts(raw json.RawMessage, f *facts) error { return json.Unmarshal(raw, f) }
