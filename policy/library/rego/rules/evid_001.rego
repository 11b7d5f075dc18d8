# METADATA
# scope: package
# title: "Required evidence is attached"
# description: "Every kind of statement that the environment demands is attached to this digest and verified."
# custom:
#   id: EVID-001
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "attach what is missing: waybill attest REF --type TYPE --predicate FILE --key KEY"
#   standards:
#     - "SLSA Verification Summary"
#     - "NIST AI RMF MEASURE 2.1"
#     - "EU AI Act Annex IV 2(g)"
package waybill.rules.evid_001

import data.waybill.lib

present contains a.predicateType if some a in lib.attested

present contains s.predicateType if some s in lib.releases

default pass := false

pass if every t in input.environment.evidence {
	t in present
}

fail contains {"msg": sprintf("no verified %s", [t]), "evidence": [a.bundle | some a in input.attestations; a.predicateType == t]} if {
	some t in input.environment.evidence
	not is_present(t)
}

is_present(t) if t in present
