# METADATA
# scope: package
# title: "The risk tier may ship here"
# description: "The declared risk tier is not prohibited and not above what the environment allows. Where the environment sets a limit, a model without a tier is above it."
# custom:
#   id: RISK-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "declare the tier in a bill of materials: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "EU AI Act Article 5"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.risk_001

default pass := false

rank := {"minimal": 1, "limited": 2, "high": 3, "prohibited": 4}

limit := 3 if input.environment.maxRisk == ""

limit := rank[input.environment.maxRisk] if input.environment.maxRisk != ""

allowed := "high" if input.environment.maxRisk == ""

allowed := input.environment.maxRisk if input.environment.maxRisk != ""

skip := "no risk tier is declared, and the environment sets no limit" if {
	input.model.risk == ""
	input.environment.maxRisk == ""
}

pass if rank[input.model.risk] <= min([limit, 3])

fail contains {"msg": "the risk tier is prohibited: it ships nowhere", "evidence": evidence} if input.model.risk == "prohibited"

fail contains {"msg": sprintf("risk tier %s is above %s, the highest that may ship to %s", [input.model.risk, allowed, input.environment.name]), "evidence": evidence} if {
	input.model.risk != "prohibited"
	rank[input.model.risk] > limit
}

fail contains {"msg": sprintf("no risk tier is declared; %s is the highest that may ship to %s", [allowed, input.environment.name]), "evidence": evidence} if {
	input.model.risk == ""
	input.environment.maxRisk != ""
}

evidence := [d | d := input.model.declared; d != ""]
