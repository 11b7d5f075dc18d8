# METADATA
# scope: package
# title: "No verdict is missing"
# description: "Each verdict on this digest in this environment names the one before it, and all of those are attached: a denial that was taken away shows."
# custom:
#   id: CHAIN-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "attach the verdict that is missing again, from a copy or a mirror: waybill copy SOURCE REF"
#   standards:
#     - "SLSA Verification Summary"
#     - "EU AI Act Article 12"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.chain_001

default pass := false

pass if {
	input.verdictChain.complete == true
	count(input.verdictChain.missing) == 0
}

fail contains {"msg": sprintf("verdict %s of environment %s is not attached, and a later one follows it", [d, input.environment.name]), "evidence": [d]} if some d in input.verdictChain.missing

fail contains {"msg": sprintf("the verdicts of environment %s do not form a chain", [input.environment.name]), "evidence": input.verdictChain.heads} if input.verdictChain.complete == false
