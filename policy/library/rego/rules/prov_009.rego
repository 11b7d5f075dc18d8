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

fail contains {"msg": sprintf("builder %s does not say when the build started", [lib.builder(p)]), "evidence": [p.bundle]} if {
	some p in lib.builds
	p.started == ""
}

fail contains {"msg": sprintf("builder %s does not say when the build finished", [lib.builder(p)]), "evidence": [p.bundle]} if {
	some p in lib.builds
	p.finished == ""
}

fail contains {"msg": sprintf("builder %s: the build finished at %s, before it started at %s", [lib.builder(p), p.finished, p.started]), "evidence": [p.bundle]} if {
	some p in timed
	lib.ns(p.started) > lib.ns(p.finished)
}

fail contains {"msg": sprintf("builder %s: the build finished at %s, which is in the future", [lib.builder(p), p.finished]), "evidence": [p.bundle]} if {
	some p in timed
	lib.ns(p.finished) > lib.now + lib.skew
}

timed contains p if {
	some p in lib.builds
	p.started != ""
	p.finished != ""
}
