# METADATA
# scope: package
# title: "Reference is pinned by digest"
# description: "The gate was asked about a digest, not about a tag that can move while it looks."
# custom:
#   id: ID-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "name the digest: waybill gate REPOSITORY@sha256:... --env ENV"
#   standards:
#     - "SLSA VSA: resourceUri and subject"
#     - "CIS Software Supply Chain 4.2.1"
package waybill.rules.id_001

default pass := false

pass if {
	input.context.pinned == true
	endswith(input.context.requestedRef, input.artifact.digest)
}

fail contains {"msg": sprintf("%s does not name the digest %s", [input.context.requestedRef, input.artifact.digest]), "evidence": []} if not pass
