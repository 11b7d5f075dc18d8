# METADATA
# scope: package
# title: "Provenance is verified"
# description: "At least one verified SLSA provenance v1 of this digest names its builder and build type."
# custom:
#   id: PROV-001
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: high
#   remediation: "attach the build's provenance: waybill attest REF --type provenance --predicate provenance.json --key builder.key"
#   standards:
#     - "SLSA Build L1"
#     - "EU AI Act Annex IV 2(a)"
#     - "NIST SSDF PS.3.2"
package waybill.rules.prov_001

import data.waybill.lib

sound contains p.bundle if {
	some p in input.provenance
	p.builder != ""
	p.buildType != ""
	p.bundle in lib.attested_bundles("https://slsa.dev/provenance/v1")
}

default pass := false

pass if count(sound) > 0

fail contains {"msg": "no verified provenance of this digest names a builder and a build type", "evidence": lib.bundles(input.provenance)} if not pass

fail contains {"msg": sprintf("attached provenance does not count: %s", [a.reason]), "evidence": [a.bundle]} if {
	not pass
	some a in input.attestations
	a.predicateType == "https://slsa.dev/provenance/v1"
	a.verified == false
}
