# METADATA
# scope: package
# title: "Devices accept this policy"
# description: "The policy that decides is among those that the trust document pins, so that devices will accept the verdict."
# custom:
#   id: POL-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "pin the policy's digest in the trust document: waybill policy digest"
#   standards:
#     - "SLSA VSA: policy.digest"
package waybill.rules.pol_001

default pass := false

pass if {
	input.trust.pinned == true
	input.environment.policyDigest in input.trust.policies
}

fail contains {"msg": sprintf("policy %s is not among the %d that trust document version %d pins", [input.environment.policyDigest, count(input.trust.policies), input.trust.version]), "evidence": [input.trust.digest]} if not pass
