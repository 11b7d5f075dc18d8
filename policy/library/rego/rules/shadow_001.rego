# METADATA
# scope: package
# title: "A shadow or canary run keeps the thresholds"
# description: "Where the environment demands a shadow or canary run, each metric with a threshold was also measured there, and keeps its bound."
# custom:
#   id: SHADOW-001
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "attest the figures with stage shadow or canary: waybill attest REF --type evaluation --predicate eval.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MEASURE 2.3"
#     - "NIST AI RMF MANAGE 4.1"
package waybill.rules.shadow_001

import data.waybill.lib

default pass := false

skip := "the environment demands no shadow or canary run" if input.environment.shadow == false

pass if {
	input.environment.shadow == true
	count(input.environment.metrics) > 0
	every t in input.environment.metrics {
		count(live(t)) > 0
		every m in live(t) {
			lib.meets(m.value, t)
		}
	}
}

live(t) := {m |
	some m in lib.measured(t)
	m.stage in {"shadow", "canary"}
}

fail contains {"msg": sprintf("environment %s states no threshold", [input.environment.name]), "evidence": [input.environment.digest]} if {
	input.environment.shadow == true
	count(input.environment.metrics) == 0
}

fail contains {"msg": sprintf("%s%s has no figure of a shadow or canary run", [t.name, lib.on_slice(t)]), "evidence": lib.bundles(lib.measured(t))} if {
	input.environment.shadow == true
	some t in input.environment.metrics
	count(live(t)) == 0
}

fail contains {"msg": sprintf("%s%s is %v in the %s run, required %s %v", [t.name, lib.on_slice(t), m.value, m.stage, lib.at_least[t.direction], t.bound]), "evidence": [m.bundle]} if {
	input.environment.shadow == true
	some t in input.environment.metrics
	some m in live(t)
	not lib.meets(m.value, t)
}
