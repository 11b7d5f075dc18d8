# METADATA
# scope: package
# title: "No critical or high vulnerability"
# description: "No finding of the newest scan is critical, high or of unknown severity, except those that the document's own verified analysis (VEX) calls not affected or fixed. Whether there is a scan at all is VULN-003."
# custom:
#   id: VULN-001
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "update the component and pack again, or attest an analysis: waybill attest REF --type cyclonedx --predicate vex.json --key KEY"
#   standards:
#     - "NIST SSDF RV.1"
#     - "in-toto vulns v0.2"
#     - "CycloneDX vulnerabilities.analysis"
package waybill.rules.vuln_001

default pass := false

# Nothing was found, or nothing looked for: the list of evidence demands the scan.
pass if count(input.vulnerabilities.findings) == 0

pass if every f in input.vulnerabilities.findings {
	tolerable(f)
}

tolerable(f) if f.severity in {"medium", "low"}

# Under investigation is not ruled out.
tolerable(f) if f.state in {"not_affected", "fixed"}

fail contains {"msg": sprintf("%s (%s%s) in %s %s", [f.id, f.severity, analysis(f), f.package, f.version]), "evidence": [input.vulnerabilities.bundle]} if {
	some f in input.vulnerabilities.findings
	not tolerable(f)
}

analysis(f) := "" if f.state == ""

analysis(f) := sprintf(", %s", [f.state]) if f.state != ""
