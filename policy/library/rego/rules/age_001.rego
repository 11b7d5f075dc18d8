# METADATA
# scope: package
# title: "The model is not too old"
# description: "Where the environment limits the age of models, the bill of materials tells when training ended, and that is within the limit."
# custom:
#   id: AGE-001
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "train it again, and declare when: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "NIST AI RMF MANAGE 4.1"
#     - "NIST AI RMF GOVERN 1.7"
package waybill.rules.age_001

import data.waybill.lib

default pass := false

limit := input.environment.maxModelAgeDays

skip := "the environment sets no limit on the age of models" if limit == 0

known if input.model.trained != ""

pass if {
	limit > 0
	known
	lib.ns(input.model.trained) <= lib.now + lib.day
	lib.now - lib.ns(input.model.trained) <= limit * lib.day
}

fail contains {"msg": sprintf("nobody says when the model was trained; the environment allows %d days", [limit]), "evidence": evidence} if {
	limit > 0
	not known
}

fail contains {"msg": sprintf("the model was trained until %s; the environment allows %d days", [input.model.trained, limit]), "evidence": evidence} if {
	limit > 0
	known
	lib.now - lib.ns(input.model.trained) > limit * lib.day
}

fail contains {"msg": sprintf("the model was trained until %s, which is in the future", [input.model.trained]), "evidence": evidence} if {
	limit > 0
	known
	lib.ns(input.model.trained) > lib.now + lib.day
}

evidence := [d | d := input.model.declared; d != ""]
