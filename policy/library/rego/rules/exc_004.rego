# METADATA
# scope: package
# title: "Exceptions name a ticket"
# description: "Every exception that has effect names the ticket under which it was agreed."
# custom:
#   id: EXC-004
#   category: people
#   since: "1.0"
#   profiles: {baseline: "off", strict: warn, eu-high-risk: deny, edge: "off"}
#   severity: low
#   remediation: "sign a new one with it: waybill approve REF --exception RULE --reason TEXT --env ENV --ticket ID --key approver.key"
#   standards:
#     - "NIST AI RMF MANAGE 1.3"
package waybill.rules.exc_004

import data.waybill.lib

default pass := false

pass if count(lib.waivers) == 0

pass if every x in lib.waivers {
	trim_space(x.ticket) != ""
}

fail contains {"msg": sprintf("the exception for %s by %s names no ticket", [x.rule, x.signer.name]), "evidence": [x.bundle]} if {
	some x in lib.waivers
	trim_space(x.ticket) == ""
}
