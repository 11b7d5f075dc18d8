# METADATA
# scope: package
# title: "No unexpected build parameter"
# description: "Whoever started the build set only parameters that the environment expects. A parameter is a way to change what is built without changing the source."
# custom:
#   id: PROV-004
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: medium
#   remediation: "build without the parameter, or let the platform team allow it: waybill env show ENV"
#   standards:
#     - "SLSA v1 externalParameters"
#     - "NIST SSDF PW.6"
package waybill.rules.prov_004

import data.waybill.lib

skip := "no provenance counts; PROV-001 and PROV-002 tell whether one is needed" if count(lib.builds) == 0

default pass := false

pass if {
	count(lib.builds) > 0
	every p in lib.builds {
		every n in p.parameters {
			n in input.environment.parameters
		}
	}
}

fail contains {"msg": sprintf("builder %s: parameter %s is not expected", [p.builder, n]), "evidence": [p.bundle]} if {
	some p in lib.builds
	some n in p.parameters
	not expected(n)
}

expected(n) if n in input.environment.parameters
