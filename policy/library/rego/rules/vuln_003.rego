# METADATA
# scope: package
# title: "A vulnerability scan is attested"
# description: "A verified scan of this digest names its scanner."
# custom:
#   id: VULN-003
#   category: security
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: high
#   remediation: "scan the artifact and attest the result: waybill attest REF --type vulns --predicate scan.json --key KEY"
#   standards:
#     - "NIST SSDF RV.1"
#     - "in-toto vulns v0.2"
#     - "EU AI Act Annex IV 2(h)"
package waybill.rules.vuln_003

import data.waybill.lib

default pass := false

pass if {
	input.vulnerabilities.scanned == true
	input.vulnerabilities.scanner != ""
	input.vulnerabilities.bundle in lib.attested_all
}

fail contains {"msg": "no verified vulnerability scan is attached", "evidence": []} if input.vulnerabilities.scanned == false

fail contains {"msg": sprintf("the scan by %q is not backed by verified evidence that names a scanner", [input.vulnerabilities.scanner]), "evidence": [input.vulnerabilities.bundle]} if {
	input.vulnerabilities.scanned == true
	not pass
}
