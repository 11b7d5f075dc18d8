# METADATA
# scope: package
# title: "Components have allowed licenses"
# description: "Where the environment lists licenses for components, every component of the bill of materials has a license and every license is on the list."
# custom:
#   id: SBOM-003
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "replace the component, or ask the platform team to allow its license: waybill env show ENV"
#   standards:
#     - "CycloneDX components.licenses"
#     - "NIST AI RMF GOVERN 6.1"
#     - "SPDX license list"
package waybill.rules.sbom_003

skip := "the environment allows any license of components" if count(input.environment.licenses.components) == 0

default pass := false

pass if {
	count(input.environment.licenses.components) > 0
	input.sbom.present == true
	count(input.sbom.unlicensed) == 0
	every l in input.sbom.licenses {
		l in input.environment.licenses.components
	}
}

fail contains {"msg": "no bill of materials tells the licenses of components", "evidence": [input.environment.digest]} if {
	count(input.environment.licenses.components) > 0
	input.sbom.present == false
}

fail contains {"msg": sprintf("component %s has no license", [c]), "evidence": [input.sbom.bundle]} if {
	count(input.environment.licenses.components) > 0
	some c in input.sbom.unlicensed
}

fail contains {"msg": sprintf("license %q of a component is not allowed", [l]), "evidence": [input.sbom.bundle]} if {
	count(input.environment.licenses.components) > 0
	some l in input.sbom.licenses
	not allowed(l)
}

allowed(l) if l in input.environment.licenses.components
