// Package audit answers for one digest: what it is, who signed it, from which data and with which figures, which policy
// let it pass, where it ran and why it was rolled back. Every answer is a line with a status and the digests of the
// bundles behind it: proven (a signature by a key that may say so), claimed (somebody said so, nothing proves it), missing
// (nobody said so), contradicted (evidence speaks against it). It writes nothing and asks no network but its Source.
package audit

import (
	"time"

	"github.com/waybill-ml/waybill/oci/artifact"
	"github.com/waybill-ml/waybill/policy/gate"
)

// Schema is the value of Report.Schema.
const Schema = "https://github.com/waybill-ml/waybill/schema/audit-show/v1"

// Status of a line.
type Status string

// Statuses.
const (
	Proven       Status = "proven"
	Claimed      Status = "claimed"
	Missing      Status = "missing"
	Contradicted Status = "contradicted"
)

// Report is the whole answer. Lists are never null. Equal evidence gives an equal report but for At.
type Report struct {
	Schema     string          `json:"schema"`
	Digest     artifact.Digest `json:"digest"`
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	At         time.Time       `json:"at"`
	Trust      TrustRef        `json:"trust"`
	Sections   []Section       `json:"sections"`
	Statements []Statement     `json:"statements"` // everything attached, verified or not; then records and device reports that lines rest on
	Replays    []Replay        `json:"replays"`    // of every recorded decision
	Counts     map[Status]int  `json:"counts"`
}

// TrustRef names the trust document that the evidence was verified against.
type TrustRef struct {
	Version int             `json:"version"`
	Digest  artifact.Digest `json:"digest"`
}

// Section is one question.
type Section struct {
	Name  string `json:"name"` // WHAT WHO WHEN DATA QUALITY CODE POLICY WHERE GAPS
	Title string `json:"title"`
	Lines []Line `json:"lines"`
}

// Line is one answer.
type Line struct {
	Text   string            `json:"text"`
	Status Status            `json:"status"`
	Proof  []artifact.Digest `json:"proof"` // bundles, or the manifest itself
	Refs   []artifact.Digest `json:"refs"`  // in full, what the text abbreviates
	Note   string            `json:"note,omitempty"`
}

// Statement is one attached bundle.
type Statement struct {
	Bundle        artifact.Digest `json:"bundle"`
	PredicateType string          `json:"predicateType"`
	Name          string          `json:"name"` // short
	Verified      bool            `json:"verified"`
	Reason        string          `json:"reason"`
	KeyID         string          `json:"keyId"`
	KeyName       string          `json:"keyName"`
	Role          string          `json:"role"`
}

// Replay is a recorded decision and what comes out when it is evaluated again.
type Replay struct {
	Record  artifact.Digest `json:"record"` // bundle
	Verdict artifact.Digest `json:"verdict"`
	Policy  artifact.Digest `json:"policy"`
	Done    bool            `json:"done"` // false: the policy is not at hand
	Note    string          `json:"note"`
	Result  *gate.Replay    `json:"result,omitempty"`
}

// add files a line; it counts.
func (r *Report) add(section string, l Line) {
	if l.Proof == nil {
		l.Proof = []artifact.Digest{}
	}
	if l.Refs == nil {
		l.Refs = []artifact.Digest{}
	}
	r.Counts[l.Status]++
	for i := range r.Sections {
		if r.Sections[i].Name == section {
			r.Sections[i].Lines = append(r.Sections[i].Lines, l)
			return
		}
	}
}

func newReport() *Report {
	r := &Report{Schema: Schema, Statements: []Statement{}, Replays: []Replay{}, Counts: map[Status]int{Proven: 0, Claimed: 0, Missing: 0, Contradicted: 0}}
	for _, s := range [][2]string{
		{"WHAT", "What it is"}, {"WHO", "Who answers for it"}, {"WHEN", "When"}, {"DATA", "From which data"}, {"QUALITY", "How good it is"},
		{"CODE", "What it was made with"}, {"POLICY", "Which policy let it pass"}, {"WHERE", "Where it ran"}, {"GAPS", "What nobody has shown"},
	} {
		r.Sections = append(r.Sections, Section{Name: s[0], Title: s[1], Lines: []Line{}})
	}
	return r
}
