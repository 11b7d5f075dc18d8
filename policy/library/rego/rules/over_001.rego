# METADATA
# scope: package
# title: "People watch over it and can step in"
# description: "The verified bill of materials says how people oversee the model and how they step in."
# custom:
#   id: OVER-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: "off", strict: warn, eu-high-risk: deny, edge: "off"}
#   severity: high
#   remediation: "state the oversight: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "EU AI Act Annex IV 2(e)"
#     - "EU AI Act Article 14"
#     - "NIST AI RMF MAP 3.5"
package waybill.rules.over_001

import data.waybill.lib

default pass := false

pass if {
	input.modelCard.bundle != ""
	trim_space(input.modelCard.oversight) != ""
}

fail contains {"msg": "nothing is said about human oversight", "evidence": lib.card_evidence} if not pass
