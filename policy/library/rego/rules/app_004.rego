# METADATA
# scope: package
# title: "Approvals are recent"
# description: "Where the environment limits the age of approvals, enough of them lie within the limit."
# custom:
#   id: APP-004
#   category: people
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "approve again: waybill approve REF --role ROLE --reason TEXT --env ENV --key approver.key"
#   standards:
#     - "NIST AI RMF GOVERN 2.1"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.app_004

import data.waybill.lib

default pass := false

limit := input.environment.maxApprovalAgeDays

skip := "the environment sets no limit on the age of approvals" if limit == 0

skip := lib.nothing_to_weigh if limit > 0

recent contains a if {
	some a in lib.approvals
	lib.now - lib.ns(a.at) <= limit * lib.day
}

pass if {
	limit > 0
	lib.weighed
	lib.suffice(recent)
}

fail contains {"msg": sprintf("%d of %d approvers, in the roles %s, have approved within the last %d days", [lib.persons(recent), input.environment.approvals.minimum, concat(", ", input.environment.approvals.roles), limit]), "evidence": lib.bundles(lib.approvals)} if {
	limit > 0
	lib.weighed
	not lib.suffice(recent)
}
