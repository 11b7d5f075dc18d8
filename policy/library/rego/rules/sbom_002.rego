# METADATA
# scope: package
# title: "The bill of materials covers every layer"
# description: "Each file of the artifact is in the bill of materials by its digest: nothing travels along that nobody lists."
# custom:
#   id: SBOM-002
#   category: security
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "make the bill from the packed artifact, and attest it: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "CycloneDX components.hashes"
#     - "NIST SSDF PS.3.2"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.sbom_002

skip := "no bill of materials is attached; SBOM-001 tells whether one is needed" if input.sbom.present == false

default pass := false

pass if {
	input.sbom.present == true
	count(input.sbom.missing) == 0
}

fail contains {"msg": sprintf("the bill of materials does not list %s", [f]), "evidence": [input.sbom.bundle]} if {
	input.sbom.present == true
	some f in input.sbom.missing
}
