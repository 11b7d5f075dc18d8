# METADATA
# scope: package
# title: "It has run long enough in the earlier environment"
# description: "As many days as the environment demands have gone by since the earlier environment let this digest pass for the first time after its last denial."
# custom:
#   id: ENV-002
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "wait until the days are over, then: waybill gate REF --env ENV --key gate.key"
#   standards:
#     - "NIST AI RMF MANAGE 1.1"
#     - "NIST AI RMF MEASURE 2.3"
package waybill.rules.env_002

import data.waybill.lib

default pass := false

days := input.environment.soakDays

skip := "the environment demands no time in an earlier one" if days == 0

pass if {
	days > 0
	lib.now - since >= days * lib.day
}

# Times of verdicts that let it pass and that no denial followed.
unbroken contains t if {
	some v in lib.earlier
	v.result == "PASSED"
	t := lib.ns(v.at)
	count([w | some w in lib.earlier; w.result != "PASSED"; lib.ns(w.at) >= t]) == 0
}

since := min(unbroken)

fail contains {"msg": sprintf("%d days in %q are demanded, and it has not let this digest pass", [days, input.environment.after]), "evidence": lib.bundles(lib.earlier)} if {
	days > 0
	count(unbroken) == 0
}

fail contains {"msg": sprintf("%s let it pass %d hours ago; %d days are demanded", [input.environment.after, floor(((lib.now - since) / lib.day) * 24), days]), "evidence": lib.bundles(lib.earlier)} if {
	days > 0
	lib.now - since < days * lib.day
}
