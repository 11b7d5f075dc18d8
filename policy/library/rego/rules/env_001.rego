# METADATA
# scope: package
# title: "The earlier environment let it pass"
# description: "Where the environment follows another one, the newest verdict of that one's gate on this digest is PASSED, in force, and not older than the environment allows."
# custom:
#   id: ENV-001
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "gate it there first: waybill gate REF --env EARLIER --key gate.key"
#   standards:
#     - "SLSA Verification Summary"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.env_001

import data.waybill.lib

default pass := false

pass if input.environment.after == ""

pass if {
	input.environment.after != ""
	some v in lib.earlier
	v.result == "PASSED"
	lib.now < lib.ns(v.notAfter)
	young(v)
	count(refused_since(v)) == 0
}

young(_) if input.environment.maxVerdictAgeDays == 0

young(v) if {
	input.environment.maxVerdictAgeDays > 0
	lib.now - lib.ns(v.at) <= input.environment.maxVerdictAgeDays * lib.day
}

refused_since(v) := {w |
	some w in lib.earlier
	w.result != "PASSED"
	lib.ns(w.at) >= lib.ns(v.at)
}

fail contains {"msg": sprintf("no verdict of %s in force lets this digest pass%s", [input.environment.after, bound]), "evidence": lib.bundles(lib.earlier)} if not pass

bound := "" if input.environment.maxVerdictAgeDays == 0

bound := sprintf("; it may be %d days old", [input.environment.maxVerdictAgeDays]) if input.environment.maxVerdictAgeDays > 0
