# METADATA
# scope: package
# title: "Exceptions are few"
# description: "At most three rules are waived for one digest in one environment at the same time. More of them are a sign that the policy does not fit, or that the model does not."
# custom:
#   id: EXC-003
#   category: people
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "fix what the rules find: waybill gate REF --env ENV --dry-run"
#   standards:
#     - "NIST AI RMF MANAGE 1.3"
#     - "NIST AI RMF MANAGE 1.1"
package waybill.rules.exc_003

import data.waybill.lib

most := 3

waived contains x.rule if some x in lib.waivers

default pass := false

pass if count(waived) <= most

fail contains {"msg": sprintf("%d rules are waived: %s; at most %d may be", [count(waived), concat(", ", waived), most]), "evidence": lib.bundles(lib.waivers)} if count(waived) > most
