# METADATA
# scope: package
# title: "It was built twice"
# description: "Two builders with different signers have built this very digest: neither of them alone could have slipped something in."
# custom:
#   id: PROV-006
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: warn, eu-high-risk: warn, edge: off}
#   severity: low
#   remediation: "let a second builder build the same commit and attest: waybill attest REF --type provenance --predicate provenance.json --key OTHER.key"
#   standards:
#     - "SLSA_BUILD_REPRODUCED"
#     - "Reproducible Builds: independent verification"
package waybill.rules.prov_006

import data.waybill.lib

skip := "no provenance counts; PROV-001 and PROV-002 tell whether one is needed" if count(lib.builds) == 0

default pass := false

pass if {
	some p in lib.builds
	some q in lib.builds
	p.builder != q.builder
	p.signer.keyId != q.signer.keyId
	p.signer.name != q.signer.name
}

fail contains {"msg": sprintf("builder %s alone has built it; nobody has built it again", [lib.builder(p)]), "evidence": lib.bundles(lib.builds)} if {
	count(lib.builds) == 1
	some p in lib.builds
}

fail contains {"msg": sprintf("built by %s, signed by %s: no two builds are of different builders and signers", [names(builders), names(signers)]), "evidence": lib.bundles(lib.builds)} if {
	count(lib.builds) > 1
	not pass
}

builders := {lib.builder(p) | some p in lib.builds}

signers := {p.signer.name | some p in lib.builds}

names(s) := concat(" and ", sort(s))
