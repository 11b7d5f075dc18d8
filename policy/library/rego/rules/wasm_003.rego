# METADATA
# scope: package
# title: "All code was examined"
# description: "Every file that is or contains WebAssembly was read as a module, and what was read is what the artifact carries, by digest."
# custom:
#   id: WASM-003
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   remediation: "pack the artifact again: waybill pack"
#   standards:
#     - "OWASP ML06 AI supply chain attacks"
#     - "NIST AI RMF MEASURE 2.7"
#     - "NIST SSDF PW.4"
package waybill.rules.wasm_003

import data.waybill.lib

code contains l if {
	some l in input.artifact.layers
	l.role in {"module", "step"}
}

code contains l if {
	some l in input.artifact.layers
	l.format == "wasm"
}

skip := "there is no module" if {
	count(code) == 0
	lib.files_only
}

default pass := false

pass if {
	count(code) > 0
	every l in code {
		examined(l)
	}
}

examined(l) if {
	some m in input.build.modules
	m.path == l.path
	m.digest == l.digest
	m.role == l.role
}

fail contains {"msg": sprintf("%s (%s) was not examined as a module", [l.path, l.role]), "evidence": []} if {
	some l in code
	not examined(l)
}
