# METADATA
# scope: package
# title: "An allowed builder built it"
# description: "Where the environment names builders, at least one verified provenance is by one of them and signed by a signer that may speak for it: the pair counts, not the name of the builder alone."
# custom:
#   id: PROV-002
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "build with an allowed builder, or let the platform team add it: waybill env show ENV"
#   standards:
#     - "SLSA: verifying artifacts (builder.id and signer)"
#     - "NIST SSDF PO.3"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.prov_002

import data.waybill.lib

skip := "the environment names no builder" if count(input.environment.builders) == 0

default pass := false

pass if {
	count(input.environment.builders) > 0
	count(lib.builds) > 0
}

fail contains {"msg": sprintf("builder %s, signed by %s, is not an allowed pair", [p.builder, p.signer.name]), "evidence": [p.bundle]} if {
	count(input.environment.builders) > 0
	not pass
	some p in input.provenance
}

fail contains {"msg": "the environment names builders, and no provenance is verified", "evidence": [input.environment.digest]} if {
	count(input.environment.builders) > 0
	count(input.provenance) == 0
}
