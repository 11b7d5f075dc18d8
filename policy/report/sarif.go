package report

import (
	"bytes"
	"encoding/json"
	"strings"
	"time"
)

// SARIF 2.1.0, https://docs.oasis-open.org/sarif/sarif/v2.1.0/: the parts that a run of the gate has.
type (
	sarifLog struct {
		Schema  string     `json:"$schema"`
		Version string     `json:"version"`
		Runs    []sarifRun `json:"runs"`
	}
	sarifRun struct {
		Tool        sarifTool         `json:"tool"`
		Automation  sarifAutomation   `json:"automationDetails"`
		Invocations []sarifInvocation `json:"invocations"`
		Results     []sarifResult     `json:"results"`
		ColumnKind  string            `json:"columnKind"`
		Properties  map[string]any    `json:"properties"`
	}
	sarifTool struct {
		Driver sarifDriver `json:"driver"`
	}
	sarifDriver struct {
		Name    string      `json:"name"`
		Version string      `json:"version,omitempty"`
		URI     string      `json:"informationUri"`
		Rules   []sarifRule `json:"rules"`
	}
	sarifRule struct {
		ID         string         `json:"id"`
		Name       string         `json:"name,omitempty"`
		Short      sarifText      `json:"shortDescription"`
		Full       sarifText      `json:"fullDescription"` // code scanning demands it
		Help       *sarifText     `json:"help,omitempty"`
		HelpURI    string         `json:"helpUri,omitempty"`
		Default    sarifDefault   `json:"defaultConfiguration"`
		Properties map[string]any `json:"properties"`
	}
	sarifDefault struct {
		Level string `json:"level"`
	}
	sarifText struct {
		Text     string `json:"text"`
		Markdown string `json:"markdown,omitempty"`
	}
	sarifAutomation struct {
		ID string `json:"id"`
	}
	sarifInvocation struct {
		Successful    bool                `json:"executionSuccessful"`
		EndTime       string              `json:"endTimeUtc,omitempty"`
		Notifications []sarifNotification `json:"toolExecutionNotifications,omitempty"`
	}
	sarifNotification struct {
		Level   string    `json:"level"`
		Message sarifText `json:"message"`
	}
	sarifResult struct {
		RuleID       string             `json:"ruleId"`
		RuleIndex    int                `json:"ruleIndex"`
		Level        string             `json:"level"`
		Message      sarifText          `json:"message"`
		Locations    []sarifLocation    `json:"locations"`
		Fingerprints map[string]string  `json:"partialFingerprints"`
		Suppressions []sarifSuppression `json:"suppressions,omitempty"`
		Properties   map[string]any     `json:"properties"`
	}
	sarifLocation struct {
		Physical sarifPhysical  `json:"physicalLocation"`
		Logical  []sarifLogical `json:"logicalLocations"`
	}
	sarifPhysical struct {
		Artifact sarifArtifact `json:"artifactLocation"`
		Region   sarifRegion   `json:"region"`
	}
	sarifArtifact struct {
		URI string `json:"uri"`
	}
	sarifRegion struct {
		StartLine int `json:"startLine"`
	}
	sarifLogical struct {
		Name      string `json:"name"`
		Qualified string `json:"fullyQualifiedName"`
		Kind      string `json:"kind"`
	}
	sarifSuppression struct {
		Kind          string `json:"kind"`
		Status        string `json:"status"`
		Justification string `json:"justification"`
	}
)

// sarif has a descriptor for each rule of the policy, failed or not, and a result for each violation, warning and
// exception; an exception is suppressed, with its reason.
func (r *Report) sarif() ([]byte, error) {
	run := sarifRun{ColumnKind: "unicodeCodePoints", Results: []sarifResult{}}
	run.Tool.Driver = sarifDriver{Name: "waybill gate", Version: r.Tool, URI: "https://github.com/waybill-ml/waybill", Rules: []sarifRule{}}
	run.Automation.ID = "waybill/gate/" + r.Decision.Environment + "/"
	run.Properties = map[string]any{
		"subject": r.Digest, "ref": clean(r.Ref), "environment": r.Decision.Environment, "allow": r.Decision.Allow, "profile": r.Profile,
		"policyDigest": r.Decision.PolicyDigest, "inputDigest": r.Decision.InputDigest, "verdict": r.Verdict, "record": r.Record,
	}
	inv := sarifInvocation{Successful: r.Decision.Error == ""}
	if !r.Time.IsZero() {
		inv.EndTime = r.Time.UTC().Format(time.RFC3339)
	}
	if r.Decision.Error != "" {
		inv.Notifications = []sarifNotification{{Level: "error", Message: sarifText{Text: clean(r.failure())}}}
	}
	run.Invocations = []sarifInvocation{inv}
	index := map[string]int{}
	add := func(x Rule) {
		index[x.ID] = len(run.Tool.Driver.Rules)
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, descriptor(x))
	}
	for _, x := range r.Decision.Rules {
		add(r.rule(x.ID))
	}
	for _, f := range r.findings() {
		if _, ok := index[f.ID]; !ok {
			add(Rule{ID: f.ID, Title: "The policy could be evaluated", Severity: f.Severity, Remediation: f.Remediation})
		}
		run.Results = append(run.Results, r.result(f, index[f.ID]))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(sarifLog{Schema: "https://json.schemastore.org/sarif-2.1.0.json", Version: "2.1.0", Runs: []sarifRun{run}})
	return b.Bytes(), err
}

func descriptor(x Rule) sarifRule {
	level := "error"
	if x.Severity == "low" || x.Severity == "medium" {
		level = "warning"
	}
	tags := []string{"model-governance"}
	if x.Category != "" {
		tags = append(tags, x.Category)
	}
	d := sarifRule{ID: x.ID, Name: pascal(x.Title), Short: sarifText{Text: clean(x.Title)}, HelpURI: x.Help, Default: sarifDefault{Level: level},
		Properties: map[string]any{"tags": append(tags, x.Standards...), "severity": x.Severity, "security-severity": score(x.Severity), "precision": "very-high", "mandatory": x.Mandatory}}
	d.Full.Text = clean(orDefault(x.Description, x.Title))
	if x.Remediation != "" {
		help := "Fix: " + clean(x.Remediation)
		d.Help = &sarifText{Text: help, Markdown: clean(x.Description) + "\n\n**Fix:** `" + strings.ReplaceAll(clean(x.Remediation), "`", "'") + "`"}
		if len(x.Standards) > 0 {
			d.Help.Markdown += "\n\n**Standards:** " + strings.Join(x.Standards, ", ")
		}
	}
	return d
}

func (r *Report) result(f finding, index int) sarifResult {
	x := sarifResult{RuleID: f.ID, RuleIndex: index, Level: "error", Message: sarifText{Text: clean(f.Message) + "\nFix: " + clean(f.Remediation)},
		Fingerprints: map[string]string{"waybillFinding/v1": r.fingerprint(f)},
		Locations: []sarifLocation{{
			Physical: sarifPhysical{Artifact: sarifArtifact{URI: uriPath(r.file())}, Region: sarifRegion{StartLine: 1}},
			Logical:  []sarifLogical{{Name: clean(r.Model), Qualified: r.Digest, Kind: "resource"}}}},
		Properties: map[string]any{"severity": f.Severity, "evidence": f.Evidence, "error": f.err},
	}
	switch f.kind {
	case warning:
		x.Level = "warning"
	case exception:
		x.Level = "note" // for readers that do not know suppressions
		x.Suppressions = []sarifSuppression{{Kind: "external", Status: "accepted", Justification: clean(f.Message)}}
	}
	if f.Evidence == nil {
		x.Properties["evidence"] = []string{}
	}
	return x
}

// score is the number by which code scanning sorts: the middle of the CVSS band of that name.
func score(severity string) string {
	switch severity {
	case "critical":
		return "9.5"
	case "high":
		return "8.0"
	case "medium":
		return "5.5"
	}
	return "2.0"
}

// pascal makes the name of a descriptor: "Metrics meet their thresholds" becomes MetricsMeetTheirThresholds.
func pascal(title string) string {
	var b strings.Builder
	up := true
	for _, c := range title {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		switch {
		case !alnum:
			up = true
		case up:
			b.WriteString(strings.ToUpper(string(c)))
			up = false
		default:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// uriPath writes a relative path as a URI reference.
func uriPath(p string) string {
	var b strings.Builder
	for _, c := range []byte(strings.ReplaceAll(p, `\`, "/")) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("/-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		const hex = "0123456789ABCDEF"
		b.Write([]byte{'%', hex[c>>4], hex[c&15]})
	}
	return b.String()
}
