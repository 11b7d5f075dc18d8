# METADATA
# scope: package
# title: "Gates did not decide at once"
# description: "At most one verdict is the last one. Several mean that gates decided without seeing each other; the next verdict joins them."
# custom:
#   id: CHAIN-002
#   category: identity
#   since: "1.0"
#   profiles: {baseline: warn, strict: warn, eu-high-risk: warn, edge: warn}
#   severity: low
#   level: warn
#   remediation: "let one gate decide at a time, and gate again: waybill gate REF --env ENV --key gate.key"
#   standards:
#     - "SLSA Verification Summary"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.chain_002

default pass := false

pass if count(input.verdictChain.heads) <= 1

fail contains {"msg": sprintf("%d verdicts of environment %s are not followed by another", [count(input.verdictChain.heads), input.environment.name]), "evidence": input.verdictChain.heads} if not pass
