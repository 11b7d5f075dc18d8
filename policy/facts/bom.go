package facts

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

// bom reads the parts of a CycloneDX document that rules look at. Vulnerabilities that the document itself analyses as
// not_affected, false_positive or resolved are left out; a severity that it does not state is "unknown".
func (c *collector) bom(e *verify.Evidence) error {
	var doc struct {
		BOMFormat       string `json:"bomFormat"`
		SpecVersion     string `json:"specVersion"`
		Vulnerabilities *[]struct {
			ID      string `json:"id"`
			Ratings []struct {
				Severity string `json:"severity"`
			} `json:"ratings"`
			Analysis struct {
				State string `json:"state"`
			} `json:"analysis"`
			Affects []struct {
				Ref string `json:"ref"`
			} `json:"affects"`
		} `json:"vulnerabilities"`
	}
	if err := json.Unmarshal(e.Predicate, &doc); err != nil {
		return fmt.Errorf("CycloneDX document: %w", err)
	}
	b := string(e.Bundle)
	if s := &c.in.SBOM; !s.Present || b < s.Bundle {
		*s = input.SBOM{Present: true, Format: "cyclonedx", SpecVersion: doc.SpecVersion, Bundle: b}
	}
	if doc.Vulnerabilities == nil {
		return nil
	}
	v := &c.in.Vulnerabilities
	if !v.Scanned || b < v.Bundle {
		v.Scanned, v.Bundle = true, b
	}
	rank := []string{"unknown", "low", "medium", "high", "critical"}
	for _, x := range *doc.Vulnerabilities {
		switch x.Analysis.State {
		case "not_affected", "false_positive", "resolved", "resolved_with_pedigree":
			continue
		}
		f := input.Finding{ID: x.ID, Severity: "unknown"}
		if f.ID == "" {
			f.ID = "unnamed"
		}
		for _, r := range x.Ratings { // the worst rating counts
			if slices.Index(rank, r.Severity) > slices.Index(rank, f.Severity) {
				f.Severity = r.Severity
			} else if r.Severity == "info" || r.Severity == "none" {
				if f.Severity == "unknown" && len(x.Ratings) == 1 {
					f.Severity = "low"
				}
			}
		}
		if len(x.Affects) > 0 {
			f.Package = x.Affects[0].Ref
		}
		v.Findings = append(v.Findings, f)
	}
	return nil
}
