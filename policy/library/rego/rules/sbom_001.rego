# METADATA
# scope: package
# title: "A bill of materials is attested"
# description: "A verified bill of materials in CycloneDX 1.4 to 1.7, or SPDX 2.2, 2.3 or 3.0, lists at least one component."
# custom:
#   id: SBOM-001
#   category: security
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: high
#   remediation: "attach one: waybill attest REF --type cyclonedx --predicate bom.json --key publisher.key"
#   standards:
#     - "CycloneDX specVersion"
#     - "NIST SSDF PS.3.2"
#     - "NIST AI RMF GOVERN 6.1"
#     - "EU AI Act Annex IV 1(c)"
package waybill.rules.sbom_001

import data.waybill.lib

versions := {
	"cyclonedx": {"1.4", "1.5", "1.6", "1.7"},
	"spdx": {"2.2", "2.3", "3.0", "3.0.0", "3.0.1"},
}

default pass := false

pass if {
	input.sbom.present == true
	input.sbom.bundle in lib.attested_all
	known
	input.sbom.components > 0
}

known if trim_prefix(input.sbom.specVersion, "SPDX-") in versions[input.sbom.format]

fail contains {"msg": "no verified bill of materials is attached", "evidence": []} if input.sbom.present == false

fail contains {"msg": sprintf("the bill of materials is %q version %q, with %d components", [input.sbom.format, input.sbom.specVersion, input.sbom.components]), "evidence": [input.sbom.bundle]} if {
	input.sbom.present == true
	not pass
}
