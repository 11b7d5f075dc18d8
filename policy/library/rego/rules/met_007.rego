# METADATA
# scope: package
# title: "Somebody other than the author measured"
# description: "Each metric with a threshold was measured by an evaluator who has not signed the release and is not named as an author of the model: by key, by name and by identity."
# custom:
#   id: MET-007
#   category: quality
#   since: "1.0"
#   profiles: {baseline: warn, strict: deny, eu-high-risk: deny, edge: warn}
#   severity: medium
#   remediation: "let somebody else evaluate: waybill attest REF --type evaluation --predicate eval.json --key other-evaluator.key"
#   standards:
#     - "NIST AI RMF MEASURE 1.3"
#     - "SLSA two-party review"
package waybill.rules.met_007

import data.waybill.lib

default pass := false

pass if {
	count(input.environment.metrics) > 0
	every t in input.environment.metrics {
		independent(t)
	}
}

independent(t) if {
	some m in lib.measured(t)
	some a in lib.evaluations
	a.bundle == m.bundle
	a.signer.role == "evaluator"
	not lib.is_author(a.signer)
}

fail contains {"msg": sprintf("environment %s states no threshold", [input.environment.name]), "evidence": [input.environment.digest]} if count(input.environment.metrics) == 0

fail contains {"msg": sprintf("%s%s was measured by nobody but the model's author", [t.name, lib.on_slice(t)]), "evidence": lib.bundles(lib.measured(t))} if {
	some t in input.environment.metrics
	not independent(t)
}
