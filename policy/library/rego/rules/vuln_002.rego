# METADATA
# scope: package
# title: "The scan is fresh"
# description: "Where the environment bounds them, neither the scan nor the scanner's database is older than allowed, nor from the future."
# custom:
#   id: VULN-002
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "scan again and attest: waybill attest REF --type vulns --predicate scan.json --key KEY"
#   standards:
#     - "in-toto vulns v0.2"
#     - "NIST SSDF RV.1"
#     - "NIST AI RMF MANAGE 4.1"
package waybill.rules.vuln_002

import data.waybill.lib

bounded if input.environment.scan.maxAgeDays > 0

bounded if input.environment.scan.maxDatabaseAgeDays > 0

unbounded if {
	input.environment.scan.maxAgeDays == 0
	input.environment.scan.maxDatabaseAgeDays == 0
}

skip := "the environment sets no limit to the age of a scan" if unbounded

default pass := false

pass if {
	bounded
	input.vulnerabilities.scanned == true
	scan_fresh
	database_fresh
}

scan_fresh if lib.young(input.vulnerabilities.scannedAt, input.environment.scan.maxAgeDays)

database_fresh if lib.young(input.vulnerabilities.databaseAt, input.environment.scan.maxDatabaseAgeDays)

fail contains {"msg": "the environment sets a limit to the age of a scan, and none is attached", "evidence": [input.environment.digest]} if {
	bounded
	input.vulnerabilities.scanned == false
}

fail contains {"msg": sprintf("the scan %s; the environment allows %d days", [made(input.vulnerabilities.scannedAt), input.environment.scan.maxAgeDays]), "evidence": [input.vulnerabilities.bundle]} if {
	bounded
	input.vulnerabilities.scanned == true
	not scan_fresh
}

fail contains {"msg": sprintf("the scanner's database %s; the environment allows %d days", [made(input.vulnerabilities.databaseAt), input.environment.scan.maxDatabaseAgeDays]), "evidence": [input.vulnerabilities.bundle]} if {
	bounded
	input.vulnerabilities.scanned == true
	not database_fresh
}

made(t) := sprintf("is of %s", [t]) if t != ""

made(t) := "does not tell its time" if t == ""
