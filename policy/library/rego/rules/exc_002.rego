# METADATA
# scope: package
# title: "Exceptions are short and not the author's own"
# description: "No attached exception lives longer than the environment allows, and none is signed by an author of the model. Others are reported; they have no effect."
# custom:
#   id: EXC-002
#   category: people
#   since: "1.0"
#   profiles: {baseline: warn, strict: warn, eu-high-risk: warn, edge: warn}
#   severity: medium
#   level: warn
#   remediation: "sign a shorter one, by somebody else: waybill approve REF --exception RULE --reason TEXT --env ENV --expires 30d --key approver.key"
#   standards:
#     - "NIST AI RMF MANAGE 1.3"
#     - "SLSA two-party review"
package waybill.rules.exc_002

import data.waybill.lib

default pass := false

pass if count(input.exceptions) == 0

pass if every x in input.exceptions {
	lib.short(x)
	not lib.is_author(x.signer)
}

fail contains {"msg": sprintf("the exception for %s by %s lives from %s to %s; the environment allows %d days", [x.rule, x.signer.name, x.at, x.expires, input.environment.exceptions.maxDays]), "evidence": [x.bundle]} if {
	some x in input.exceptions
	not lib.short(x)
}

fail contains {"msg": sprintf("the exception for %s is signed by %s, an author of the model", [x.rule, x.signer.name]), "evidence": [x.bundle]} if {
	some x in input.exceptions
	lib.is_author(x.signer)
}
