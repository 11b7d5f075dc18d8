# METADATA
# scope: package
# title: "Reports carry a trusted time"
# description: "A timestamp authority or a transparency log, not only the signer, says when each test report and each evaluation was signed."
# custom:
#   id: TEST-004
#   category: quality
#   since: "1.0"
#   profiles: {baseline: "off", strict: warn, eu-high-risk: deny, edge: "off"}
#   severity: medium
#   remediation: "sign with a timestamp: waybill attest REF --type evaluation --predicate eval.json --key evaluator.key --timestamp-url URL"
#   standards:
#     - "EU AI Act Annex IV 2(g)"
#     - "RFC 3161"
package waybill.rules.test_004

import data.waybill.lib

default pass := false

skip := "no report is attached" if count(lib.reports) == 0

pass if {
	count(lib.reports) > 0
	every r in lib.reports {
		trusted(r)
	}
}

trusted(r) if r.timeSource in {"rfc3161", "log"}

fail contains {"msg": sprintf("the time of a report signed by %s is %s, not verified", [r.signer.name, r.timeSource]), "evidence": [r.bundle]} if {
	some r in lib.reports
	not trusted(r)
}
