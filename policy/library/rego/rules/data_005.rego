# METADATA
# scope: package
# title: "Shipped data declares personal data"
# description: "The golden, baseline and source layers travel with the artifact; each declares whether it holds personal data, and those on devices hold none unless it is approved."
# custom:
#   id: DATA-005
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "declare it in waybill.yaml and pack again: waybill pack"
#   standards:
#     - "EU AI Act Annex IV 2(d)"
#     - "NIST AI RMF MEASURE 2.10"
package waybill.rules.data_005

import data.waybill.lib

shipped contains l if {
	some l in input.artifact.layers
	l.role in {"golden", "baseline", "source"}
}

default pass := false

pass if {
	count(input.artifact.layers) > 0
	every l in shipped {
		settled(l)
	}
}

settled(l) if l.personalData == "none"

settled(l) if {
	l.personalData == "yes"
	input.environment.privacyRole != ""
	some a in lib.approvals
	a.role == input.environment.privacyRole
}

fail contains {"msg": sprintf("layer %s (%s) does not declare whether it holds personal data", [l.path, l.role]), "evidence": []} if {
	some l in shipped
	l.personalData == ""
}

fail contains {"msg": sprintf("layer %s (%s) holds personal data without an approval", [l.path, l.role]), "evidence": []} if {
	some l in shipped
	l.personalData == "yes"
	not settled(l)
}
