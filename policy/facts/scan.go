package facts

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/oci/evidence"
	"github.com/waybill-ml/waybill/oci/verify"
	"github.com/waybill-ml/waybill/policy/input"
)

type (
	cdxVulnerability struct {
		ID      string `json:"id,omitempty"`
		Ratings []struct {
			Severity string   `json:"severity,omitempty"`
			Score    *float64 `json:"score,omitempty"`
			Method   string   `json:"method,omitempty"`
		} `json:"ratings,omitempty"`
		Analysis struct {
			State string `json:"state,omitempty"`
		} `json:"analysis,omitempty"`
		Affects []cdxAffected `json:"affects,omitempty"`
	}
	cdxAffected struct {
		Ref      string `json:"ref,omitempty"`
		Versions []struct {
			Version string `json:"version,omitempty"`
			Status  string `json:"status,omitempty"`
		} `json:"versions,omitempty"`
	}
)

// scan is what one verified document found.
type scan struct {
	bundle   string
	at       time.Time // zero when nothing tells
	scanner  string
	database string
	findings []finding
}

type finding struct {
	input.Finding
	ref string // of the component as the document calls it
}

// opinion is a statement about a finding by a document that is no scan itself.
type opinion struct {
	id, ref, state string // ref "": wherever the vulnerability is found
	at             time.Time
	bundle         string
}

// worst keeps the worse of two severities; "unknown" gives way to any that is known.
func worst(a, b string) string {
	rank := []string{"unknown", "low", "medium", "high", "critical"}
	if slices.Index(rank, b) > slices.Index(rank, a) {
		return b
	}
	return a
}

// severity reads a word, or a CVSS base score by its bands. What is neither is "unknown".
func severity(s string) string {
	switch s = strings.ToLower(strings.TrimSpace(s)); s {
	case "critical", "high", "medium", "low":
		return s
	case "important":
		return "high"
	case "moderate":
		return "medium"
	case "info", "none", "negligible", "informational":
		return "low"
	}
	v, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || !(v >= 0 && v <= 10):
		return "unknown"
	case v >= 9:
		return "critical"
	case v >= 7:
		return "high"
	case v >= 4:
		return "medium"
	}
	return "low"
}

// vexState brings the states of CycloneDX, OpenVEX and CSAF into one list. What it does not know excuses nothing.
func vexState(s string) string {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "not_affected", "false_positive", "known_not_affected":
		return "not_affected"
	case "resolved", "resolved_with_pedigree", "fixed":
		return "fixed"
	case "exploitable", "affected", "known_affected":
		return "affected"
	case "in_triage", "under_investigation":
		return "under_investigation"
	}
	return ""
}

// scan reads the vulnerabilities of a CycloneDX document: a scan, or, when it lists no components and every entry carries an
// analysis, opinions about what scans find.
func (d *cdx) scan(b *bill) (*scan, []opinion, error) {
	if d.Vulnerabilities == nil {
		return nil, nil, nil
	}
	list := *d.Vulnerabilities
	only := len(d.Components) == 0 && len(list) > 0
	for _, v := range list {
		only = only && v.Analysis.State != ""
	}
	if only {
		var out []opinion
		for _, v := range list {
			o := opinion{id: v.ID, state: vexState(v.Analysis.State), at: b.at, bundle: b.bundle}
			if o.state == "" || v.ID == "" {
				continue
			}
			if len(v.Affects) == 0 {
				out = append(out, o)
			}
			for _, a := range v.Affects {
				if o.ref = a.Ref; o.ref != "" && len(a.Versions) == 0 { // ranges of versions are not read: they excuse nothing
					out = append(out, o)
				}
			}
		}
		return nil, out, nil
	}
	names := map[string]*cdxComponent{}
	note := func(x *cdxComponent) {
		if x.Ref != "" {
			names[x.Ref] = x
		}
	}
	if m := d.Metadata.Component; m != nil {
		note(m)
		walkComponents(m.Components, note)
	}
	walkComponents(d.Components, note)
	s := &scan{bundle: b.bundle, at: b.at, scanner: tools(d.Metadata.Tools)}
	for _, p := range d.Metadata.Properties {
		if p.Name == "waybill:database-at" {
			var err error
			if s.database, err = timeText(p.Value); err != nil {
				return nil, nil, fmt.Errorf("%s: %w", p.Name, err)
			}
		}
	}
	for _, v := range list {
		f := finding{Finding: input.Finding{ID: cmp.Or(strings.TrimSpace(v.ID), "unnamed"), Severity: "unknown", State: vexState(v.Analysis.State)}}
		for _, r := range v.Ratings {
			x := severity(r.Severity)
			if r.Severity == "" && r.Score != nil && (r.Method == "" || strings.HasPrefix(r.Method, "CVSS")) {
				x = severity(strconv.FormatFloat(*r.Score, 'g', -1, 64))
			}
			f.Severity = worst(f.Severity, x)
		}
		if len(v.Affects) == 0 {
			s.findings = append(s.findings, f)
		}
		for _, a := range v.Affects {
			f := f
			f.ref, f.Package = a.Ref, a.Ref
			if x := names[a.Ref]; x != nil {
				f.Package, f.Version = x.fullName(), x.Version
				f.ref = cmp.Or(x.PURL, a.Ref)
			} else if n, ver, ok := purl(a.Ref); ok {
				f.Package, f.Version = n, ver
			}
			for _, ver := range a.Versions {
				if ver.Status == "unaffected" && f.FixedIn == "" {
					f.FixedIn = ver.Version
				}
			}
			s.findings = append(s.findings, f)
			if len(s.findings) > input.MaxItems {
				return nil, nil, fmt.Errorf("more than %d findings", input.MaxItems)
			}
		}
	}
	return s, nil, nil
}

// tools names what made a document: {components: [...]} since 1.5, before that a list.
func tools(raw json.RawMessage) string {
	type tool struct {
		Vendor  string `json:"vendor"`
		Name    string `json:"name"`
		Version string `json:"version"`
	}
	var now struct {
		Components []tool `json:"components"`
	}
	var list []tool
	if len(raw) == 0 {
		return ""
	}
	if json.Unmarshal(raw, &now) == nil {
		list = now.Components
	} else if json.Unmarshal(raw, &list) != nil {
		return ""
	}
	var out []string
	for _, t := range list {
		if t.Name != "" {
			out = append(out, named(t.Name, t.Version))
		}
	}
	return strings.Join(out, ", ")
}

// vulns reads in-toto's vulns v0.2. Its annotations are free; package, version, fixedIn and state are taken from them.
func (c *collector) vulns(e *verify.Evidence) error {
	v, err := evidence.ParseVulns(e.Predicate)
	if err != nil {
		return err
	}
	s := &scan{bundle: string(e.Bundle), at: v.Metadata.ScanFinishedOn.UTC().Truncate(time.Second), scanner: v.Scanner.URI, database: stated(v.Scanner.DB.LastUpdate)}
	if v.Scanner.Version != "" && !strings.HasSuffix(s.scanner, "@"+v.Scanner.Version) {
		s.scanner += "@" + v.Scanner.Version
	}
	for _, r := range v.Scanner.Result {
		f := finding{Finding: input.Finding{ID: r.ID, Severity: "unknown"}}
		for _, x := range r.Severity {
			if !strings.Contains(strings.ToLower(x.Method), "epss") { // a probability, not a severity
				f.Severity = worst(f.Severity, severity(x.Score))
			}
		}
		for _, a := range r.Annotations {
			for key, into := range map[string]*string{"package": &f.Package, "version": &f.Version, "fixedIn": &f.FixedIn, "state": &f.State, "purl": &f.ref} {
				if t, ok := a[key].(string); ok && *into == "" {
					*into = t
				}
			}
		}
		f.State = vexState(f.State)
		if n, ver, ok := purl(f.ref); ok {
			f.Package, f.Version = cmp.Or(f.Package, n), cmp.Or(f.Version, ver)
		}
		s.findings = append(s.findings, f)
	}
	if err := input.Fits(s); err != nil {
		return err
	}
	c.scans = append(c.scans, s)
	return nil
}

// settleScans takes the newest scan; of several that are equally new, as those without a time are, all findings. What verified
// documents say about a finding (VEX) becomes its state, the newest word last; it is never left out.
func (c *collector) settleScans() {
	if len(c.scans) == 0 {
		return
	}
	slices.SortFunc(c.scans, func(a, b *scan) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.bundle, b.bundle)) })
	slices.SortFunc(c.vex, func(a, b opinion) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.bundle, b.bundle)) })
	first := c.scans[0]
	v := &c.in.Vulnerabilities
	v.Scanned, v.Bundle, v.ScannedAt, v.DatabaseAt = true, first.bundle, stated(first.at), first.database
	scanners := []string{}
	for _, s := range c.scans {
		if !s.at.Equal(first.at) {
			break
		}
		if s.scanner != "" && !slices.Contains(scanners, s.scanner) {
			scanners = append(scanners, s.scanner)
		}
		if s.database < v.DatabaseAt { // the oldest knowledge, "" before all
			v.DatabaseAt = s.database
		}
		for _, f := range s.findings {
			for _, o := range c.vex {
				if o.id == f.ID && o.covers(f) {
					f.State = o.state
				}
			}
			v.Findings = append(v.Findings, f.Finding)
		}
	}
	v.Scanner = clip(strings.Join(scanners, ", "), input.MaxText)
	if len(v.Findings) > input.MaxItems {
		c.problem("evidence", "the newest scans have %d findings, limit %d", len(v.Findings), input.MaxItems)
		v.Findings = v.Findings[:input.MaxItems] // the problem denies
	}
}

// covers tells whether an opinion is about the component of a finding: no component named, the same reference, or a
// BOM-Link (urn:cdx:serial/version#reference) to it.
func (o opinion) covers(f finding) bool {
	ref := o.ref
	if strings.HasPrefix(ref, "urn:cdx:") {
		_, ref, _ = strings.Cut(ref, "#")
		if ref == "" {
			return false
		}
	}
	return ref == "" || f.ref != "" && ref == f.ref
}
