# METADATA
# scope: package
# title: "Fairness is assessed for each group"
# description: "The verified bill of materials assesses fairness, and says for each group at risk what harm it may come to and what is done about it."
# custom:
#   id: FAIR-003
#   category: quality
#   since: "1.0"
#   profiles: {baseline: "off", strict: warn, eu-high-risk: deny, edge: "off"}
#   severity: high
#   remediation: "fill fairnessAssessments: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "EU AI Act Annex IV 2(g)"
#     - "NIST AI RMF MEASURE 2.11"
#     - "CycloneDX modelCard fairnessAssessments"
package waybill.rules.fair_003

import data.waybill.lib

default pass := false

pass if {
	input.modelCard.bundle != ""
	count(input.modelCard.fairness) > 0
	every f in input.modelCard.fairness {
		whole(f)
	}
}

whole(f) if {
	trim_space(f.group) != ""
	trim_space(f.harms) != ""
	trim_space(f.mitigation) != ""
}

fail contains {"msg": "no group is assessed for fairness", "evidence": lib.card_evidence} if count(input.modelCard.fairness) == 0

fail contains {"msg": sprintf("the assessment for group %q lacks the group, its harms or the mitigation", [f.group]), "evidence": lib.card_evidence} if {
	some f in input.modelCard.fairness
	not whole(f)
}
