# METADATA
# scope: package
# title: "Licenses of base models allow this model"
# description: "What the model was derived from has a license that the environment allows and that the model's own license respects: none forbids derivatives, non-commercial and copyleft terms are kept."
# custom:
#   id: LIC-002
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "choose another base model, or another license in waybill.yaml, and pack again: waybill pack"
#   standards:
#     - "NIST AI RMF MANAGE 3.2"
#     - "NIST AI RMF GOVERN 6.1"
#     - "EU AI Act Annex IV 2(a)"
package waybill.rules.lic_002

import data.waybill.lib

default pass := false

skip := "no base model is declared" if count(input.model.baseModels) == 0

pass if {
	count(input.model.baseModels) > 0
	every b in input.model.baseModels {
		suits(b)
	}
}

suits(b) if {
	some way in ways(b)
	every l in way {
		l in input.environment.licenses.models
		respected(l)
	}
}

# The licenses to keep together, one list for each way that an SPDX expression leaves open. With brackets it is taken as
# one name, which the environment may list as it stands.
ways(b) := [[trim_space(l) | some l in split(alternative, " AND ")] | some alternative in split(b.license, " OR ")] if {
	b.license != ""
	not lib.bracketed(b.license)
}

ways(b) := [[b.license]] if lib.bracketed(b.license)

# No part of a base license stands against the model's own.
respected(l) if {
	not lib.no_derivatives(l)
	keeps(l)
}

keeps(l) if {
	not lib.copyleft(l)
	not lib.non_commercial(l)
}

keeps(l) if {
	lib.copyleft(l)
	l in input.model.licenses
}

keeps(l) if {
	not lib.copyleft(l)
	lib.non_commercial(l)
	count(input.model.licenses) > 0
	every own in input.model.licenses {
		lib.non_commercial(own)
	}
}

fail contains {"msg": sprintf("base model %s states no license", [b.name]), "evidence": evidence} if {
	some b in input.model.baseModels
	b.license == ""
}

fail contains {"msg": sprintf("license %q of base model %s is not allowed here, or the model's own (%s) does not respect it", [b.license, b.name, concat(", ", input.model.licenses)]), "evidence": evidence} if {
	some b in input.model.baseModels
	b.license != ""
	not suits(b)
}

evidence := [d | d := input.model.declared; d != ""]
