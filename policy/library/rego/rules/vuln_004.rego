# METADATA
# scope: package
# title: "Known fixes are applied"
# description: "No finding of medium severity or more, or of unknown severity, has a fixed version that is not used, unless the verified analysis says that it does not apply."
# custom:
#   id: VULN-004
#   category: security
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "update the component and pack again: waybill pack"
#   standards:
#     - "NIST SSDF RV.2"
#     - "EU AI Act Article 15"
package waybill.rules.vuln_004

default pass := false

# Nothing was found; VULN-003 tells whether anything looked.
pass if count(input.vulnerabilities.findings) == 0

pass if every f in input.vulnerabilities.findings {
	settled(f)
}

settled(f) if f.fixedIn == ""

settled(f) if f.severity == "low"

settled(f) if f.state in {"not_affected", "fixed"}

fail contains {"msg": sprintf("%s (%s) in %s %s is fixed in %s", [f.id, f.severity, f.package, f.version, f.fixedIn]), "evidence": [input.vulnerabilities.bundle]} if {
	some f in input.vulnerabilities.findings
	not settled(f)
}
