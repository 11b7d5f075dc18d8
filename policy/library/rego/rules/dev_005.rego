# METADATA
# scope: package
# title: "Device classes state their limits"
# description: "The environment names its device classes, each with memory, storage, the time that a prediction may take and the runtime that devices have."
# custom:
#   id: DEV-005
#   category: target
#   since: "1.0"
#   profiles: {baseline: off, strict: off, eu-high-risk: off, edge: deny}
#   severity: medium
#   remediation: "complete deviceClasses and sign: waybill env sign environments.yaml --key root.key"
#   standards:
#     - "EU AI Act Annex IV 1(e)"
#     - "EU AI Act Annex IV 1(c)"
#     - "NIST AI RMF MAP 2.2"
package waybill.rules.dev_005

default pass := false

pass if {
	count(input.environment.deviceClasses) > 0
	every c in input.environment.deviceClasses {
		complete(c)
	}
}

complete(c) if {
	c.memoryBytes > 0
	c.storageBytes > 0
	c.latencyMs > 0
	semver.is_valid(c.runtime)
}

fail contains {"msg": sprintf("class %s: memory %d, storage %d, latency %v ms, runtime %q", [c.name, c.memoryBytes, c.storageBytes, c.latencyMs, c.runtime]), "evidence": [input.environment.digest]} if {
	some c in input.environment.deviceClasses
	not complete(c)
}

fail contains {"msg": "the environment names no device class", "evidence": [input.environment.digest]} if count(input.environment.deviceClasses) == 0
