// Package decision is the outcome of a gate evaluation as data. It imports only the standard library.
package decision

// Schema is the value of Decision.Schema.
const Schema = "https://github.com/waybill-ml/waybill/schema/decision/v1"

// Status of one rule.
type Status string

// Statuses.
const (
	Pass     Status = "pass"
	Fail     Status = "fail"
	Skipped  Status = "skipped"
	Excepted Status = "excepted"
	Errored  Status = "error"
)

// Decision is the whole outcome. Slices are sorted by rule id and never null; equal evaluations give equal bytes.
type Decision struct {
	Schema       string   `json:"schema"`
	Allow        bool     `json:"allow"`
	PolicyDigest string   `json:"policyDigest"`
	InputDigest  string   `json:"inputDigest"`
	Environment  string   `json:"environment"`
	Violations   []Result `json:"violations"`
	Warnings     []Result `json:"warnings"`
	Exceptions   []Result `json:"exceptions"`
	Rules        []Rule   `json:"rules"`           // every rule that was evaluated
	Error        string   `json:"error,omitempty"` // why evaluation itself failed; then Allow is false
}

// Result is one violation, warning or exception.
type Result struct {
	ID          string   `json:"id"`
	Severity    string   `json:"severity"`
	Message     string   `json:"message"`
	Remediation string   `json:"remediation"`
	Evidence    []string `json:"evidence"` // bundle digests
	Standards   []string `json:"standards"`
}

// Rule is the outcome of one rule.
type Rule struct {
	ID       string `json:"id"`
	Title    string `json:"title"`
	Severity string `json:"severity"`
	Status   Status `json:"status"`
}
