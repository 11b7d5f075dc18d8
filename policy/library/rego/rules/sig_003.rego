# METADATA
# scope: package
# title: "Identities are named exactly"
# description: "Whoever signs with a certificate is an identity that the trust document names by issuer and exact subject; a pattern of subjects lets in whoever can make one that matches."
# custom:
#   id: SIG-003
#   category: identity
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: high
#   remediation: "name the workflow or person exactly in the trust document: waybill trust show"
#   standards:
#     - "SLSA Build L2: authentic provenance"
#     - "NIST AI RMF GOVERN 2.1"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.sig_003

import data.waybill.lib

# Verified statements whose signer is an identity. The id of an identity is a hash over issuer and subject, or over issuer
# and pattern (oci/trust), so that of an exact one can be computed from the certificate.
certified contains a if {
	some a in lib.verified
	a.signer.kind == "identity"
}

exact(a) if {
	a.signer.issuer != ""
	a.signer.subject != ""
	a.signer.keyId == crypto.sha256(sprintf("waybill identity v1\n%s\nsubject\n%s", [a.signer.issuer, a.signer.subject]))
}

skip := "every signer is a key" if count(certified) == 0

default pass := false

pass if {
	count(certified) > 0
	every a in certified {
		exact(a)
	}
}

fail contains {"msg": sprintf("%s (%s) signs as %q of %s, which the trust document names by a pattern only", [a.signer.name, a.signer.role, a.signer.subject, a.signer.issuer]), "evidence": [a.bundle]} if {
	some a in certified
	not exact(a)
}
