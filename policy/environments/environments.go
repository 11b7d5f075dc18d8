// Package environments is environments.yaml: what each environment demands of a model, written and signed by the platform
// team. Authors of models have no say in it. The YAML is read strictly, with positions; the signed form is an in-toto
// statement over its canonical JSON, signed by as many root keys as the trust document's threshold.
package environments

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/oci/channel"
	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/publish/lock"
	"github.com/waybill-ml/waybill/policy/input"
	"github.com/waybill-ml/waybill/policy/source"
)

// Schema is the value of Document.Schema.
const Schema = "https://github.com/waybill-ml/waybill/predicate/environments/v1"

// MaxBytes bounds a file, YAML or signed.
const MaxBytes = 1 << 20

// Builtin is the policy source that names the rules inside the binary.
const Builtin = source.Builtin

// Document is the whole file. Field names are the same in YAML and JSON.
type Document struct {
	Schema       string                 `json:"schema"`
	Version      int                    `json:"version"` // rises with every change
	Environments map[string]Environment `json:"environments"`
}

// Environment is one of them.
type Environment struct {
	Registry             string            `json:"registry"`       // host[:port][/path] where its artifacts live; for people and deploy
	Namespace            string            `json:"namespace"`      // of the models; part of the verdict's resourceUri
	Channel              string            `json:"channel"`        // default: the environment's name
	Lock                 string            `json:"lock,omitempty"` // where publishers of the channel lock it; default: on their machine
	Policy               Policy            `json:"policy"`         //
	Trust                Trust             `json:"trust"`          //
	NotAfterDays         int               `json:"notAfterDays"`
	DeviceClasses        []DeviceClass     `json:"deviceClasses"`
	Metrics              []Threshold       `json:"metrics"`
	Slices               []string          `json:"slices"`
	SliceGaps            []SliceGap        `json:"sliceGaps"`
	Licenses             Licenses          `json:"licenses"`
	Approvals            Approvals         `json:"approvals"`
	Signers              int               `json:"signers"` // distinct publisher keys; default 1
	Evidence             []string          `json:"evidence"`
	After                string            `json:"after"`
	MaxEvaluationAgeDays int               `json:"maxEvaluationAgeDays"`
	PrivacyRole          string            `json:"privacyRole"`
	Exceptions           Exceptions        `json:"exceptions"`
	Enforce              map[string]string `json:"enforce"` // rule id: warn or off
	Profile              string            `json:"profile"` // of the policy; default baseline
	Builders             []Builder         `json:"builders"`
	Sources              []string          `json:"sources"`
	Parameters           []string          `json:"parameters"`
	Formats              []string          `json:"formats"`
	Tests                []string          `json:"tests"`
	Sections             []string          `json:"sections"`
	Scan                 Scan              `json:"scan"`
	MaxModelAgeDays      int               `json:"maxModelAgeDays"`
	MaxDataAgeDays       int               `json:"maxDataAgeDays"`
	MaxApprovalAgeDays   int               `json:"maxApprovalAgeDays"`
	MaxVerdictAgeDays    int               `json:"maxVerdictAgeDays"`
	SoakDays             int               `json:"soakDays"`
	Shadow               bool              `json:"shadow"`
	MaxRisk              string            `json:"maxRisk"`
	Data                 map[string]any    `json:"data"`               // for policies of the platform team's own; opaque here
	DataFiles            []string          `json:"-" yaml:"dataFiles"` // merged into Data by ParseYAML, so that what is signed holds all of it
	Targets              []map[string]any  `json:"targets"`            // deploy reads them; opaque here
}

// Builder is an allowed builder of models: see input.Builder.
type Builder struct {
	ID      string   `json:"id"`
	Signers []string `json:"signers"`
	Level   int      `json:"level"` // SLSA build level, 0 to 4; the platform team's word
}

// Scan bounds the age of a vulnerability scan and of its database, in days; 0: no limit.
type Scan struct {
	MaxAgeDays         int `json:"maxAgeDays"`
	MaxDatabaseAgeDays int `json:"maxDatabaseAgeDays"`
}

// DefaultProfile is the profile of an environment that names none.
const DefaultProfile = "baseline"

// Policy is pinned by digest; Source tells where to get it: builtin, a directory or tar beside this file, or a reference.
type Policy struct {
	Digest artifact.Digest `json:"digest"`
	Source string          `json:"source"`
	Signed bool            `json:"signed,omitempty"` // a policy key must have signed it; true anyway where the trust document names policy keys
}

// Trust tells which trust documents are good enough: an old one may still list keys that were revoked since.
type Trust struct {
	MinVersion int `json:"minVersion"` // default 1
}

// DeviceClass is a kind of device.
type DeviceClass struct {
	Name      string  `json:"name"`
	Memory    Bytes   `json:"memory"`    // 256MiB
	Runtime   string  `json:"runtime"`   // lowest waybill-edge version there
	Storage   Bytes   `json:"storage"`   // that an artifact may take; default: no limit
	LatencyMs float64 `json:"latencyMs"` // of one prediction at p99, measured there; default: no limit
}

// Threshold is a demand on a metric: exactly one of Min (higher is better) and Max.
type Threshold struct {
	Name          string   `json:"name"`
	Slice         string   `json:"slice"` // default: all
	Min           *float64 `json:"min,omitempty"`
	Max           *float64 `json:"max,omitempty"`
	MaxRegression float64  `json:"maxRegression"`
	MinN          int64    `json:"minN"`
	Confidence    bool     `json:"confidence"`
}

// SliceGap bounds the spread over slices.
type SliceGap struct {
	Name string  `json:"name"`
	Max  float64 `json:"max"`
}

// Licenses are allowed SPDX identifiers.
type Licenses struct {
	Models     []string `json:"models"`
	Datasets   []string `json:"datasets"`
	Components []string `json:"components"` // of the bill of materials; default: any
}

// Approvals are demanded.
type Approvals struct {
	Minimum int      `json:"minimum"`
	Roles   []string `json:"roles"`
}

// Exceptions tells what may be waived and by which approver roles.
type Exceptions struct {
	Roles   []string `json:"roles"`
	Rules   []string `json:"rules"`
	MaxDays int      `json:"maxDays"` // longest life of one; default: no limit
}

// Bytes is a size; YAML writes it as 256MiB, 64MB or a number of bytes.
type Bytes int64

var (
	envName     = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	namespace   = regexp.MustCompile(`^[a-z0-9]+([._-][a-z0-9]+)*(/[a-z0-9]+([._-][a-z0-9]+)*)*$`)
	profileName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]*$`)
	ruleName    = regexp.MustCompile(`^[A-Za-z0-9_./-]+$`)
)

// fill sets defaults and replaces null lists, so that equal documents have equal canonical bytes.
func (d *Document) fill() {
	d.Schema = Schema
	if d.Environments == nil {
		d.Environments = map[string]Environment{}
	}
	for n, e := range d.Environments {
		if e.Channel == "" {
			e.Channel = n
		}
		if e.Policy.Source == "" {
			e.Policy.Source = Builtin
		}
		if e.NotAfterDays == 0 {
			e.NotAfterDays = 90
		}
		if e.Trust.MinVersion == 0 {
			e.Trust.MinVersion = 1
		}
		if e.Signers == 0 {
			e.Signers = 1
		}
		e.DeviceClasses, e.Metrics, e.SliceGaps = full(e.DeviceClasses), full(e.Metrics), full(e.SliceGaps)
		e.Slices, e.Evidence, e.Targets = full(e.Slices), full(e.Evidence), full(e.Targets)
		e.Licenses.Models, e.Licenses.Datasets = full(e.Licenses.Models), full(e.Licenses.Datasets)
		e.Approvals.Roles, e.Exceptions.Roles, e.Exceptions.Rules = full(e.Approvals.Roles), full(e.Exceptions.Roles), full(e.Exceptions.Rules)
		if e.Profile == "" {
			e.Profile = DefaultProfile
		}
		e.Builders, e.Sources, e.Parameters = full(e.Builders), full(e.Sources), full(e.Parameters)
		e.Formats, e.Tests, e.Sections = full(e.Formats), full(e.Tests), full(e.Sections)
		e.Licenses.Components = full(e.Licenses.Components)
		for i := range e.Builders {
			e.Builders[i].Signers = full(e.Builders[i].Signers)
		}
		if e.Data == nil {
			e.Data = map[string]any{}
		}
		if e.Enforce == nil {
			e.Enforce = map[string]string{}
		}
		for i := range e.Metrics {
			if e.Metrics[i].Slice == "" {
				e.Metrics[i].Slice = "all"
			}
		}
		d.Environments[n] = e
	}
}

// sections are the parts of a model card that an environment can demand.
func sections() []string {
	return []string{"users", "useCases", "limitations", "tradeoffs", "risks", "fairness", "energy", "oversight"}
}

func full[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

// fieldError is a rule broken at a path like environments.prod.metrics[0].min.
type fieldError struct {
	path string
	err  error
}

func (e *fieldError) Error() string { return e.path + ": " + e.err.Error() }
func (e *fieldError) Unwrap() error { return e.err }

func bad(path, format string, args ...any) error {
	return &fieldError{path: path, err: fmt.Errorf(format, args...)}
}

// Validate checks every rule that needs no key and no clock. Environments are checked in the order of their names.
func (d *Document) Validate() error {
	if d.Schema != Schema {
		return bad("schema", "%q, want %q", d.Schema, Schema)
	}
	if d.Version < 1 {
		return bad("version", "must be 1 or more, and rise with every change")
	}
	if len(d.Environments) == 0 {
		return bad("environments", "none is defined")
	}
	for _, n := range slices.Sorted(maps.Keys(d.Environments)) {
		if err := d.validate("environments."+n, n, d.Environments[n]); err != nil {
			return err
		}
	}
	return nil
}

func (d *Document) validate(at, name string, e Environment) error {
	if e.Lock != "" {
		if _, err := lock.Parse(e.Lock); err != nil {
			return bad(at+".lock", "%w", err)
		}
	}
	if !envName.MatchString(name) {
		return bad(at, "a name has lower-case letters, digits and dashes")
	}
	if !namespace.MatchString(e.Namespace) {
		return bad(at+".namespace", "%q is no repository path (ml, team/models)", e.Namespace)
	}
	if err := channel.ValidName(e.Channel); err != nil {
		return bad(at+".channel", "%w", err)
	}
	if _, err := artifact.ParseDigest(string(e.Policy.Digest)); err != nil {
		return bad(at+".policy.digest", "%w (print it with: waybill policy digest)", err)
	}
	if s, err := source.Parse(e.Policy.Source); err != nil {
		return bad(at+".policy.source", "%w", err)
	} else if e.Policy.Signed && s.Kind == source.KindBuiltin {
		return bad(at+".policy.signed", "the builtin policy is part of the program and carries no signature; pack it, sign it, and name it as the source (waybill policy pack)")
	}
	if e.NotAfterDays < 1 || e.NotAfterDays > 3650 {
		return bad(at+".notAfterDays", "%d is not between 1 and 3650", e.NotAfterDays)
	}
	if e.Signers < 1 {
		return bad(at+".signers", "at least one publisher has to sign")
	}
	if e.Trust.MinVersion < 1 {
		return bad(at+".trust.minVersion", "below 1")
	}
	if e.MaxEvaluationAgeDays < 0 {
		return bad(at+".maxEvaluationAgeDays", "negative")
	}
	for _, x := range []struct {
		key string
		n   int
	}{{"scan.maxAgeDays", e.Scan.MaxAgeDays}, {"scan.maxDatabaseAgeDays", e.Scan.MaxDatabaseAgeDays}, {"maxModelAgeDays", e.MaxModelAgeDays}, {"maxDataAgeDays", e.MaxDataAgeDays},
		{"maxApprovalAgeDays", e.MaxApprovalAgeDays}, {"maxVerdictAgeDays", e.MaxVerdictAgeDays}, {"soakDays", e.SoakDays}, {"exceptions.maxDays", e.Exceptions.MaxDays}} {
		if x.n < 0 {
			return bad(at+"."+x.key, "negative")
		}
	}
	if !profileName.MatchString(e.Profile) {
		return bad(at+".profile", "%q is no profile name", e.Profile)
	}
	if !slices.Contains([]string{"", "minimal", "limited", "high"}, e.MaxRisk) {
		return bad(at+".maxRisk", "%q is none of minimal, limited, high", e.MaxRisk)
	}
	for i, b := range e.Builders {
		if b.ID == "" || b.Level < 0 || b.Level > 4 {
			return bad(fmt.Sprintf("%s.builders[%d]", at, i), "needs an id, and a level of 0 to 4")
		}
	}
	for i, s := range e.Sections {
		if !slices.Contains(sections(), s) {
			return bad(fmt.Sprintf("%s.sections[%d]", at, i), "%q is none of %s", s, strings.Join(sections(), ", "))
		}
	}
	for _, l := range []struct {
		key  string
		list []string
	}{{"sources", e.Sources}, {"parameters", e.Parameters}, {"formats", e.Formats}, {"tests", e.Tests}, {"slices", e.Slices}, {"approvals.roles", e.Approvals.Roles}, {"exceptions.roles", e.Exceptions.Roles},
		{"licenses.models", e.Licenses.Models}, {"licenses.datasets", e.Licenses.Datasets}, {"licenses.components", e.Licenses.Components}} {
		for i, s := range l.list {
			if s == "" || slices.Contains(l.list[:i], s) {
				return bad(fmt.Sprintf("%s.%s[%d]", at, l.key, i), "%q is empty or given twice", s)
			}
		}
	}
	if e.Approvals.Minimum < 0 {
		return bad(at+".approvals.minimum", "negative")
	}
	seen := map[string]bool{}
	for i, c := range e.DeviceClasses {
		p := fmt.Sprintf("%s.deviceClasses[%d]", at, i)
		switch {
		case c.Name == "" || seen[c.Name]:
			return bad(p+".name", "empty or used twice: %q", c.Name)
		case c.Memory <= 0:
			return bad(p+".memory", "missing: how much linear memory a model may have there (256MiB)")
		case c.Storage < 0 || c.LatencyMs < 0:
			return bad(p, "storage and latencyMs cannot be negative")
		}
		seen[c.Name] = true
	}
	clear(seen)
	for i, m := range e.Metrics {
		p := fmt.Sprintf("%s.metrics[%d]", at, i)
		switch {
		case m.Name == "":
			return bad(p+".name", "missing")
		case (m.Min == nil) == (m.Max == nil):
			return bad(p, "give exactly one of min (higher is better) and max (lower is better)")
		case m.MaxRegression < 0:
			return bad(p+".maxRegression", "negative")
		case m.MinN < 0:
			return bad(p+".minN", "negative")
		case seen[m.Name+"\x00"+m.Slice]:
			return bad(p, "a second threshold for %s on slice %s", m.Name, m.Slice)
		}
		seen[m.Name+"\x00"+m.Slice] = true
	}
	for i, g := range e.SliceGaps {
		if g.Name == "" || g.Max < 0 {
			return bad(fmt.Sprintf("%s.sliceGaps[%d]", at, i), "needs a name and a max of at least 0")
		}
	}
	for i, t := range e.Evidence {
		if _, ok := evidence.TypeByName(t); !ok {
			return bad(fmt.Sprintf("%s.evidence[%d]", at, i), "unknown predicate type %q", t)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(e.Enforce)) {
		if !ruleName.MatchString(r) || e.Enforce[r] != "warn" && e.Enforce[r] != "off" {
			return bad(at+".enforce."+r, "%q is neither warn nor off", e.Enforce[r])
		}
	}
	for i, r := range e.Exceptions.Rules {
		if !ruleName.MatchString(r) {
			return bad(fmt.Sprintf("%s.exceptions.rules[%d]", at, i), "%q is no rule id", r)
		}
	}
	return d.chain(at, name, e)
}

// chain follows after; it must end.
func (d *Document) chain(at, name string, e Environment) error {
	seen := map[string]bool{name: true}
	for e.After != "" {
		next, ok := d.Environments[e.After]
		if !ok {
			return bad(at+".after", "there is no environment %q", e.After)
		}
		if seen[e.After] {
			return bad(at+".after", "environments follow each other in a circle through %q", e.After)
		}
		seen[e.After] = true
		e = next
	}
	return nil
}

// Canonical is the JSON that is signed.
func (d *Document) Canonical() ([]byte, error) { return artifact.Canonical(d) }

// Digest hashes Canonical.
func (d *Document) Digest() (artifact.Digest, error) {
	b, err := d.Canonical()
	if err != nil {
		return "", err
	}
	return artifact.DigestOf(b), nil
}

// ParseJSON reads the signed form's predicate strictly.
func ParseJSON(raw []byte) (*Document, error) {
	if len(raw) > MaxBytes {
		return nil, fmt.Errorf("environments document of %d bytes is larger than the limit of %d", len(raw), MaxBytes)
	}
	var d Document
	if err := strictjson.Decode(raw, &d); err != nil {
		return nil, fmt.Errorf("environments document: %w", err)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("environments document: %w", err)
	}
	return &d, nil
}

// ErrUnknown says that the document has no environment of that name.
var ErrUnknown = errors.New("no such environment")

// Names lists the environments.
func (d *Document) Names() []string { return slices.Sorted(maps.Keys(d.Environments)) }

// Facts gives one environment as the policy sees it, not yet verified.
func (d *Document) Facts(name string) (input.Environment, error) {
	e, ok := d.Environments[name]
	if !ok {
		return input.Environment{}, fmt.Errorf("%w: %q (there are: %v)", ErrUnknown, name, d.Names())
	}
	f := input.Environment{
		Name: name, Version: d.Version, Profile: e.Profile, MinTrust: e.Trust.MinVersion, Namespace: e.Namespace, Channel: e.Channel, PolicyDigest: string(e.Policy.Digest), NotAfterDays: e.NotAfterDays,
		Slices: slices.Clone(e.Slices), Licenses: input.Licenses{Models: slices.Clone(e.Licenses.Models), Datasets: slices.Clone(e.Licenses.Datasets), Components: slices.Clone(e.Licenses.Components)},
		Approvals: input.ApprovalDemand{Minimum: e.Approvals.Minimum, Roles: slices.Clone(e.Approvals.Roles)},
		Signers:   e.Signers, After: e.After, MaxEvaluationAgeDays: e.MaxEvaluationAgeDays, PrivacyRole: e.PrivacyRole,
		Exceptions: input.ExceptionDemand{Roles: slices.Clone(e.Exceptions.Roles), Rules: slices.Clone(e.Exceptions.Rules), MaxDays: e.Exceptions.MaxDays},
		Sources:    slices.Clone(e.Sources), Parameters: slices.Clone(e.Parameters), Formats: slices.Clone(e.Formats), Tests: slices.Clone(e.Tests), Sections: slices.Clone(e.Sections),
		Scan: input.Scan{MaxAgeDays: e.Scan.MaxAgeDays, MaxDatabaseAgeDays: e.Scan.MaxDatabaseAgeDays}, MaxModelAgeDays: e.MaxModelAgeDays, MaxDataAgeDays: e.MaxDataAgeDays,
		MaxApprovalAgeDays: e.MaxApprovalAgeDays, MaxVerdictAgeDays: e.MaxVerdictAgeDays, SoakDays: e.SoakDays, Shadow: e.Shadow, MaxRisk: e.MaxRisk, Data: maps.Clone(e.Data),
	}
	for _, b := range e.Builders {
		f.Builders = append(f.Builders, input.Builder{ID: b.ID, Signers: slices.Clone(b.Signers), Level: b.Level})
	}
	for _, c := range e.DeviceClasses {
		f.DeviceClasses = append(f.DeviceClasses, input.DeviceClass{Name: c.Name, MemoryBytes: int64(c.Memory), Runtime: c.Runtime, StorageBytes: int64(c.Storage), LatencyMs: c.LatencyMs})
	}
	for _, m := range e.Metrics {
		t := input.Threshold{Name: m.Name, Slice: m.Slice, MaxRegression: m.MaxRegression, MinN: m.MinN, Confidence: m.Confidence}
		if m.Min != nil {
			t.Direction, t.Bound = "higher", *m.Min
		} else {
			t.Direction, t.Bound = "lower", *m.Max
		}
		f.Metrics = append(f.Metrics, t)
	}
	for _, g := range e.SliceGaps {
		f.SliceGaps = append(f.SliceGaps, input.SliceGap{Name: g.Name, Max: g.Max})
	}
	for _, n := range e.Evidence {
		t, _ := evidence.TypeByName(n) // checked by Validate
		f.Evidence = append(f.Evidence, t)
	}
	for _, r := range slices.Sorted(maps.Keys(e.Enforce)) {
		f.Enforce = append(f.Enforce, input.Enforcement{Rule: r, Level: e.Enforce[r]})
	}
	return f, nil
}
