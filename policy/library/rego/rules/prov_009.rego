# METADATA
# scope: package
# title: "Builds have plausible times"
# description: "Each provenance that counts says when the build started and finished, in this order and not in the future."
# custom:
#   id: PROV-009
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: low
#   remediation: "let the builder record its times: waybill attest REF --type provenance --predicate provenance.json --key builder.key"
#   standards:
#     - "SLSA v1 runDetails.metadata"
#     - "EU AI Act Article 12"
package waybill.rules.prov_009

import data.waybill.lib

skip := "no provenance counts; PROV-001 and PROV-002 tell whether one is needed" if count(lib.builds) == 0

default pass := false

pass if {
	count(lib.builds) > 0
	every p in lib.builds {
		plausible(p)
	}
}

plausible(p) if {
	p.started != ""
	p.finished != ""
	lib.ns(p.started) <= lib.ns(p.finished)
	lib.ns(p.finished) <= lib.now + lib.skew
}

fail contains {"msg": sprintf("builder %s: started %q, finished %q", [p.builder, p.started, p.finished]), "evidence": [p.bundle]} if {
	some p in lib.builds
	not plausible(p)
}
