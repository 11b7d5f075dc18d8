# METADATA
# scope: package
# title: "Exceptions are narrow and current"
# description: "Attached exceptions name a rule that the environment lets be waived, are for this environment, give a reason, are signed by an approver in a role that may waive, and have not expired. Others are reported; they have no effect."
# custom:
#   id: EXC-001
#   category: people
#   since: "1.0"
#   profiles: {baseline: warn, strict: warn, eu-high-risk: warn, edge: warn}
#   severity: low
#   level: warn
#   remediation: "sign a new one: waybill approve REF --exception RULE --reason TEXT --env ENV --expires 30d --key approver.key"
#   standards:
#     - "NIST AI RMF MANAGE 1.3"
package waybill.rules.exc_001

import data.waybill.lib

default pass := false

pass if count(input.exceptions) == 0

pass if every x in input.exceptions {
	sound(x)
}

sound(x) if {
	trim_space(x.reason) != ""
	lib.in_force(x)
	lib.for_here(x)
	x.rule in input.environment.exceptions.rules
	some r in x.roles
	r in input.environment.exceptions.roles
}

fail contains {"msg": sprintf("the exception for %s by %s has no effect here (expires %s)", [x.rule, x.signer.name, x.expires]), "evidence": [x.bundle]} if {
	some x in input.exceptions
	not sound(x)
}
