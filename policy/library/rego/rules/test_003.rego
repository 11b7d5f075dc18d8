# METADATA
# scope: package
# title: "Required tests have passed"
# description: "Every test that the environment names has passed in a verified report, and no report of a failure is as new."
# custom:
#   id: TEST-003
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "run the tests and attest them: waybill attest REF --type test-result --predicate tests.json --key evaluator.key"
#   standards:
#     - "in-toto test-result"
#     - "NIST AI RMF MEASURE 2.1"
package waybill.rules.test_003

import data.waybill.lib

default pass := false

skip := "the environment names no test, and no report is attached" if {
	count(input.environment.tests) == 0
	count(input.tests) == 0
}

pass if {
	count(input.environment.tests) + count(input.tests) > 0
	count(standing) == 0
	count(lib.unclear) == 0
	every n in input.environment.tests {
		passed(n)
	}
}

passed(n) if {
	some t in lib.favorable
	n in t.passed
}

# A failure stands until a later report, dated like it, says that the same tests passed.
standing contains t if {
	some t in lib.failed_reports
	not repaired(t)
}

repaired(t) if {
	count(t.failed) > 0
	every n in t.failed {
		later(t, n)
	}
}

later(t, n) if {
	some p in lib.favorable
	n in p.passed
	count(lib.undone(p, {t})) == 0
}

fail contains {"msg": sprintf("test %s has not passed", [n]), "evidence": lib.bundles(input.tests)} if {
	some n in input.environment.tests
	not passed(n)
}

fail contains {"msg": sprintf("tests FAILED and have not passed since: %s (report %s)", [concat(", ", t.failed), dated(t)]), "evidence": [t.bundle]} if some t in standing

fail contains {"msg": sprintf("a report says %s and lists tests that warned: %s", [t.result, concat(", ", t.warned)]), "evidence": [t.bundle]} if some t in lib.unclear

dated(t) := sprintf("of %s", [t.at]) if t.at != ""

dated(t) := "without a time" if t.at == ""
