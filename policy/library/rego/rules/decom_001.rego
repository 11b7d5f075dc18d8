# METADATA
# scope: package
# title: "The model is not retired"
# description: "The bill of materials does not say that the model is retired."
# custom:
#   id: DECOM-001
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "ship its successor; or declare it active again: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "NIST AI RMF GOVERN 1.7"
#     - "NIST AI RMF MANAGE 2.4"
package waybill.rules.decom_001

default pass := false

skip := "no bill of materials declares a status" if input.model.status == ""

pass if input.model.status == "active"

fail contains {"msg": sprintf("model %s is declared %s", [input.model.name, input.model.status]), "evidence": [d | d := input.model.declared; d != ""]} if {
	input.model.status != ""
	input.model.status != "active"
}
