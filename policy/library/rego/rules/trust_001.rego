# METADATA
# scope: package
# title: "Trust is not about to expire"
# description: "The trust document is in force for two weeks more at least, so that devices do not stop accepting models while nobody looks."
# custom:
#   id: TRUST-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: warn, strict: warn, eu-high-risk: warn, edge: warn}
#   severity: medium
#   level: warn
#   remediation: "sign the next version: waybill trust show"
#   standards:
#     - "TUF: expiry"
#     - "NIST AI RMF GOVERN 1.6"
package waybill.rules.trust_001

import data.waybill.lib

default pass := false

pass if lib.now + (14 * lib.day) < lib.ns(input.trust.expires)

fail contains {"msg": sprintf("trust document version %d expires on %s, in less than 14 days", [input.trust.version, input.trust.expires]), "evidence": [input.trust.digest]} if not pass
