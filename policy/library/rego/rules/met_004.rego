# METADATA
# scope: package
# title: "Metrics rest on enough samples"
# description: "Each figure was measured on as many samples as the threshold demands, and where it asks for confidence the pessimistic end of the 95 % interval keeps the bound."
# custom:
#   id: MET-004
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "evaluate on more data and attest n and ci"
#   standards:
#     - "CycloneDX confidenceInterval"
#     - "NIST AI RMF MEASURE 2.1"
package waybill.rules.met_004

import data.waybill.lib

default pass := false

pass if every t in input.environment.metrics {
	sufficient(t)
}

# The metric is not measured: MET-001 asks for it.
sufficient(t) if count(lib.measured(t)) == 0

sufficient(t) if every m in lib.measured(t) {
	enough(m, t)
	confident(m, t)
}

enough(m, t) if m.n >= t.minN

confident(_, t) if t.confidence == false

confident(m, t) if {
	t.confidence == true
	count(m.ci) == 2
	t.direction == "higher"
	m.ci[0] >= t.bound
}

confident(m, t) if {
	t.confidence == true
	count(m.ci) == 2
	t.direction == "lower"
	m.ci[1] <= t.bound
}

fail contains {"msg": sprintf("%s%s was measured on %d samples, required %d", [t.name, lib.on_slice(t), m.n, t.minN]), "evidence": [m.bundle]} if {
	some t in input.environment.metrics
	some m in lib.measured(t)
	not enough(m, t)
}

fail contains {"msg": sprintf("%s%s: the interval %v does not keep the bound %v", [t.name, lib.on_slice(t), m.ci, t.bound]), "evidence": [m.bundle]} if {
	some t in input.environment.metrics
	some m in lib.measured(t)
	not confident(m, t)
}
