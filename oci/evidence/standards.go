package evidence

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/waybill-ml/waybill/internal/diag"
	"github.com/waybill-ml/waybill/internal/strictjson"
)

// MaxType bounds the length of a predicate type.
const MaxType = 256

// CustomType tells whether a predicate type that Waybill does not know may be one: an absolute URI of printable ASCII,
// in lower case up to the path as the in-toto specification asks for, outside of the names that Waybill keeps for itself.
// Look-alike letters and spelling variants of known types are refused that way.
func CustomType(predicateType string) error {
	bad := func(why string) error { return diag.Errorf("predicate type %.80q %s", predicateType, why) }
	if _, ok := TypeByName(predicateType); ok {
		return bad("is known, not a custom one")
	}
	if len(predicateType) > MaxType {
		return bad(fmt.Sprintf("is longer than %d bytes", MaxType))
	}
	for _, c := range []byte(predicateType) {
		if c <= ' ' || c > '~' || strings.IndexByte(`"\<>^{}|%`+"`", c) >= 0 {
			return bad("holds a character that does not belong in one")
		}
	}
	u, err := url.Parse(predicateType)
	if err != nil || !u.IsAbs() || u.Host == "" || u.User != nil || u.Fragment != "" || u.RawQuery != "" {
		return bad("is not an absolute URI such as https://example.com/review/v1")
	}
	if head := u.Scheme + "://" + u.Host; !strings.HasPrefix(predicateType, head) || head != strings.ToLower(head) {
		return bad("has capitals in scheme or host")
	}
	low := strings.TrimRight(strings.ToLower(predicateType), "/")
	if strings.HasPrefix(low+"/", strings.TrimSuffix(base, "predicate/")) {
		return bad("lies under a name that Waybill keeps for itself")
	}
	for _, t := range names() {
		if strings.EqualFold(strings.TrimRight(t, "/"), low) {
			return bad(fmt.Sprintf("is a variant spelling of %s", t))
		}
	}
	return nil
}

// TestResult is in-toto's test-result v0.1.
type TestResult struct {
	Result        string               `json:"result"` // PASSED, WARNED, FAILED
	Configuration []ResourceDescriptor `json:"configuration"`
	URL           string               `json:"url,omitempty"`
	PassedTests   []string             `json:"passedTests,omitempty"`
	WarnedTests   []string             `json:"warnedTests,omitempty"`
	FailedTests   []string             `json:"failedTests,omitempty"`
}

// ResourceDescriptor is in-toto's description of one resource; one of URI, Digest and Content is set.
type ResourceDescriptor struct {
	Name             string            `json:"name,omitempty"`
	URI              string            `json:"uri,omitempty"`
	Digest           map[string]string `json:"digest,omitempty"`
	Content          string            `json:"content,omitempty"` // base64
	DownloadLocation string            `json:"downloadLocation,omitempty"`
	MediaType        string            `json:"mediaType,omitempty"`
	Annotations      map[string]any    `json:"annotations,omitempty"`
}

// ParseTestResult reads test-result v0.1. Keys that in-toto does not define are ignored, as it demands of readers; a
// result that its own lists of tests contradict is refused.
func ParseTestResult(raw []byte) (*TestResult, error) {
	var r TestResult
	if err := strictjson.DecodeOpen(raw, &r); err != nil {
		return nil, err
	}
	if err := oneOf("result", r.Result, "PASSED", "WARNED", "FAILED"); err != nil {
		return nil, err
	}
	for i, c := range r.Configuration {
		if c.URI == "" && len(c.Digest) == 0 && c.Content == "" {
			return nil, diag.Errorf("configuration[%d]: none of uri, digest and content is given", i)
		}
	}
	for _, l := range []struct {
		name  string
		tests []string
	}{{"passedTests", r.PassedTests}, {"warnedTests", r.WarnedTests}, {"failedTests", r.FailedTests}} {
		for i, t := range l.tests {
			if err := notEmpty(fmt.Sprintf("%s[%d]", l.name, i), t); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case r.Result != "FAILED" && len(r.FailedTests) > 0:
		return nil, diag.Errorf("result: %s, with %d failedTests", r.Result, len(r.FailedTests))
	case r.Result == "PASSED" && len(r.WarnedTests) > 0:
		return nil, diag.Errorf("result: PASSED, with %d warnedTests", len(r.WarnedTests))
	}
	return &r, nil
}

// Vulns is in-toto's vulns v0.2: what one scan found.
type Vulns struct {
	Scanner  VulnScanner `json:"scanner"`
	Metadata struct {
		ScanStartedOn  time.Time `json:"scanStartedOn,omitzero"`
		ScanFinishedOn time.Time `json:"scanFinishedOn,omitzero"`
	} `json:"metadata"`
}

// VulnScanner tells what scanned, with which database, and the result.
type VulnScanner struct {
	URI     string `json:"uri"`
	Version string `json:"version,omitempty"`
	DB      struct {
		URI        string    `json:"uri,omitempty"`
		Version    string    `json:"version,omitempty"`
		LastUpdate time.Time `json:"lastUpdate,omitzero"`
	} `json:"db"`
	Result []VulnResult `json:"result"` // present, even when it is empty: a scan without one found who knows what
}

// VulnResult is one vulnerability.
type VulnResult struct {
	ID       string `json:"id"`
	Severity []struct {
		Method string `json:"method"`
		Score  string `json:"score"`
	} `json:"severity,omitempty"`
	Annotations []map[string]any `json:"annotations,omitempty"`
}

// ParseVulns reads vulns v0.2. Keys that in-toto does not define are ignored, as it demands of readers; a scan without the
// list of its results, or without the time at which it ended, is refused.
func ParseVulns(raw []byte) (*Vulns, error) {
	var v Vulns
	if err := strictjson.DecodeOpen(raw, &v); err != nil {
		return nil, err
	}
	if err := first(notEmpty("scanner.uri", v.Scanner.URI), timeSet("metadata.scanFinishedOn", v.Metadata.ScanFinishedOn),
		writable("scanner.db.lastUpdate", v.Scanner.DB.LastUpdate)); err != nil {
		return nil, err
	}
	switch {
	case v.Scanner.Result == nil:
		return nil, diag.Errorf("scanner.result: missing")
	case v.Metadata.ScanFinishedOn.Before(v.Metadata.ScanStartedOn):
		return nil, diag.Errorf("metadata.scanFinishedOn: before scanStartedOn")
	}
	for i, r := range v.Scanner.Result {
		if err := notEmpty(fmt.Sprintf("scanner.result[%d].id", i), r.ID); err != nil {
			return nil, err
		}
	}
	return &v, nil
}

// checkSPDX wants the version: spdxVersion in 2.x, a graph of elements in 3.x.
func checkSPDX(raw []byte) error {
	if err := checkHas(raw, "@graph"); err == nil {
		return nil
	}
	return checkHas(raw, "spdxVersion", "packages")
}

// ClaimedTime is when a statement says that it was made, by its own word: the zero time when its type carries none or it
// names none that can be written in UTC. It proves nothing; only a verified timestamp does.
func ClaimedTime(s *Statement) time.Time {
	if t := claimedTime(s); writable("", t) == nil {
		return t
	}
	return time.Time{}
}

func claimedTime(s *Statement) time.Time {
	var p struct {
		At           time.Time `json:"at"`           // evaluation, approval, exception, deployment, status
		TimeVerified time.Time `json:"timeVerified"` // VSA
		Issued       time.Time `json:"issued"`       // channel, trust
		Metadata     struct {
			Timestamp      time.Time `json:"timestamp"`      // CycloneDX
			ScanFinishedOn time.Time `json:"scanFinishedOn"` // vulns
		} `json:"metadata"`
		CreationInfo struct {
			Created time.Time `json:"created"`
		} `json:"creationInfo"` // SPDX 2
		Graph []struct {
			Type    string    `json:"type"`
			Created time.Time `json:"created"`
		} `json:"@graph"` // SPDX 3: of its CreationInfo elements the newest
		RunDetails struct {
			Metadata struct {
				FinishedOn time.Time `json:"finishedOn"`
				StartedOn  time.Time `json:"startedOn"`
			} `json:"metadata"`
		} `json:"runDetails"` // provenance
	}
	switch s.PredicateType {
	case TypeEvaluation, TypeApproval, TypeException, TypeDeployment, TypeStatus, TypeVSA, TypeChannel, TypeTrust, TypeCycloneDX, TypeProvenance, TypeVulns, TypeSPDX, TypeSPDX23:
	default:
		return time.Time{}
	}
	if err := json.Unmarshal(s.Predicate, &p); err != nil {
		return time.Time{}
	}
	switch s.PredicateType {
	case TypeVSA:
		return p.TimeVerified
	case TypeChannel, TypeTrust:
		return p.Issued
	case TypeCycloneDX:
		return p.Metadata.Timestamp
	case TypeVulns:
		return p.Metadata.ScanFinishedOn
	case TypeSPDX, TypeSPDX23:
		at := p.CreationInfo.Created
		for _, e := range p.Graph {
			if e.Type == "CreationInfo" && e.Created.After(at) {
				at = e.Created
			}
		}
		return at
	case TypeProvenance:
		if !p.RunDetails.Metadata.FinishedOn.IsZero() {
			return p.RunDetails.Metadata.FinishedOn
		}
		return p.RunDetails.Metadata.StartedOn
	}
	return p.At
}

// ErrSignatures says that a bundle carries no signature, or several. Several would leave it to each reader which one counts.
var ErrSignatures = errors.New("not exactly one signature")
