# METADATA
# scope: package
# title: "There is something to roll back to"
# description: "What the channel names now has a verdict of this environment that lets it pass, so that devices can go back to it."
# custom:
#   id: ROLL-002
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: medium
#   remediation: "gate what runs now, so that it can be gone back to: waybill gate CHAMPION --env ENV --key gate.key"
#   standards:
#     - "NIST AI RMF MANAGE 2.4"
package waybill.rules.roll_002

default pass := false

skip := "the channel is empty: this is its first release" if {
	input.champion.verified == true
	input.champion.seq == 0
}

skip := "the channel names this digest already" if {
	input.champion.seq > 0
	input.champion.digest == input.artifact.digest
}

pass if {
	input.champion.verified == true
	input.champion.seq > 0
	input.champion.digest != input.artifact.digest
	input.champion.verdict == "PASSED"
}

fail contains {"msg": sprintf("channel %s cannot be read, so nobody knows what to roll back to: %s", [input.champion.channel, input.champion.reason]), "evidence": evidence} if {
	input.champion.verified == false
	input.champion.digest != input.artifact.digest
}

fail contains {"msg": sprintf("%s, which channel %s names now, has no verdict PASSED of %s to roll back to (%q)", [input.champion.digest, input.champion.channel, input.environment.name, input.champion.verdict]), "evidence": evidence} if {
	input.champion.verified == true
	input.champion.seq > 0
	input.champion.digest != input.artifact.digest
	input.champion.verdict != "PASSED"
}

evidence := [d | d := input.champion.record; d != ""]
