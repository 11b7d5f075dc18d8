package facts

import (
	"fmt"
	"slices"
	"strings"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// file puts what a verified statement says into the document: all of it, or nothing when there is an error.
func (c *collector) file(e *verify.Evidence, env string) error {
	switch e.PredicateType {
	case evidence.TypeEvaluation:
		return add(c.seam, &c.in.Metrics, e, metrics)
	case evidence.TypeDataset:
		return add(c.seam, &c.in.Datasets, e, datasets)
	case evidence.TypeTestResult:
		return add(c.seam, &c.in.Tests, e, tests)
	case evidence.TypeProvenance:
		return add(c.seam, &c.in.Provenance, e, func(e *verify.Evidence) ([]input.Provenance, error) {
			p, err := slsa(e)
			return []input.Provenance{p}, err
		})
	case evidence.TypeApproval:
		return add(c.seam, &c.in.Approvals, e, approval)
	case evidence.TypeException:
		return add(c.seam, &c.in.Exceptions, e, exception)
	case evidence.TypeCycloneDX:
		return c.cyclonedx(e)
	case evidence.TypeSPDX, evidence.TypeSPDX23:
		return c.spdx(e)
	case evidence.TypeVulns:
		return c.vulns(e)
	case evidence.TypeVSA:
		return c.verdict(e, env)
	}
	return nil
}

// add appends what read makes of a statement, when it fits.
func add[T any](s seam, list *[]T, e *verify.Evidence, read func(*verify.Evidence) ([]T, error)) error {
	xs, err := read(e)
	if err == nil && s.on("fits") {
		err = input.Fits(xs)
	}
	if err != nil {
		return err
	}
	if len(*list)+len(xs) > input.MaxItems {
		return fmt.Errorf("the artifact's statements of this type have more than %d entries", input.MaxItems)
	}
	*list = append(*list, xs...)
	return nil
}

func metrics(e *verify.Evidence) ([]input.Metric, error) {
	ev, err := evidence.ParseEvaluation(e.Predicate)
	if err != nil {
		return nil, err
	}
	var out []input.Metric
	for _, m := range ev.Metrics {
		out = append(out, input.Metric{Name: m.Name, Value: m.Value, Direction: m.Direction, Slice: m.Slice, N: m.N,
			CI: append([]float64{}, m.CI...), Dataset: string(m.DatasetDigest), At: ev.At, Bundle: string(e.Bundle), KeyID: e.KeyID,
			Stage: m.Stage, Class: m.DeviceClass})
	}
	return out, nil
}

func datasets(e *verify.Evidence) ([]input.Dataset, error) {
	ds, err := evidence.ParseDatasets(e.Predicate)
	if err != nil {
		return nil, err
	}
	var out []input.Dataset
	for _, x := range ds.Datasets {
		d := input.Dataset{Name: x.Name, Role: x.Role, Digest: string(x.Digest), URI: x.URI, License: x.License, Rows: x.Rows,
			PersonalData: x.PersonalData, Bundle: string(e.Bundle), Anonymised: slices.Clone(x.Anonymised), KnownBias: x.KnownBias}
		if x.From != nil {
			d.From = stated(*x.From)
		}
		if x.To != nil {
			d.To = stated(*x.To)
		}
		out = append(out, d)
	}
	return out, nil
}

func tests(e *verify.Evidence) ([]input.TestResult, error) {
	r, err := evidence.ParseTestResult(e.Predicate)
	if err != nil {
		return nil, err
	}
	t := input.TestResult{Bundle: string(e.Bundle), Signer: signer(e), Result: r.Result, Passed: r.PassedTests, Warned: r.WarnedTests,
		Failed: r.FailedTests, At: stated(e.At), TimeSource: string(e.TimeSource)}
	for _, x := range r.Configuration {
		if strings.TrimSpace(x.Name) != "" {
			t.Configuration = append(t.Configuration, x.Name)
		}
	}
	return []input.TestResult{t}, nil
}

func approval(e *verify.Evidence) ([]input.Approval, error) {
	a, err := evidence.ParseApproval(e.Predicate)
	if err != nil {
		return nil, err
	}
	return []input.Approval{{Role: a.Role, Granted: slices.Contains(e.ApproverRoles, a.Role), Reason: a.Reason, At: a.At, Expires: a.Expires,
		Bundle: string(e.Bundle), Signer: signer(e), Environment: a.Environment, Rejected: a.Rejects()}}, nil
}

func exception(e *verify.Evidence) ([]input.Exception, error) {
	x, err := evidence.ParseException(e.Predicate)
	if err != nil {
		return nil, err
	}
	return []input.Exception{{Rule: x.Rule, Reason: x.Reason, At: x.At, Expires: x.Expires, Ticket: x.Ticket, Bundle: string(e.Bundle),
		Roles: slices.Clone(e.ApproverRoles), Signer: signer(e), Environment: x.Environment}}, nil
}

func (c *collector) verdict(e *verify.Evidence, env string) error {
	v, err := c.parseVerdict(e, env)
	if err != nil {
		return err
	}
	x := v.Waybill
	fact := input.Verdict{Environment: x.Environment, Result: v.VerificationResult, NotAfter: x.NotAfter, PolicyDigest: string(x.PolicyDigest),
		ResourceURI: v.ResourceURI, Bundle: string(e.Bundle), KeyID: e.KeyID, At: v.TimeVerified, Prev: string(x.Prev)}
	if err := input.Fits(fact); err != nil {
		return err
	}
	c.in.Verdicts = append(c.in.Verdicts, fact)
	if env == c.env.Name {
		c.past = append(c.past, evidence.Verdict{Bundle: e.Bundle, VSA: v})
	}
	return nil
}

// parseVerdict reads a verdict of the gate for one environment.
func (s seam) parseVerdict(e *verify.Evidence, env string) (*evidence.VSA, error) {
	v, err := evidence.ParseVSA(e.Predicate)
	if err != nil {
		return nil, err
	}
	if s.on("gate-id") && v.Verifier.ID != evidence.GateID {
		return nil, fmt.Errorf("the verdict is of verifier %q, not %q", v.Verifier.ID, evidence.GateID)
	}
	if s.on("verdict-env") && v.Waybill.Environment != env {
		return nil, fmt.Errorf("the verdict is for environment %s, not %s", v.Waybill.Environment, env)
	}
	return v, nil
}
