// Package input is the facts document that a policy sees: everything that was established about one digest before any
// rule runs. Go has done all cryptography by then; a rule reads only verified facts, each with the digest of the bundle
// that proves it, and failed evidence with the reason. The document is closed (schema.json): every key is always there,
// an empty list says "none", and nothing is ever absent. So the absence of a fact cannot be mistaken for permission.
//
// It is a leaf: standard library and oci/artifact only. Documents are values; nothing here is shared or mutable.
package input

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
)

// Schema is the value of Input.Schema.
const Schema = "https://github.com/waybill-ml/waybill/schema/policy-input/v1"

// MaxBytes is the largest document that is evaluated or replayed.
const MaxBytes = 8 << 20

// LeftOut is the code of the note in Artifact.Problems that tells which facts were left out because the document would have been
// too large to record. No policy allows such a document.
const LeftOut = "facts-size"

// SchemaJSON is the JSON Schema (draft 2020-12) of the document. Do not modify the bytes.
//
//go:embed schema.json
var schemaJSON []byte

// SchemaJSON returns a copy of the JSON Schema (draft 2020-12) of the document.
func SchemaJSON() []byte { return bytes.Clone(schemaJSON) }

// Input is the whole document. Normalize makes equal facts equal bytes.
type Input struct {
	Schema          string          `json:"schema"`
	Context         Context         `json:"context"`
	Environment     Environment     `json:"environment"`
	Trust           Trust           `json:"trust"`
	Artifact        Artifact        `json:"artifact"`
	Model           Model           `json:"model"`
	Build           Build           `json:"build"`
	Provenance      []Provenance    `json:"provenance"`   // of verified SLSA provenance of this digest
	Signatures      []Attestation   `json:"signatures"`   // releases, verified and failed
	Attestations    []Attestation   `json:"attestations"` // everything else, verified and failed
	Metrics         []Metric        `json:"metrics"`      // of verified evaluations of this digest
	Datasets        []Dataset       `json:"datasets"`     // of verified dataset statements of this digest
	Tests           []TestResult    `json:"tests"`        // of verified test results of this digest
	SBOM            SBOM            `json:"sbom"`
	Vulnerabilities Vulnerabilities `json:"vulnerabilities"`
	ModelCard       ModelCard       `json:"modelCard"`
	Approvals       []Approval      `json:"approvals"`    // verified, with the roles that trust gives the signer
	Exceptions      []Exception     `json:"exceptions"`   // verified
	Verdicts        []Verdict       `json:"verdicts"`     // verified, of this digest, any environment
	VerdictChain    VerdictChain    `json:"verdictChain"` // of this digest in this environment
	Champion        Champion        `json:"champion"`
}

// Context is the question: when, where and what for. Time is an input, so that a decision can be replayed.
type Context struct {
	Time         time.Time `json:"time"`       // UTC, whole seconds
	TimeSource   string    `json:"timeSource"` // host, pinned
	Gate         string    `json:"gate"`       // the verifier's id
	GateVersion  string    `json:"gateVersion"`
	Action       string    `json:"action"` // promote
	RequestedRef string    `json:"requestedRef"`
	Pinned       bool      `json:"pinned"` // the reference named a digest, not only a tag
	Newest       time.Time `json:"newest"` // the latest time that verified evidence, the trust document or the channel's record names; a clock before it is wrong
}

// Environment is what the signed environments.yaml demands here.
type Environment struct {
	Name                 string          `json:"name"`
	Version              int             `json:"version"`  // of environments.yaml
	Profile              string          `json:"profile"`  // which levels of the policy's rules are in force
	Digest               string          `json:"digest"`   // of the bundle that signs environments.yaml
	Verified             bool            `json:"verified"` // its signature and signer
	Reason               string          `json:"reason"`   // why not, when it is not
	Namespace            string          `json:"namespace"`
	Channel              string          `json:"channel"`
	PolicyDigest         string          `json:"policyDigest"`
	MinTrust             int             `json:"minTrust"` // lowest version of the trust document that is good enough
	NotAfterDays         int             `json:"notAfterDays"`
	DeviceClasses        []DeviceClass   `json:"deviceClasses"`
	Metrics              []Threshold     `json:"metrics"`
	Slices               []string        `json:"slices"`    // slices that every threshold's metric must report
	SliceGaps            []SliceGap      `json:"sliceGaps"` //
	Licenses             Licenses        `json:"licenses"`
	Approvals            ApprovalDemand  `json:"approvals"`
	Signers              int             `json:"signers"`              // distinct publisher keys that must have signed; at least 1
	Evidence             []string        `json:"evidence"`             // predicate types that must be present and verified
	After                string          `json:"after"`                // environment whose PASSED verdict must come first; "" for none
	MaxEvaluationAgeDays int             `json:"maxEvaluationAgeDays"` // 0: no limit
	PrivacyRole          string          `json:"privacyRole"`          // approver role that personal data needs; "" means: never allowed
	Exceptions           ExceptionDemand `json:"exceptions"`
	Enforce              []Enforcement   `json:"enforce"`
	Builders             []Builder       `json:"builders"`           // who may have built a model
	Sources              []string        `json:"sources"`            // repositories it may come from: a URI, or the beginning of one with * at its end
	Parameters           []string        `json:"parameters"`         // names of external build parameters that may be set
	Formats              []string        `json:"formats"`            // formats of weights and sources that may be inside; empty: those that hold no code
	Tests                []string        `json:"tests"`              // names of tests that must have passed
	Sections             []string        `json:"sections"`           // of the model card that must be filled
	Scan                 Scan            `json:"scan"`               //
	MaxModelAgeDays      int             `json:"maxModelAgeDays"`    // since training; 0: no limit
	MaxDataAgeDays       int             `json:"maxDataAgeDays"`     // since the newest record of the training data; 0: no limit
	MaxApprovalAgeDays   int             `json:"maxApprovalAgeDays"` // 0: no limit
	MaxVerdictAgeDays    int             `json:"maxVerdictAgeDays"`  // of the verdict of the environment named by After; 0: no limit
	SoakDays             int             `json:"soakDays"`           // least time since the first such verdict
	Shadow               bool            `json:"shadow"`             // figures of a shadow or canary run are demanded
	MaxRisk              string          `json:"maxRisk"`            // minimal, limited, high: the highest risk tier that may ship here; "": high
	Data                 map[string]any  `json:"data"`               // the platform team's own settings, for policies of their own
}

// Builder is an allowed builder: its id, counted only from provenance signed by one of Signers (names or key ids; empty:
// whoever trust lets sign provenance), and the SLSA build level that the platform team gives it.
type Builder struct {
	ID      string   `json:"id"`
	Signers []string `json:"signers"`
	Level   int      `json:"level"`
}

// Scan bounds the age of what is known about vulnerabilities. 0: no limit.
type Scan struct {
	MaxAgeDays         int `json:"maxAgeDays"`
	MaxDatabaseAgeDays int `json:"maxDatabaseAgeDays"`
}

// DeviceClass is a kind of device that the artifact is to run on.
type DeviceClass struct {
	Name         string  `json:"name"`
	MemoryBytes  int64   `json:"memoryBytes"`  // linear memory that a model may have there
	Runtime      string  `json:"runtime"`      // lowest waybill-edge version in the class; "" when not known
	StorageBytes int64   `json:"storageBytes"` // that the artifact may take; 0: no limit
	LatencyMs    float64 `json:"latencyMs"`    // that one prediction may take at the 99th percentile, measured on the class; 0: no limit
}

// Threshold is a demand on one metric. Direction fixes how Bound is read.
type Threshold struct {
	Name          string  `json:"name"`
	Slice         string  `json:"slice"`
	Direction     string  `json:"direction"` // higher, lower
	Bound         float64 `json:"bound"`
	MaxRegression float64 `json:"maxRegression"` // how much worse than the champion it may be, at least 0
	MinN          int64   `json:"minN"`          // least number of samples; 0: any
	Confidence    bool    `json:"confidence"`    // the pessimistic end of the 95 % interval must keep the bound too
}

// SliceGap bounds the spread of one metric over its slices ("all" left out).
type SliceGap struct {
	Name string  `json:"name"`
	Max  float64 `json:"max"`
}

// Licenses are the SPDX identifiers that are allowed.
type Licenses struct {
	Models     []string `json:"models"`
	Datasets   []string `json:"datasets"`
	Components []string `json:"components"` // of the bill of materials; empty: any
}

// ApprovalDemand asks for Minimum distinct approvers and one for each role.
type ApprovalDemand struct {
	Minimum int      `json:"minimum"`
	Roles   []string `json:"roles"`
}

// ExceptionDemand tells which rules may be waived and by whom.
type ExceptionDemand struct {
	Roles   []string `json:"roles"`
	Rules   []string `json:"rules"`
	MaxDays int      `json:"maxDays"` // longest life of one; 0: no limit
}

// Enforcement lowers one rule: "warn" reports and does not deny, "off" skips it. Mandatory rules cannot be lowered.
type Enforcement struct {
	Rule  string `json:"rule"`
	Level string `json:"level"`
}

// Trust is the document that evidence was verified against.
type Trust struct {
	Version    int       `json:"version"`
	Generation int       `json:"generation"`
	Digest     string    `json:"digest"`
	Expires    time.Time `json:"expires"`
	Denied     bool      `json:"denied"`   // this artifact's digest is on the deny list
	Pinned     bool      `json:"pinned"`   // the environment's policy digest is among the policies that devices accept
	Revoked    []string  `json:"revoked"`  // key ids
	Policies   []string  `json:"policies"` // pinned policy digests
}

// Artifact is the manifest and its layers, as fetched and hashed.
type Artifact struct {
	Digest          string  `json:"digest"`
	ResourceURI     string  `json:"resourceUri"` // waybill:<namespace>/<model>
	MediaType       string  `json:"mediaType"`
	ArtifactType    string  `json:"artifactType"`
	ConfigMediaType string  `json:"configMediaType"`
	Size            int64   `json:"size"` // of all layers, bytes
	Layers          []Layer `json:"layers"`
	Problems        []Note  `json:"problems"` // what is wrong with the form, by stable code
}

// Note is a finding in words, with a stable code in front.
type Note struct {
	Code string `json:"code"`
	Text string `json:"text"`
}

// Layer is one file of the artifact.
type Layer struct {
	Digest         string `json:"digest"`
	MediaType      string `json:"mediaType"`
	Role           string `json:"role"`
	Path           string `json:"path"`
	Size           int64  `json:"size"`
	DigestVerified bool   `json:"digestVerified"` // its bytes were read and hash to Digest, with this size
	Format         string `json:"format"`         // by content: wasm, json, onnx, pickle ... (policy/facts/format.go)
	PersonalData   string `json:"personalData"`   // none, yes; "" when not declared
}

// Model is what the artifact says of itself, from the ModelPack config and the interface document.
type Model struct {
	Name         string   `json:"name"`
	Version      string   `json:"version"`
	Family       string   `json:"family"`
	Licenses     []string `json:"licenses"` // SPDX
	Authors      []string `json:"authors"`
	Created      string   `json:"created"` // as the config states it; "" when not stated
	Vendor       string   `json:"vendor"`
	Description  string   `json:"description"`
	Source       string   `json:"source"`   // URL of the source, as the config states it
	Revision     string   `json:"revision"` // likewise
	Architecture string   `json:"architecture"`
	Precision    string   `json:"precision"`
	Quantization string   `json:"quantization"`
	Epoch        int64    `json:"epoch"` // security epoch of the interface document

	// What follows is declared in the verified bill of materials; empty when it says nothing.
	Declared   string      `json:"declared"`   // digest of that bundle
	Owner      string      `json:"owner"`      // who answers for the model: a team and how to reach it
	Risk       string      `json:"risk"`       // minimal, limited, high, prohibited
	Status     string      `json:"status"`     // active, retired
	Trained    string      `json:"trained"`    // when training ended, RFC 3339
	BaseModels []BaseModel `json:"baseModels"` // what it was derived from
}

// BaseModel is a model that this one was trained, distilled or quantised from.
type BaseModel struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Digest  string `json:"digest"`
	License string `json:"license"` // SPDX expression
	URI     string `json:"uri"`
}

// Provenance is one verified SLSA provenance v1 (https://slsa.dev/spec/v1.0/provenance) of this digest.
type Provenance struct {
	Bundle     string     `json:"bundle"`
	Signer     Signer     `json:"signer"`
	Builder    string     `json:"builder"` // runDetails.builder.id
	BuildType  string     `json:"buildType"`
	Invocation string     `json:"invocation"`
	Started    string     `json:"started"` // RFC 3339; "" when not stated
	Finished   string     `json:"finished"`
	Source     Source     `json:"source"`
	Parameters []string   `json:"parameters"` // names in externalParameters
	Materials  []Material `json:"materials"`  // resolvedDependencies
}

// Source is the commit that was built.
type Source struct {
	URI    string `json:"uri"`
	Commit string `json:"commit"` // hex
	Clean  string `json:"clean"`  // yes, no; "" when not stated
}

// Material is one resolved dependency of a build.
type Material struct {
	Name   string `json:"name"`
	URI    string `json:"uri"`
	Digest string `json:"digest"` // sha256:..., or "" when it has another kind only
}

// TestResult is one verified in-toto test-result.
type TestResult struct {
	Bundle        string   `json:"bundle"`
	Signer        Signer   `json:"signer"`
	Result        string   `json:"result"`        // PASSED, WARNED, FAILED
	Configuration []string `json:"configuration"` // names of what it was run with; a device class is named device-class:NAME
	Passed        []string `json:"passed"`
	Warned        []string `json:"warned"`
	Failed        []string `json:"failed"`
	At            string   `json:"at"`         // RFC 3339; "" when nobody says when
	TimeSource    string   `json:"timeSource"` // none, claimed, rfc3161, log
}

// Build is what is known about the compiled code.
type Build struct {
	Compiled      bool     `json:"compiled"` // false: the files were bundled as they are, there is no module
	Compiler      string   `json:"compiler"`
	ABI           int      `json:"abi"`
	MinRuntime    string   `json:"minRuntime"`
	Modules       []Module `json:"modules"`
	MemoryBytes   int64    `json:"memoryBytes"` // linear memory that the golden vectors need
	MemoryMax     int64    `json:"memoryMax"`   // most that the module may ask for
	Golden        Golden   `json:"golden"`
	InterfaceOK   bool     `json:"interfaceOk"` // the interface document parsed, and names the module and weights of this artifact
	InterfaceNote string   `json:"interfaceNote"`
}

// Module is one WebAssembly file: the model's own or a step.
type Module struct {
	Path    string   `json:"path"`
	Digest  string   `json:"digest"`
	Role    string   `json:"role"`
	Valid   bool     `json:"valid"`   // the sections could be read
	Imports []string `json:"imports"` // "module.name", sorted
}

// Golden summarises the test vectors.
type Golden struct {
	Present    bool   `json:"present"`
	Vectors    int    `json:"vectors"`
	References int    `json:"references"` // vectors that carry the training framework's outputs
	Agree      bool   `json:"agree"`      // every reference is met within its tolerance
	Note       string `json:"note"`       // the first disagreement, or why the document could not be read
}

// Signer is the key behind a statement, by the trust document. Empty strings when the evidence failed before it was known.
type Signer struct {
	KeyID   string `json:"keyId"`
	Name    string `json:"name"`
	Role    string `json:"role"`
	Kind    string `json:"kind"`    // key, identity; "" when it is not known
	Issuer  string `json:"issuer"`  // of the identity's token
	Subject string `json:"subject"` // of the identity's certificate
}

// Attestation is one bundle. Verified means: signature, role, scope and subject all hold.
type Attestation struct {
	PredicateType string `json:"predicateType"`
	Bundle        string `json:"bundle"`
	Subject       string `json:"subject"`
	Verified      bool   `json:"verified"`
	Reason        string `json:"reason"` // why it did not verify
	Signer        Signer `json:"signer"`
	At            string `json:"at"`         // when it was said, RFC 3339; "" when it does not say
	TimeSource    string `json:"timeSource"` // none, claimed, rfc3161, log: what At rests on
}

// Metric is one measured figure of a verified evaluation.
type Metric struct {
	Name      string    `json:"name"`
	Value     float64   `json:"value"`
	Direction string    `json:"direction"`
	Slice     string    `json:"slice"`
	N         int64     `json:"n"`
	CI        []float64 `json:"ci"` // empty, or lower and upper bound
	Dataset   string    `json:"dataset"`
	At        time.Time `json:"at"`
	Bundle    string    `json:"bundle"`
	KeyID     string    `json:"keyId"`
	Stage     string    `json:"stage"`       // offline, shadow, canary, on-device; "" when not stated
	Class     string    `json:"deviceClass"` // that it was measured on; "" for none
}

// Dataset is one data set behind the model.
type Dataset struct {
	Name         string   `json:"name"`
	Role         string   `json:"role"`
	Digest       string   `json:"digest"`
	URI          string   `json:"uri"`
	License      string   `json:"license"`
	Rows         int64    `json:"rows"`
	PersonalData string   `json:"personalData"`
	Bundle       string   `json:"bundle"`
	From         string   `json:"from"`       // time of the oldest record, RFC 3339; "" when not stated
	To           string   `json:"to"`         // of the newest
	Anonymised   []string `json:"anonymised"` // methods applied
	KnownBias    string   `json:"knownBias"`
}

// SBOM tells whether a verified bill of materials is attached.
type SBOM struct {
	Present     bool     `json:"present"`
	Format      string   `json:"format"` // cyclonedx, spdx
	SpecVersion string   `json:"specVersion"`
	Bundle      string   `json:"bundle"`
	Components  int      `json:"components"`
	Licenses    []string `json:"licenses"`   // SPDX, of all components
	Unlicensed  []string `json:"unlicensed"` // components without one
	Missing     []string `json:"missing"`    // paths of layers whose digest it does not list
}

// Vulnerabilities is the newest verified scan: a CycloneDX document that lists vulnerabilities, or in-toto vulns v0.2.
type Vulnerabilities struct {
	Scanned    bool      `json:"scanned"`
	Bundle     string    `json:"bundle"`
	Scanner    string    `json:"scanner"`
	ScannedAt  string    `json:"scannedAt"`  // RFC 3339; "" when not stated
	DatabaseAt string    `json:"databaseAt"` // when the scanner's database was brought up to date, likewise
	Findings   []Finding `json:"findings"`   // those that the document itself rules out included
}

// Finding is one vulnerability.
type Finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"` // critical, high, medium, low, unknown
	Package  string `json:"package"`
	Version  string `json:"version"`
	FixedIn  string `json:"fixedIn"`
	State    string `json:"state"` // of the analysis (VEX): "", affected, not_affected, fixed, under_investigation
}

// ModelCard is the card among the artifact's files and what the verified bill of materials says in its modelCard.
type ModelCard struct {
	Present     bool       `json:"present"` // a file of the artifact
	Path        string     `json:"path"`
	Digest      string     `json:"digest"`
	Bundle      string     `json:"bundle"` // that the fields below come from; "" for none
	Users       []string   `json:"users"`
	UseCases    []string   `json:"useCases"`
	Limitations []string   `json:"limitations"`
	Tradeoffs   []string   `json:"tradeoffs"`
	Risks       []Risk     `json:"risks"` // ethical considerations
	Fairness    []Fairness `json:"fairness"`
	Energy      []Energy   `json:"energy"`
	Oversight   string     `json:"oversight"` // how people watch over it and step in
}

// Risk is an ethical or other risk, and what is done about it.
type Risk struct {
	Name       string `json:"name"`
	Mitigation string `json:"mitigation"`
}

// Fairness is the assessment for one group.
type Fairness struct {
	Group      string `json:"group"`
	Harms      string `json:"harms"`
	Mitigation string `json:"mitigation"`
}

// Energy is what an activity of the life cycle took.
type Energy struct {
	Activity string  `json:"activity"` // design, data-collection, data-preparation, training, fine-tuning, validation, deployment, inference, other
	KWh      float64 `json:"kWh"`
}

// Approval is one verified approval. Granted tells whether trust gives the signer that role.
type Approval struct {
	Role        string    `json:"role"`
	Granted     bool      `json:"granted"`
	Reason      string    `json:"reason"`
	At          time.Time `json:"at"`
	Expires     time.Time `json:"expires"`
	Bundle      string    `json:"bundle"`
	Signer      Signer    `json:"signer"`
	Environment string    `json:"environment"` // that it is for; "" for any
	Rejected    bool      `json:"rejected"`    // the approver says no
}

// Exception is one verified waiver, with the approver roles of its signer.
type Exception struct {
	Rule        string    `json:"rule"`
	Reason      string    `json:"reason"`
	At          time.Time `json:"at"`
	Expires     time.Time `json:"expires"`
	Ticket      string    `json:"ticket"`
	Bundle      string    `json:"bundle"`
	Roles       []string  `json:"roles"`
	Signer      Signer    `json:"signer"`
	Environment string    `json:"environment"` // that it is for; "" for any
}

// Verdict is one earlier verdict of a gate on this digest.
type Verdict struct {
	Environment  string    `json:"environment"`
	Result       string    `json:"result"`
	NotAfter     time.Time `json:"notAfter"`
	PolicyDigest string    `json:"policyDigest"`
	ResourceURI  string    `json:"resourceUri"`
	Bundle       string    `json:"bundle"`
	KeyID        string    `json:"keyId"`
	At           time.Time `json:"at"`
	Prev         string    `json:"prev"` // bundle of the verdict before it; "" for the first
}

// VerdictChain tells whether the verdicts on this digest in this environment follow each other without a gap: a denial
// that somebody took away leaves one.
type VerdictChain struct {
	Complete bool     `json:"complete"` // nothing is missing; true when there is no verdict
	Missing  []string `json:"missing"`  // bundles that a verdict names as the one before it and that are not attached
	Heads    []string `json:"heads"`    // bundles that no other verdict follows; more than one: gates ran at once
}

// Champion is the digest that the channel names now.
type Champion struct {
	Channel    string   `json:"channel"`
	Seq        int64    `json:"seq"`      // 0: the channel has no record yet
	Digest     string   `json:"digest"`   // "" when Seq is 0
	Verified   bool     `json:"verified"` // record and evaluation verified; true for an empty channel that was really asked
	Reason     string   `json:"reason"`
	Record     string   `json:"record"` // digest of the record's bundle
	Metrics    []Metric `json:"metrics"`
	Version    string   `json:"version"`
	Epoch      int64    `json:"epoch"`
	EpochFloor int64    `json:"epochFloor"` // of the channel: devices refuse a lower epoch
	Verdict    string   `json:"verdict"`    // its newest verified verdict for this environment: PASSED, FAILED; "" for none
}

// New returns a document with the schema set and every list empty, never null.
func New() Input {
	var in Input
	in.Schema = Schema
	in.Normalize()
	return in
}

// list gives an empty, non-null slice for nil, sorted by key.
func list[T any](s *[]T, key func(T) string) {
	if *s == nil {
		*s = []T{}
		return
	}
	slices.SortStableFunc(*s, func(a, b T) int {
		if c := strings.Compare(key(a), key(b)); c != 0 {
			return c
		}
		return strings.Compare(fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", b)) // equal keys must not leave the order to whoever listed them
	})
}

func bare[T any](s *[]T) {
	if *s == nil {
		*s = []T{}
	}
}

func same(s string) string { return s }

// Normalize sorts every list that is a set, replaces null lists by empty ones and brings times to UTC and whole seconds.
// Producers call it once, last.
func (in *Input) Normalize() {
	sec := func(t *time.Time) { *t = t.UTC().Truncate(time.Second) }
	sec(&in.Context.Time)
	sec(&in.Trust.Expires)
	e := &in.Environment
	list(&e.DeviceClasses, func(c DeviceClass) string { return c.Name })
	list(&e.Metrics, func(t Threshold) string { return t.Name + "\x00" + t.Slice })
	list(&e.Slices, same)
	list(&e.SliceGaps, func(g SliceGap) string { return g.Name })
	list(&e.Licenses.Models, same)
	list(&e.Licenses.Datasets, same)
	list(&e.Approvals.Roles, same)
	list(&e.Evidence, same)
	list(&e.Exceptions.Roles, same)
	list(&e.Exceptions.Rules, same)
	list(&e.Enforce, func(f Enforcement) string { return f.Rule })
	list(&e.Licenses.Components, same)
	list(&e.Builders, func(b Builder) string { return b.ID })
	for i := range e.Builders {
		list(&e.Builders[i].Signers, same)
	}
	list(&e.Sources, same)
	list(&e.Parameters, same)
	list(&e.Formats, same)
	list(&e.Tests, same)
	list(&e.Sections, same)
	if e.Data == nil {
		e.Data = map[string]any{}
	}
	sec(&in.Context.Newest)
	list(&in.Trust.Revoked, same)
	list(&in.Trust.Policies, same)
	list(&in.Artifact.Layers, func(l Layer) string { return l.Path + "\x00" + l.Digest })
	list(&in.Artifact.Problems, func(n Note) string { return n.Code + "\x00" + n.Text })
	list(&in.Model.Licenses, same)
	list(&in.Model.Authors, same)
	list(&in.Model.BaseModels, func(m BaseModel) string { return m.Name + "\x00" + m.Version + "\x00" + m.Digest })
	for i := range in.Provenance {
		p := &in.Provenance[i]
		list(&p.Parameters, same)
		list(&p.Materials, func(m Material) string { return m.Name + "\x00" + m.URI + "\x00" + m.Digest })
	}
	list(&in.Provenance, func(p Provenance) string { return p.Bundle })
	for i := range in.Tests {
		t := &in.Tests[i]
		list(&t.Configuration, same)
		list(&t.Passed, same)
		list(&t.Warned, same)
		list(&t.Failed, same)
	}
	list(&in.Tests, func(t TestResult) string { return t.Bundle })
	s := &in.SBOM
	list(&s.Licenses, same)
	list(&s.Unlicensed, same)
	list(&s.Missing, same)
	k := &in.ModelCard
	bare(&k.Users)
	bare(&k.UseCases)
	bare(&k.Limitations)
	bare(&k.Tradeoffs)
	list(&k.Risks, func(r Risk) string { return r.Name + "\x00" + r.Mitigation })
	list(&k.Fairness, func(f Fairness) string { return f.Group + "\x00" + f.Harms })
	list(&k.Energy, func(x Energy) string { return fmt.Sprintf("%s\x00%.17g", x.Activity, x.KWh) })
	list(&in.VerdictChain.Missing, same)
	list(&in.VerdictChain.Heads, same)
	list(&in.Build.Modules, func(m Module) string { return m.Path + "\x00" + m.Digest })
	for i := range in.Build.Modules {
		list(&in.Build.Modules[i].Imports, same)
	}
	att := func(a Attestation) string { return a.PredicateType + "\x00" + a.Bundle + "\x00" + a.Subject }
	list(&in.Signatures, att)
	list(&in.Attestations, att)
	metrics := func(ms *[]Metric) {
		for i := range *ms {
			bare(&(*ms)[i].CI)
			sec(&(*ms)[i].At)
		}
		list(ms, func(m Metric) string {
			return fmt.Sprintf("%s\x00%s\x00%s\x00%s\x00%.17g", m.Name, m.Slice, m.Bundle, m.Dataset, m.Value)
		})
	}
	metrics(&in.Metrics)
	metrics(&in.Champion.Metrics)
	for i := range in.Datasets {
		list(&in.Datasets[i].Anonymised, same)
	}
	list(&in.Datasets, func(d Dataset) string { return d.Name + "\x00" + d.Role + "\x00" + d.Digest + "\x00" + d.Bundle })
	list(&in.Vulnerabilities.Findings, func(f Finding) string { return f.ID + "\x00" + f.Package + "\x00" + f.Version + "\x00" + f.State })
	for i := range in.Approvals {
		sec(&in.Approvals[i].At)
		sec(&in.Approvals[i].Expires)
	}
	list(&in.Approvals, func(a Approval) string { return a.Role + "\x00" + a.Bundle })
	for i := range in.Exceptions {
		sec(&in.Exceptions[i].At)
		sec(&in.Exceptions[i].Expires)
		list(&in.Exceptions[i].Roles, same)
	}
	list(&in.Exceptions, func(x Exception) string { return x.Rule + "\x00" + x.Bundle })
	for i := range in.Verdicts {
		sec(&in.Verdicts[i].NotAfter)
		sec(&in.Verdicts[i].At)
	}
	list(&in.Verdicts, func(v Verdict) string { return v.Environment + "\x00" + v.Bundle })
}

// Canonical returns the bytes whose sha256 is the input digest.
func (in Input) Canonical() ([]byte, error) { return artifact.Canonical(in) }

// Digest hashes the canonical bytes.
func (in Input) Digest() (artifact.Digest, error) {
	b, err := in.Canonical()
	if err != nil {
		return "", err
	}
	return artifact.DigestOf(b), nil
}

// Parse reads a document strictly: unknown keys, a second value and more than MaxBytes are errors. It does not check the
// JSON Schema; evaluation does that first. Recorded inputs lose their white space in a statement, so a replay parses and
// takes Canonical again.
func Parse(b []byte) (Input, error) {
	var in Input
	if len(b) > MaxBytes {
		return in, fmt.Errorf("facts document has %d bytes, limit %d", len(b), MaxBytes)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return in, fmt.Errorf("facts document: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return in, errors.New("facts document: more than one JSON value")
	}
	return in, nil
}
