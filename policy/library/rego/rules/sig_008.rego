# METADATA
# scope: package
# title: "Everything attached verifies"
# description: "No attached statement fails to verify. What fails has no effect; it is shown because somebody tried, or because a key has been replaced since."
# custom:
#   id: SIG-008
#   category: identity
#   since: "1.0"
#   profiles: {baseline: warn, strict: warn, eu-high-risk: warn, edge: warn}
#   severity: low
#   level: warn
#   remediation: "look at the failed statements, and remove or sign them again: waybill facts REF --env ENV"
#   standards:
#     - "NIST AI RMF MEASURE 2.7"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.sig_008

default pass := false

pass if {
	verified(input.signatures)
	verified(input.attestations)
}

# Nothing is attached: SIG-001 asks for a release.
verified(list) if count(list) == 0

verified(list) if every a in list {
	a.verified == true
}

fail contains {"msg": sprintf("attached %s does not verify: %s", [a.predicateType, a.reason]), "evidence": [a.bundle]} if {
	some list in [input.signatures, input.attestations]
	some a in list
	a.verified == false
}
