# METADATA
# scope: package
# title: "Compiled modules import nothing"
# description: "A model's module imports no function, memory or table of the host; steps import only the frozen deterministic subset."
# custom:
#   id: WASM-001
#   category: security
#   since: "1.0"
#   profiles: {baseline: deny, strict: deny, eu-high-risk: deny, edge: deny}
#   severity: critical
#   mandatory: true
#   remediation: "compile with this version: waybill pack"
#   standards:
#     - "OWASP ML06 AI supply chain attacks"
#     - "NIST AI RMF MEASURE 2.7"
package waybill.rules.wasm_001

import data.waybill.lib

step_prefixes := {"wasi_snapshot_preview1.", "env.abort"}

default pass := false

pass if {
	some m in input.build.modules
	m.role == "module"
	every x in input.build.modules {
		clean(x)
	}
}

# What was bundled as it is has no module, and ships where no device is.
pass if lib.files_only

clean(m) if {
	m.role == "module"
	m.valid == true
	count(m.imports) == 0
}

clean(m) if {
	m.role == "step"
	m.valid == true
	every i in m.imports {
		permitted(i)
	}
}

permitted(i) if {
	some p in step_prefixes
	startswith(i, p)
}

fail contains {"msg": "no module could be read", "evidence": []} if {
	count(input.build.modules) == 0
	not lib.files_only
}

fail contains {"msg": sprintf("%s (%s) imports %s", [m.path, m.role, concat(", ", m.imports)]), "evidence": []} if {
	some m in input.build.modules
	m.valid == true
	not clean(m)
}

fail contains {"msg": sprintf("%s (%s) is no readable WebAssembly module", [m.path, m.role]), "evidence": []} if {
	some m in input.build.modules
	m.valid == false
}
