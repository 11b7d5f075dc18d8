# METADATA
# scope: package
# title: "Metrics are of what ships"
# description: "Every figure rests on a verified evaluation of this very digest, the compiled and quantised artifact, by the key that the figure names. Figures of a parent, or of the model before compilation, count for nothing."
# custom:
#   id: MET-003
#   category: quality
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "evaluate the packed artifact (waybill test REF, waybill predict REF) and attest its figures: waybill attest REF --type evaluation --predicate eval.json --key evaluator.key"
#   standards:
#     - "NIST AI RMF MEASURE 2.3"
#     - "EU AI Act Annex IV 2(g)"
package waybill.rules.met_003

import data.waybill.lib

default pass := false

pass if {
	count(input.metrics) > 0
	every m in input.metrics {
		of_this(m)
	}
}

of_this(m) if {
	some a in lib.evaluations
	a.bundle == m.bundle
	a.signer.keyId == m.keyId
}

fail contains {"msg": "no metric is attested", "evidence": []} if count(input.metrics) == 0

fail contains {"msg": sprintf("%s%s rests on no verified evaluation of this digest (%s) by key %s", [m.name, lib.on_slice(m), input.artifact.digest, substring(m.keyId, 0, 12)]), "evidence": [m.bundle]} if {
	some m in input.metrics
	not of_this(m)
}

# What was attached of another digest says why.
fail contains {"msg": sprintf("an attached evaluation is of %s, not of this digest", [a.subject]), "evidence": [a.bundle]} if {
	not pass
	some a in input.attestations
	endswith(a.predicateType, "/evaluation/v1")
	a.subject != input.artifact.digest
	a.subject != ""
}
