# METADATA
# scope: package
# title: "Neither digest nor signer is revoked"
# description: "The digest is not on the deny list of the trust document, and no verified evidence rests on a revoked key."
# custom:
#   id: SIG-005
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "build a new release; a revocation is not waived: waybill trust show"
#   standards:
#     - "TUF: key revocation"
#     - "Uptane"
#     - "NIST AI RMF MANAGE 2.4"
package waybill.rules.sig_005

import data.waybill.lib

used contains a.signer.keyId if {
	some a in input.signatures
	a.verified == true
}

used contains a.signer.keyId if some a in lib.attested

default pass := false

pass if {
	input.trust.denied == false
	count(used & {k | some k in input.trust.revoked}) == 0
}

fail contains {"msg": sprintf("digest %s is denied by trust document version %d", [input.artifact.digest, input.trust.version]), "evidence": [input.trust.digest]} if input.trust.denied == true

fail contains {"msg": sprintf("key %s is revoked", [k]), "evidence": [input.trust.digest]} if {
	some k in input.trust.revoked
	k in used
}
