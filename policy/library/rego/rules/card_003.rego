# METADATA
# scope: package
# title: "The model card tells what high-risk systems must tell"
# description: "Intended users, use cases, limitations, risks with what is done about them, and the energy taken are all stated in the verified bill of materials."
# custom:
#   id: CARD-003
#   category: people
#   since: "1.0"
#   profiles: {baseline: "off", strict: warn, eu-high-risk: deny, edge: "off"}
#   severity: medium
#   remediation: "fill modelCard.considerations: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "EU AI Act Annex IV 1(a)"
#     - "EU AI Act Article 13"
#     - "NIST AI RMF MAP 2.2"
#     - "CycloneDX modelCard considerations"
package waybill.rules.card_003

import data.waybill.lib

needed := {"users", "useCases", "limitations", "risks", "energy"}

default pass := false

pass if {
	input.modelCard.bundle != ""
	every s in needed {
		s in lib.sections
	}
	count(input.modelCard.risks) > 0
	every r in input.modelCard.risks {
		trim_space(r.mitigation) != ""
	}
}

fail contains {"msg": sprintf("section %s of the model card is empty", [s]), "evidence": lib.card_evidence} if {
	some s in needed
	not has(s)
}

fail contains {"msg": sprintf("nothing is said about what is done about the risk %q", [r.name]), "evidence": lib.card_evidence} if {
	some r in input.modelCard.risks
	trim_space(r.mitigation) == ""
}

has(s) if s in lib.sections
