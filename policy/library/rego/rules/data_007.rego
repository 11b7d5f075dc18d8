# METADATA
# scope: package
# title: "Training and test data are both recorded"
# description: "At least one data set that the model was trained on and one that it was tested on are recorded, each with its number of rows."
# custom:
#   id: DATA-007
#   category: data
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "record both: waybill attest REF --type dataset --predicate datasets.json --key evaluator.key"
#   standards:
#     - "EU AI Act Annex IV 2(g)"
#     - "NIST AI RMF MEASURE 2.1"
package waybill.rules.data_007

default pass := false

needed := {"train", "test"}

pass if every r in needed {
	recorded(r)
}

recorded(r) if {
	some d in input.datasets
	d.role == r
	d.rows > 0
}

fail contains {"msg": sprintf("no %s data with its number of rows is recorded", [r]), "evidence": [d.bundle | some d in input.datasets; d.role == r]} if {
	some r in needed
	not recorded(r)
}
