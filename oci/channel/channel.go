// Package channel is the channel record and the rules by which records follow each other, shared by the publisher
// and the device agent. Pure data and decisions: no I/O, no cryptography.
package channel

import (
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Schema is the value of Record.Schema.
const Schema = "https://github.com/waybill-ml/waybill/predicate/channel/v1"

// Record is channel/v1, the predicate of the signed statement that tells devices what to run. The statement's subject
// is named "channel:<channel>" and carries the digest of the target. docs/format.md explains every field.
type Record struct {
	Schema     string          `json:"schema"`
	Channel    string          `json:"channel"`
	Generation int             `json:"generation"`
	Seq        int64           `json:"seq"` // always rises, also on rollback
	Env        string          `json:"env"`
	Issued     time.Time       `json:"issued"`
	Expires    time.Time       `json:"expires"`
	Audience   Audience        `json:"audience"`
	Target     Target          `json:"target"`
	Evidence   []EvidenceRef   `json:"evidence"`    // exactly the bundles that the device checks
	EpochFloor int64           `json:"epoch_floor"` // security floor: no target below it
	Keep       []Target        `json:"keep"`        // digests that devices keep for rollback
	Rollback   *Rollback       `json:"rollback,omitempty"`
	Trust      TrustRef        `json:"trust"`
	Rollout    *Rollout        `json:"rollout,omitempty"`
	Freeze     *Freeze         `json:"freeze,omitempty"` // no activation while it is there
	Prev       artifact.Digest `json:"prev,omitempty"`   // sha256 of the bundle of seq-1; empty for seq 1
}

// Audience selects devices; empty lists select all.
type Audience struct {
	Classes []string          `json:"classes"`
	Labels  map[string]string `json:"labels"`
}

// Target is one model at one digest.
type Target struct {
	Name    string          `json:"name"`
	Repo    string          `json:"repo"` // repository path without host, for carriers that need it
	Digest  artifact.Digest `json:"digest"`
	Size    int64           `json:"size"` // of the manifest
	Version string          `json:"version"`
	Epoch   int64           `json:"epoch"`
}

// EvidenceRef pins one sigstore bundle blob and the manifest that carries it.
type EvidenceRef struct {
	PredicateType string          `json:"predicateType"`
	Subject       artifact.Digest `json:"subject"`
	Digest        artifact.Digest `json:"digest"` // of the bundle bytes
	Size          int64           `json:"size"`
}

// Rollback says that this record goes back on purpose.
type Rollback struct {
	From   artifact.Digest `json:"from"`
	Reason string          `json:"reason"`
}

// TrustRef pins the trust document that the record was made under.
type TrustRef struct {
	Version int             `json:"version"`
	Digest  artifact.Digest `json:"digest"`
}

// Rollout is a phase: devices with Bucket(ID, device) < Reach() take the target. Percent has two decimals.
type Rollout struct {
	ID      string  `json:"id"`
	Percent float64 `json:"percent"`
}
