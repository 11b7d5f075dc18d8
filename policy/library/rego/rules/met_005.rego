# METADATA
# scope: package
# title: "Metrics were measured on declared held-out data"
# description: "Every figure that counts names a data set that is recorded with the role test or validation."
# custom:
#   id: MET-005
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "record the data set: waybill attest REF --type dataset --predicate datasets.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MEASURE 2.1"
#     - "EU AI Act Annex IV 2(d)"
package waybill.rules.met_005

import data.waybill.lib

held_out contains d.digest if {
	some d in input.datasets
	d.role in {"test", "validation"}
	d.digest != ""
}

default pass := false

pass if {
	count(input.metrics) > 0
	every m in input.metrics {
		m.dataset in held_out
	}
}

fail contains {"msg": sprintf("%s%s was measured on %s, which is not recorded as test or validation data", [m.name, lib.on_slice(m), m.dataset]), "evidence": [m.bundle]} if {
	some m in input.metrics
	not declared(m)
}

fail contains {"msg": "no metric is attested", "evidence": []} if count(input.metrics) == 0

declared(m) if m.dataset in held_out
