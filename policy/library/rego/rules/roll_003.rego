# METADATA
# scope: package
# title: "The version does not go backwards silently"
# description: "The version is a semantic version and not lower than what the channel names now. Going back is a rollback, which is a channel record of its own and needs no new verdict."
# custom:
#   id: ROLL-003
#   category: rollout
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "go back with: waybill channel rollback ENV; or release a higher version: waybill pack"
#   standards:
#     - "Uptane rollback attack"
#     - "EU AI Act Annex IV 1(a)"
package waybill.rules.roll_003

default pass := false

skip := "the channel is empty: this is its first release" if {
	input.champion.verified == true
	input.champion.seq == 0
}

skip := "the channel names this digest already" if {
	input.champion.seq > 0
	input.champion.digest == input.artifact.digest
}

other if {
	input.champion.verified == true
	input.champion.seq > 0
	input.champion.digest != input.artifact.digest
}

comparable if {
	semver.is_valid(input.model.version)
	semver.is_valid(input.champion.version)
}

pass if {
	other
	comparable
	semver.compare(input.model.version, input.champion.version) >= 0
}

fail contains {"msg": sprintf("channel %s cannot be read: %s", [input.champion.channel, input.champion.reason]), "evidence": evidence} if {
	input.champion.verified == false
	not named
}

named if {
	input.champion.seq > 0
	input.champion.digest == input.artifact.digest
}

fail contains {"msg": sprintf("versions %q and %q (in channel %s) cannot be compared", [input.model.version, input.champion.version, input.champion.channel]), "evidence": evidence} if {
	other
	not comparable
}

fail contains {"msg": sprintf("version %s is lower than %s, which channel %s names", [input.model.version, input.champion.version, input.champion.channel]), "evidence": evidence} if {
	other
	comparable
	semver.compare(input.model.version, input.champion.version) < 0
}

evidence := [d | d := input.champion.record; d != ""]
