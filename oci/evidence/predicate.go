package evidence

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
	"github.com/waybill-ml/waybill/oci/artifact"
)

// ValidatePredicate checks a predicate against the rules of its type: for ours those of schema/*.json, for other
// people's the parts that Waybill reads. Channel, trust and environments documents are checked by their own packages and
// only have to be objects here, and so does the predicate of a custom type, whose name must be one (CustomType).
func ValidatePredicate(predicateType string, raw json.RawMessage) error {
	var err error
	switch predicateType {
	case TypeEvaluation:
		_, err = ParseEvaluation(raw)
	case TypeDataset:
		_, err = ParseDatasets(raw)
	case TypeApproval:
		_, err = ParseApproval(raw)
	case TypeException:
		_, err = ParseException(raw)
	case TypeDecision:
		_, err = ParseDecision(raw)
	case TypePolicy:
		_, err = ParsePolicy(raw)
	case TypeDeployment:
		_, err = ParseDeployment(raw)
	case TypeStatus:
		_, err = ParseStatus(raw)
	case TypeVSA:
		_, err = ParseVSA(raw)
	case TypeTestResult:
		_, err = ParseTestResult(raw)
	case TypeVulns:
		_, err = ParseVulns(raw)
	case TypeCycloneDX:
		err = checkHas(raw, "bomFormat", "specVersion")
	case TypeSPDX, TypeSPDX23:
		err = checkSPDX(raw)
	case TypeProvenance:
		err = checkHas(raw, "buildDefinition", "runDetails")
	case TypeOMS:
		err = checkHas(raw, "resources", "serialization")
	case TypeRelease, TypeChannel, TypeTrust, TypeEnvironments:
		err = checkHas(raw)
	default:
		if err := CustomType(predicateType); err != nil {
			return err
		}
		err = checkHas(raw)
	}
	if err != nil {
		return diag.Errorf("predicate %s: %w", predicateType, err)
	}
	return nil
}

// TypeByName gives the predicate type for the short name that the command line uses ("evaluation"), or the type itself
// when it is a known full one.
func TypeByName(name string) (string, bool) {
	for n, t := range names() {
		if n == name || t == name {
			return t, true
		}
	}
	return "", false
}

// NameOf gives the short name of a predicate type, or the type itself when it has none.
func NameOf(predicateType string) string {
	for n, t := range names() {
		if t == predicateType {
			return n
		}
	}
	return predicateType
}

// names is not inlined: a map literal is a kilobyte of code.
//
//go:noinline
func names() map[string]string {
	return map[string]string{
		"release": TypeRelease, "provenance": TypeProvenance, "vsa": TypeVSA, "cyclonedx": TypeCycloneDX, "oms": TypeOMS,
		"test-result": TypeTestResult, "evaluation": TypeEvaluation, "dataset": TypeDataset, "approval": TypeApproval,
		"exception": TypeException, "decision": TypeDecision, "deployment": TypeDeployment, "channel": TypeChannel,
		"vulns": TypeVulns, "spdx": TypeSPDX, "spdx-2.3": TypeSPDX23,
		"status": TypeStatus, "trust": TypeTrust, "environments": TypeEnvironments, "policy": TypePolicy,
	}
}

// ParseEvaluation reads evaluation/v1.
func ParseEvaluation(raw []byte) (*Evaluation, error) {
	e, err := parse[Evaluation](raw)
	if err != nil {
		return nil, err
	}
	for i, m := range e.Metrics {
		at := fmt.Sprintf("metrics[%d]", i)
		if err := first(
			notEmpty(at+".name", m.Name),
			oneOf(at+".direction", m.Direction, "higher", "lower"),
			notEmpty(at+".slice", m.Slice),
			digest(at+".datasetDigest", m.DatasetDigest),
			atLeast(at+".n", m.N, 0),
			oneOf(at+".stage", m.Stage, "", "offline", "shadow", "canary", "on-device"),
			blank(at+".deviceClass", m.DeviceClass),
		); err != nil {
			return nil, err
		}
		if len(m.CI) != 0 && (len(m.CI) != 2 || m.CI[0] > m.CI[1]) {
			return nil, diag.Errorf("%s.ci: not a lower and an upper bound", at)
		}
	}
	return e, timeSet("at", e.At)
}

// ParseDatasets reads dataset/v1.
func ParseDatasets(raw []byte) (*Datasets, error) {
	d, err := parse[Datasets](raw)
	if err != nil {
		return nil, err
	}
	if len(d.Datasets) == 0 {
		return nil, diag.Errorf("datasets: empty")
	}
	for i, s := range d.Datasets {
		at := fmt.Sprintf("datasets[%d]", i)
		if err := first(
			notEmpty(at+".name", s.Name),
			oneOf(at+".role", s.Role, "train", "validation", "test", "calibration", "reference"),
			digest(at+".digest", s.Digest),
			notEmpty(at+".license", s.License),
			atLeast(at+".rows", s.Rows, 0),
			oneOf(at+".personalData", s.PersonalData, "yes", "none", "noAssertion"),
			blank(at+".knownBias", s.KnownBias),
		); err != nil {
			return nil, err
		}
		for j, m := range s.Anonymised {
			if err := notEmpty(fmt.Sprintf("%s.anonymised[%d]", at, j), m); err != nil {
				return nil, err
			}
		}
		for name, x := range map[string]*time.Time{at + ".from": s.From, at + ".to": s.To} {
			if x == nil {
				continue
			}
			if err := writable(name, *x); err != nil {
				return nil, err
			}
		}
		if s.From != nil && s.To != nil && s.To.Before(*s.From) {
			return nil, diag.Errorf("%s.to: before from", at)
		}
	}
	return d, nil
}

// ParseApproval reads approval/v1. It does not look at the clock: expiry is the verifier's.
func ParseApproval(raw []byte) (*Approval, error) {
	a, err := parse[Approval](raw)
	if err != nil {
		return nil, err
	}
	return a, first(notEmpty("role", a.Role), notEmpty("reason", a.Reason), window(a.At, a.Expires),
		environment(a.Environment), oneOf("decision", a.Decision, "", Approved, Rejected))
}

// ParseException reads exception/v1. It does not look at the clock: expiry is the verifier's.
func ParseException(raw []byte) (*Exception, error) {
	e, err := parse[Exception](raw)
	if err != nil {
		return nil, err
	}
	return e, first(ruleName(e.Rule), notEmpty("reason", e.Reason), window(e.At, e.Expires), environment(e.Environment))
}

// ParseDecision reads decision/v1; the input and the decision stay raw, their owners parse them.
func ParseDecision(raw []byte) (*Decision, error) {
	d, err := parse[Decision](raw)
	if err != nil {
		return nil, err
	}
	return d, first(isObject("input", d.Input), isObject("decision", d.Decision), digest("policy", d.Policy))
}

// ParsePolicy reads policy/v1.
func ParsePolicy(raw []byte) (*Policy, error) {
	p, err := parse[Policy](raw)
	if err != nil {
		return nil, err
	}
	return p, first(notEmpty("name", p.Name), digest("digest", p.Digest))
}

// ParseDeployment reads deployment/v1.
func ParseDeployment(raw []byte) (*Deployment, error) {
	d, err := parse[Deployment](raw)
	if err != nil {
		return nil, err
	}
	return d, first(
		notEmpty("target", d.Target),
		oneOf("action", d.Action, "apply", "rollback"),
		notEmpty("env", d.Env),
		digest("digest", d.Digest),
		optDigest("previous", d.Previous),
		timeSet("at", d.At),
	)
}

// Bounds of status/v1.
const (
	MaxStatusEvents     = 64
	MaxStatusQuarantine = 16
	MaxLabels           = 32
)

// ParseStatus reads status/v1.
func ParseStatus(raw []byte) (*Status, error) {
	s, err := parse[Status](raw)
	if err != nil {
		return nil, err
	}
	if err := first(
		keyID("device", s.Device),
		notEmpty("class", s.Class),
		notEmpty("channel", s.Channel),
		notEmpty("model", s.Model),
		atLeast("seq", s.Seq, 0),
		notEmpty("state", s.State),
		optDigest("running", s.Running),
		optDigest("previous", s.Previous),
		timeSet("at", s.At),
		notEmpty("runtime", s.Runtime),
		atLeast("journal.entries", s.Journal.Entries, 0),
		digest("journal.head", s.Journal.Head),
		atLeast("trustVersion", int64(s.Trust), 1),
	); err != nil {
		return nil, err
	}
	if (s.Running == "") != (s.State == StatusEmpty) {
		return nil, diag.Errorf("running: %q while the state is %q", s.Running, s.State)
	}
	if err := s.checkMore(); err != nil {
		return nil, err
	}
	if len(s.Labels) > MaxLabels {
		return nil, diag.Errorf("labels: more than %d", MaxLabels)
	}
	if len(s.Events) > MaxStatusEvents {
		return nil, diag.Errorf("events: more than %d", MaxStatusEvents)
	}
	for i, e := range s.Events {
		at := fmt.Sprintf("events[%d]", i)
		if err := first(
			timeSet(at+".at", e.At),
			notEmpty(at+".kind", e.Kind),
			digest(at+".digest", e.Digest),
			optDigest(at+".from", e.From),
			atLeast(at+".seq", e.Seq, 0),
		); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkMore checks what reports of older devices do not have.
func (s *Status) checkMore() error {
	if len(s.Quarantine) > MaxStatusQuarantine {
		return diag.Errorf("quarantine: more than %d", MaxStatusQuarantine)
	}
	var errs []error
	if s.Expires != nil {
		errs = append(errs, timeSet("expires", *s.Expires))
	}
	if h := s.Health; h != nil {
		errs = append(errs, atLeast("health.requests", h.Requests, 0), atLeast("health.errors", h.Errors, 0), atLeast("health.p50Ns", h.P50, 0), atLeast("health.p99Ns", h.P99, 0))
	}
	for _, n := range []struct {
		at   string
		note *StatusNote
	}{{"rollback", s.Rollback}, {"refusal", s.Refusal}} {
		if x := n.note; x != nil {
			errs = append(errs, timeSet(n.at+".at", x.At), optDigest(n.at+".from", x.From), optDigest(n.at+".to", x.To), optDigest(n.at+".record", x.Record), atLeast(n.at+".seq", x.Seq, 0))
		}
	}
	if w := s.Waiting; w != nil {
		errs = append(errs, digest("waiting.digest", w.Digest), notEmpty("waiting.action", w.Action), timeSet("waiting.since", w.Since))
	}
	for i, q := range s.Quarantine {
		at := fmt.Sprintf("quarantine[%d]", i)
		errs = append(errs, digest(at+".digest", q.Digest), atLeast(at+".seq", q.Seq, 0), timeSet(at+".at", q.At))
	}
	return first(errs...)
}

// ParseVSA reads a SLSA VSA v1 that carries our extension. Keys that neither SLSA nor Waybill define are ignored, as
// SLSA demands of consumers; a VSA without the extension is refused.
func ParseVSA(raw []byte) (*VSA, error) {
	var v VSA
	if err := strictjson.DecodeOpen(raw, &v); err != nil {
		return nil, err
	}
	x := v.Waybill
	if err := first(
		notEmpty("verifier.id", v.Verifier.ID),
		timeSet("timeVerified", v.TimeVerified),
		notEmpty("resourceUri", v.ResourceURI),
		notEmpty("policy.uri", v.Policy.URI),
		oneOf("verificationResult", v.VerificationResult, Passed, Failed),
		notEmpty("environment", x.Environment),
		timeSet("notAfter", x.NotAfter),
		digest("policyDigest", x.PolicyDigest),
		digest("inputDigest", x.InputDigest),
		digest("decisionDigest", x.DecisionDigest),
		notEmpty("basis.channel", x.Basis.Channel),
		atLeast("basis.seq", x.Basis.Seq, 0),
		optDigest("basis.champion", x.Basis.Champion),
		optDigest("prev", x.Prev),
		digests("merges", x.Merges),
		digests("missing", x.Missing),
	); err != nil {
		return nil, err
	}
	switch {
	case len(x.Merges) > 0 && (x.Prev == "" || slices.Contains(x.Merges, x.Prev)):
		return nil, diag.Errorf("merges: stands beside another prev")
	case v.Policy.Digest["sha256"] != x.PolicyDigest.Hex():
		return nil, diag.Errorf("policy.digest is not the extension's policyDigest")
	case v.VerificationResult == Passed && len(x.Violations) != 0:
		return nil, diag.Errorf("verificationResult is PASSED with %d violations", len(x.Violations))
	case v.VerificationResult == Failed && !slices.Equal(v.VerifiedLevels, []string{"FAILED"}):
		return nil, diag.Errorf("verificationResult is FAILED, verifiedLevels are not [FAILED]")
	case !x.NotAfter.After(v.TimeVerified):
		return nil, diag.Errorf("notAfter is not after timeVerified")
	case x.Basis.Seq == 0 && x.Basis.Champion != "":
		return nil, diag.Errorf("basis.champion given for a channel without a record")
	}
	for i, r := range v.InputAttestations {
		if err := digest(fmt.Sprintf("inputAttestations[%d].digest", i), artifact.Digest("sha256:"+r.Digest["sha256"])); err != nil {
			return nil, err
		}
	}
	return &v, nil
}

// checkHas tells whether raw is an object with the given keys.
func checkHas(raw []byte, keys ...string) error {
	if err := strictjson.Check(raw); err != nil {
		return err
	}
	var m map[string]json.RawMessage
	if err := json.Unmarshal(raw, &m); err != nil || m == nil {
		return diag.Errorf("not an object")
	}
	for _, k := range keys {
		if _, ok := m[k]; !ok {
			return diag.Errorf("%s: missing", k)
		}
	}
	return nil
}

func parse[T any](raw []byte) (*T, error) {
	v := new(T)
	if err := strictjson.Decode(raw, v); err != nil {
		return nil, err
	}
	return v, nil
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func notEmpty(name, s string) error {
	if strings.TrimSpace(s) == "" {
		return diag.Errorf("%s: empty", name)
	}
	return nil
}

// ruleName wants the id of one rule: a pattern would waive more than its author says.
func ruleName(s string) error {
	if s == "" || strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_./-") != "" {
		return diag.Errorf("rule: %q is not the id of one rule", s)
	}
	return nil
}

// environment wants the name of an environment, or nothing.
func environment(s string) error {
	if len(s) > 63 || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(s, "-") {
		return diag.Errorf("environment: %q is no environment name", s)
	}
	return nil
}

// blank refuses white space in the place of a text that may be left out.
func blank(name, s string) error {
	if s == "" {
		return nil
	}
	return notEmpty(name, s)
}

func oneOf(name, s string, allowed ...string) error {
	if !slices.Contains(allowed, s) {
		return diag.Errorf("%s: %q is not one of %s", name, s, strings.Join(allowed, ", "))
	}
	return nil
}

func digest(name string, d artifact.Digest) error {
	if _, err := artifact.ParseDigest(string(d)); err != nil {
		return diag.Errorf("%s: %w", name, err)
	}
	return nil
}

func optDigest(name string, d artifact.Digest) error {
	if d == "" {
		return nil
	}
	return digest(name, d)
}

// digests wants a sorted list without doubles.
func digests(name string, ds []artifact.Digest) error {
	for i, d := range ds {
		if err := digest(fmt.Sprintf("%s[%d]", name, i), d); err != nil {
			return err
		}
		if i > 0 && ds[i-1] >= d {
			return diag.Errorf("%s: not sorted, or one is there twice", name)
		}
	}
	return nil
}

func atLeast(name string, n, low int64) error {
	if n < low {
		return diag.Errorf("%s: %d is below %d", name, n, low)
	}
	return nil
}

func timeSet(name string, t time.Time) error {
	if t.IsZero() {
		return diag.Errorf("%s: no time", name)
	}
	return writable(name, t)
}

// writable refuses a time that RFC 3339 cannot write in UTC: an offset can push the last day of year 9999 beyond it.
func writable(name string, t time.Time) error {
	if y := t.UTC().Year(); y < 0 || y > 9999 {
		return diag.Errorf("%s: year %d in UTC", name, y)
	}
	return nil
}

func window(at, expires time.Time) error {
	if err := first(timeSet("at", at), timeSet("expires", expires)); err != nil {
		return err
	}
	if !expires.After(at) {
		return diag.Errorf("expires: not after at")
	}
	return nil
}

func isObject(name string, raw json.RawMessage) error {
	if err := checkHas(raw); err != nil {
		return diag.Errorf("%s: %w", name, err)
	}
	return nil
}

func keyID(name, s string) error {
	if _, err := artifact.ParseDigest("sha256:" + s); err != nil {
		return diag.Errorf("%s: %q is not the hex SHA-256 of a public key", name, s)
	}
	return nil
}
