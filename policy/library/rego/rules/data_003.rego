# METADATA
# scope: package
# title: "Personal data is declared and approved"
# description: "Each data set says whether it holds personal data; where one does, the environment names a role for privacy and somebody in that role has approved."
# custom:
#   id: DATA-003
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "get the approval: waybill approve REF --role PRIVACY-ROLE --reason TEXT --key approver.key"
#   standards:
#     - "EU AI Act Annex IV 2(d)"
#     - "NIST AI RMF MEASURE 2.10"
#     - "SPDX Dataset hasSensitivePersonalInformation"
package waybill.rules.data_003

import data.waybill.lib

default pass := false

# No data set is recorded: DATA-001 asks for them.
pass if count(input.datasets) == 0

pass if every d in input.datasets {
	settled(d)
}

settled(d) if d.personalData == "none"

settled(d) if {
	d.personalData == "yes"
	approved
}

approved if {
	input.environment.privacyRole != ""
	some a in lib.approvals
	a.role == input.environment.privacyRole
}

fail contains {"msg": sprintf("data set %s does not say whether it holds personal data", [d.name]), "evidence": [d.bundle]} if {
	some d in input.datasets
	d.personalData in {"", "noAssertion"}
}

fail contains {"msg": sprintf("data set %s holds personal data and no approver in role %q has approved", [d.name, input.environment.privacyRole]), "evidence": [d.bundle]} if {
	some d in input.datasets
	d.personalData == "yes"
	not approved
}
