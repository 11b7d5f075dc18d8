# METADATA
# scope: package
# title: "Slices do not differ too much"
# description: "The spread of a metric over its slices stays within the bound of the environment."
# custom:
#   id: FAIR-001
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "improve the weakest slice, or sign an exception"
#   standards:
#     - "NIST AI RMF MEASURE 2.11"
#     - "EU AI Act Annex IV 2(g)"
package waybill.rules.fair_001

values(g) := [m.value | some m in input.metrics; m.name == g.name; m.slice != "all"]

default pass := false

pass if every g in input.environment.sliceGaps {
	within(g)
}

within(g) if {
	vs := values(g)
	count(vs) >= 2
	max(vs) - min(vs) <= g.max
}

fail contains {"msg": sprintf("%s: fewer than two slices are measured", [g.name]), "evidence": []} if {
	some g in input.environment.sliceGaps
	count(values(g)) < 2
}

fail contains {"msg": sprintf("%s differs by %v between slices, allowed %v", [g.name, max(values(g)) - min(values(g)), g.max]), "evidence": {m.bundle | some m in input.metrics; m.name == g.name}} if {
	some g in input.environment.sliceGaps
	count(values(g)) >= 2
	not within(g)
}
