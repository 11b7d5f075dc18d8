# METADATA
# scope: package
# title: "Trust and environment are in force"
# description: "The trust document has not expired, and the environment's demands are signed by a key that may set them."
# custom:
#   id: SIG-006
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "renew the trust document, or sign the environments: waybill env sign environments.yaml --key root.key"
#   standards:
#     - "TUF: expiry"
#     - "NIST AI RMF GOVERN 2.1"
package waybill.rules.sig_006

import data.waybill.lib

default pass := false

pass if {
	input.environment.verified == true
	input.trust.version >= input.environment.minTrust
	lib.now < lib.ns(input.trust.expires)
}

fail contains {"msg": sprintf("environment %s is not proven: %s", [input.environment.name, input.environment.reason]), "evidence": [input.environment.digest]} if input.environment.verified == false

fail contains {"msg": sprintf("trust document version %d is too old: the environment asks for version %d", [input.trust.version, input.environment.minTrust]), "evidence": [input.trust.digest]} if input.trust.version < input.environment.minTrust

fail contains {"msg": sprintf("trust document version %d expired on %s", [input.trust.version, input.trust.expires]), "evidence": [input.trust.digest]} if lib.now >= lib.ns(input.trust.expires)
