# METADATA
# scope: package
# title: "Metrics meet their thresholds"
# description: "Every threshold of the environment is met by every verified figure for that metric and slice. An environment without thresholds proves nothing."
# custom:
#   id: MET-001
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "retrain, or attest the missing metric: waybill attest REF --type evaluation --predicate eval.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MEASURE 2.5"
#     - "EU AI Act Annex IV 2(g)"
#     - "CycloneDX modelCard.quantitativeAnalysis"
package waybill.rules.met_001

import data.waybill.lib

default pass := false

pass if {
	count(input.environment.metrics) > 0
	every t in input.environment.metrics {
		proven(t)
	}
}

proven(t) if {
	ms := lib.measured(t)
	count(ms) > 0
	every m in ms {
		m.direction == t.direction
		lib.meets(m.value, t)
	}
}

fail contains {"msg": sprintf("environment %s states no threshold", [input.environment.name]), "evidence": [input.environment.digest]} if count(input.environment.metrics) == 0

fail contains {"msg": sprintf("%s%s was not measured", [t.name, lib.on_slice(t)]), "evidence": []} if {
	some t in input.environment.metrics
	count(lib.measured(t)) == 0
}

fail contains {"msg": sprintf("%s%s is %v, required %s %v", [t.name, lib.on_slice(t), m.value, lib.at_least[t.direction], t.bound]), "evidence": [m.bundle]} if {
	some t in input.environment.metrics
	some m in lib.measured(t)
	not lib.meets(m.value, t)
}

fail contains {"msg": sprintf("%s%s is attested as %s-is-better, the threshold says %s", [t.name, lib.on_slice(t), m.direction, t.direction]), "evidence": [m.bundle]} if {
	some t in input.environment.metrics
	some m in lib.measured(t)
	m.direction != t.direction
}
