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
	Signatures      []Attestation   `json:"signatures"`   // releases, verified and failed
	Attestations    []Attestation   `json:"attestations"` // everything else, verified and failed
	Metrics         []Metric        `json:"metrics"`      // of verified evaluations of this digest
	Datasets        []Dataset       `json:"datasets"`     // of verified dataset statements of this digest
	SBOM            SBOM            `json:"sbom"`
	Vulnerabilities Vulnerabilities `json:"vulnerabilities"`
	ModelCard       ModelCard       `json:"modelCard"`
	Approvals       []Approval      `json:"approvals"`  // verified, with the roles that trust gives the signer
	Exceptions      []Exception     `json:"exceptions"` // verified
	Verdicts        []Verdict       `json:"verdicts"`   // verified, of this digest, any environment
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
}

// Environment is what the signed environments.yaml demands here.
type Environment struct {
	Name                 string          `json:"name"`
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
}

// DeviceClass is a kind of device that the artifact is to run on.
type DeviceClass struct {
	Name        string `json:"name"`
	MemoryBytes int64  `json:"memoryBytes"` // linear memory that a model may have there
	Runtime     string `json:"runtime"`     // lowest waybill-edge version in the class; "" when not known
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
	Models   []string `json:"models"`
	Datasets []string `json:"datasets"`
}

// ApprovalDemand asks for Minimum distinct approvers and one for each role.
type ApprovalDemand struct {
	Minimum int      `json:"minimum"`
	Roles   []string `json:"roles"`
}

// ExceptionDemand tells which rules may be waived and by whom.
type ExceptionDemand struct {
	Roles []string `json:"roles"`
	Rules []string `json:"rules"`
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
	Name     string   `json:"name"`
	Version  string   `json:"version"`
	Family   string   `json:"family"`
	Licenses []string `json:"licenses"` // SPDX
	Authors  []string `json:"authors"`
	Created  string   `json:"created"` // as the config states it; "" when not stated
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
	KeyID string `json:"keyId"`
	Name  string `json:"name"`
	Role  string `json:"role"`
}

// Attestation is one bundle. Verified means: signature, role, scope and subject all hold.
type Attestation struct {
	PredicateType string `json:"predicateType"`
	Bundle        string `json:"bundle"`
	Subject       string `json:"subject"`
	Verified      bool   `json:"verified"`
	Reason        string `json:"reason"` // why it did not verify
	Signer        Signer `json:"signer"`
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
}

// Dataset is one data set behind the model.
type Dataset struct {
	Name         string `json:"name"`
	Role         string `json:"role"`
	Digest       string `json:"digest"`
	URI          string `json:"uri"`
	License      string `json:"license"`
	Rows         int64  `json:"rows"`
	PersonalData string `json:"personalData"`
	Bundle       string `json:"bundle"`
}

// SBOM tells whether a verified bill of materials is attached.
type SBOM struct {
	Present bool   `json:"present"`
	Format  string `json:"format"`
	Bundle  string `json:"bundle"`
}

// Vulnerabilities is the newest verified scan.
type Vulnerabilities struct {
	Scanned  bool      `json:"scanned"`
	Bundle   string    `json:"bundle"`
	Findings []Finding `json:"findings"`
}

// Finding is one vulnerability.
type Finding struct {
	ID       string `json:"id"`
	Severity string `json:"severity"`
	Package  string `json:"package"`
}

// ModelCard tells whether the artifact carries a model card.
type ModelCard struct {
	Present bool   `json:"present"`
	Path    string `json:"path"`
	Digest  string `json:"digest"`
}

// Approval is one verified approval. Granted tells whether trust gives the signer that role.
type Approval struct {
	Role    string    `json:"role"`
	Granted bool      `json:"granted"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires"`
	Bundle  string    `json:"bundle"`
	Signer  Signer    `json:"signer"`
}

// Exception is one verified waiver, with the approver roles of its signer.
type Exception struct {
	Rule    string    `json:"rule"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at"`
	Expires time.Time `json:"expires"`
	Ticket  string    `json:"ticket"`
	Bundle  string    `json:"bundle"`
	Roles   []string  `json:"roles"`
	Signer  Signer    `json:"signer"`
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
}

// Champion is the digest that the channel names now.
type Champion struct {
	Channel  string   `json:"channel"`
	Seq      int64    `json:"seq"`      // 0: the channel has no record yet
	Digest   string   `json:"digest"`   // "" when Seq is 0
	Verified bool     `json:"verified"` // record and evaluation verified; true for an empty channel that was really asked
	Reason   string   `json:"reason"`
	Record   string   `json:"record"` // digest of the record's bundle
	Metrics  []Metric `json:"metrics"`
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
	slices.SortStableFunc(*s, func(a, b T) int { return strings.Compare(key(a), key(b)) })
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
	list(&in.Trust.Revoked, same)
	list(&in.Trust.Policies, same)
	list(&in.Artifact.Layers, func(l Layer) string { return l.Path + "\x00" + l.Digest })
	list(&in.Artifact.Problems, func(n Note) string { return n.Code + "\x00" + n.Text })
	list(&in.Model.Licenses, same)
	list(&in.Model.Authors, same)
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
	list(&in.Datasets, func(d Dataset) string { return d.Name + "\x00" + d.Role + "\x00" + d.Digest + "\x00" + d.Bundle })
	list(&in.Vulnerabilities.Findings, func(f Finding) string { return f.ID + "\x00" + f.Package })
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
