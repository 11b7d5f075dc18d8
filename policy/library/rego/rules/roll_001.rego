# METADATA
# scope: package
# title: "The security epoch is not below the floor"
# description: "The epoch of the interface document is at least the floor of the channel: devices would refuse a lower one, and a release that was withdrawn for security must not come back."
# custom:
#   id: ROLL-001
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "release it again with a higher epoch in waybill.yaml: waybill pack"
#   standards:
#     - "Uptane rollback attack"
#     - "NIST AI RMF MANAGE 2.4"
package waybill.rules.roll_001

default pass := false

pass if {
	input.champion.verified == true
	input.model.epoch >= input.champion.epochFloor
}

fail contains {"msg": sprintf("security epoch %d is below the floor %d of channel %s", [input.model.epoch, input.champion.epochFloor, input.champion.channel]), "evidence": evidence} if input.model.epoch < input.champion.epochFloor

fail contains {"msg": sprintf("the floor of channel %s is not known: %s", [input.champion.channel, input.champion.reason]), "evidence": evidence} if input.champion.verified == false

evidence := [d | d := input.champion.record; d != ""]
