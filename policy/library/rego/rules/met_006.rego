# METADATA
# scope: package
# title: "Evaluation is recent enough"
# description: "No figure is older than the environment allows, and none comes from the future."
# custom:
#   id: MET-006
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "evaluate again: waybill attest REF --type evaluation --predicate eval.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MANAGE 4.1"
package waybill.rules.met_006

import data.waybill.lib

default pass := false

# Nothing is measured: MET-001 asks for it.
pass if count(input.metrics) == 0

pass if every m in input.metrics {
	fresh(m)
}

fresh(m) if {
	lib.ns(m.at) <= lib.now + lib.day
	young(m)
}

young(_) if input.environment.maxEvaluationAgeDays == 0

young(m) if {
	input.environment.maxEvaluationAgeDays > 0
	lib.now - lib.ns(m.at) <= input.environment.maxEvaluationAgeDays * lib.day
}

fail contains {"msg": sprintf("%s%s was measured at %s; the environment allows %d days", [m.name, lib.on_slice(m), m.at, input.environment.maxEvaluationAgeDays]), "evidence": [m.bundle]} if {
	some m in input.metrics
	not fresh(m)
}
