# METADATA
# scope: package
# title: "The environment leaves no demand open"
# description: "The environment names builders, sources, weight formats, component licenses and tests, and bounds the age of scans and evaluations. A limit that is not set limits nothing."
# custom:
#   id: CFG-001
#   category: identity
#   since: "1.0"
#   profiles: {baseline: off, strict: deny, eu-high-risk: deny, edge: off}
#   severity: medium
#   remediation: "add what is missing and sign: waybill env sign environments.yaml --key root.key"
#   standards:
#     - "NIST AI RMF MAP 1.1"
#     - "NIST SSDF PO.4"
#     - "SLSA: verifying artifacts"
package waybill.rules.cfg_001

# Values, not conditions: a setting that is not there makes the whole rule undefined, which denies.
stated := {
	"builders": count(input.environment.builders) > 0,
	"sources": count(input.environment.sources) > 0,
	"formats": count(input.environment.formats) > 0,
	"tests": count(input.environment.tests) > 0,
	"licenses.components": count(input.environment.licenses.components) > 0,
	"scan.maxAgeDays": input.environment.scan.maxAgeDays > 0,
	"scan.maxDatabaseAgeDays": input.environment.scan.maxDatabaseAgeDays > 0,
	"maxEvaluationAgeDays": input.environment.maxEvaluationAgeDays > 0,
}

default pass := false

pass if every _, set in stated {
	set == true
}

fail contains {"msg": sprintf("environment %s leaves %s open", [input.environment.name, k]), "evidence": [input.environment.digest]} if {
	some k, set in stated
	set == false
}
