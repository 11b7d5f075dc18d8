# METADATA
# scope: package
# title: "Reports are dated and signed by who is responsible"
# description: "Each test report and each evaluation is dated, not in the future, and signed by a named evaluator."
# custom:
#   id: TEST-002
#   category: quality
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "attest it again with its time: waybill attest REF --type test-result --predicate tests.json --key evaluator.key"
#   standards:
#     - "EU AI Act Annex IV 2(g)"
#     - "NIST AI RMF GOVERN 2.1"
package waybill.rules.test_002

import data.waybill.lib

default pass := false

skip := "no report is attached" if count(lib.reports) == 0

pass if {
	count(lib.reports) > 0
	every r in lib.reports {
		dated(r)
		signed(r)
	}
}

dated(r) if {
	r.at != ""
	lib.ns(r.at) <= lib.now + lib.day
}

signed(r) if {
	r.signer.role == "evaluator"
	trim_space(r.signer.name) != ""
}

fail contains {"msg": sprintf("a report signed by %s is not dated", [r.signer.name]), "evidence": [r.bundle]} if {
	some r in lib.reports
	r.at == ""
}

fail contains {"msg": sprintf("a report signed by %s is dated %s, which is in the future", [r.signer.name, r.at]), "evidence": [r.bundle]} if {
	some r in lib.reports
	r.at != ""
	not dated(r)
}

fail contains {"msg": sprintf("a report is signed by %s, a %s; required is a named evaluator", [r.signer.name, r.signer.role]), "evidence": [r.bundle]} if {
	some r in lib.reports
	not signed(r)
}
