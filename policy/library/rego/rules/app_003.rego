# METADATA
# scope: package
# title: "Approvers have not measured what they approve"
# description: "Enough approvals come from people who have neither evaluated the model nor released it: by key, by name and by identity."
# custom:
#   id: APP-003
#   category: people
#   since: "1.0"
#   profiles: {baseline: "off", strict: deny, eu-high-risk: deny, edge: "off"}
#   severity: medium
#   remediation: "get the approval of somebody else: waybill approve REF --role ROLE --reason TEXT --env ENV --key approver.key"
#   standards:
#     - "NIST AI RMF MEASURE 1.3"
#     - "SLSA two-party review"
package waybill.rules.app_003

import data.waybill.lib

default pass := false

skip := lib.nothing_to_weigh

independent contains a if {
	some a in lib.approvals
	not evaluated(a.signer)
}

evaluated(s) if {
	some e in lib.evaluations
	lib.same_person(s, e.signer)
}

evaluated(s) if {
	some t in input.tests
	lib.same_person(s, t.signer)
}

pass if {
	lib.weighed
	lib.suffice(independent)
}

fail contains {"msg": sprintf("%s has evaluated the model and approves it as %s; %d of %d approvers are independent", [a.signer.name, a.role, lib.persons(independent), input.environment.approvals.minimum]), "evidence": [a.bundle]} if {
	lib.weighed
	not lib.suffice(independent)
	some a in lib.approvals
	evaluated(a.signer)
}
