# METADATA
# scope: package
# title: "Tests have passed on each device class"
# description: "For each device class of the environment a verified test report says PASSED, and no report about it that says FAILED is as new."
# custom:
#   id: TEST-001
#   category: quality
#   since: "1.0"
#   profiles: {baseline: "off", strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "test on the class and attest it: waybill attest REF --type test-result --predicate tests.json --key evaluator.key"
#   standards:
#     - "in-toto test-result"
#     - "NIST AI RMF MEASURE 2.3"
package waybill.rules.test_001

import data.waybill.lib

default pass := false

skip := "the environment names no device class" if count(input.environment.deviceClasses) == 0

pass if {
	count(input.environment.deviceClasses) > 0
	every c in input.environment.deviceClasses {
		tested(c)
	}
}

tested(c) if {
	some t in lib.favorable
	t.result == "PASSED"
	mark(c) in t.configuration
	count(lib.undone(t, broken(c))) == 0
}

mark(c) := sprintf("device-class:%s", [c.name])

broken(c) := {t |
	some t in lib.failed_reports
	mark(c) in t.configuration
}

fail contains {"msg": sprintf("no test report with PASSED on device class %s", [c.name]), "evidence": lib.bundles(input.tests)} if {
	some c in input.environment.deviceClasses
	not tested(c)
	count(broken(c)) == 0
}

fail contains {"msg": sprintf("tests on device class %s FAILED: %s", [c.name, concat(", ", t.failed)]), "evidence": [t.bundle]} if {
	some c in input.environment.deviceClasses
	not tested(c)
	some t in broken(c)
}
