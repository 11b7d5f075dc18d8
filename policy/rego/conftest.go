package rego

import (
	"encoding/json"
	"fmt"
	"strings"
)

// ConftestFile is where the adapter stands beside the policy's own files.
const ConftestFile = "conftest.rego"

// Conftest writes an adapter with which conftest runs the rules of ours: package main, with deny and warn for what fails
// in the profile that the facts name. It knows neither the facts' schema nor exceptions: what it says is a preview, and
// the gate decides. "" when the policy has no rule of ours; rules in conftest's own shape need no adapter.
func (p *Policy) Conftest() (string, error) {
	type row struct {
		ID          string            `json:"id"`
		Title       string            `json:"title"`
		Severity    string            `json:"severity"`
		Level       string            `json:"level"`
		Mandatory   bool              `json:"mandatory"`
		Remediation string            `json:"remediation"`
		Profiles    map[string]string `json:"profiles"`
	}
	table := map[string]row{}
	for _, r := range p.Rules() {
		if name, ok := strings.CutPrefix(r.Package, rulesPrefix); ok {
			if r.Profiles == nil {
				r.Profiles = map[string]string{}
			}
			table[name] = row{r.ID, r.Title, r.Severity, r.Level, r.Mandatory, r.Remediation, r.Profiles}
		}
	}
	if len(table) == 0 {
		return "", nil
	}
	b, err := json.MarshalIndent(table, "", "\t")
	if err != nil {
		return "", fmt.Errorf("conftest: %w", err)
	}
	return strings.Replace(conftestAdapter, "RULES", string(b), 1), nil
}

const conftestAdapter = `# Written by waybill policy conftest; do not edit. What conftest says with it is a preview: the gate checks the facts
# against their schema first, verifies them itself, and knows exceptions.
package main

rules := RULES

level(r) := "deny" if {
	r.mandatory
} else := "off" if {
	stated(r) == "off"
} else := "off" if {
	some e in input.environment.enforce
	e.rule == r.id
	e.level == "off"
} else := "warn" if {
	some e in input.environment.enforce
	e.rule == r.id
} else := stated(r)

stated(r) := r.profiles[input.environment.profile] if {
	true
} else := r.level

skipped(name) if data.waybill.rules[name].skip

proven(name) if {
	data.waybill.rules[name].pass == true
	count(data.waybill.rules[name].fail) == 0
}

messages(name) := {f.msg | some f in data.waybill.rules[name].fail}

texts(name) := messages(name) if {
	count(messages(name)) > 0
} else := {concat("", ["not proven: ", rules[name].title])}

found contains {"msg": concat("", [r.id, ": ", text]), "id": r.id, "severity": r.severity, "level": level(r), "remediation": r.remediation} if {
	some name, r in rules
	level(r) != "off"
	not skipped(name)
	not proven(name)
	some text in texts(name)
}

deny contains f if {
	some f in found
	f.level == "deny"
}

warn contains f if {
	some f in found
	f.level == "warn"
}

# Facts without these are no facts; nothing could be proven with them.
deny contains {"msg": "INPUT-000: not a facts document", "id": "INPUT-000", "severity": "critical", "level": "deny", "remediation": "waybill facts REF --env ENV"} if not facts

facts if {
	input.environment.profile != ""
	input.artifact.digest != ""
}
`
