# METADATA
# scope: package
# title: "Data sets are recorded with digest and license"
# description: "At least the training data is recorded, and every data set has a name, a digest and a license."
# custom:
#   id: DATA-001
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "record the data sets: waybill attest REF --type dataset --predicate datasets.json --key evaluator.key"
#   standards:
#     - "EU AI Act Annex IV 2(d)"
#     - "NIST AI RMF MAP 4.1"
package waybill.rules.data_001

default pass := false

pass if {
	some t in input.datasets
	t.role == "train"
	every d in input.datasets {
		complete(d)
	}
}

complete(d) if {
	d.name != ""
	d.digest != ""
	d.license != ""
	d.bundle != ""
}

fail contains {"msg": "no training data is recorded", "evidence": []} if not trained

trained if {
	some d in input.datasets
	d.role == "train"
}

fail contains {"msg": sprintf("data set %q (%s) lacks its digest or its license", [d.name, d.role]), "evidence": [d.bundle]} if {
	some d in input.datasets
	not complete(d)
}
