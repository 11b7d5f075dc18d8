# METADATA
# scope: package
# title: "Release is signed by a trusted publisher"
# description: "At least one release signature on this digest verifies with a key that the trust document names as a publisher of this model."
# custom:
#   id: SIG-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "sign the release: waybill sign REF --key publisher.key   (publishers: waybill trust show --role publisher)"
#   standards:
#     - "SLSA Build L2"
#     - "NIST AI RMF GOVERN 6.1"
#     - "OWASP ML06 AI supply chain attacks"
package waybill.rules.sig_001

import data.waybill.lib

default pass := false

pass if count(lib.publishers) >= 1

fail contains {"msg": "no release signature verifies", "evidence": []} if {
	not pass
	count(input.signatures) == 0
}

fail contains {"msg": sprintf("release signature: %s", [s.reason]), "evidence": [s.bundle]} if {
	not pass
	some s in input.signatures
	s.verified == false
}
