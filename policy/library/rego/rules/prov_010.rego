# METADATA
# scope: package
# title: "Provenances agree"
# description: "All provenances that count name one source and one commit, and where the artifact itself states source and revision, these are the same."
# custom:
#   id: PROV-010
#   category: provenance
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "find out which one is wrong: waybill facts REF --env ENV"
#   standards:
#     - "SLSA v1 resolvedDependencies"
#     - "NIST AI RMF MEASURE 2.7"
package waybill.rules.prov_010

import data.waybill.lib

skip := "no provenance counts; PROV-001 and PROV-002 tell whether one is needed" if count(lib.builds) == 0

commits := {p.source.commit | some p in lib.builds; p.source.commit != ""} | {r | r := input.model.revision; r != ""}

sources := {p.source.uri | some p in lib.builds; p.source.uri != ""} | {s | s := input.model.source; s != ""}

default pass := false

pass if {
	count(lib.builds) > 0
	count(commits) <= 1
	count(sources) <= 1
}

fail contains {"msg": sprintf("%d commits are named: %s", [count(commits), concat(", ", sort(commits))]), "evidence": lib.bundles(lib.builds)} if {
	count(lib.builds) > 0
	count(commits) > 1
}

fail contains {"msg": sprintf("%d sources are named: %s", [count(sources), concat(", ", sort(sources))]), "evidence": lib.bundles(lib.builds)} if {
	count(lib.builds) > 0
	count(sources) > 1
}
