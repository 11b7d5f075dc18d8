# METADATA
# scope: package
# title: "Sections that the environment demands are filled"
# description: "Every section of the model card that the environment names is filled in the verified bill of materials."
# custom:
#   id: CARD-002
#   category: people
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "fill modelCard.considerations: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "CycloneDX modelCard considerations"
#     - "Model Cards"
package waybill.rules.card_002

import data.waybill.lib

default pass := false

skip := "the environment demands no section" if count(input.environment.sections) == 0

pass if {
	count(input.environment.sections) > 0
	input.modelCard.bundle != ""
	every s in input.environment.sections {
		s in lib.sections
	}
}

fail contains {"msg": sprintf("section %s of the model card is empty; %s demands it", [s, input.environment.name]), "evidence": lib.card_evidence} if {
	some s in input.environment.sections
	not has(s)
}

has(s) if s in lib.sections
