# METADATA
# scope: package
# title: "Training and test data are different"
# description: "No data set that serves as test data also serves as training data."
# custom:
#   id: DATA-002
#   category: data
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "hold data out for the test and evaluate again"
#   standards:
#     - "NIST AI RMF MEASURE 2.1"
#     - "OWASP ML02 data poisoning"
package waybill.rules.data_002

digests(role) := {d.digest | some d in input.datasets; d.role == role; d.digest != ""}

overlap := digests("train") & digests("test")

default pass := false

pass if count(overlap) == 0

fail contains {"msg": sprintf("data set %s serves for training and for the test", [d.digest]), "evidence": [d.bundle]} if {
	some d in input.datasets
	d.digest in overlap
}
