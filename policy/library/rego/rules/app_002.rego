# METADATA
# scope: package
# title: "Approvals rest on the newest evaluation"
# description: "Enough approvals were given after the newest evaluation: who approved before has not seen the figures that the model ships with."
# custom:
#   id: APP-002
#   category: people
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "look at the figures and approve again: waybill approve REF --role ROLE --reason TEXT --env ENV --key approver.key"
#   standards:
#     - "NIST AI RMF MANAGE 1.1"
#     - "EU AI Act Annex IV 2(e)"
package waybill.rules.app_002

import data.waybill.lib

default pass := false

skip := lib.nothing_to_weigh

newest := max([lib.ns(m.at) | some m in input.metrics])

informed contains a if {
	some a in lib.approvals
	lib.ns(a.at) >= newest
}

pass if {
	lib.weighed
	count(input.metrics) > 0
	lib.suffice(informed)
}

fail contains {"msg": "no metric is attested that an approval could rest on", "evidence": []} if {
	lib.weighed
	count(input.metrics) == 0
}

fail contains {"msg": sprintf("%d of %d approvers, in the roles %s, have approved since the newest evaluation", [lib.persons(informed), input.environment.approvals.minimum, concat(", ", input.environment.approvals.roles)]), "evidence": lib.bundles(lib.approvals)} if {
	lib.weighed
	count(input.metrics) > 0
	not lib.suffice(informed)
}
