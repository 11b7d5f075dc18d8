# METADATA
# scope: package
# title: "Enough distinct publishers have signed"
# description: "As many different publisher keys have signed as the environment demands."
# custom:
#   id: SIG-002
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "let another publisher sign: waybill sign REF --key OTHER.key"
#   standards:
#     - "TUF: threshold of keys"
#     - "SLSA two-party review"
package waybill.rules.sig_002

import data.waybill.lib

default pass := false

pass if {
	input.environment.signers >= 1
	count(lib.publishers) >= input.environment.signers
}

fail contains {"msg": sprintf("%d of %d publisher keys have signed", [count(lib.publishers), input.environment.signers]), "evidence": lib.bundles(lib.releases)} if not pass
