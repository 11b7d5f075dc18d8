# METADATA
# scope: package
# title: "No approver has rejected it"
# description: "No person in an approver role rejects this digest for this environment. A rejection stands until it ends or the same person approves in the same role later."
# custom:
#   id: APP-005
#   category: people
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "settle it with who rejected; then that person approves: waybill approve REF --role ROLE --reason TEXT --env ENV --key approver.key"
#   standards:
#     - "NIST AI RMF MANAGE 2.4"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.app_005

import data.waybill.lib

default pass := false

pass if count(lib.rejections) == 0

fail contains {"msg": sprintf("%s rejects it as %s: %s (until %s)", [r.signer.name, r.role, r.reason, r.expires]), "evidence": [r.bundle]} if some r in lib.rejections
