# METADATA
# scope: package
# title: "Predictions are fast enough on the devices"
# description: "Where a device class limits the time of a prediction, the 99th percentile was measured on a device of that class (metric latency_p99_ms, stage on-device) and keeps the limit."
# custom:
#   id: DEV-004
#   category: target
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "measure on a device of the class and attest: waybill attest REF --type evaluation --predicate latency.json --key evaluator.key"
#   standards:
#     - "EU AI Act Annex IV 1(e)"
#     - "NIST AI RMF MEASURE 2.3"
#     - "CycloneDX performanceMetrics"
package waybill.rules.dev_004

limited contains c if {
	some c in input.environment.deviceClasses
	c.latencyMs > 0
}

figures(c) := {m |
	some m in input.metrics
	m.name == "latency_p99_ms"
	m.stage == "on-device"
	m.deviceClass == c.name
}

skip := "no device class limits the time of a prediction" if count(limited) == 0

default pass := false

pass if {
	count(limited) > 0
	every c in limited {
		measured(c)
		every m in figures(c) {
			fast(m, c)
		}
	}
}

measured(c) if count(figures(c)) > 0

fast(m, c) if {
	m.direction == "lower"
	m.value > 0
	m.value <= c.latencyMs
}

fail contains {"msg": sprintf("no latency was measured on a device of class %s (allowed %v ms)", [c.name, c.latencyMs]), "evidence": [input.environment.digest]} if {
	some c in limited
	not measured(c)
}

fail contains {"msg": sprintf("class %s: %v ms at the 99th percentile (%s is better), allowed %v ms", [c.name, m.value, m.direction, c.latencyMs]), "evidence": [m.bundle]} if {
	some c in limited
	some m in figures(c)
	not fast(m, c)
}
