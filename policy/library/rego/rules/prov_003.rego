# METADATA
# scope: package
# title: "It was built from a clean commit"
# description: "Each provenance that counts names the source commit, and says that the working tree had no changes beside it."
# custom:
#   id: PROV-003
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: high
#   remediation: "commit, build from the commit and attest again: waybill attest REF --type provenance --predicate provenance.json --key builder.key"
#   standards:
#     - "SLSA v1 resolvedDependencies"
#     - "EU AI Act Annex IV 2(a)"
#     - "NIST SSDF PS.1"
package waybill.rules.prov_003

import data.waybill.lib

skip := "no provenance counts; PROV-001 and PROV-002 tell whether one is needed" if count(lib.builds) == 0

default pass := false

pass if {
	count(lib.builds) > 0
	every p in lib.builds {
		committed(p)
	}
}

committed(p) if {
	p.source.uri != ""
	p.source.commit != ""
	p.source.clean == "yes"
}

fail contains {"msg": sprintf("builder %s names no source", [lib.builder(p)]), "evidence": [p.bundle]} if {
	some p in lib.builds
	p.source.uri == ""
}

fail contains {"msg": sprintf("builder %s names no source commit", [lib.builder(p)]), "evidence": [p.bundle]} if {
	some p in lib.builds
	p.source.commit == ""
}

fail contains {"msg": sprintf("builder %s does not say whether the source was as committed", [lib.builder(p)]), "evidence": [p.bundle]} if {
	some p in lib.builds
	p.source.clean == ""
}

fail contains {"msg": sprintf("builder %s built from a source that was changed after its commit", [lib.builder(p)]), "evidence": [p.bundle]} if {
	some p in lib.builds
	p.source.clean == "no"
}
