# METADATA
# scope: package
# title: "Personal data is anonymised"
# description: "Each data set that holds personal data names the methods by which it was anonymised or pseudonymised."
# custom:
#   id: DATA-006
#   category: data
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: high
#   remediation: "record the methods under anonymised: waybill attest REF --type dataset --predicate datasets.json --key evaluator.key"
#   standards:
#     - "EU AI Act Article 10"
#     - "NIST AI RMF MEASURE 2.10"
#     - "SPDX Dataset anonymizationMethodUsed"
package waybill.rules.data_006

default pass := false

pass if {
	count(input.datasets) > 0
	every d in input.datasets {
		settled(d)
	}
}

settled(d) if d.personalData == "none"

settled(d) if {
	d.personalData == "yes"
	count([m | some m in d.anonymised; trim_space(m) != ""]) > 0
}

fail contains {"msg": "no data set is recorded", "evidence": []} if count(input.datasets) == 0

fail contains {"msg": sprintf("data set %s (personal data: %q) names no method of anonymisation", [d.name, d.personalData]), "evidence": [d.bundle]} if {
	some d in input.datasets
	not settled(d)
}
