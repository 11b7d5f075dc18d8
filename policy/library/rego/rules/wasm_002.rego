# METADATA
# scope: package
# title: "Memory is bounded"
# description: "The module declares the most memory that it may ask for, what its vectors need is within it, and every device class can give all of it: a model cannot grow until the device fails."
# custom:
#   id: WASM-002
#   category: security
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "bound it in waybill.yaml (limits: {memory: 64MiB}) and pack again: waybill pack"
#   standards:
#     - "EU AI Act Annex IV 2(h)"
#     - "EU AI Act Annex IV 1(e)"
#     - "NIST AI RMF MEASURE 2.6"
package waybill.rules.wasm_002

import data.waybill.lib

skip := "there is no module" if lib.files_only

default pass := false

pass if {
	not lib.files_only
	bounded
	every c in input.environment.deviceClasses {
		room(c)
	}
}

bounded if {
	input.build.memoryMax > 0
	input.build.memoryBytes > 0
	input.build.memoryBytes <= input.build.memoryMax
}

room(c) if input.build.memoryMax <= c.memoryBytes

fail contains {"msg": sprintf("the module needs %d bytes and may ask for %d", [input.build.memoryBytes, input.build.memoryMax]), "evidence": []} if {
	not lib.files_only
	not bounded
}

fail contains {"msg": sprintf("the module may ask for %d bytes, class %s gives %d", [input.build.memoryMax, c.name, c.memoryBytes]), "evidence": [input.environment.digest]} if {
	not lib.files_only
	some c in input.environment.deviceClasses
	not room(c)
}
