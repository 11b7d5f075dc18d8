# METADATA
# scope: package
# title: "The gate's clock is not behind the evidence"
# description: "The time of the decision is not before the newest time that verified evidence, the trust document or the channel's record names; ten minutes are allowed for clocks that differ. A clock in the past revives what has expired."
# custom:
#   id: TIME-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   remediation: "set the gate's clock and gate again: waybill gate REF --env ENV --key gate.key"
#   standards:
#     - "NIST AI RMF MEASURE 2.7"
#     - "TUF: freeze attacks"
#     - "EU AI Act Article 12"
package waybill.rules.time_001

import data.waybill.lib

default pass := false

pass if lib.ns(input.context.newest) <= lib.now + lib.skew

fail contains {"msg": sprintf("the gate's clock says %s, and evidence is of %s", [input.context.time, input.context.newest]), "evidence": []} if not pass
