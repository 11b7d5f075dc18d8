# METADATA
# scope: package
# title: "A risk tier is declared"
# description: "The bill of materials says which risk tier the model belongs to."
# custom:
#   id: RISK-002
#   category: people
#   since: "1.0"
#   profiles: {baseline: "off", strict: deny, eu-high-risk: deny, edge: "off"}
#   severity: high
#   remediation: "declare the tier in a bill of materials: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "EU AI Act Article 6"
#     - "NIST AI RMF MAP 1.1"
package waybill.rules.risk_002

default pass := false

pass if {
	input.model.declared != ""
	input.model.risk in {"minimal", "limited", "high", "prohibited"}
}

fail contains {"msg": sprintf("no verified bill of materials declares the risk tier of %s", [input.model.name]), "evidence": evidence} if not pass

evidence := [d | d := input.model.declared; d != ""]
