# METADATA
# scope: package
# title: "Builders reach SLSA build level 2"
# description: "At least one provenance that counts is of a builder to which the environment gives SLSA build level 2 or more: hosted, with provenance that it signs itself."
# custom:
#   id: PROV-007
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: high
#   remediation: "build on a hosted builder, or correct its level: waybill env show ENV"
#   standards:
#     - "SLSA Build L2"
#     - "NIST SSDF PO.5"
package waybill.rules.prov_007

import data.waybill.lib

level contains b.level if {
	some p in input.provenance
	some b in input.environment.builders
	lib.by(p, b)
}

skip := "the environment names no builder" if count(input.environment.builders) == 0

default pass := false

pass if {
	count(level) > 0
	max(level) >= 2
}

fail contains {"msg": sprintf("the best builder has level %d, required 2", [max(level)]), "evidence": lib.bundles(lib.builds)} if {
	count(level) > 0
	not pass
}

fail contains {"msg": "no provenance is of a builder whose level is known", "evidence": [input.environment.digest]} if {
	count(input.environment.builders) > 0
	count(level) == 0
}
