# METADATA
# scope: package
# title: "Runtimes are new enough"
# description: "The ABI is one that runtimes speak, and no device class is known to run a runtime older than the artifact demands."
# custom:
#   id: DEV-002
#   category: target
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "update waybill-edge in the named class first"
#   standards:
#     - "EU AI Act Annex IV 1(c)"
package waybill.rules.dev_002

import data.waybill.lib

default pass := false

pass if {
	input.build.abi == 1
	semver.is_valid(input.build.minRuntime)
	every c in input.environment.deviceClasses {
		current(c)
	}
}

pass if lib.files_only

current(c) if c.runtime == ""

current(c) if {
	c.runtime != ""
	semver.compare(c.runtime, input.build.minRuntime) >= 0
}

fail contains {"msg": sprintf("ABI %d, or minimum runtime %q, is not known", [input.build.abi, input.build.minRuntime]), "evidence": []} if {
	not known
	not lib.files_only
}

known if {
	input.build.abi == 1
	semver.is_valid(input.build.minRuntime)
}

fail contains {"msg": sprintf("class %s runs %s, the artifact needs %s", [c.name, c.runtime, input.build.minRuntime]), "evidence": [input.environment.digest]} if {
	known
	some c in input.environment.deviceClasses
	not current(c)
}
