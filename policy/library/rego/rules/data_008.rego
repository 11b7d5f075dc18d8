# METADATA
# scope: package
# title: "Known bias of data is stated"
# description: "Each data set says what bias is known in it, or that none was found; silence is no statement."
# custom:
#   id: DATA-008
#   category: data
#   since: "1.0"
#   profiles: {baseline: "off", strict: warn, eu-high-risk: deny, edge: "off"}
#   severity: medium
#   remediation: "state it under knownBias: waybill attest REF --type dataset --predicate datasets.json --key evaluator.key"
#   standards:
#     - "EU AI Act Article 10"
#     - "NIST AI RMF MEASURE 2.11"
#     - "SPDX Dataset knownBias"
package waybill.rules.data_008

default pass := false

pass if {
	count(input.datasets) > 0
	every d in input.datasets {
		stated(d)
	}
}

stated(d) if trim_space(d.knownBias) != ""

fail contains {"msg": "no data set is recorded", "evidence": []} if count(input.datasets) == 0

fail contains {"msg": sprintf("data set %s (%s) does not say what bias is known in it", [d.name, d.role]), "evidence": [d.bundle]} if {
	some d in input.datasets
	not stated(d)
}
