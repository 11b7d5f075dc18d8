# METADATA
# scope: package
# title: "The time is the gate's own"
# description: "The decision is made at the time that the gate's clock shows, not at one that the caller chose."
# custom:
#   id: TIME-002
#   category: identity
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: high
#   remediation: "gate without choosing a time: waybill gate REF --env ENV --key gate.key"
#   standards:
#     - "EU AI Act Article 12"
#     - "NIST AI RMF MEASURE 2.7"
package waybill.rules.time_002

default pass := false

pass if input.context.timeSource == "host"

fail contains {"msg": sprintf("the time %s was given by the caller (%s)", [input.context.time, input.context.timeSource]), "evidence": []} if not pass
