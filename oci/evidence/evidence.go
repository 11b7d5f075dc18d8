// Package evidence holds the statements that Waybill signs and reads: in-toto Statement v1, the predicate types,
// DSSE and the sigstore bundle v0.3 as data. It performs no cryptography beyond hashing and has no network.
// JSON Schemas and golden fixtures of every predicate of ours stand beside it (schema/, testdata/).
package evidence

import (
	"encoding/json"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Types of the envelope.
const (
	StatementType = "https://in-toto.io/Statement/v1"
	PayloadType   = "application/vnd.in-toto+json"

	statementTypeV01 = "https://in-toto.io/Statement/v0.1" // only read
)

const base = "https://github.com/waybill-ml/waybill/predicate/"

// Predicate types: ours under base, the rest are other people's standards.
const (
	TypeRelease    = "https://sigstore.dev/cosign/sign/v1"
	TypeProvenance = "https://slsa.dev/provenance/v1"
	TypeVSA        = "https://slsa.dev/verification_summary/v1"
	TypeCycloneDX  = "https://cyclonedx.org/bom"
	TypeOMS        = "https://model_signing/signature/v1.0"
	TypeTestResult = "https://in-toto.io/attestation/test-result/v0.1"
	TypeVulns      = "https://in-toto.io/attestation/vulns/v0.2"
	TypeSPDX       = "https://spdx.dev/Document"
	TypeSPDX23     = "https://spdx.dev/Document/v2.3" // what some generators write for version 2.3

	TypeEvaluation = base + "evaluation/v1"
	TypeDataset    = base + "dataset/v1"
	TypeApproval   = base + "approval/v1"
	TypeException  = base + "exception/v1"
	TypeDecision   = base + "decision/v1"
	TypeDeployment = base + "deployment/v1"
	TypeChannel    = base + "channel/v1"
	TypeStatus     = base + "status/v1"
	TypeTrust      = base + "trust/v1"
	// TypePolicy is the word of a policy key about a policy artifact.
	TypePolicy = base + "policy/v1"
	// TypeEnvironments is the signed environments.yaml of the platform team.
	TypeEnvironments = base + "environments/v1"
)

// Statement is the in-toto Statement v1.
type Statement struct {
	Type          string          `json:"_type"`
	Subject       []Subject       `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate,omitempty"` // absent is read as {} in a release, and refused elsewhere
}

// Subject is what a statement is about. Exactly one digest, sha256 in hex.
type Subject struct {
	Name        string            `json:"name,omitempty"`
	Digest      map[string]string `json:"digest"`
	Annotations map[string]any    `json:"annotations,omitempty"`
}

// Metric is one measured figure.
type Metric struct {
	Name          string          `json:"name"`      // "roc_auc"
	Value         float64         `json:"value"`     //
	Direction     string          `json:"direction"` // "higher" or "lower" is better
	Slice         string          `json:"slice"`     // "all", or "region=north"
	N             int64           `json:"n,omitempty"`
	CI            []float64       `json:"ci,omitempty"` // lower and upper bound, 95 %
	DatasetDigest artifact.Digest `json:"datasetDigest"`
	Stage         string          `json:"stage,omitempty"`       // offline, shadow, canary, on-device
	DeviceClass   string          `json:"deviceClass,omitempty"` // that it was measured on
}

// Evaluation is evaluation/v1: the metrics of this digest, measured by the evaluator.
type Evaluation struct {
	Metrics []Metric  `json:"metrics"` // never null
	At      time.Time `json:"at"`
	Tool    string    `json:"tool,omitempty"`
	Note    string    `json:"note,omitempty"`
}

// Dataset is one data set behind a model.
type Dataset struct {
	Name         string          `json:"name"`
	Role         string          `json:"role"` // train, validation, test, calibration, reference
	Digest       artifact.Digest `json:"digest"`
	URI          string          `json:"uri,omitempty"`
	License      string          `json:"license"`
	Rows         int64           `json:"rows,omitempty"`
	PersonalData string          `json:"personalData"` // yes, none, noAssertion

	From       *time.Time `json:"from,omitempty"` // time of the oldest record
	To         *time.Time `json:"to,omitempty"`   // of the newest
	Anonymised []string   `json:"anonymised,omitempty"`
	KnownBias  string     `json:"knownBias,omitempty"`
}

// Datasets is dataset/v1.
type Datasets struct {
	Datasets []Dataset `json:"datasets"`
}

// Approval is approval/v1. Who approved is the signer; the role counts only if trust gives it to that key.
type Approval struct {
	Role        string    `json:"role"`
	Reason      string    `json:"reason"`
	At          time.Time `json:"at"`
	Expires     time.Time `json:"expires"`
	Environment string    `json:"environment,omitempty"` // that it is for; "" for any
	Decision    string    `json:"decision,omitempty"`    // Approved or Rejected; "" means Approved
}

// Decisions of an approver. A rejection denies while it is in force, and takes back what the same person approved before.
const (
	Approved = "approved"
	Rejected = "rejected"
)

// Rejects tells whether it is a no.
func (a Approval) Rejects() bool { return a.Decision == Rejected }

// Exception is exception/v1: one rule waived for this digest.
type Exception struct {
	Rule    string    `json:"rule"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires"`
	Ticket  string    `json:"ticket,omitempty"`
	// Environment that it is for; "" for any.
	Environment string `json:"environment,omitempty"`
}

// Policy is policy/v1: these rules are ours. Its subject is the manifest of the policy artifact, Digest the policy itself, which
// environments pin and verdicts name.
type Policy struct {
	Name    string          `json:"name"`
	Version string          `json:"version,omitempty"`
	Digest  artifact.Digest `json:"digest"` // of the canonical tar
}

// Deployment is deployment/v1: what an Apply or Rollback did.
type Deployment struct {
	Target   string            `json:"target"`
	Action   string            `json:"action"` // apply, rollback
	Env      string            `json:"env"`
	Digest   artifact.Digest   `json:"digest"`
	Previous artifact.Digest   `json:"previous,omitempty"`
	At       time.Time         `json:"at"`
	IDs      map[string]string `json:"ids"`
}

// Basis is the state of the channel that a verdict was reached against.
type Basis struct {
	Channel  string          `json:"channel"`
	Seq      int64           `json:"seq"`                // 0: the channel had no record
	Champion artifact.Digest `json:"champion,omitempty"` // digest in the channel at that seq
}

// VSA is the SLSA verification summary v1 with our extension under VSAExtension.
type VSA struct {
	Verifier           Verifier     `json:"verifier"`
	TimeVerified       time.Time    `json:"timeVerified"`
	ResourceURI        string       `json:"resourceUri"` // waybill:<namespace>/<model>
	Policy             PolicyRef    `json:"policy"`
	InputAttestations  []Reference  `json:"inputAttestations"`
	VerificationResult string       `json:"verificationResult"` // PASSED or FAILED
	VerifiedLevels     []string     `json:"verifiedLevels"`
	SLSAVersion        string       `json:"slsaVersion"`
	Waybill            VSAExtension `json:"https://github.com/waybill-ml/waybill/vsa/v1"`
}

// VSA results.
const (
	Passed = "PASSED"
	Failed = "FAILED"
)

// Verifier names the gate.
type Verifier struct {
	ID      string            `json:"id"`
	Version map[string]string `json:"version"`
}

// PolicyRef names the policy by digest.
type PolicyRef struct {
	URI    string            `json:"uri"`
	Digest map[string]string `json:"digest"`
}

// Reference names one input attestation (a bundle).
type Reference struct {
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest"`
}

// VSAExtension binds a verdict to environment, device classes, validity, policy, input, decision and basis.
type VSAExtension struct {
	Environment    string          `json:"environment"`
	DeviceClasses  []string        `json:"deviceClasses"`
	NotAfter       time.Time       `json:"notAfter"`
	PolicyDigest   artifact.Digest `json:"policyDigest"`
	InputDigest    artifact.Digest `json:"inputDigest"`
	DecisionDigest artifact.Digest `json:"decisionDigest"`
	Basis          Basis           `json:"basis"`
	Violations     []string        `json:"violations"` // rule ids
	Warnings       []string        `json:"warnings"`
	Exceptions     []string        `json:"exceptions"`
	Prev           artifact.Digest `json:"prev,omitempty"` // bundle digest of the verdict before this one, same subject and environment
	// Merges are the verdicts beside Prev that nobody had followed, as gates at once leave them; sorted, only with Prev.
	Merges []artifact.Digest `json:"merges,omitempty"`
	// Missing are the verdicts that the chain names and the gate did not find: somebody took them away. Sorted.
	Missing []artifact.Digest `json:"missing,omitempty"`
}

// Decision is decision/v1: the full evaluation that a VSA pins, with the input it was reached from.
type Decision struct {
	Input    json.RawMessage `json:"input"`
	Decision json.RawMessage `json:"decision"` // policy/decision.Decision
	Policy   artifact.Digest `json:"policy"`
}

// Status is status/v1: what a device says of itself, signed by its key. Subject is the digest that runs, or, while nothing
// does (state "empty"), the device's id.
type Status struct {
	Device   string            `json:"device"` // hash of its public key
	Class    string            `json:"class"`
	Labels   map[string]string `json:"labels"`
	Channel  string            `json:"channel"`
	Model    string            `json:"model"`
	Seq      int64             `json:"seq"`
	State    string            `json:"state"` // committed, trial, rolled-back, quarantined ...
	Running  artifact.Digest   `json:"running"`
	Previous artifact.Digest   `json:"previous,omitempty"`
	At       time.Time         `json:"at"`
	Runtime  string            `json:"runtime"` // waybill-edge version
	Events   []StatusEvent     `json:"events"`  // newest last, bounded
	Journal  JournalHead       `json:"journal"`
	Trust    int               `json:"trustVersion"`

	Version    string             `json:"version,omitempty"` // of what runs
	Expires    *time.Time         `json:"expires,omitempty"` // of the newest record accepted
	Stale      bool               `json:"stale,omitempty"`   // it has expired
	Pinned     bool               `json:"pinned,omitempty"`  // rolled back by hand: it stays until the channel moves on
	Clock      *StatusClock       `json:"clock,omitempty"`
	Health     *StatusHealth      `json:"health,omitempty"`   // of what runs, since it serves
	Rollback   *StatusNote        `json:"rollback,omitempty"` // the last one
	Refusal    *StatusNote        `json:"refusal,omitempty"`  // the last one
	Waiting    *StatusWaiting     `json:"waiting,omitempty"`  // what the device's own policy does not let it take now
	Quarantine []StatusQuarantine `json:"quarantine,omitempty"`
}

// Subject is what a statement of s is about.
func (s *Status) Subject() artifact.Digest {
	if s.Running == "" {
		return artifact.Digest("sha256:" + s.Device)
	}
	return s.Running
}

// StatusEmpty is the state of a device that runs nothing in the channel.
const StatusEmpty = "empty"

// StatusClock tells how far the times in a report can be believed.
type StatusClock struct {
	OK    bool      `json:"ok"`    // the device's clock is not behind the floor
	Floor time.Time `json:"floor"` // the latest signed time that it has seen
}

// StatusHealth is what the running model has done.
type StatusHealth struct {
	Requests int64 `json:"requests"` // finished, errors included
	Errors   int64 `json:"errors"`   // through the model's or the device's fault
	P50      int64 `json:"p50Ns"`    // of inference time
	P99      int64 `json:"p99Ns"`
}

// StatusNote is why something does not run.
type StatusNote struct {
	At     time.Time       `json:"at"`
	From   artifact.Digest `json:"from,omitempty"`
	To     artifact.Digest `json:"to,omitempty"`
	Seq    int64           `json:"seq,omitempty"`
	Record artifact.Digest `json:"record,omitempty"` // that was refused
	Reason string          `json:"reason"`
}

// StatusWaiting is a model that the device's own policy holds back.
type StatusWaiting struct {
	Digest  artifact.Digest `json:"digest"`
	Version string          `json:"version,omitempty"`
	Action  string          `json:"action"` // that was not allowed: download or activate
	Since   time.Time       `json:"since"`
	Reason  string          `json:"reason"`
}

// StatusQuarantine is a digest that is not tried again before the channel's seq passes Seq.
type StatusQuarantine struct {
	Digest artifact.Digest `json:"digest"`
	Seq    int64           `json:"seq"`
	At     time.Time       `json:"at"`
	Reason string          `json:"reason"`
}

// StatusEvent is one change on the device.
type StatusEvent struct {
	At     time.Time       `json:"at"`
	Kind   string          `json:"kind"` // activated, committed, rolled-back, refused, quarantined
	Digest artifact.Digest `json:"digest"`
	From   artifact.Digest `json:"from,omitempty"`
	Reason string          `json:"reason,omitempty"`
	Seq    int64           `json:"seq,omitempty"`
}

// JournalHead pins the hash-chained journal at the time of a status.
type JournalHead struct {
	Entries int64           `json:"entries"`
	Head    artifact.Digest `json:"head"`
}
