# METADATA
# scope: package
# title: "The earlier environment let it pass"
# description: "Where the environment follows another one, that one's gate has passed this digest and its verdict is in force."
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
	some v in input.verdicts
	v.environment == input.environment.after
	v.result == "PASSED"
	v.resourceUri == input.artifact.resourceUri
	lib.now < lib.ns(v.notAfter)
}

fail contains {"msg": sprintf("no verdict of %s in force lets this digest pass", [input.environment.after]), "evidence": lib.bundles(input.verdicts)} if not pass
