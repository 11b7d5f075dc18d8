# METADATA
# scope: package
# title: "Required slices are reported"
# description: "Every metric with a threshold reports every slice that the environment names."
# custom:
#   id: FAIR-002
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "attest the metric on the missing slice"
#   standards:
#     - "CycloneDX modelCard performanceMetrics.slice"
#     - "Model Cards: disaggregated evaluation"
package waybill.rules.fair_002

default pass := false

pass if every s in input.environment.slices {
	every t in input.environment.metrics {
		reported(t, s)
	}
}

reported(t, s) if {
	some m in input.metrics
	m.name == t.name
	m.slice == s
}

fail contains {"msg": sprintf("%s is not reported on slice %s", [t.name, s]), "evidence": []} if {
	some s in input.environment.slices
	some t in input.environment.metrics
	not reported(t, s)
}
