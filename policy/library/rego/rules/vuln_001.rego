# METADATA
# scope: package
# title: "No critical or high vulnerability"
# description: "Where a scan is attached, it reports no critical or high finding. Demand a scan with the environment's evidence list."
# custom:
#   id: VULN-001
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "update the affected component, or sign an exception"
#   standards:
#     - "NIST SSDF RV.1"
#     - "in-toto vulns v0.2"
package waybill.rules.vuln_001

default pass := false

pass if every f in input.vulnerabilities.findings {
	tolerable(f)
}

tolerable(f) if f.severity in {"medium", "low"}

fail contains {"msg": sprintf("%s (%s) in %s", [f.id, f.severity, f.package]), "evidence": [input.vulnerabilities.bundle]} if {
	some f in input.vulnerabilities.findings
	not tolerable(f)
}
