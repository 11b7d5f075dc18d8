# METADATA
# scope: package
# title: "Model fits the device classes"
# description: "The linear memory that the golden vectors need fits every device class of the environment."
# custom:
#   id: DEV-001
#   category: target
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: high
#   remediation: "make the model smaller, or gate for an environment with larger devices: waybill env show ENV"
#   standards:
#     - "EU AI Act Annex IV 1(e)"
#     - "NIST AI RMF MEASURE 2.3"
package waybill.rules.dev_001

import data.waybill.lib

default pass := false

pass if {
	count(input.environment.deviceClasses) > 0
	input.build.memoryBytes > 0
	every c in input.environment.deviceClasses {
		fits(c)
	}
}

pass if lib.files_only

fits(c) if input.build.memoryBytes <= c.memoryBytes

fail contains {"msg": "the environment names no device class", "evidence": [input.environment.digest]} if {
	count(input.environment.deviceClasses) == 0
	not lib.files_only
}

fail contains {"msg": "the interface document does not state the memory needed", "evidence": []} if {
	input.build.memoryBytes == 0
	not lib.files_only
}

fail contains {"msg": sprintf("needs %d bytes of linear memory, class %s gives %d", [input.build.memoryBytes, c.name, c.memoryBytes]), "evidence": [input.environment.digest]} if {
	some c in input.environment.deviceClasses
	not fits(c)
}
